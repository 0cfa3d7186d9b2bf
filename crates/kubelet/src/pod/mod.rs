//! One pod: what it wants, what of it exists, what must happen, and how that reads as a status. Pure.

use std::borrow::Cow;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, ContainerRestartRule, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::runtime::PodIdentity;

pub mod actions;
pub mod admit;
pub mod backoff;
pub mod fit;
pub mod observed;
#[cfg(test)]
mod page_tests;
pub mod phase;
pub mod probe;
pub mod resize;
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
    full_name_of(&identity(pod))
}

/// The same of a pod one knows less of.
pub fn full_name_of(pod: &PodIdentity) -> String {
    format!("{}_{}({})", pod.name, pod.namespace, pod.uid)
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

/// What a container is in its pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// One that does its work before the others start.
    Init,
    /// An init container that keeps running.
    Sidecar,
    /// One that the pod is for.
    Main,
    /// One that was put in later, to look around.
    Ephemeral,
}

impl Sort {
    /// The list of the spec such containers are in.
    pub fn list(self) -> &'static str {
        match self {
            Sort::Init | Sort::Sidecar => "initContainers",
            Sort::Main => "containers",
            Sort::Ephemeral => "ephemeralContainers",
        }
    }
}

/// The container called `name` and what it is.
pub fn container<'a>(spec: &'a PodSpec, name: &str) -> Option<(Sort, Cow<'a, Container>)> {
    if let Some(init) = init_containers(spec).iter().find(|c| c.name == name) {
        let sort = if is_sidecar(init) { Sort::Sidecar } else { Sort::Init };
        return Some((sort, Cow::Borrowed(init)));
    }
    if let Some(main) = spec.containers.iter().find(|c| c.name == name) {
        return Some((Sort::Main, Cow::Borrowed(main)));
    }
    let ephemeral = spec.ephemeral_containers.iter().flatten().find(|c| c.name == name)?;
    Some((Sort::Ephemeral, Cow::Owned(api::pods::from_ephemeral(ephemeral))))
}

/// What the container called `name` is.
pub fn sort(spec: &PodSpec, name: &str) -> Option<Sort> {
    container(spec, name).map(|(sort, _)| sort)
}

/// The ephemeral containers, as ordinary ones.
pub fn ephemeral_containers(spec: &PodSpec) -> Vec<Container> {
    spec.ephemeral_containers.iter().flatten().map(api::pods::from_ephemeral).collect()
}

/// Whether `container`, having ended with `code`, is to run again: by its own rules, else its own policy, else the
/// pod's (`ContainerShouldRestart` in `pkg/kubelet/container/helpers.go`).
pub fn restarts(spec: &PodSpec, container: &Container, code: i32) -> bool {
    if container.restart_policy_rules.iter().flatten().any(|rule| restarts_by(rule, code)) {
        return true;
    }
    let policy = match container.restart_policy.as_deref() {
        Some("Always") => RestartPolicy::Always,
        Some("OnFailure") => RestartPolicy::OnFailure,
        Some("Never") => RestartPolicy::Never,
        _ => restart_policy(spec),
    };
    match policy {
        RestartPolicy::Always => true,
        RestartPolicy::OnFailure => code != 0,
        RestartPolicy::Never => false,
    }
}

fn restarts_by(rule: &ContainerRestartRule, code: i32) -> bool {
    let Some(codes) = rule.exit_codes.as_ref().filter(|_| rule.action == "Restart") else { return false };
    let listed = codes.values.iter().flatten().any(|value| *value == code);
    match codes.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        _ => false,
    }
}

/// Whether an init container that failed with `code` is to be tried again. What restarts always, restarts only on
/// failure while it initializes.
pub fn init_restarts(spec: &PodSpec, init: &Container, code: i32) -> bool {
    code != 0 && restarts(spec, init, code)
}

/// What a running container must match: its name and image, the only part of a pod that may change under it
/// (`pickFieldsToHash` in `pkg/kubelet/container/helpers.go`).
pub fn container_hash(container: &Container) -> String {
    let picked = format!("{}\n{}", container.name, container.image.as_deref().unwrap_or_default());
    let digest = ring::digest::digest(&ring::digest::SHA256, picked.as_bytes());
    crate::names::hex(&digest.as_ref()[..4])
}
