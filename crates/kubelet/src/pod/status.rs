//! A pod's status as a function of what is observed (`generateAPIPodStatus` in `pkg/kubelet/kubelet_pods.go`).

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::actions::PodActions;
use super::observed::{Observed, lost_state};
use super::{Sort, ephemeral_containers, init_containers, is_sidecar, phase::phase, resize};
use crate::runtime::{Container, Exit, Phase};

/// The exit code of what could not be started.
const START_ERROR_CODE: i32 = 128;

/// What of the node is in every pod's status.
#[derive(Clone, Copy, Debug)]
pub struct NodeFacts {
    /// The node's address.
    pub ip: IpAddr,
    /// `docker`: the scheme of container ids.
    pub scheme: &'static str,
}

/// The status of `pod`, given what is `observed` and `planned` at `now`.
pub fn status(pod: &Pod, observed: &Observed<'_>, planned: &PodActions, node: NodeFacts, now: Timestamp) -> PodStatus {
    let Some(spec) = &pod.spec else { return observed.history.clone() };
    let generator = Generator { spec, observed, planned, node };
    let none = generator.never_began();
    let statuses = |containers: &[Spec], sort| if none { Vec::new() } else { generator.statuses(containers, sort) };
    let init = statuses(init_containers(spec), Sort::Init);
    let containers = statuses(&spec.containers, Sort::Main);
    let ephemeral = statuses(&ephemeral_containers(spec), Sort::Ephemeral);
    let (said, reason, message) = generator.phase(&init, &containers, pod);
    let host_network = spec.host_network == Some(true);
    let pod_ip = generator.pod_ip(host_network);
    let mut status = PodStatus {
        conditions: None,
        container_statuses: Some(containers).filter(|_| !none),
        ephemeral_container_statuses: Some(ephemeral).filter(|e| !e.is_empty()),
        host_ip: Some(node.ip.to_string()),
        host_ips: Some(vec![HostIP { ip: node.ip.to_string() }]),
        init_container_statuses: Some(init).filter(|i| !i.is_empty()),
        message,
        observed_generation: pod.metadata.generation,
        phase: Some(said.to_owned()),
        pod_ips: pod_ip.clone().map(|ip| vec![PodIP { ip }]),
        pod_ip,
        qos_class: Some(api::pods::qos_class(pod).to_owned()),
        reason,
        start_time: observed.history.start_time.clone().or_else(|| Some(seconds(now))),
        ..observed.history.clone()
    };
    status.conditions = Some(conditions(pod, spec, &status, observed, planned.resizing, now));
    status
}

/// Times in a status are whole seconds, so that reading one back compares equal.
fn seconds(time: Timestamp) -> Time {
    Time(Timestamp::from_second(time.as_second()).unwrap_or(time))
}

struct Generator<'a> {
    spec: &'a PodSpec,
    observed: &'a Observed<'a>,
    planned: &'a PodActions,
    node: NodeFacts,
}

