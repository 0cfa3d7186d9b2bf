//! The columns of `kubectl get pods` (`printPod` upstream): a pod's state in one word.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use crate::kinds::{AGE, Column, NAME, column, wide};
use crate::pods;
use crate::printing::{or_none, since};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Ready", "string", "Containers that are ready, of how many"),
    column("Status", "string", "What the pod is doing, or why not"),
    column("Restarts", "string", "How often its containers were restarted, and when last"),
    AGE,
    wide("IP", "string", "Address of the pod"),
    wide("Node", "string", "Node the pod is bound to"),
    wide("Nominated Node", "string", "Node the pod waits for"),
    wide("Readiness Gates", "string", "Readiness gates that are true, of how many"),
];

pub(super) fn cells(pod: &Pod, now: Timestamp) -> Vec<Value> {
    let (no_spec, no_status) = (PodSpec::default(), PodStatus::default());
    let spec = pod.spec.as_ref().unwrap_or(&no_spec);
    let status = pod.status.as_ref().unwrap_or(&no_status);
    let sidecars = spec.init_containers.iter().flatten().filter(|c| is_restartable(c)).count();
    let seen = observe(pod, spec, status);
    vec![
        json!(pod.metadata.name),
        json!(format!("{}/{}", seen.ready, spec.containers.len() + sidecars)),
        json!(seen.reason),
        json!(seen.restarts.text(now)),
        crate::printing::age(&pod.metadata, now),
        or_none(status.pod_ips.iter().flatten().next().map(|i| i.ip.as_str()).or(status.pod_ip.as_deref())),
        or_none(spec.node_name.as_deref()),
        or_none(status.nominated_node_name.as_deref()),
        readiness_gates(pod, spec),
    ]
}

/// What the statuses of a pod's containers add up to.
struct Seen {
    reason: String,
    ready: usize,
    restarts: Restarts,
}

/// How often, and when last.
#[derive(Clone, Default)]
struct Restarts {
    count: i64,
    last: Option<Time>,
}

impl Restarts {
    fn add(&mut self, container: &ContainerStatus) {
        self.count += i64::from(container.restart_count);
        let ended = container.last_state.as_ref().and_then(|s| s.terminated.as_ref()?.finished_at.as_ref());
        if let Some(ended) = ended
            && self.last.as_ref().is_none_or(|last| last.0 < ended.0)
        {
            self.last = Some(ended.clone());
        }
    }

    /// `2 (5m ago)`.
    fn text(&self, now: Timestamp) -> String {
        match &self.last {
            Some(last) if self.count != 0 => format!("{} ({} ago)", self.count, since(Some(last), now)),
            _ => self.count.to_string(),
        }
    }
}

fn observe(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> Seen {
    let gated = pods::condition(pod, "PodScheduled").filter(|c| c.reason.as_deref() == Some("SchedulingGated"));
    let phase = status.reason.as_deref().filter(|r| !r.is_empty()).unwrap_or(pods::phase(pod));
    let mut seen = Seen {
        reason: if gated.is_some() { "SchedulingGated" } else { phase }.to_owned(),
        ready: 0,
        restarts: Restarts::default(),
    };
    let initializing = observe_init_containers(spec, status, &mut seen);
    if !initializing || pods::condition(pod, "Initialized").is_some_and(|c| c.status == "True") {
        observe_containers(pod, spec, status, &mut seen);
    }
    if pods::is_terminating(pod) && status.reason.as_deref() == Some("NodeLost") {
        seen.reason = "Unknown".to_owned();
    } else if pods::is_terminating(pod) && !pods::is_terminal(pod) {
        seen.reason = "Terminating".to_owned();
    }
    seen
}

/// Whether an init container is still at work; if so it gives the pod its word.
fn observe_init_containers(spec: &PodSpec, status: &PodStatus, seen: &mut Seen) -> bool {
    let total = spec.init_containers.as_ref().map_or(0, Vec::len);
    for (index, container) in status.init_container_statuses.iter().flatten().enumerate() {
        seen.restarts.add(container);
        let state = container.state.as_ref();
        let terminated = state.and_then(|s| s.terminated.as_ref());
        if terminated.is_some_and(|t| t.exit_code == 0) {
            continue;
        }
        if is_sidecar(spec, container) && container.started == Some(true) {
            seen.ready += usize::from(container.ready);
            continue;
        }
        let waiting = state.and_then(|s| s.waiting.as_ref()?.reason.as_deref()).unwrap_or("");
        seen.reason = match terminated {
            Some(terminated) => format!("Init:{}", ending(terminated)),
            None if !waiting.is_empty() && waiting != "PodInitializing" => format!("Init:{waiting}"),
            None => format!("Init:{index}/{total}"),
        };
        return true;
    }
    false
}

fn observe_containers(pod: &Pod, spec: &PodSpec, status: &PodStatus, seen: &mut Seen) {
    let mut has_running = false;
    seen.restarts = Restarts::default();
    for sidecar in status.init_container_statuses.iter().flatten().filter(|c| is_sidecar(spec, c)) {
        seen.restarts.add(sidecar);
    }
    for container in status.container_statuses.iter().flatten().rev() {
        seen.restarts.add(container);
        let Some(state) = container.state.as_ref() else { continue };
        let waiting = state.waiting.as_ref().and_then(|w| w.reason.as_deref()).unwrap_or("");
        if !waiting.is_empty() {
            seen.reason = waiting.to_owned();
        } else if let Some(terminated) = &state.terminated {
            seen.reason = ending(terminated);
        } else if container.ready && state.running.is_some() {
            has_running = true;
            seen.ready += 1;
        }
    }
    if seen.reason == "Completed" && has_running {
        seen.reason = if pods::is_ready(pod) { "Running" } else { "NotReady" }.to_owned();
    }
}

/// `Completed`, `Error`, `Signal:9`, `ExitCode:3`.
fn ending(terminated: &ContainerStateTerminated) -> String {
    match (terminated.reason.as_deref().unwrap_or(""), terminated.signal.unwrap_or(0)) {
        ("", 0) => format!("ExitCode:{}", terminated.exit_code),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

fn is_restartable(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Whether a status belongs to an init container that runs as long as the pod does.
fn is_sidecar(spec: &PodSpec, status: &ContainerStatus) -> bool {
    spec.init_containers.iter().flatten().any(|c| c.name == status.name && is_restartable(c))
}

fn readiness_gates(pod: &Pod, spec: &PodSpec) -> Value {
    let gates = spec.readiness_gates.as_deref().unwrap_or(&[]);
    if gates.is_empty() {
        return json!("<none>");
    }
    let is_true = |gate: &str| pods::condition(pod, gate).is_some_and(|c| c.status == "True");
    json!(format!("{}/{}", gates.iter().filter(|g| is_true(&g.condition_type)).count(), gates.len()))
}
