//! Resizing a pod in place: what is set aside for its containers, how that reads in its status, and what its Events say
//! (`pkg/kubelet/allocation`, `convertContainerStatusResources` in `pkg/kubelet/kubelet_pods.go`). Pure.
//!
//! ```text
//!  wanted (spec) ──admitted by the node──▶ set aside (status.allocatedResources) ──Runtime::update──▶ in force (status.resources)
//! ```
//!
//! What is set aside is read back from the last status: requests as they are told, limits as they are in force, or, while
//! those are on their way there (`PodResizeInProgress`), as the spec of that generation has them.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::{self, Format, Quantity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerStatus, Pod, PodCondition, PodSpec, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{init_containers, is_sidecar};
use crate::container_spec::{CPU_PERIOD_MICROS, resources};
use crate::runtime::{Container, Resources};

/// The condition of a resize that is wanted and not set aside.
pub const PENDING: &str = "PodResizePending";
/// The condition of one that is set aside and not in force.
pub const IN_PROGRESS: &str = "PodResizeInProgress";
/// What can be resized.
const RESIZABLE: [&str; 2] = ["cpu", "memory"];

type Amounts = BTreeMap<String, Amount>;

/// What is set aside for a pod's containers, by name.
pub type Allocation = BTreeMap<String, ResourceRequirements>;

/// Why what is wanted is not set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Deferred`: not now; `Infeasible`: never on this node.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

/// How the resize of a pod stands, as far as its plan does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Why what is wanted is not set aside, if it is not.
    pub pending: Option<Pending>,
    /// What keeps what is set aside from being put in force.
    pub error: Option<String>,
}

impl Standing {
    /// As the last status tells it.
    pub fn of(history: &PodStatus) -> Standing {
        let pending = condition(history, PENDING).map(|c| Pending {
            reason: if c.reason.as_deref() == Some("Infeasible") { "Infeasible" } else { "Deferred" },
            message: c.message.clone().unwrap_or_default(),
        });
        let error = condition(history, IN_PROGRESS).filter(|c| c.reason.as_deref() == Some("Error"));
        Standing { pending, error: error.and_then(|c| c.message.clone()) }
    }
}

/// The condition of type `type_` in a status.
pub fn condition<'a>(status: &'a PodStatus, type_: &str) -> Option<&'a PodCondition> {
    status.conditions.iter().flatten().find(|c| c.type_ == type_)
}

/// Those that can be resized: containers and sidecars.
fn resizable(spec: &PodSpec) -> impl Iterator<Item = &Spec> {
    init_containers(spec).iter().filter(|init| is_sidecar(init)).chain(&spec.containers)
}

/// What the spec of `pod` wants.
pub fn wanted(pod: &Pod) -> Allocation {
    let all = pod.spec.iter().flat_map(resizable);
    all.map(|c| (c.name.clone(), c.resources.clone().unwrap_or_default())).collect()
}

/// What is set aside for `pod` according to its last status; of what that does not know yet, what is wanted.
pub fn allocation(pod: &Pod, history: &PodStatus) -> Allocation {
    let mut allocation = wanted(pod);
    let generation = condition(history, IN_PROGRESS).and_then(|c| c.observed_generation);
    if generation.is_some() && generation == pod.metadata.generation {
        return allocation;
    }
    let statuses: Vec<&ContainerStatus> =
        [&history.container_statuses, &history.init_container_statuses].into_iter().flatten().flatten().collect();
    for (name, resources) in &mut allocation {
        let status = statuses.iter().find(|s| s.name == *name);
        let Some((status, in_force)) = status.and_then(|s| Some((s, s.resources.as_ref()?))) else { continue };
        replace(&mut resources.requests, status.allocated_resources.as_ref());
        replace(&mut resources.limits, in_force.limits.as_ref());
    }
    allocation
}

/// Sets the amounts that can be resized to those of `other`.
fn replace(amounts: &mut Option<Amounts>, other: Option<&Amounts>) {
    let mut all = amounts.take().unwrap_or_default();
    for name in RESIZABLE {
        match other.and_then(|other| other.get(name)) {
            Some(amount) => drop(all.insert(name.to_owned(), amount.clone())),
            None => drop(all.remove(name)),
        }
    }
    *amounts = Some(all).filter(|all| !all.is_empty());
}

/// Whether two allocations are of the same amounts, however they are written.
pub fn same(left: &Allocation, right: &Allocation) -> bool {
    let values = |of: Option<&Amounts>| -> Vec<Option<Quantity>> {
        RESIZABLE.iter().map(|name| of.and_then(|of| of.get(*name)).map(quantity::of)).collect()
    };
    let both = |r: &ResourceRequirements| (values(r.requests.as_ref()), values(r.limits.as_ref()));
    left.len() == right.len() && left.iter().all(|(name, l)| right.get(name).is_some_and(|r| both(l) == both(r)))
}

/// `pod` with what is set aside for it in place of what it wants.
pub fn with(pod: &Arc<Pod>, allocation: &Allocation) -> Arc<Pod> {
    if same(&wanted(pod), allocation) {
        return pod.clone();
    }
    let mut pod = (**pod).clone();
    let spec = pod.spec.get_or_insert_default();
    for container in spec.init_containers.iter_mut().flatten().chain(&mut spec.containers) {
        if let Some(resources) = allocation.get(&container.name) {
            container.resources = Some(resources.clone());
        }
    }
    Arc::new(pod)
}

