//! From the names in a path to what they name.

use std::sync::Arc;

use axum::http::StatusCode;
use k8s_openapi::api::core::v1::Pod;

use super::Shared;
use crate::runtime::{self, Container};

/// Why a request cannot be served: the answer's status and text.
pub(super) type Refusal = (StatusCode, String);

/// The pod called so; of two of one name the older is on its way out. With `uid`, it must have that.
pub(super) fn pod(shared: &Shared, namespace: &str, name: &str, uid: Option<&str>) -> Result<Arc<Pod>, Refusal> {
    let named = |pod: &Arc<Pod>| {
        crate::pod::namespace(&pod.metadata) == namespace
            && crate::pod::name(&pod.metadata) == name
            && uid.is_none_or(|uid| crate::pod::uid(pod) == uid)
    };
    let mut found: Vec<_> = shared.pods.list().into_iter().filter(named).collect();
    found.sort_by_key(|pod| pod.metadata.creation_timestamp.as_ref().map(|t| t.0));
    found.pop().ok_or_else(|| (StatusCode::NOT_FOUND, format!("pod \"{name}\" not found")))
}

/// The running container called so.
pub(super) async fn container(shared: &Shared, pod: &Pod, name: &str) -> Result<Container, Refusal> {
    let state = shared.kubelet.runtime.pod_state(crate::pod::uid(pod)).await.map_err(failed)?;
    let running = state.containers.into_iter().find(|c| c.name == name && c.is_running());
    running.ok_or_else(|| (StatusCode::INTERNAL_SERVER_ERROR, format!("container not found (\"{name}\")")))
}

/// The id of the pod's running sandbox.
pub(super) async fn sandbox(shared: &Shared, pod: &Pod) -> Result<String, Refusal> {
    let state = shared.kubelet.runtime.pod_state(crate::pod::uid(pod)).await.map_err(failed)?;
    let missing = || (StatusCode::INTERNAL_SERVER_ERROR, format!("pod not found (\"{}\")", crate::pod::full_name(pod)));
    state.live_sandbox().map(|sandbox| sandbox.id.clone()).ok_or_else(missing)
}

pub(super) fn failed(error: runtime::Error) -> Refusal {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}
