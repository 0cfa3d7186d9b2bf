//! What every component must agree on about pods: readiness, terminal phases, what they request.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, EphemeralContainer, Pod, PodCondition, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::quantity::{self, Quantity};

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

/// Sets the condition of `condition.type_`. The transition time stays where the condition's status does; returns
/// whether anything changed (`UpdatePodCondition`).
pub fn set_condition(status: &mut PodStatus, mut condition: PodCondition, now: Timestamp) -> bool {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
        Some(old) => {
            let same_status = old.status == condition.status && old.last_transition_time.is_some();
            let since = if same_status { old.last_transition_time.clone() } else { Some(Time(now)) };
            condition.last_transition_time = since;
            let changed = *old != condition;
            *old = condition;
            changed
        }
        None => {
            condition.last_transition_time = Some(Time(now));
            conditions.push(condition);
            true
        }
    }
}

/// The moment from which the pod counts as available: ready for `min_ready_seconds`. `None` while it is not ready.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    let ready = condition(pod, "Ready").filter(|c| c.status == "True")?;
    match (ready.last_transition_time.as_ref(), min_ready_seconds) {
        (None, ..=0) => Some(Timestamp::UNIX_EPOCH),
        (None, _) => None,
        (Some(since), seconds) => since.0.checked_add(SignedDuration::from_secs(seconds.max(0).into())).ok(),
    }
}

/// Whether the pod has been ready for `min_ready_seconds` (`IsPodAvailable`).
pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| min_ready_seconds <= 0 || at <= now)
}

/// The status of the container `name`, of whichever sort it is.
pub fn container_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = pod.status.as_ref()?;
    [&status.container_statuses, &status.init_container_statuses, &status.ephemeral_container_statuses]
        .into_iter()
        .flat_map(|list| list.iter().flatten())
        .find(|c| c.name == name)
}

/// The container or init container `name`.
pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    pod.spec.as_ref().and_then(|s| all_containers(s).find(|c| c.name == name))
}

/// Init containers, then containers.
pub fn all_containers(spec: &PodSpec) -> impl Iterator<Item = &Container> {
    spec.init_containers.iter().flatten().chain(&spec.containers)
}

/// An ephemeral container as an ordinary one, which it is but for the container whose processes it sees.
pub fn from_ephemeral(container: &EphemeralContainer) -> Container {
    let c = container.clone();
    Container {
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        lifecycle: c.lifecycle,
        liveness_probe: c.liveness_probe,
        name: c.name,
        ports: c.ports,
        readiness_probe: c.readiness_probe,
        resize_policy: c.resize_policy,
        resources: c.resources,
        restart_policy: c.restart_policy,
        restart_policy_rules: c.restart_policy_rules,
        security_context: c.security_context,
        startup_probe: c.startup_probe,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
    }
}

/// An ordinary container as an ephemeral one that sees the processes of `target`.
pub fn to_ephemeral(container: Container, target: Option<String>) -> EphemeralContainer {
    let c = container;
    EphemeralContainer {
        target_container_name: target,
        args: c.args,
        command: c.command,
        env: c.env,
        env_from: c.env_from,
        image: c.image,
        image_pull_policy: c.image_pull_policy,
        lifecycle: c.lifecycle,
        liveness_probe: c.liveness_probe,
        name: c.name,
        ports: c.ports,
        readiness_probe: c.readiness_probe,
        resize_policy: c.resize_policy,
        resources: c.resources,
        restart_policy: c.restart_policy,
        restart_policy_rules: c.restart_policy_rules,
        security_context: c.security_context,
        startup_probe: c.startup_probe,
        stdin: c.stdin,
        stdin_once: c.stdin_once,
        termination_message_path: c.termination_message_path,
        termination_message_policy: c.termination_message_policy,
        tty: c.tty,
        volume_devices: c.volume_devices,
        volume_mounts: c.volume_mounts,
        working_dir: c.working_dir,
    }
}

