//! Environment variables and the objects and fields they come from.

use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, ResourceFieldSelector};

use crate::field::{ErrorList, Path, invalid, not_supported, required};
use crate::kinds::rules;
use crate::names;

/// Fields of the pod that a variable may show.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields of the pod that a file may show.
pub(super) const VOLUME_FIELDS: &[&str] =
    &["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"];
/// Fields that exist under this name at all (`ConvertDownwardAPIFieldLabel`).
const KNOWN_FIELDS: &[&str] = &[
    "metadata.annotations",
    "metadata.labels",
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.serviceAccountName",
    "spec.schedulerName",
    "status.phase",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Resources of a container that a variable or file may show.
const RESOURCES: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const CPU_DIVISORS: &[&str] = &["1m", "1"];
const BYTE_DIVISORS: &[&str] = &["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub(super) fn env(container: &Container, path: &Path, errors: &mut ErrorList) {
    for (index, variable) in container.env.iter().flatten().enumerate() {
        let path = path.index(index);
        if rules::given(&variable.name, &path.child("name"), errors) {
            let messages = names::is_env_var_name(&variable.name);
            rules::all(messages, variable.name.as_str(), &path.child("name"), errors);
        }
        if let Some(source) = variable.value_from.as_ref() {
            value_from(variable, source, &path.child("valueFrom"), errors);
        }
    }
}

fn value_from(variable: &EnvVar, source: &EnvVarSource, path: &Path, errors: &mut ErrorList) {
    let mut sources = 0;
    if let Some(field) = &source.field_ref {
        sources += 1;
        object_field(field, ENV_FIELDS, &path.child("fieldRef"), errors);
    }
    if let Some(field) = &source.resource_field_ref {
        sources += 1;
        resource_field(field, false, &path.child("resourceFieldRef"), errors);
    }
    if let Some(key) = &source.config_map_key_ref {
        sources += 1;
        object_key(&key.name, &key.key, &path.child("configMapKeyRef"), errors);
    }
    if let Some(key) = &source.secret_key_ref {
        sources += 1;
        object_key(&key.name, &key.key, &path.child("secretKeyRef"), errors);
    }
    if let Some(key) = &source.file_key_ref {
        sources += 1;
        let path = path.child("fileKeyRef");
        rules::given(&key.key, &path.child("key"), errors);
        rules::dns_label(&key.volume_name, &path.child("volumeName"), errors);
        if rules::given(&key.path, &path.child("path"), errors) {
            rules::descending_unreserved_path(&key.path, &path.child("path"), errors);
        }
    }
    let has_value = variable.value.as_deref().is_some_and(|v| !v.is_empty());
    match sources {
        0 => errors.push(invalid(
            path,
            "",
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        )),
        _ if has_value => errors.push(invalid(path, "", "may not be specified when `value` is not empty")),
        1 => {}
        _ => errors.push(invalid(path, "", "may not have more than one field specified at a time")),
    }
}

/// One key of a ConfigMap or Secret.
fn object_key(name: &str, key: &str, path: &Path, errors: &mut ErrorList) {
    rules::dns_subdomain(name, &path.child("name"), errors);
    if rules::given(key, &path.child("key"), errors) {
        rules::all(names::is_config_map_key(key), key, &path.child("key"), errors);
    }
}

/// A field of the pod itself, one of `allowed`.
pub(super) fn object_field(field: &ObjectFieldSelector, allowed: &[&str], path: &Path, errors: &mut ErrorList) {
    let version = field.api_version.as_deref().unwrap_or("");
    if !rules::given(version, &path.child("apiVersion"), errors)
        || !rules::given(&field.field_path, &path.child("fieldPath"), errors)
    {
        return;
    }
    let whole = field.field_path.as_str();
    let (name, subscript) = split_subscript(whole);
    let problem = match (version, subscript) {
        ("v1", Some(_)) if matches!(name, "metadata.annotations" | "metadata.labels") => None,
        ("v1", None) if KNOWN_FIELDS.contains(&whole) || whole == "spec.host" => None,
        ("v1", _) => Some(format!("field label not supported: {whole}")),
        _ => Some(format!("unsupported pod version: {version}")),
    };
    match (problem, subscript) {
        (Some(problem), _) => {
            errors.push(invalid(&path.child("fieldPath"), whole, &format!("error converting fieldPath: {problem}")));
        }
        (None, Some(key)) if name == "metadata.annotations" => {
            rules::all(names::is_qualified_name(&key.to_lowercase()), key, path, errors);
        }
        (None, Some(key)) => rules::all(names::is_qualified_name(key), key, path, errors),
        (None, None) => {
            let name = if whole == "spec.host" { "spec.nodeName" } else { whole };
            rules::optional_one_of(Some(name), allowed, &path.child("fieldPath"), errors);
        }
    }
}

/// `metadata.labels['app']` is `metadata.labels` and `app`.
fn split_subscript(path: &str) -> (&str, Option<&str>) {
    let inner = path.strip_suffix("']").and_then(|p| p.split_once("['"));
    inner.map_or((path, None), |(name, key)| (name, Some(key)))
}

/// A limit or request of a container; files must say of which.
pub(super) fn resource_field(field: &ResourceFieldSelector, in_volume: bool, path: &Path, errors: &mut ErrorList) {
    let resource = field.resource.as_str();
    let is_huge_page = resource.starts_with("limits.hugepages-") || resource.starts_with("requests.hugepages-");
    if in_volume && field.container_name.as_deref().unwrap_or("").is_empty() {
        errors.push(required(&path.child("containerName"), ""));
    } else if rules::given(resource, &path.child("resource"), errors) && !RESOURCES.contains(&resource) && !is_huge_page
    {
        errors.push(not_supported(&path.child("resource"), resource, RESOURCES));
    }
    let divisor = field.divisor.as_ref().map_or("0", |d| d.0.as_str());
    let (kind, allowed) = match resource.rsplit_once('.').map_or("", |(_, kind)| kind) {
        "cpu" => ("cpu", CPU_DIVISORS),
        "memory" => ("memory", BYTE_DIVISORS),
        "ephemeral-storage" => ("local ephemeral storage", BYTE_DIVISORS),
        _ if is_huge_page => ("hugepages", BYTE_DIVISORS),
        _ => return,
    };
    if divisor != "0" && !allowed.contains(&divisor) {
        let listed = if allowed.len() == 2 { allowed.join(" and ") } else { allowed.join(", ") };
        let detail = format!("only divisor's values {listed} are supported with the {kind} resource");
        errors.push(invalid(&path.child("divisor"), resource, &detail));
    }
}

pub(super) fn env_from(container: &Container, path: &Path, errors: &mut ErrorList) {
    for (index, source) in container.env_from.iter().flatten().enumerate() {
        let of_list = path;
        let path = path.index(index);
        if let Some(prefix) = source.prefix.as_deref().filter(|p| !p.is_empty()) {
            rules::all(names::is_env_var_name(prefix), prefix, &path.child("prefix"), errors);
        }
        let refs = [
            (source.config_map_ref.as_ref().map(|r| r.name.as_str()), "configMapRef"),
            (source.secret_ref.as_ref().map(|r| r.name.as_str()), "secretRef"),
        ];
        let mut sources = 0;
        for (name, field) in refs.into_iter().filter_map(|(name, field)| Some((name?, field))) {
            sources += 1;
            let path = path.child(field).child("name");
            if rules::given(name, &path, errors) {
                rules::dns_subdomain(name, &path, errors);
            }
        }
        match sources {
            0 => errors.push(invalid(of_list, "", "must specify one of: `configMapRef` or `secretRef`")),
            1 => {}
            _ => errors.push(invalid(of_list, "", "may not have more than one field specified at a time")),
        }
    }
}