/// Whether `container` must restart for what it has to become what it is `wanted` to have.
pub fn restarts(container: &Spec, has: &Resources, wanted: &Resources) -> bool {
    let restart = |name: &str| {
        let policies = container.resize_policy.iter().flatten();
        policies.into_iter().any(|p| p.resource_name == name && p.restart_policy == "RestartContainer")
    };
    let cpu = (has.cpu_shares, has.cpu_quota) != (wanted.cpu_shares, wanted.cpu_quota);
    (cpu && restart("cpu")) || (has.memory != wanted.memory && restart("memory"))
}

/// What is in force for the container of `spec`: what is set aside for it, but for what its `running` life has not got yet.
/// Requests of memory are known to nobody but us: they change when everything else has.
pub fn in_force(spec: &Spec, running: Option<&Container>, before: Option<&ContainerStatus>) -> ResourceRequirements {
    let allocated = spec.resources.clone().unwrap_or_default();
    let mut all = ResourceRequirements { claims: None, ..allocated };
    let (target, Some(running)) = (resources(spec), running) else { return all };
    let has = running.resources;
    let amount = |value: Quantity| Amount(value.to_string());
    if has.cpu_shares != target.cpu_shares
        && let Some(requests) = all.requests.as_mut().filter(|r| r.contains_key("cpu"))
    {
        // As upstream reads shares (`SharesToMilliCPU`).
        let milli = has.cpu_shares.saturating_mul(1000).saturating_add(1023) / 1024;
        requests.insert("cpu".to_owned(), amount(Quantity::from_milli(milli)));
    }
    if has != target
        && let Some(requests) = all.requests.as_mut()
        && let Some(old) = before.and_then(|b| b.resources.as_ref()?.requests.as_ref()?.get("memory"))
    {
        requests.insert("memory".to_owned(), old.clone());
    }
    let mut limit = |name: &str, differs: bool, value: Option<Quantity>| {
        let Some(limits) = all.limits.as_mut().filter(|_| differs) else { return };
        match value {
            Some(value) => drop(limits.insert(name.to_owned(), amount(value))),
            None => drop(limits.remove(name)),
        }
    };
    let cpu = has.cpu_quota.map(|quota| Quantity::from_milli(quota.saturating_mul(1000) / CPU_PERIOD_MICROS));
    limit("cpu", has.cpu_quota != target.cpu_quota, cpu);
    limit("memory", has.memory != target.memory, has.memory.map(|m| Quantity::from_units(m, Format::BinarySi)));
    all
}

/// The conditions of a resize: none where there is nothing to say.
pub fn conditions(
    pod: &Pod,
    standing: &Standing,
    in_progress: bool,
    history: &PodStatus,
    now: Timestamp,
) -> Vec<PodCondition> {
    let made = |type_: &str, reason: Option<&str>, message: Option<&String>| {
        let old = condition(history, type_).filter(|old| old.reason.as_deref() == reason);
        PodCondition {
            type_: type_.to_owned(),
            status: "True".to_owned(),
            reason: reason.map(str::to_owned),
            message: message.cloned(),
            observed_generation: pod.metadata.generation,
            last_transition_time: old
                .and_then(|old| old.last_transition_time.clone())
                .or_else(|| Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now)))),
            ..PodCondition::default()
        }
    };
    let pending = standing.pending.as_ref().map(|p| made(PENDING, Some(p.reason), Some(&p.message)));
    let error = standing.error.as_ref();
    let mut progress = in_progress.then(|| made(IN_PROGRESS, error.map(|_| "Error"), error));
    if let Some(progress) = progress.as_mut().filter(|_| pending.is_some()) {
        // What is set aside is of an earlier generation than the one that waits.
        progress.observed_generation = condition(history, IN_PROGRESS).and_then(|c| c.observed_generation);
    }
    pending.into_iter().chain(progress).collect()
}

/// What an Event about a resize says: what happened, and to which resources (`podResizeMessage` in
/// `pkg/kubelet/events/event.go`).
pub fn event_message(what: &str, pod: &Pod, generation: Option<i64>, error: Option<&str>) -> String {
    let list = |containers: &[Spec]| -> Vec<Value> {
        let one = |c: &Spec| json!({"name": c.name, "resources": c.resources.clone().unwrap_or_default()});
        containers.iter().map(one).collect()
    };
    let spec = pod.spec.as_ref();
    let (init, containers) = (list(spec.map_or(&[], init_containers)), list(spec.map_or(&[], |s| &s.containers)));
    // In the order upstream writes the fields.
    let mut fields = Vec::new();
    if !init.is_empty() {
        fields.push(format!("\"initContainers\":{}", json!(init)));
    }
    if !containers.is_empty() {
        fields.push(format!("\"containers\":{}", json!(containers)));
    }
    fields.push(format!("\"generation\":{}", generation.unwrap_or(0)));
    fields.extend(error.map(|error| format!("\"error\":{}", json!(error))));
    format!("Pod resize {what}: {{{}}}", fields.join(","))
}

#[cfg(test)]
#[path = "resize_tests.rs"]
mod tests;
