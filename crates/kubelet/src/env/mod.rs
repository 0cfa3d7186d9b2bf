//! The environment of a container (`makeEnvironmentVariables` in `pkg/kubelet/kubelet_pods.go`): `envFrom`, then `env`
//! in order, then the services' variables wherever neither set them. Pure: what it refers to was fetched before.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVarSource, Pod, Secret, Service};

use crate::tokens::Tokens;
use crate::volumes::Claims;

pub mod downward;
pub mod expansion;
pub mod services;

/// The objects of a pod's namespace that its containers and volumes refer to; `None` for those that do not exist.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// By name.
    pub config_maps: BTreeMap<String, Option<Arc<ConfigMap>>>,
    /// By name.
    pub secrets: BTreeMap<String, Option<Arc<Secret>>>,
    /// Tokens of the pod's service account.
    pub tokens: Tokens,
    /// Volumes its claims are bound to.
    pub claims: Claims,
}

/// What an environment is made from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// Objects it refers to.
    pub objects: &'a Objects,
    /// Services whose variables it gets.
    pub services: &'a [Arc<Service>],
    /// Its address, once it has one.
    pub pod_ip: Option<IpAddr>,
    /// Its node.
    pub node: &'a NodeResources,
}

/// What of the node a container may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeResources {
    /// The node's address.
    pub ip: IpAddr,
    /// Thousandths of a core pods may use.
    pub milli_cpu: i64,
    /// Bytes of memory pods may use.
    pub memory: i64,
    /// Bytes of disk pods may use.
    pub ephemeral_storage: i64,
    /// Bytes of memory the machine has.
    pub machine_memory: i64,
}

/// Why there is no environment; the text becomes the message of CreateContainerConfigError.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EnvError(pub String);

/// The environment of `container`.
pub fn environment(container: &Container, sources: &Sources<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let mut result = Environment::default();
    let service_env = services::variables(sources.services);
    for from in container.env_from.iter().flatten() {
        for (name, value) in all_keys(from, sources)? {
            result.set(&name, value);
        }
    }
    for var in container.env.iter().flatten() {
        let value = match (&var.value, &var.value_from) {
            (_, Some(source)) => referred(container, source, sources)?,
            (Some(text), None) => Some(expansion::expand(text, |name| {
                result.get(name).or_else(|| service_env.get(name).map(String::as_str)).map(str::to_owned)
            })),
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            result.set(&var.name, value);
        }
    }
    for (name, value) in service_env {
        if result.get(&name).is_none() {
            result.set(&name, value);
        }
    }
    Ok(result.variables)
}

/// Variables in the order in which they were first set.
#[derive(Default)]
struct Environment {
    variables: Vec<(String, String)>,
    places: BTreeMap<String, usize>,
}

impl Environment {
    fn get(&self, name: &str) -> Option<&str> {
        self.places.get(name).map(|place| self.variables[*place].1.as_str())
    }

    fn set(&mut self, name: &str, value: String) {
        match self.places.get(name) {
            Some(place) => self.variables[*place].1 = value,
            None => {
                self.places.insert(name.to_owned(), self.variables.len());
                self.variables.push((name.to_owned(), value));
            }
        }
    }
}

fn namespaced(sources: &Sources<'_>, name: &str) -> String {
    format!("{}/{name}", crate::pod::namespace(&sources.pod.metadata))
}

fn all_keys(from: &EnvFromSource, sources: &Sources<'_>) -> Result<Vec<(String, String)>, EnvError> {
    let prefix = from.prefix.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    if let Some(source) = &from.config_map_ref {
        match present(&sources.objects.config_maps, &source.name) {
            Some(object) => {
                found.extend(object.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone())));
            }
            None if source.optional == Some(true) => {}
            None => return Err(EnvError(format!("configmap \"{}\" not found", source.name))),
        }
    }
    if let Some(source) = &from.secret_ref {
        match present(&sources.objects.secrets, &source.name) {
            Some(object) => {
                found.extend(object.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), text(&v.0))))
            }
            None if source.optional == Some(true) => {}
            None => return Err(EnvError(format!("secret \"{}\" not found", source.name))),
        }
    }
    Ok(found)
}

