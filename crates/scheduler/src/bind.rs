//! What the scheduler writes: bindings and the `PodScheduled` condition. Answers are read only as far as they are errors.

use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::Request;
use serde_json::json;

use crate::pod::PodInfo;

/// The requests that concern `pod`.
fn requests(pod: &PodInfo) -> Request {
    Request::new(<Pod as kube::Resource>::url_path(&(), Some(&pod.namespace)))
}

/// Binds `pod` to `node`. The UID makes the server refuse a pod of that name that is another one by now.
pub(crate) async fn bind(client: &kube::Client, pod: &PodInfo, node: &str) -> Result<(), kube::Error> {
    let binding = json!({
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"namespace": pod.namespace, "name": pod.name, "uid": *pod.uid},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    let request = requests(pod)
        .create_subresource("binding", &pod.name, &PostParams::default(), binding.to_string().into_bytes())
        .map_err(kube::Error::BuildRequest)?;
    client.request_text(request).await.map(drop)
}

/// Says in the pod's status that it is unschedulable, and why. The transition time is written only where the condition
/// is new; a merge by type leaves it alone otherwise.
pub(crate) async fn report_unschedulable(
    client: &kube::Client,
    pod: &PodInfo,
    message: &str,
) -> Result<(), kube::Error> {
    let mut condition =
        json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message});
    if pod.reported.is_none() {
        condition["lastTransitionTime"] = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string().into();
    }
    let patch = json!({"metadata": {"uid": *pod.uid}, "status": {"conditions": [condition]}});
    let request = requests(pod)
        .patch_subresource("status", &pod.name, &PatchParams::default(), &Patch::Strategic(patch))
        .map_err(kube::Error::BuildRequest)?;
    client.request_text(request).await.map(drop)
}

/// Whether trying again cannot help: the server understood and will not have it.
pub(crate) fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429)
}

/// Whether the pod is gone, is another one or has a node already: the watch will tell.
pub(crate) fn is_settled(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}