/// Whether the init container runs as long as the pod does (a sidecar): `restartPolicy: Always`.
pub fn is_sidecar(init_container: &Container) -> bool {
    init_container.restart_policy.as_deref() == Some("Always")
}

/// Whether the pod stands for one the kubelet read from a file or URL (a mirror of a static pod).
pub fn is_mirror(pod: &Pod) -> bool {
    pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(crate::well_known::ANNOTATION_CONFIG_MIRROR))
}

/// A port of the node that a pod takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// Address of the node; `0.0.0.0` for all of them.
    pub ip: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port.
    pub port: i32,
}

impl HostPort {
    /// Whether two pods on one node cannot have both: same port and protocol, and the addresses meet.
    pub fn conflicts_with(&self, other: &HostPort) -> bool {
        let is_any = |ip: &str| matches!(ip, "0.0.0.0" | "::");
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || is_any(&self.ip) || is_any(&other.ip))
    }
}

/// Every port of the node that the pod takes: those of its containers and sidecars.
pub fn host_ports(pod: &Pod) -> Vec<HostPort> {
    let Some(spec) = pod.spec.as_ref() else { return Vec::new() };
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_sidecar(c));
    let ports = sidecars.chain(&spec.containers).flat_map(|c| c.ports.iter().flatten());
    let taken = ports.filter_map(|p| {
        let ip = p.host_ip.clone().filter(|ip| !ip.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
        let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        p.host_port.filter(|port| *port > 0).map(|port| HostPort { ip, protocol, port })
    });
    taken.collect()
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

impl Requests {
    fn of(amounts: Option<&BTreeMap<String, Amount>>) -> Requests {
        let amount = |name: &str| amounts.and_then(|a| a.get(name)).map_or(Quantity::ZERO, quantity::of);
        Requests {
            milli_cpu: amount("cpu").milli(),
            memory: amount("memory").units(),
            ephemeral_storage: amount("ephemeral-storage").units(),
        }
    }

    /// Both together.
    pub fn plus(self, other: Requests) -> Requests {
        Requests {
            milli_cpu: self.milli_cpu.saturating_add(other.milli_cpu),
            memory: self.memory.saturating_add(other.memory),
            ephemeral_storage: self.ephemeral_storage.saturating_add(other.ephemeral_storage),
        }
    }

    /// What is left without `other`.
    pub fn minus(self, other: Requests) -> Requests {
        Requests {
            milli_cpu: self.milli_cpu.saturating_sub(other.milli_cpu),
            memory: self.memory.saturating_sub(other.memory),
            ephemeral_storage: self.ephemeral_storage.saturating_sub(other.ephemeral_storage),
        }
    }

    /// Of each resource the greater amount.
    pub fn max(self, other: Requests) -> Requests {
        Requests {
            milli_cpu: self.milli_cpu.max(other.milli_cpu),
            memory: self.memory.max(other.memory),
            ephemeral_storage: self.ephemeral_storage.max(other.ephemeral_storage),
        }
    }
}

/// Sums up what `pod` requests. Sidecars run beside everything after them; other init containers run one by one, so
/// only the greatest counts. Requests of the pod as a whole replace the sum.
pub fn requests(pod: &Pod) -> Requests {
    sum(pod, of_container)
}

/// The most memory `pod` may have, where each of its containers has a limit (`ResourceConfigForPod`).
pub fn memory_limit(pod: &Pod) -> Option<i64> {
    let limits = |container: &Container| {
        Requests::of(container.resources.as_ref().and_then(|resources| resources.limits.as_ref()))
    };
    let spec = pod.spec.as_ref()?;
    let mut all = spec.init_containers.iter().flatten().chain(&spec.containers);
    all.all(|container| limits(container).memory > 0).then(|| sum(pod, limits).memory)
}

/// What `pod` takes of its node: while it is being resized the most of what is wanted, what its kubelet has set aside, and
/// what its containers have; of a resize that will never be, nothing counts (`PodRequests` with `UseStatusResources`).
pub fn held(pod: &Pod) -> Requests {
    let infeasible = resize_is_infeasible(pod);
    sum(pod, |container| {
        let wanted = of_container(container);
        match reported(pod, &container.name) {
            [None, None] => wanted,
            reported => {
                let known = reported.into_iter().map(Requests::of).fold(Requests::default(), Requests::max);
                if infeasible { known } else { known.max(wanted) }
            }
        }
    })
}

/// What the kubelet says of the requests of the container `name`: set aside for it, and in force.
pub(crate) fn reported<'a>(pod: &'a Pod, name: &str) -> [Option<&'a BTreeMap<String, Amount>>; 2] {
    let status = container_status(pod, name);
    let in_force = status.and_then(|s| s.resources.as_ref()?.requests.as_ref());
    [status.and_then(|s| s.allocated_resources.as_ref()), in_force]
}

