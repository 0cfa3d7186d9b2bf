//! The secrets a pod may use where its account lends no others than it names (`limitSecretReferences` and
//! `limitEphemeralContainerSecretReferences` upstream; what is projected they do not look at).

use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, PodSpec, ServiceAccount};

/// Why the pod may not run as `account`.
pub(super) fn of_pod(spec: &PodSpec, account: &ServiceAccount) -> Option<String> {
    let lent = Lent(account);
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| volume.secret.as_ref());
    let volumes = volumes.map(|secret| secret.secret_name.as_deref().unwrap_or("")).filter(|name| !lent.has(name));
    let mut volumes = volumes.map(|name| lent.refuses(&format!("volume with secret.secretName=\"{name}\""), "secret"));
    let init = spec.init_containers.iter().flatten().map(|c| ("init container", c));
    let mut containers = init.chain(spec.containers.iter().map(|c| ("container", c)));
    let in_container = || containers.find_map(|(what, c)| lent.in_container(what, &c.name, &c.env, &c.env_from));
    let mut pulls = spec.image_pull_secrets.iter().flatten().enumerate();
    let in_pulls = || {
        let (index, other) = pulls.find(|(_, pull)| !lent.pulls_with(&pull.name))?;
        Some(lent.refuses(&format!("imagePullSecrets[{index}].name=\"{}\"", other.name), "imagePullSecret"))
    };
    volumes.next().or_else(in_container).or_else(in_pulls)
}

/// Why the pod, which runs as `account`, may not have its ephemeral containers.
pub(super) fn of_ephemeral(spec: &PodSpec, account: &ServiceAccount) -> Option<String> {
    let mut containers = spec.ephemeral_containers.iter().flatten();
    containers.find_map(|c| Lent(account).in_container("ephemeral container", &c.name, &c.env, &c.env_from))
}

/// What an account lends.
struct Lent<'a>(&'a ServiceAccount);

impl Lent<'_> {
    fn has(&self, name: &str) -> bool {
        self.0.secrets.iter().flatten().any(|secret| secret.name.as_deref().unwrap_or("") == name)
    }

    fn pulls_with(&self, name: &str) -> bool {
        self.0.image_pull_secrets.iter().flatten().any(|secret| secret.name == name)
    }

    fn refuses(&self, what: &str, kind: &str) -> String {
        let account = self.0.metadata.name.as_deref().unwrap_or("");
        format!("{what} is not allowed because service account {account} does not reference that {kind}")
    }

    fn in_container(
        &self,
        what: &str,
        name: &str,
        env: &Option<Vec<EnvVar>>,
        env_from: &Option<Vec<EnvFromSource>>,
    ) -> Option<String> {
        let variables = env.iter().flatten().filter_map(|variable| {
            let key = variable.value_from.as_ref()?.secret_key_ref.as_ref()?;
            Some((format!("envVar {}", variable.name), key.name.as_str()))
        });
        let all = env_from.iter().flatten().filter_map(|from| {
            let secret = from.secret_ref.as_ref()?;
            Some(("envFrom".to_owned(), secret.name.as_str()))
        });
        let (how, secret) = variables.chain(all).find(|(_, secret)| !self.has(secret))?;
        let what = format!("{what} {name} with {how} referencing secret.secretName=\"{secret}\"");
        Some(self.refuses(&what, "secret"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_what_the_account_names_is_lent() {
        let account = json!({"metadata": {"name": "robot"}, "secrets": [{"name": "mine"}],
            "imagePullSecrets": [{"name": "pull"}]});
        let account: ServiceAccount = serde_json::from_value(account).unwrap();
        let variable = |name: &str| json!([{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]);
        let all = |name: &str| json!([{"secretRef": {"name": name}}]);
        let cases: [(Value, &str); 8] = [
            (json!({"volumes": [{"name": "v", "secret": {"secretName": "mine"}}]}), ""),
            (
                json!({"volumes": [{"name": "v", "secret": {"secretName": "x"}}]}),
                r#"volume with secret.secretName="x""#,
            ),
            (
                json!({"containers": [{"name": "c", "env": variable("x")}]}),
                r#"container c with envVar A referencing secret.secretName="x""#,
            ),
            (json!({"containers": [{"name": "c", "env": variable("mine"), "envFrom": all("mine")}]}), ""),
            (
                json!({"initContainers": [{"name": "i", "envFrom": all("x")}]}),
                r#"init container i with envFrom referencing secret.secretName="x""#,
            ),
            (
                json!({"ephemeralContainers": [{"name": "e", "env": variable("x")}]}),
                r#"ephemeral container e with envVar A referencing secret.secretName="x""#,
            ),
            (json!({"imagePullSecrets": [{"name": "pull"}]}), ""),
            (json!({"imagePullSecrets": [{"name": "pull"}, {"name": "x"}]}), r#"imagePullSecrets[1].name="x""#),
        ];
        for (mut spec, beginning) in cases {
            spec["containers"] = spec.get("containers").cloned().unwrap_or(json!([]));
            let typed: PodSpec = serde_json::from_value(spec.clone()).unwrap();
            let why = of_pod(&typed, &account).or_else(|| of_ephemeral(&typed, &account));
            let kind = if beginning.starts_with("image") { "imagePullSecret" } else { "secret" };
            let end = format!("is not allowed because service account robot does not reference that {kind}");
            let expected = (!beginning.is_empty()).then(|| format!("{beginning} {end}"));
            assert_eq!(why, expected, "{spec}");
        }
    }
}