impl Generator<'_> {
    /// Whether the pod is one that was refused: nothing of it ever was.
    fn never_began(&self) -> bool {
        let history = self.observed.history;
        let was_refused = history.phase.as_deref() == Some("Failed") && history.container_statuses.is_none();
        self.planned.refusal.is_some() || (was_refused && self.observed.state.is_empty())
    }

    /// Phase, reason and message. A terminal phase is never left again (`mergePodStatus`).
    fn phase(
        &self,
        init: &[ContainerStatus],
        containers: &[ContainerStatus],
        pod: &Pod,
    ) -> (&'static str, Option<String>, Option<String>) {
        let history = self.observed.history;
        let kept = (history.reason.clone(), history.message.clone());
        match history.phase.as_deref() {
            Some("Failed") => return ("Failed", kept.0, kept.1),
            Some("Succeeded") => return ("Succeeded", kept.0, kept.1),
            _ => {}
        }
        if let Some(refusal) = &self.planned.refusal {
            let message = format!("Pod was rejected: {}", refusal.message);
            return ("Failed", Some(refusal.reason.to_owned()), Some(message));
        }
        if self.planned.deadline_exceeded {
            let message = "Pod was active on the node longer than the specified deadline";
            return ("Failed", Some("DeadlineExceeded".to_owned()), Some(message.to_owned()));
        }
        let running = self.observed.state.containers.iter().any(Container::is_running);
        let ending = pod.metadata.deletion_timestamp.is_some() && !running;
        match phase(self.spec, init, containers, ending) {
            // It looks as if all was over, and something is still to be started again.
            "Succeeded" | "Failed" if !self.planned.ends => ("Running", None, None),
            said => (said, None, None),
        }
    }

    fn pod_ip(&self, host_network: bool) -> Option<String> {
        let state = self.observed.state;
        if host_network {
            return state
                .live_sandbox()
                .map(|_| self.node.ip.to_string())
                .or_else(|| self.observed.history.pod_ip.clone());
        }
        let live = state.live_sandbox().and_then(|s| s.ip).map(|ip| ip.to_string());
        live.or_else(|| self.observed.history.pod_ip.clone())
    }

    fn statuses(&self, containers: &[Spec], sort: Sort) -> Vec<ContainerStatus> {
        let sort = |c: &Spec| if sort == Sort::Init && is_sidecar(c) { Sort::Sidecar } else { sort };
        containers.iter().map(|c| self.container(c, sort(c))).collect()
    }

    fn container(&self, spec: &Spec, sort: Sort) -> ContainerStatus {
        let before = self.observed.status(&spec.name);
        let lives = || {
            let named = self.observed.state.containers.iter().filter(|c| c.name == spec.name);
            named.filter(|c| c.phase != Phase::Created)
        };
        let newest = lives().find(|c| c.is_running()).or(lives().next());
        let lost = if newest.is_none() { before.and_then(lost_state) } else { None };
        let state = newest.map(|c| self.state(c)).or_else(|| lost.map(terminated)).unwrap_or_default();
        let other = |c: &&Container| newest.is_none_or(|n| n.id != c.id) && c.exit().is_some();
        let older = lives().find(other).map(|c| self.state(c));
        let last_state = older.or_else(|| before.and_then(|b| last_state(b, newest)));
        let (state, last_state) = match self.waiting(spec, sort, &state) {
            Some(waiting) if state.terminated.is_some() => (waiting, Some(state)),
            Some(waiting) => (waiting, last_state),
            None => (state, last_state),
        };
        let running = newest.filter(|c| c.is_running());
        let started = running.is_some_and(|c| self.observed.has_started(spec, c));
        ContainerStatus {
            container_id: newest.map(|c| self.id(c)).or_else(|| before.and_then(|b| b.container_id.clone())),
            image: newest.map_or_else(|| spec.image.clone().unwrap_or_default(), |c| c.image.clone()),
            image_id: newest
                .map_or_else(|| before.map(|b| b.image_id.clone()).unwrap_or_default(), |c| c.image_id.clone()),
            name: spec.name.clone(),
            ready: match sort {
                Sort::Init => succeeded(&state),
                Sort::Sidecar | Sort::Main => running.is_some_and(|c| self.observed.is_ready(spec, c)),
                Sort::Ephemeral => false,
            },
            restart_count: self.observed.restart_count(&spec.name).or(before.map(|b| b.restart_count)).unwrap_or(0),
            started: Some(started).filter(|_| sort != Sort::Ephemeral),
            last_state,
            state: Some(state),
            allocated_resources: spec.resources.as_ref().and_then(|r| r.requests.clone()),
            resources: (sort != Sort::Ephemeral).then(|| resize::in_force(spec, running, before)),
            ..ContainerStatus::default()
        }
    }

    fn id(&self, container: &Container) -> String {
        format!("{}://{}", self.node.scheme, container.id)
    }

    /// The waiting state of a container that does not run and will; `None` where its own state stands.
    fn waiting(&self, spec: &Spec, sort: Sort, state: &ContainerState) -> Option<ContainerState> {
        if let Some(waiting) = self.planned.waiting.get(&spec.name) {
            return Some(waits(&waiting.reason, Some(&waiting.message)));
        }
        if state.running.is_some() || state.terminated.is_some() {
            return None;
        }
        let initializing = sort != Sort::Ephemeral && !init_containers(self.spec).is_empty();
        Some(waits(if initializing { "PodInitializing" } else { "ContainerCreating" }, None))
    }

    fn state(&self, container: &Container) -> ContainerState {
        match &container.phase {
            Phase::Created => ContainerState::default(),
            Phase::Running => ContainerState {
                running: Some(ContainerStateRunning { started_at: container.started_at.map(seconds) }),
                ..ContainerState::default()
            },
            Phase::Exited(exit) => terminated(self.terminated(container, exit)),
        }
    }

    fn terminated(&self, container: &Container, exit: &Exit) -> ContainerStateTerminated {
        let message = self.observed.messages.get(&container.id).or(container.message.as_ref());
        ContainerStateTerminated {
            container_id: Some(self.id(container)),
            // Whatever kept it from starting: upstream's runtimes have one code for it.
            exit_code: if exit.start_error.is_some() { START_ERROR_CODE } else { exit.code },
            finished_at: Some(seconds(exit.finished_at.unwrap_or(container.created_at))),
            message: exit.start_error.clone().or_else(|| message.cloned()),
            reason: Some(exit_reason(exit).to_owned()),
            signal: None,
            started_at: Some(seconds(container.started_at.unwrap_or(container.created_at))),
        }
    }
}

