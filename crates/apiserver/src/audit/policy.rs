//! What is written down of which requests: the first rule of the policy that fits decides.
//!
//! Compare `k8s.io/apiserver/pkg/audit/policy`.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::authz::{Attributes, Target};
use crate::error::Error;

/// How much is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Level {
    /// Nothing.
    None,
    /// Who did what to which object.
    Metadata,
    /// And what he sent.
    Request,
    /// And what he was answered.
    RequestResponse,
}

/// The moments of a request that are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// `audit.k8s.io/v1` Policy.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(super) struct Policy {
    api_version: String,
    kind: String,
    #[serde(rename = "metadata")]
    _metadata: serde::de::IgnoredAny,
    rules: Vec<Rule>,
    omit_stages: Vec<Stage>,
    omit_managed_fields: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<GroupResources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    non_resource_urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: Option<bool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct GroupResources {
    group: String,
    resources: Vec<String>,
    resource_names: Vec<String>,
}

/// What is written down of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) level: Level,
    pub(super) omit_stages: Vec<Stage>,
    pub(super) omit_managed_fields: bool,
}

/// What carries secrets: never written down beyond who did what, whatever the policy says.
const CONFIDENTIAL: [(&str, &str, &str); 3] =
    [("", "secrets", ""), ("", "serviceaccounts", "token"), ("authentication.k8s.io", "tokenreviews", "")];

impl Policy {
    /// Without a file: who did what, once, when it is done.
    pub(super) fn metadata_of_everything() -> Policy {
        let rule = Rule {
            level: Level::Metadata,
            users: Vec::new(),
            user_groups: Vec::new(),
            verbs: Vec::new(),
            resources: Vec::new(),
            namespaces: Vec::new(),
            non_resource_urls: Vec::new(),
            omit_stages: Vec::new(),
            omit_managed_fields: None,
        };
        Policy { rules: vec![rule], omit_stages: vec![Stage::RequestReceived], ..Policy::default() }
    }

    pub(super) fn read(path: &Path) -> Result<Policy, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.to_owned(), source })?;
        Policy::parse(&text).map_err(|reason| Error::AuditPolicy { path: path.to_owned(), reason })
    }

    fn parse(text: &str) -> Result<Policy, String> {
        let documents = api::yaml::parse_all(text).map_err(|e| e.to_string())?;
        let [document] = documents.as_slice() else { return Err("one document is expected".into()) };
        let policy: Policy = serde_json::from_value(document.clone()).map_err(|e| e.to_string())?;
        if (&*policy.api_version, &*policy.kind) != ("audit.k8s.io/v1", "Policy") {
            return Err(format!("an audit.k8s.io/v1 Policy is expected, not {} {}", policy.api_version, policy.kind));
        }
        if policy.rules.is_empty() {
            return Err("rules: Required value: nothing would be written down".into());
        }
        for (index, rule) in policy.rules.iter().enumerate() {
            let about_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if about_resources && !rule.non_resource_urls.is_empty() {
                let detail = "rules cannot apply to both regular resources and non-resource URLs";
                return Err(format!("rules[{index}].nonResourceURLs: Invalid value: {detail}"));
            }
        }
        Ok(policy)
    }

    /// What is written down of a request; `None`: nothing.
    pub(super) fn plan(&self, attributes: &Attributes<'_>) -> Option<Plan> {
        let rule = self.rules.iter().find(|rule| rule.fits(attributes)).filter(|rule| rule.level != Level::None)?;
        let level = if is_confidential(attributes) { Level::Metadata } else { rule.level };
        let omit_stages = self.omit_stages.iter().chain(&rule.omit_stages).copied().collect();
        let omit_managed_fields = rule.omit_managed_fields.unwrap_or(self.omit_managed_fields);
        Some(Plan { level, omit_stages, omit_managed_fields })
    }
}

fn is_confidential(attributes: &Attributes<'_>) -> bool {
    match &attributes.target {
        Target::Resource(t) => CONFIDENTIAL.contains(&(t.group, t.resource, t.subresource)),
        Target::Path(_) => false,
    }
}

impl Rule {
    fn fits(&self, attributes: &Attributes<'_>) -> bool {
        let (user, verb) = (attributes.user, attributes.verb);
        let or_any = |list: &[String], one: &str| list.is_empty() || list.iter().any(|item| item == one);
        let in_group = self.user_groups.is_empty() || self.user_groups.iter().any(|group| user.is_in(group));
        let about_resources = !self.resources.is_empty() || !self.namespaces.is_empty();
        let fits_target = match &attributes.target {
            Target::Resource(target) => {
                self.non_resource_urls.is_empty()
                    && or_any(&self.namespaces, target.namespace)
                    && (self.resources.is_empty() || self.resources.iter().any(|r| r.fits(target)))
            }
            Target::Path(path) => {
                let urls = &self.non_resource_urls;
                !about_resources && (urls.is_empty() || urls.iter().any(|url| path_fits(url, path)))
            }
        };
        or_any(&self.users, &user.name) && in_group && or_any(&self.verbs, verb) && fits_target
    }
}

