//! Metadata, the same for all kinds: what the server sets, and what must fit the URL.
//!
//! Compare `rest.BeforeCreate` and `BeforeUpdate` in `k8s.io/apiserver`.

use api::field::ErrorList;
use api::{KindInfo, Scope};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use crate::status::ApiError;

/// The present time as objects carry it: whole seconds.
pub(crate) fn now() -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second()).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The same as a field of metadata.
pub(crate) fn now_time() -> Time {
    Time(now())
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
}

/// Keeps from the old version what no client may change.
pub(crate) fn prepare_update(metadata: &mut ObjectMeta, old: &ObjectMeta) {
    api::metadata::inherit_metadata(metadata, old);
    metadata.generate_name = metadata.generate_name.take().or_else(|| old.generate_name.clone());
    metadata.resource_version = None;
}

/// A write to `/status` keeps the metadata, but for labels and annotations.
pub(crate) fn prepare_status_update(metadata: &mut ObjectMeta, old: &ObjectMeta) {
    // What is no change is checked later on.
    let uid = metadata.uid.take().filter(|uid| !uid.is_empty()).or_else(|| old.uid.clone());
    let labels = metadata.labels.take();
    let annotations = metadata.annotations.take();
    *metadata = ObjectMeta { uid, labels, annotations, resource_version: None, ..old.clone() };
}

/// Everything wrong with an object's metadata.
pub(crate) fn validate(info: &KindInfo, metadata: &ObjectMeta) -> ErrorList {
    let mut errors = ErrorList::new();
    api::metadata::validate_metadata(info, metadata, &mut errors);
    errors
}

/// The names in a body must be those in the URL: the object's is there, the namespace where it is said (`checkName`).
pub(crate) fn check_identity(metadata: &mut ObjectMeta, namespace: Option<&str>, name: &str) -> Result<(), ApiError> {
    check_namespace(metadata, namespace)?;
    if namespace.is_none() {
        metadata.namespace = None;
    }
    let given = metadata.name.as_deref().unwrap_or("");
    if given.is_empty() {
        return Err(undeterminable(name));
    }
    if given != name {
        return Err(ApiError::BadRequest(format!(
            "the name of the object ({given}) does not match the name on the URL ({name})"
        )));
    }
    Ok(())
}

/// An object does not say its name; the URL does.
pub(crate) fn undeterminable(name: &str) -> ApiError {
    ApiError::BadRequest(format!(
        "the name of the object ({name} based on URL) was undeterminable: name must be provided"
    ))
}

/// The same of a configuration to apply, which need not say its name.
pub(crate) fn check_applied(metadata: &mut ObjectMeta, namespace: Option<&str>, name: &str) -> Result<(), ApiError> {
    if metadata.name.as_deref().unwrap_or("").is_empty() {
        metadata.name = Some(name.to_owned());
    }
    check_identity(metadata, namespace, name)
}

/// The namespace in a body must be the one in the URL, where both have any. What is cluster-wide has none, whatever a body
/// says (`EnsureObjectNamespaceMatchesRequestNamespace`).
pub(crate) fn check_namespace(metadata: &ObjectMeta, namespace: Option<&str>) -> Result<(), ApiError> {
    let given = metadata.namespace.as_deref().unwrap_or("");
    if !given.is_empty() && namespace.is_some_and(|namespace| given != namespace) {
        return Err(ApiError::BadRequest(
            "the namespace of the provided object does not match the namespace sent on the request".into(),
        ));
    }
    Ok(())
}
