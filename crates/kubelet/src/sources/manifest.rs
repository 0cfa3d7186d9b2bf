//! From a manifest to static pods, or what is wrong with it (`pkg/kubelet/config/common.go`).

use api::{Object, Resource};
use k8s_openapi::api::core::v1::{Pod, Toleration};
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use crate::names::hex;

/// Which source a pod is from.
pub const ANNOTATION_SOURCE: &str = "kubernetes.io/config.source";
/// What of its manifest a pod was made from: another hash is another pod.
pub const ANNOTATION_HASH: &str = "kubernetes.io/config.hash";
/// The manifest directory, as [`ANNOTATION_SOURCE`] names it.
pub const FILE: &str = "file";
/// The manifest URL, as [`ANNOTATION_SOURCE`] names it.
pub const HTTP: &str = "http";

/// Where a manifest is from.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// [`FILE`] or [`HTTP`].
    pub source: &'static str,
    /// Path or URL.
    pub place: &'a str,
    /// The node the pods run on.
    pub node_name: &'a str,
}

/// One thing that is wrong with a pod.
struct Wrong {
    /// The field it is about, empty for the whole.
    path: String,
    message: String,
}

impl From<String> for Wrong {
    fn from(message: String) -> Wrong {
        Wrong { path: String::new(), message }
    }
}

impl From<&str> for Wrong {
    fn from(message: &str) -> Wrong {
        message.to_owned().into()
    }
}

/// The pods in `text`, YAML or JSON, one or a list of them; else what is wrong, each with its line where that is known.
pub fn pods(text: &[u8], origin: Origin<'_>) -> Result<Vec<Pod>, String> {
    let value = api::yaml::parse_one(text).map_err(|error| error.to_string())?;
    let kind = value["kind"].as_str().unwrap_or_default();
    let told = |prefix: &str, wrong: Vec<Wrong>| told(&String::from_utf8_lossy(text), prefix, &wrong);
    match (kind, &value["items"]) {
        ("PodList" | "List", Value::Array(items)) => {
            let one = |(index, item)| pod(item, origin).map_err(|wrong| told(&format!("items[{index}]"), wrong));
            items.iter().enumerate().map(one).collect()
        }
        ("PodList" | "List", _) => Ok(Vec::new()),
        _ => Ok(vec![pod(&value, origin).map_err(|wrong| told("", wrong))?]),
    }
}

