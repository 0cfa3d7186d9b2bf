//! What may change in a pod that exists (`ValidatePodUpdate` upstream): very little, because the kubelet acts on the
//! spec it saw first.

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus};
use serde_json::Value;

use super::validation;
use crate::field::{ErrorList, Path, forbidden, invalid};
use crate::kinds::rules;
use crate::names;

/// What the refusal says may change.
const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,\
     `spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be \
     set to 1 if it was previously negative)";
/// How many differences the refusal shows.
const MAX_DIFFERENCES: usize = 8;

/// The step from `old` to `new` through the pod itself.
pub(super) fn spec(new: &Pod, old: &Pod, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let (Some(new), Some(old)) = (new.spec.as_ref(), old.spec.as_ref()) else { return };
    let (init, old_init) = (init_containers(new), init_containers(old));
    if !same_count(&new.containers, &old.containers, &path.child("containers"), errors)
        || !same_count(init, old_init, &path.child("initContainers"), errors)
        || !deadline(new, old, &path.child("activeDeadlineSeconds"), errors)
    {
        return;
    }
    let (tolerations, old_tolerations) =
        (new.tolerations.as_deref().unwrap_or(&[]), old.tolerations.as_deref().unwrap_or(&[]));
    validation::added_only(tolerations, old_tolerations, &path.child("tolerations"), errors);
    removed_gates_only(new, old, &path.child("schedulingGates"), errors);
    let masked = mask(new, old);
    if masked != *old {
        errors.push(forbidden(&path, &refusal(old, &masked)));
    }
}

/// The step from `old` to `new` through `/ephemeralcontainers`: some may be added, none taken away or changed
/// (`ValidatePodEphemeralContainersUpdate`).
pub(super) fn ephemeral_containers(new: &Pod, old: &Pod, errors: &mut ErrorList) {
    if crate::pods::is_mirror(old) {
        errors.push(forbidden(&Path::default(), "static pods do not support ephemeral containers"));
        return;
    }
    let path = Path::new("spec").child("ephemeralContainers");
    let of = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.ephemeral_containers.clone()).unwrap_or_default();
    let wanted = of(new);
    for old in of(old) {
        let name = &old.name;
        match wanted.iter().find(|c| c.name == *name) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(forbidden(&path, &detail));
            }
            Some(new) if *new != old => {
                let mut differences = Vec::new();
                compare("", &serde_json::json!(old), &serde_json::json!(new), &mut differences);
                let differences = differences.join("\n");
                let detail = format!("existing ephemeral containers {name:?} may not be changed\n{differences}");
                errors.push(forbidden(&path, &detail));
            }
            Some(_) => {}
        }
    }
}

fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or(&[])
}

fn same_count(new: &[Container], old: &[Container], path: &Path, errors: &mut ErrorList) -> bool {
    if new.len() != old.len() {
        errors.push(forbidden(path, "pod updates may not add or remove containers"));
    }
    new.len() == old.len()
}

/// A deadline may be set, and brought nearer; says whether the rest is worth looking at.
fn deadline(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut ErrorList) -> bool {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(seconds), _) if !(0..=i64::from(i32::MAX)).contains(&seconds) => {
            rules::all(names::is_in_range(seconds, 0, i32::MAX.into()), seconds, path, errors);
            false
        }
        (Some(seconds), Some(before)) if before < seconds => {
            errors.push(invalid(path, seconds, "must be less than or equal to previous value"));
            false
        }
        (None, Some(_)) => {
            let detail = "must not update from a positive integer to nil value";
            errors.push(invalid(path, Value::Null, detail));
            true
        }
        _ => true,
    }
}

fn removed_gates_only(new: &PodSpec, old: &PodSpec, path: &Path, errors: &mut ErrorList) {
    for (index, gate) in new.scheduling_gates.iter().flatten().enumerate() {
        if !old.scheduling_gates.iter().flatten().any(|g| g.name == gate.name) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", gate.name);
            errors.push(forbidden(&path.index(index).child("name"), &detail));
        }
    }
}

/// `new` with everything that may change set back to what it was.
fn mask(new: &PodSpec, old: &PodSpec) -> PodSpec {
    let mut masked = new.clone();
    for (container, old) in masked.containers.iter_mut().zip(&old.containers) {
        container.image.clone_from(&old.image);
    }
    for (container, old) in masked.init_containers.iter_mut().flatten().zip(init_containers(old)) {
        container.image.clone_from(&old.image);
    }
    masked.active_deadline_seconds = old.active_deadline_seconds;
    masked.tolerations.clone_from(&old.tolerations);
    masked.scheduling_gates.clone_from(&old.scheduling_gates);
    let was_negative = old.termination_grace_period_seconds.is_some_and(|s| s < 0);
    if was_negative && masked.termination_grace_period_seconds == Some(1) {
        masked.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    masked
}

fn refusal(old: &PodSpec, new: &PodSpec) -> String {
    let mut differences = Vec::new();
    compare("spec", &serde_json::json!(old), &serde_json::json!(new), &mut differences);
    differences.truncate(MAX_DIFFERENCES);
    format!("pod updates may not change fields other than {UPDATABLE}\n{}", differences.join("\n"))
}

/// One line for each value that differs.
fn compare(path: &str, old: &Value, new: &Value, differences: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let added = b.keys().filter(|key| !a.contains_key(*key));
            for key in a.keys().chain(added) {
                let (old, new) = (a.get(key).unwrap_or(&Value::Null), b.get(key).unwrap_or(&Value::Null));
                compare(&format!("{path}.{key}"), old, new, differences);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (old, new)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{index}]"), old, new, differences);
            }
        }
        _ if old == new => {}
        _ => differences.push(format!("  {path}: was {old}, would be {new}")),
    }
}

/// The step from `old` to `new` through `/status`.
pub(super) fn status(new: &Pod, old: &Pod, errors: &mut ErrorList) {
    let path = Path::new("status");
    let (Some(status), Some(spec)) = (new.status.as_ref(), new.spec.as_ref()) else { return };
    for (index, ip) in status.pod_ips.iter().flatten().enumerate() {
        rules::ip(&ip.ip, &path.child("podIPs").index(index), errors);
    }
    for (index, ip) in status.host_ips.iter().flatten().enumerate() {
        rules::ip(&ip.ip, &path.child("hostIPs").index(index), errors);
    }
    amounts(status, &path, errors);
    if spec.restart_policy.as_deref().unwrap_or("Always") == "Always" {
        return;
    }
    let before = old.status.as_ref();
    let lists = [
        (&status.container_statuses, before.and_then(|s| s.container_statuses.as_ref()), "containerStatuses"),
        (
            &status.init_container_statuses,
            before.and_then(|s| s.init_container_statuses.as_ref()),
            "initContainerStatuses",
        ),
    ];
    for (new, old, field) in lists {
        for (index, status) in new.iter().flatten().enumerate() {
            let old = old.into_iter().flatten().find(|s| s.name == status.name);
            if old.is_some_and(|old| returns_to_life(spec, old, status)) {
                let path = path.child(field).index(index).child("state");
                errors.push(forbidden(&path, "may not be transitioned to non-terminated state"));
            }
        }
    }
}

/// What containers are said to have been given.
fn amounts(status: &PodStatus, path: &Path, errors: &mut ErrorList) {
    let lists = [
        (&status.container_statuses, "containerStatuses"),
        (&status.init_container_statuses, "initContainerStatuses"),
        (&status.ephemeral_container_statuses, "ephemeralContainerStatuses"),
    ];
    for (statuses, field) in lists {
        for (index, status) in statuses.iter().flatten().enumerate() {
            let path = path.child(field).index(index);
            rules::quantities(status.allocated_resources.as_ref(), &path.child("allocatedResources"), errors);
            let (resources, path) = (status.resources.as_ref(), path.child("resources"));
            rules::quantities(resources.and_then(|r| r.limits.as_ref()), &path.child("limits"), errors);
            rules::quantities(resources.and_then(|r| r.requests.as_ref()), &path.child("requests"), errors);
        }
    }
}

/// Whether a container that will not be restarted is said to run again.
fn returns_to_life(spec: &PodSpec, old: &ContainerStatus, new: &ContainerStatus) -> bool {
    let own_policy = crate::pods::all_containers(spec).any(|c| c.name == new.name && c.restart_policy.is_some());
    let ended = old.state.as_ref().and_then(|s| s.terminated.as_ref());
    let is_over = ended.is_some_and(|t| t.exit_code == 0 || spec.restart_policy.as_deref() == Some("Never"));
    is_over && !own_policy && new.state.as_ref().is_none_or(|s| s.terminated.is_none())
}
