//! The objects a connection is about.

use k8s_openapi::api::core::v1::{Node, Pod};

use crate::query::Query;
use crate::request::RequestInfo;
use crate::server::Shared;
use crate::status::{ApiError, Subject};

/// The object of `kind` called so, if the cache has it; the caller says how fresh that must be.
pub(super) fn object<T: Default + 'static>(
    shared: &Shared,
    kind: &str,
    namespace: Option<&str>,
    name: &str,
) -> Result<T, ApiError> {
    let kind = api::kinds::by_kind("v1", kind).ok_or(ApiError::PathNotFound)?;
    let missing = || ApiError::NotFound(Subject::new(kind.info, name));
    let entry = shared.cache.of(kind).get(&kind.info.registry_key(namespace, name)).ok_or_else(missing)?;
    kind.typed(entry.json()).ok_or_else(|| ApiError::Internal(format!("{} {name:?} cannot be decoded", kind.info.kind)))
}

/// The pod a request names, as it is now.
pub(crate) async fn pod(shared: &Shared, info: &RequestInfo) -> Result<Pod, ApiError> {
    shared.cache.catch_up().await?;
    object(shared, "Pod", info.namespace.as_deref(), info.name.as_deref().unwrap_or(""))
}

/// The node called so.
pub(crate) fn node(shared: &Shared, name: &str) -> Result<Node, ApiError> {
    object(shared, "Node", None, name)
}

/// The container asked for, or the only one; upstream's words where that is not clear.
pub(crate) fn container(query: &Query, pod: &Pod) -> Result<String, ApiError> {
    let spec = pod.spec.clone().unwrap_or_default();
    let names: Vec<&str> = spec.containers.iter().map(|c| c.name.as_str()).collect();
    let init: Vec<&str> = spec.init_containers.iter().flatten().map(|c| c.name.as_str()).collect();
    let ephemeral = |asked: &str| spec.ephemeral_containers.iter().flatten().any(|c| c.name == asked);
    let pod_name = pod.metadata.name.as_deref().unwrap_or("");
    match query.get("container") {
        Some(asked) if names.contains(&asked) || init.contains(&asked) || ephemeral(asked) => Ok(asked.to_owned()),
        Some(asked) => Err(ApiError::BadRequest(format!("container {asked} is not valid for pod {pod_name}"))),
        None => match names.as_slice() {
            [only] => Ok((*only).to_owned()),
            many => {
                let init = match init.as_slice() {
                    [] => String::new(),
                    init => format!(" or one of the init containers: [{}]", init.join(" ")),
                };
                Err(ApiError::BadRequest(format!(
                    "a container name must be specified for pod {pod_name}, choose one of: [{}]{init}",
                    many.join(" ")
                )))
            }
        },
    }
}