/// `line 7: unknown field "spec.colour", line 9: …`.
fn told(text: &str, prefix: &str, all: &[Wrong]) -> String {
    let one = |Wrong { path, message }: &Wrong| {
        let dot = if prefix.is_empty() || path.is_empty() { "" } else { "." };
        match api::yaml::line_of(text, &format!("{prefix}{dot}{path}")) {
            Some(line) => format!("line {line}: {message}"),
            None => message.clone(),
        }
    };
    all.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn pod(value: &Value, origin: Origin<'_>) -> Result<Pod, Vec<Wrong>> {
    let alone = |wrong: Wrong| vec![wrong];
    let mut value = value.clone();
    if value.get("kind").is_none() && value.get("apiVersion").is_none() {
        return Err(vec!["neither kind nor apiVersion: it looks like no object of the API".into()]);
    }
    value.as_object_mut().map(|object| object.remove("status"));
    let decoded = api::decode::decode::<Pod>(value.to_string().as_bytes()).map_err(undecodable).map_err(alone)?;
    if !decoded.strict_errors.is_empty() {
        return Err(decoded.strict_errors.into_iter().map(unknown).collect());
    }
    let pod = decoded.object.as_any().downcast_ref::<Pod>().ok_or_else(|| vec![Wrong::from("not a Pod")])?;
    let mut pod = complete(pod.clone(), &value, origin).map_err(|message| vec![Wrong::from(message)])?;
    Object::set_defaults(&mut pod);
    let mut errors = api::field::ErrorList::new();
    api::metadata::validate_metadata(&Pod::INFO, &pod.metadata, &mut errors);
    errors.extend(Object::validate(&pod));
    errors.extend(Object::validate_create(&pod));
    if !errors.is_empty() {
        let one = |error: &api::field::Error| Wrong { path: error.field.to_string(), message: error.to_string() };
        return Err(errors.iter().map(one).collect());
    }
    match needs_api(&pod) {
        Some(what) => Err(vec![format!("static pods may not reference {what}").into()]),
        None => Ok(pod),
    }
}

/// `unknown field "spec.colour"`, as strict decoding says it.
fn unknown(message: String) -> Wrong {
    let path = message.split('"').nth(1).unwrap_or_default().to_owned();
    Wrong { path, message: format!("strict decoding error: {message}") }
}

fn undecodable(error: api::decode::DecodeError) -> Wrong {
    let path = match &error {
        api::decode::DecodeError::Type { path, .. } => path.clone(),
        api::decode::DecodeError::Kind { .. } => "kind".to_owned(),
        api::decode::DecodeError::Syntax(_) => String::new(),
    };
    Wrong { path, message: error.to_string() }
}

/// What every static pod has: a name and UID of its own on this node, and nothing that takes it away.
fn complete(mut pod: Pod, value: &Value, origin: Origin<'_>) -> Result<Pod, String> {
    let metadata = &mut pod.metadata;
    let name = metadata.name.clone().filter(|name| !name.is_empty()).ok_or("metadata.name: Required value")?;
    metadata.name = Some(format!("{name}-{}", origin.node_name.to_lowercase()));
    metadata.namespace = Some(metadata.namespace.clone().filter(|n| !n.is_empty()).unwrap_or("default".to_owned()));
    let told = json!([value, origin.source, origin.place, origin.node_name]).to_string();
    let hash = hex(&digest(&SHA256, told.as_bytes()).as_ref()[..16]);
    metadata.uid = Some(hash.clone());
    metadata.generation = Some(1);
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(ANNOTATION_SOURCE.to_owned(), origin.source.to_owned());
    annotations.insert(ANNOTATION_HASH.to_owned(), hash);
    let spec = pod.spec.as_mut().ok_or("spec: Required value")?;
    spec.node_name = Some(origin.node_name.to_owned());
    let anything = Toleration {
        operator: Some("Exists".to_owned()),
        effect: Some("NoExecute".to_owned()),
        ..Toleration::default()
    };
    spec.tolerations.get_or_insert_default().push(anything);
    Ok(pod)
}

/// What of the API the pod cannot be without, if there is any (`HasAPIObjectReference`).
fn needs_api(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    if spec.service_account_name.as_ref().is_some_and(|name| !name.is_empty()) {
        return Some("serviceaccounts");
    }
    let names = crate::worker::names_of(spec);
    if !names.secrets.is_empty() {
        return Some("secrets");
    }
    if !names.config_maps.is_empty() {
        return Some("configmaps");
    }
    if spec.resource_claims.as_ref().is_some_and(|claims| !claims.is_empty()) {
        return Some("resourceclaims");
    }
    let volumes = || spec.volumes.iter().flatten();
    if volumes().any(|v| v.persistent_volume_claim.is_some() || v.ephemeral.is_some()) {
        return Some("persistentvolumeclaims");
    }
    let projects = |v: &k8s_openapi::api::core::v1::Volume| {
        let sources = v.projected.iter().flat_map(|p| p.sources.iter().flatten());
        sources.into_iter().any(|s| s.service_account_token.is_some() || s.cluster_trust_bundle.is_some())
    };
    volumes().any(projects).then_some("serviceaccounts")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORIGIN: Origin<'_> = Origin { source: FILE, place: "/etc/web.yaml", node_name: "box1" };

    fn read(text: &str) -> Result<Vec<Pod>, String> {
        pods(text.as_bytes(), ORIGIN)
    }

    const WEB: &str =
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - {name: c, image: i}\n";

    #[test]
    fn a_manifest_becomes_a_pod_of_this_node() {
        let pod = read(WEB).unwrap().remove(0);
        let metadata = &pod.metadata;
        assert_eq!((metadata.name.as_deref(), metadata.namespace.as_deref()), (Some("web-box1"), Some("default")));
        let annotations = metadata.annotations.as_ref().unwrap();
        assert_eq!(annotations[ANNOTATION_SOURCE], "file");
        assert_eq!(Some(&annotations[ANNOTATION_HASH]), metadata.uid.as_ref());
        let spec = pod.spec.as_ref().unwrap();
        assert_eq!((spec.node_name.as_deref(), spec.restart_policy.as_deref()), (Some("box1"), Some("Always")));
        assert_eq!(read(WEB).unwrap()[0].metadata.uid, metadata.uid, "the same text is the same pod");
        assert_ne!(read(&WEB.replace("image: i", "image: j")).unwrap()[0].metadata.uid, metadata.uid);
    }

    #[test]
    fn lists_have_many_and_json_will_do() {
        let one = json!({"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        let mut two = one.clone();
        two["metadata"]["name"] = json!("b");
        let list = json!({"kind": "PodList", "apiVersion": "v1", "items": [one, two]}).to_string();
        assert_eq!(read(&list).unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |spec: &str| format!("{WEB}{spec}");
        for (text, expected) in [
            ("kind: [\n".to_owned(), "line"),
            ("just: text".to_owned(), "no object of the API"),
            (WEB.replace("Pod", "Service"), "line 2: "),
            (WEB.replace("name: web", "name: Web_1"), "line 3: metadata.name: Invalid value"),
            (WEB.replace(", image: i", ""), "line 6: spec.containers[0].image: Required value"),
            (WEB.replace("image: i", "image: 5"), "line 6: "),
            (with("  colour: red\n"), "line 7: strict decoding error: unknown field \"spec.colour\""),
            (
                with("  shape: round\n  colour: red\n"),
                "line 8: strict decoding error: unknown field \"spec.colour\", line 7: strict decoding error: unknown field \"spec.shape\"",
            ),
            (
                "kind: PodList\napiVersion: v1\nitems:\n- apiVersion: v1\n  kind: Pod\n  spek: {}\n".to_owned(),
                "line 6: strict decoding error: unknown field \"spek\"",
            ),
            (with("  serviceAccountName: robot\n"), "static pods may not reference serviceaccounts"),
            (with("  volumes: [{name: v, secret: {secretName: s}}]\n"), "static pods may not reference secrets"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
