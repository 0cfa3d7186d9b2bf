//! Metadata, the same for all kinds: what the server sets, and what it refuses.
//!
//! Compare `rest.BeforeCreate`/`BeforeUpdate` and `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`.

use api::field::{self, ErrorList, Path};
use api::names::{is_label_value, is_qualified_name, validate_name, validate_name_prefix};
use api::{KindInfo, Scope};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::status::ApiError;

/// The most bytes annotations may have together.
const MAX_ANNOTATION_BYTES: usize = 256 * 1024;

/// The present time as objects carry it: whole seconds.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// Gives a new object what only the server decides.
pub(crate) fn prepare_create(info: &KindInfo, metadata: &mut ObjectMeta, namespace: Option<&str>) {
    metadata.namespace = namespace.filter(|_| info.scope == Scope::Namespaced).map(Into::into);
    metadata.uid = Some(uuid::Uuid::new_v4().to_string());
    metadata.creation_timestamp = Some(Time(now()));
    metadata.deletion_timestamp = None;
    metadata.deletion_grace_period_seconds = None;
    metadata.resource_version = None;
    metadata.self_link = None;
    metadata.managed_fields = None;
}

/// Keeps from the old version what no client may change.
pub(crate) fn prepare_update(metadata: &mut ObjectMeta, old: &ObjectMeta) {
    metadata.namespace = old.namespace.clone();
    metadata.deletion_timestamp = old.deletion_timestamp.clone();
    metadata.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    metadata.generate_name = metadata.generate_name.take().or_else(|| old.generate_name.clone());
    metadata.uid = metadata.uid.take().filter(|u| !u.is_empty()).or_else(|| old.uid.clone());
    metadata.creation_timestamp = metadata.creation_timestamp.take().or_else(|| old.creation_timestamp.clone());
    metadata.resource_version = None;
    metadata.self_link = None;
    metadata.managed_fields = None;
}

/// A write to `/status` keeps the metadata, but for labels and annotations.
pub(crate) fn prepare_status_update(metadata: &mut ObjectMeta, old: &ObjectMeta) {
    let labels = metadata.labels.take();
    let annotations = metadata.annotations.take();
    *metadata = ObjectMeta { labels, annotations, resource_version: None, ..old.clone() };
}

/// Everything wrong with an object's metadata.
pub(crate) fn validate(info: &KindInfo, metadata: &ObjectMeta) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    validate_names(info, metadata, &path, &mut errors);
    validate_labels(metadata, &path, &mut errors);
    validate_annotations(metadata, &path, &mut errors);
    validate_owners(metadata, &path, &mut errors);
    let finalizers = path.child("finalizers");
    for (index, finalizer) in metadata.finalizers.iter().flatten().enumerate() {
        for problem in is_qualified_name(finalizer) {
            errors.push(field::invalid(&finalizers.index(index), finalizer.as_str(), &problem));
        }
    }
    errors
}

fn validate_names(info: &KindInfo, metadata: &ObjectMeta, path: &Path, errors: &mut ErrorList) {
    if let Some(prefix) = metadata.generate_name.as_deref().filter(|p| !p.is_empty()) {
        for problem in validate_name_prefix(info.name_rule, prefix) {
            errors.push(field::invalid(&path.child("generateName"), prefix, &problem));
        }
    }
    match metadata.name.as_deref().filter(|n| !n.is_empty()) {
        None => errors.push(field::required(&path.child("name"), "name or generateName is required")),
        Some(name) => {
            // Every name is one path segment, whatever else its kind allows.
            let mut problems = validate_name(info.name_rule, name);
            if problems.is_empty() {
                problems = api::names::is_path_segment(name);
            }
            let name_path = path.child("name");
            errors.extend(problems.iter().map(|problem| field::invalid(&name_path, name, problem)));
        }
    }
    if info.scope == Scope::Namespaced {
        let namespace = metadata.namespace.as_deref().unwrap_or("");
        for problem in api::names::is_dns1123_label(namespace) {
            errors.push(field::invalid(&path.child("namespace"), namespace, &problem));
        }
    }
}

fn validate_labels(metadata: &ObjectMeta, path: &Path, errors: &mut ErrorList) {
    let path = path.child("labels");
    for (key, value) in metadata.labels.iter().flatten() {
        errors.extend(is_qualified_name(key).iter().map(|problem| field::invalid(&path, key.as_str(), problem)));
        errors.extend(is_label_value(value).iter().map(|problem| field::invalid(&path, value.as_str(), problem)));
    }
}

fn validate_annotations(metadata: &ObjectMeta, path: &Path, errors: &mut ErrorList) {
    let path = path.child("annotations");
    let mut size = 0;
    for (key, value) in metadata.annotations.iter().flatten() {
        let lower = key.to_lowercase();
        errors.extend(is_qualified_name(&lower).iter().map(|problem| field::invalid(&path, key.as_str(), problem)));
        size += key.len() + value.len();
    }
    if size > MAX_ANNOTATION_BYTES {
        errors.push(field::too_long(&path, MAX_ANNOTATION_BYTES));
    }
}

fn validate_owners(metadata: &ObjectMeta, path: &Path, errors: &mut ErrorList) {
    let path = path.child("ownerReferences");
    let mut controller: Option<&str> = None;
    for (index, owner) in metadata.owner_references.iter().flatten().enumerate() {
        let path = path.index(index);
        for (name, value) in
            [("apiVersion", &owner.api_version), ("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)]
        {
            if value.is_empty() {
                errors.push(field::invalid(&path.child(name), "", &format!("{name} must not be empty")));
            }
        }
        if owner.controller == Some(true) {
            if let Some(first) = controller {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {}",
                    owner.kind
                );
                errors.push(field::invalid(&path, owner.name.as_str(), &detail));
            }
            controller = Some(&owner.kind);
        }
    }
}

/// What of the metadata an update changed and may not.
pub(crate) fn validate_update(metadata: &ObjectMeta, old: &ObjectMeta) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    if metadata.uid != old.uid {
        errors.push(field::invalid(&path.child("uid"), metadata.uid.clone().unwrap_or_default(), IMMUTABLE));
    }
    if metadata.creation_timestamp != old.creation_timestamp {
        let value = metadata.creation_timestamp.as_ref().map(|t| t.0.to_string()).unwrap_or_default();
        errors.push(field::invalid(&path.child("creationTimestamp"), value, IMMUTABLE));
    }
    if old.deletion_timestamp.is_some() {
        let known = old.finalizers.as_deref().unwrap_or_default();
        let added: Vec<&String> = metadata.finalizers.iter().flatten().filter(|f| !known.contains(f)).collect();
        if !added.is_empty() {
            let detail = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
            );
            errors.push(field::forbidden(&path.child("finalizers"), &detail));
        }
    }
    errors
}

const IMMUTABLE: &str = "field is immutable";

/// The names in a body must be those in the URL, where it has any.
pub(crate) fn check_identity(metadata: &mut ObjectMeta, namespace: Option<&str>, name: &str) -> Result<(), ApiError> {
    check_namespace(metadata, namespace)?;
    let given = metadata.name.get_or_insert_default();
    if given.is_empty() {
        *given = name.to_owned();
    }
    if given != name {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}

/// The namespace in a body must be the one in the URL, where the body has any.
pub(crate) fn check_namespace(metadata: &ObjectMeta, namespace: Option<&str>) -> Result<(), ApiError> {
    let given = metadata.namespace.as_deref().unwrap_or("");
    if !given.is_empty() && given != namespace.unwrap_or("") {
        return Err(ApiError::BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request".into(),
        ));
    }
    Ok(())
}