fn exit_reason(exit: &Exit) -> &'static str {
    match exit {
        Exit { start_error: Some(_), .. } => "StartError",
        Exit { oom_killed: true, .. } => "OOMKilled",
        Exit { code: 0, .. } => "Completed",
        _ => "Error",
    }
}

fn terminated(terminated: ContainerStateTerminated) -> ContainerState {
    ContainerState { terminated: Some(terminated), ..ContainerState::default() }
}

fn waits(reason: &str, message: Option<&str>) -> ContainerState {
    let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message: message.map(str::to_owned) };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn succeeded(state: &ContainerState) -> bool {
    state.terminated.as_ref().is_some_and(|t| t.exit_code == 0)
}

/// What the runtime no longer has of the life before: as the last status has it, unless that is the present life.
fn last_state(before: &ContainerStatus, newest: Option<&Container>) -> Option<ContainerState> {
    let ended = before.state.as_ref().filter(|s| s.terminated.is_some());
    let other = |state: &&ContainerState| {
        let id = state.terminated.as_ref().and_then(|t| t.container_id.as_deref()).unwrap_or_default();
        newest.is_some_and(|c| !id.ends_with(&c.id))
    };
    ended.filter(other).or(before.last_state.as_ref()).cloned()
}

/// The conditions the kubelet owns, with their times of transition, and all others as they were.
fn conditions(
    pod: &Pod,
    spec: &PodSpec,
    status: &PodStatus,
    observed: &Observed<'_>,
    resizing: bool,
    now: Timestamp,
) -> Vec<PodCondition> {
    let before = observed.history.conditions.as_deref().unwrap_or_default();
    let sandbox = observed.state.live_sandbox().is_some_and(|s| s.ip.is_some() || spec.host_network == Some(true));
    let containers_ready = containers_ready(spec, status);
    let mut owned = vec![
        verdict("PodReadyToStartContainers", sandbox, "", String::new()),
        initialized(spec, status),
        ready(pod, spec, &containers_ready),
        containers_ready,
    ];
    if !before.iter().any(|c| c.type_ == "PodScheduled") {
        owned.push(verdict("PodScheduled", true, "", String::new()));
    }
    for condition in &mut owned {
        let old = before.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
        condition.last_transition_time =
            old.and_then(|c| c.last_transition_time.clone()).or_else(|| Some(seconds(now)));
        condition.observed_generation = pod.metadata.generation;
    }
    owned.extend(resize::conditions(pod, observed.resize, resizing, observed.history, now));
    let is_ours = |type_: &str| matches!(type_, resize::PENDING | resize::IN_PROGRESS);
    let others = before.iter().filter(|c| !is_ours(&c.type_) && !owned.iter().any(|o| o.type_ == c.type_)).cloned();
    let others: Vec<PodCondition> = others.collect();
    owned.extend(others);
    owned
}

