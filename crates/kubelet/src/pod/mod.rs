//! One pod: what it wants, what of it exists, what must happen, and how that reads as a status. Pure.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::runtime::PodIdentity;

pub mod actions;
#[cfg(test)]
mod actions_properties;
pub mod backoff;
pub mod observed;
pub mod phase;
pub mod status;
#[cfg(test)]
pub(crate) mod testing;

/// Grace where a pod names none.
pub const DEFAULT_GRACE_SECONDS: i64 = 30;

/// `metadata.uid`.
pub fn uid(pod: &Pod) -> &str {
    pod.metadata.uid.as_deref().unwrap_or_default()
}

/// `metadata.namespace`.
pub fn namespace(metadata: &ObjectMeta) -> &str {
    metadata.namespace.as_deref().unwrap_or_default()
}

/// `metadata.name`.
pub fn name(metadata: &ObjectMeta) -> &str {
    metadata.name.as_deref().unwrap_or_default()
}

/// `name_namespace(uid)`, as messages name a pod.
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", name(&pod.metadata), namespace(&pod.metadata), uid(pod))
}

/// What its containers are labelled with.
pub fn identity(pod: &Pod) -> PodIdentity {
    PodIdentity {
        namespace: namespace(&pod.metadata).to_owned(),
        name: name(&pod.metadata).to_owned(),
        uid: uid(pod).to_owned(),
        grace_period_seconds: i64::try_from(grace(pod).as_secs()).unwrap_or(DEFAULT_GRACE_SECONDS),
    }
}

/// How long its containers may take to end: what the deletion says, else what the spec says.
pub fn grace(pod: &Pod) -> Duration {
    let spec = || pod.spec.as_ref().and_then(|s| s.termination_grace_period_seconds);
    let seconds = pod.metadata.deletion_grace_period_seconds.or_else(spec).unwrap_or(DEFAULT_GRACE_SECONDS);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// When ended containers are started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    /// Always.
    Always,
    /// When they failed.
    OnFailure,
    /// Never.
    Never,
}

/// The pod's restart policy.
pub fn restart_policy(spec: &PodSpec) -> RestartPolicy {
    match spec.restart_policy.as_deref() {
        Some("Never") => RestartPolicy::Never,
        Some("OnFailure") => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

/// The init containers.
pub fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

/// Whether an init container is a sidecar: started in its turn, then kept running beside the others.
pub fn is_sidecar(init: &Container) -> bool {
    init.restart_policy.as_deref() == Some("Always")
}

/// The container called `name`, init or not.
pub fn container<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a Container> {
    init_containers(spec).iter().chain(&spec.containers).find(|c| c.name == name)
}

/// What a running container must match: its name and image, the only part of a pod that may change under it
/// (`pickFieldsToHash` in `pkg/kubelet/container/helpers.go`).
pub fn container_hash(container: &Container) -> String {
    let picked = format!("{}\n{}", container.name, container.image.as_deref().unwrap_or_default());
    let digest = ring::digest::digest(&ring::digest::SHA256, picked.as_bytes());
    crate::names::hex(&digest.as_ref()[..4])
}
