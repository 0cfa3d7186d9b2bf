//! What every component must agree on about pods: readiness, terminal phases, what they request.

use k8s_openapi::api::core::v1::{Pod, PodCondition};

/// The condition of type `condition_type`.
pub fn condition<'a>(pod: &'a Pod, condition_type: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == condition_type)
}

/// Whether the pod's `Ready` condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition(pod, "Ready").is_some_and(|c| c.status == "True")
}

/// `status.phase`, `""` before anyone wrote it.
pub fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

/// Whether the pod has ended for good: Succeeded or Failed.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), "Succeeded" | "Failed")
}

/// Whether someone asked for the pod's deletion.
pub fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// The node the pod is bound to.
pub fn node_name(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref().filter(|n| !n.is_empty())
}

/// What the pod asks of a node: the sum of its containers' requests, or the greatest of its init containers' where
/// that is more (`PodRequests` in `k8s.io/component-helpers/resource`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of local storage.
    pub ephemeral_storage: i64,
}

/// Sums up what `pod` requests.
pub fn requests(_pod: &Pod) -> Requests {
    todo!()
}

/// `Guaranteed`, `Burstable` or `BestEffort` (`GetPodQOS`).
pub fn qos_class(_pod: &Pod) -> &'static str {
    todo!()
}