fn verdict(type_: &str, good: bool, reason: &str, message: String) -> PodCondition {
    PodCondition {
        type_: type_.to_owned(),
        status: if good { "True" } else { "False" }.to_owned(),
        reason: Some(reason.to_owned()).filter(|r| !r.is_empty()),
        message: Some(message).filter(|m| !m.is_empty()),
        ..PodCondition::default()
    }
}

fn initialized(spec: &PodSpec, status: &PodStatus) -> PodCondition {
    let statuses = status.init_container_statuses.as_deref().unwrap_or_default();
    let good = |init: &Spec| {
        let status = statuses.iter().find(|s| s.name == init.name);
        status.is_some_and(|s| if is_sidecar(init) { s.started == Some(true) } else { s.ready })
    };
    let begun = status.container_statuses.iter().flatten().any(|s| s.container_id.is_some());
    let missing: Vec<&str> = init_containers(spec).iter().filter(|i| !good(i)).map(|i| i.name.as_str()).collect();
    match status.phase.as_deref() {
        Some("Succeeded") => verdict("Initialized", true, "PodCompleted", String::new()),
        _ if missing.is_empty() || begun => verdict("Initialized", true, "", String::new()),
        _ => {
            let message = format!("containers with incomplete status: [{}]", missing.join(" "));
            verdict("Initialized", false, "ContainersNotInitialized", message)
        }
    }
}

fn containers_ready(spec: &PodSpec, status: &PodStatus) -> PodCondition {
    match status.phase.as_deref() {
        Some("Succeeded") => return verdict("ContainersReady", false, "PodCompleted", String::new()),
        Some("Failed") => return verdict("ContainersReady", false, "PodFailed", String::new()),
        _ => {}
    }
    let sidecars = init_containers(spec).iter().filter(|i| is_sidecar(i));
    let statuses = || status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let unready = |spec: &&Spec| !statuses().any(|s| s.name == spec.name && s.ready);
    let unready: Vec<&str> = sidecars.chain(&spec.containers).filter(unready).map(|c| c.name.as_str()).collect();
    if unready.is_empty() {
        return verdict("ContainersReady", true, "", String::new());
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    verdict("ContainersReady", false, "ContainersNotReady", message)
}

/// Ready is ContainersReady and every readiness gate (`GeneratePodReadyCondition`).
fn ready(pod: &Pod, spec: &PodSpec, containers_ready: &PodCondition) -> PodCondition {
    if containers_ready.status != "True" {
        return PodCondition { type_: "Ready".to_owned(), ..containers_ready.clone() };
    }
    let gates = spec.readiness_gates.iter().flatten().map(|gate| gate.condition_type.as_str());
    let missing = gates.filter_map(|gate| match api::pods::condition(pod, gate) {
        Some(condition) if condition.status == "True" => None,
        Some(PodCondition { status, .. }) => {
            Some(format!("the status of pod readiness gate \"{gate}\" is not \"True\", but {status}"))
        }
        None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
    });
    let missing: Vec<String> = missing.collect();
    if missing.is_empty() {
        return verdict("Ready", true, "", String::new());
    }
    verdict("Ready", false, "ReadinessGatesNotReady", missing.join(", "))
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