fn present<'a, K>(objects: &'a BTreeMap<String, Option<Arc<K>>>, name: &str) -> Option<&'a Arc<K>> {
    objects.get(name)?.as_ref()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn referred(container: &Container, source: &EnvVarSource, sources: &Sources<'_>) -> Result<Option<String>, EnvError> {
    if let Some(field) = &source.field_ref {
        return downward::field(sources.pod, sources.pod_ip, sources.node, &field.field_path).map(Some);
    }
    if let Some(resource) = &source.resource_field_ref {
        return downward::resource(sources.pod, container, sources.node, resource).map(Some);
    }
    if let Some(key) = &source.config_map_key_ref {
        let optional = key.optional == Some(true);
        let object = present(&sources.objects.config_maps, &key.name);
        let value = object.and_then(|o| o.data.as_ref()?.get(&key.key).cloned());
        return required("configmap", "ConfigMap", object.is_some(), value, optional, &key.name, &key.key, sources);
    }
    if let Some(key) = &source.secret_key_ref {
        let optional = key.optional == Some(true);
        let object = present(&sources.objects.secrets, &key.name);
        let value = object.and_then(|o| o.data.as_ref()?.get(&key.key).map(|v| text(&v.0)));
        return required("secret", "Secret", object.is_some(), value, optional, &key.name, &key.key, sources);
    }
    Ok(Some(String::new()))
}

#[allow(clippy::too_many_arguments)] // one sentence in upstream's words, made of just these
fn required(
    resource: &str,
    kind: &str,
    exists: bool,
    value: Option<String>,
    optional: bool,
    name: &str,
    key: &str,
    sources: &Sources<'_>,
) -> Result<Option<String>, EnvError> {
    match value {
        Some(value) => Ok(Some(value)),
        None if optional => Ok(None),
        None if exists => Err(EnvError(format!("couldn't find key {key} in {kind} {}", namespaced(sources, name)))),
        None => Err(EnvError(format!("{resource} \"{name}\" not found"))),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    fn objects() -> Objects {
        let map = ConfigMap { data: Some([("color".into(), "red".into())].into()), ..Default::default() };
        let data = [("pw".to_string(), ByteString(b"x".to_vec()))].into();
        let secret = Secret { data: Some(data), ..Default::default() };
        Objects {
            config_maps: [("cm".to_string(), Some(Arc::new(map))), ("none".to_string(), None)].into(),
            secrets: [("sec".to_string(), Some(Arc::new(secret)))].into(),
            tokens: Tokens::new(),
            claims: Claims::new(),
        }
    }

    fn environment_of(container: serde_json::Value) -> Result<Vec<(String, String)>, EnvError> {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "ns", "uid": "u"}, "spec": {"containers": [], "nodeName": "box1"}
        }))
        .unwrap();
        let container: Container = serde_json::from_value(container).unwrap();
        let service: Service = serde_json::from_value(json!({
            "metadata": {"name": "db"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 5432}]}
        }))
        .unwrap();
        let node = NodeResources {
            ip: "10.0.0.1".parse().unwrap(),
            milli_cpu: 2000,
            memory: 1 << 30,
            ephemeral_storage: 0,
            machine_memory: 1 << 30,
        };
        let sources = Sources {
            pod: &pod,
            objects: &objects(),
            services: &[Arc::new(service)],
            pod_ip: Some("10.244.1.7".parse().unwrap()),
            node: &node,
        };
        environment(&container, &sources)
    }

    fn value(environment: &[(String, String)], name: &str) -> Option<String> {
        environment.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone())
    }

    #[test]
    fn values_come_from_every_kind_of_source() {
        let found = environment_of(json!({"name": "c",
        "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}},
        "envFrom": [{"prefix": "P_", "configMapRef": {"name": "cm"}}, {"secretRef": {"name": "no", "optional": true}}],
        "env": [
            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2 $(P_color) $(DB_SERVICE_HOST) $(NO) $$(A)"},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "MEM", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "PW", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "pw"}}},
            {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "no", "optional": true}}},
        ]}))
        .unwrap();
        for (name, expected) in [
            ("P_color", Some("red")),
            ("B", Some("12 red 10.96.0.9 $(NO) $(A)")),
            ("NAME", Some("web")),
            ("IP", Some("10.244.1.7")),
            ("MEM", Some("64")),
            ("CPU", Some("1")),
            ("PW", Some("x")),
            ("GONE", None),
            ("DB_SERVICE_PORT", Some("5432")),
        ] {
            assert_eq!(value(&found, name).as_deref(), expected, "{name}");
        }
        assert_eq!(found[0].0, "P_color", "envFrom comes first");
    }

    #[test]
    fn what_is_missing_is_named() {
        for (var, expected) in [
            (json!({"configMapKeyRef": {"name": "none", "key": "k"}}), "configmap \"none\" not found"),
            (json!({"configMapKeyRef": {"name": "cm", "key": "k"}}), "couldn't find key k in ConfigMap ns/cm"),
            (json!({"secretKeyRef": {"name": "sec", "key": "k"}}), "couldn't find key k in Secret ns/sec"),
        ] {
            let error = environment_of(json!({"name": "c", "env": [{"name": "X", "valueFrom": var}]})).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }
}