fn path_fits(url: &str, path: &str) -> bool {
    url == path || url.strip_suffix('*').is_some_and(|start| path.starts_with(start))
}

impl GroupResources {
    fn fits(&self, target: &crate::authz::Resource<'_>) -> bool {
        let has_name = self.resource_names.is_empty() || self.resource_names.iter().any(|n| *n == *target.name);
        let matches = |rule: &String| match rule.split_once('/') {
            None => rule == "*" || (target.subresource.is_empty() && rule == target.resource),
            Some(("*", below)) => !target.subresource.is_empty() && below == target.subresource,
            Some((of, "*")) => of == target.resource,
            Some((of, below)) => of == target.resource && below == target.subresource,
        };
        self.group == target.group && has_name && (self.resources.is_empty() || self.resources.iter().any(matches))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authz::Resource;
    use crate::user::User;

    const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-proxy"]
  verbs: ["watch"]
  resources: [{group: "", resources: ["endpoints", "services"]}]
- level: None
  nonResourceURLs: ["/healthz*", "/version"]
- level: Request
  namespaces: ["kube-system"]
  resources: [{group: "", resources: ["configmaps"], resourceNames: ["a"]}]
  omitStages: [ResponseStarted]
- level: RequestResponse
  userGroups: ["dev"]
  resources: [{group: "", resources: ["pods", "pods/*", "secrets"]}, {group: "apps"}]
- level: Metadata
  resources: [{group: ""}]
"#;

    fn level(user: &User, verb: &str, target: Target<'_>) -> Option<Level> {
        Policy::parse(POLICY).unwrap().plan(&Attributes { user, verb, target }).map(|plan| plan.level)
    }

    fn of<'a>(group: &'a str, path: &'a str) -> Target<'a> {
        let parts: Vec<&str> = path.split(' ').collect();
        let (resource, subresource) = parts[1].split_once('/').unwrap_or((parts[1], ""));
        let namespace = if parts[0] == "-" { "" } else { parts[0] };
        let name = parts.get(2).copied().unwrap_or("").into();
        Target::Resource(Resource { group, resource, subresource, namespace, name, ..Resource::default() })
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let (proxy, dev) = (User::new("system:kube-proxy", ["x"]), User::new("alice", ["dev"]));
        let cases = [
            (&proxy, "watch", of("", "- services"), None),
            (&proxy, "get", of("", "- services"), Some(Level::Metadata)),
            (&proxy, "get", Target::Path("/healthz/ping"), None),
            (&proxy, "get", Target::Path("/metrics"), None),
            (&proxy, "get", of("", "kube-system configmaps a"), Some(Level::Request)),
            (&proxy, "get", of("", "kube-system configmaps b"), Some(Level::Metadata)),
            (&proxy, "get", of("", "default configmaps a"), Some(Level::Metadata)),
            (&dev, "create", of("", "default pods/exec p"), Some(Level::RequestResponse)),
            (&dev, "create", of("apps", "default deployments"), Some(Level::RequestResponse)),
            (&dev, "get", of("", "default secrets s"), Some(Level::Metadata)),
            (&dev, "get", of("batch", "default jobs"), None),
        ];
        for (user, verb, target, expected) in cases {
            let path = match &target {
                Target::Resource(r) => format!("{} {}", r.resource, r.name),
                Target::Path(path) => (*path).to_owned(),
            };
            assert_eq!(level(user, verb, target), expected, "{} {verb} {path}", user.name);
        }
        let plan = Policy::parse(POLICY).unwrap();
        let attributes = Attributes { user: &dev, verb: "get", target: of("", "kube-system configmaps a") };
        assert_eq!(plan.plan(&attributes).unwrap().omit_stages, [Stage::RequestReceived, Stage::ResponseStarted]);
    }

    #[test]
    fn policies_that_mean_nothing_are_refused() {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\n";
        let cases = [
            ("kind: Pod\nrules: []", "an audit.k8s.io/v1 Policy is expected"),
            (&*format!("{head}rules: []"), "rules: Required value"),
            (&*format!("{head}rules: [{{level: Everything}}]"), "unknown variant"),
            (&*format!("{head}rules: [{{level: None, wish: 1}}]"), "unknown field"),
            (
                &*format!("{head}rules: [{{level: None, namespaces: [a], nonResourceURLs: [/]}}]"),
                "rules[0].nonResourceURLs: Invalid value",
            ),
        ];
        for (text, expected) in cases {
            let error = Policy::parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