/// Whether the kubelet said that the resize someone asked for can never be (`IsPodResizeInfeasible`).
pub fn resize_is_infeasible(pod: &Pod) -> bool {
    condition(pod, "PodResizePending").is_some_and(|c| c.reason.as_deref() == Some("Infeasible"))
}

fn of_container(container: &Container) -> Requests {
    Requests::of(container.resources.as_ref().and_then(|r| r.requests.as_ref()))
}

fn sum(pod: &Pod, of: impl Fn(&Container) -> Requests) -> Requests {
    let Some(spec) = pod.spec.as_ref() else { return Requests::default() };
    let mut running = spec.containers.iter().map(&of).fold(Requests::default(), Requests::plus);
    let (mut starting, mut sidecars) = (Requests::default(), Requests::default());
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        let beside = sidecars.plus(own);
        if is_sidecar(container) {
            running = running.plus(own);
            sidecars = beside;
        }
        starting = starting.max(beside);
    }
    let mut total = running.max(starting);
    if let Some(whole) = spec.resources.as_ref().and_then(|r| r.requests.as_ref()) {
        let of_pod = Requests::of(Some(whole));
        total.milli_cpu = if whole.contains_key("cpu") { of_pod.milli_cpu } else { total.milli_cpu };
        total.memory = if whole.contains_key("memory") { of_pod.memory } else { total.memory };
    }
    total.plus(Requests::of(spec.overhead.as_ref()))
}

/// `Guaranteed`, `Burstable` or `BestEffort` (`GetPodQOS`): whether every container has limits for cpu and memory
/// that equal its requests, any has either, or none has.
pub fn qos_class(pod: &Pod) -> &'static str {
    let Some(spec) = pod.spec.as_ref() else { return "BestEffort" };
    let of_pod = spec.resources.as_ref().filter(|r| r.requests.is_some() || r.limits.is_some());
    let all: Vec<_> = match of_pod {
        Some(resources) => vec![Some(resources)],
        None => all_containers(spec).map(|c| c.resources.as_ref()).collect(),
    };
    let (mut requests, mut limits) = (BTreeMap::new(), BTreeMap::new());
    let mut all_limited = true;
    for resources in all {
        add_compute(&mut requests, resources.and_then(|r| r.requests.as_ref()));
        all_limited &= add_compute(&mut limits, resources.and_then(|r| r.limits.as_ref())) == 2;
    }
    match (requests.is_empty() && limits.is_empty(), all_limited && requests == limits) {
        (true, _) => "BestEffort",
        (_, true) => "Guaranteed",
        _ => "Burstable",
    }
}

/// Adds cpu (in thousandths) and memory, where they are more than nothing; says how many of the two there are.
fn add_compute(sums: &mut BTreeMap<&'static str, i128>, amounts: Option<&BTreeMap<String, Amount>>) -> usize {
    let mut found = 0;
    for name in ["cpu", "memory"] {
        let milli = amounts.and_then(|a| a.get(name)).map_or(0, |amount| quantity::of(amount).milli());
        if milli > 0 {
            found += 1;
            *sums.entry(name).or_default() += i128::from(milli);
        }
    }
    found
}

#[cfg(test)]
mod tests;
