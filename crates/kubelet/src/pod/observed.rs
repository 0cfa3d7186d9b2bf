//! What is known about a pod at one moment: what the runtime has, what its last status said, what is being waited for.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, ContainerStateTerminated, ContainerStatus, PodStatus};

use super::admit::{Abilities, Refusal};
use super::probe::Health;
use super::resize::Standing;
use crate::node::container_gc;
use crate::runtime::{Container, PodState, Resources};

/// A start that failed and is not tried again before a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// When it may be tried again.
    pub until: Timestamp,
    /// The reason in the container's waiting state, `ErrImagePull`.
    pub reason: String,
    /// The message in the container's waiting state.
    pub message: String,
}

/// What was done to end a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termination {
    /// When that began.
    pub asked_at: Timestamp,
    /// Whether its preStop hook still runs.
    pub hook_runs: bool,
    /// When it was asked to end.
    pub signaled_at: Option<Timestamp>,
    /// When it was killed, its grace having passed.
    pub killed_at: Option<Timestamp>,
}

impl Termination {
    /// One that begins `asked_at`, with a preStop hook or without.
    pub fn new(asked_at: Timestamp, hook_runs: bool) -> Termination {
        Termination { asked_at, hook_runs, signaled_at: None, killed_at: None }
    }
}

/// The observation a plan is made from.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// What the runtime has.
    pub state: &'a PodState,
    /// The last status written: it remembers containers the runtime has lost.
    pub history: &'a PodStatus,
    /// Failed starts by container name; `""` holds the whole pod.
    pub holds: &'a BTreeMap<String, Hold>,
    /// Containers being ended, by id.
    pub terminations: &'a BTreeMap<String, Termination>,
    /// Whether the pod network exists.
    pub network_ready: bool,
    /// Whether the pod's object is gone from the API (deleted by force, or the node was emptied).
    pub gone: bool,
    /// What probes and hooks said of containers, by id.
    pub health: &'a BTreeMap<String, Health>,
    /// What the node can do.
    pub abilities: Abilities,
    /// Why the node did not admit the pod, if it did not.
    pub refused: Option<&'a Refusal>,
    /// Last words of ended containers, by id.
    pub messages: &'a BTreeMap<String, String>,
    /// What containers were given to use last, by id: an engine may not say so.
    pub actuated: &'a BTreeMap<String, Resources>,
    /// What is kept of containers that ended.
    pub dead: container_gc::Policy,
    /// How the pod's resize stands.
    pub resize: &'a Standing,
}

/// The latest of a container's lives.
#[derive(Clone, Debug, PartialEq)]
pub enum Last<'a> {
    /// It never was.
    Never,
    /// It was made and not started.
    Created(&'a Container),
    /// It runs.
    Running(&'a Container),
    /// It ended.
    Ended(Ended<'a>),
}

/// What counts of a container that ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended<'a> {
    /// Its id; `None` where it is lost.
    pub id: Option<&'a str>,
    /// How often containers of this name were restarted before it.
    pub restart_count: i32,
    /// Its exit code.
    pub code: i32,
    /// When it ended, as well as that is known.
    pub finished_at: Option<Timestamp>,
    /// How long it ran.
    pub ran: Duration,
    /// The wait written on it.
    pub backoff: Duration,
    /// The hash written on it; `None` where the container is lost.
    pub hash: Option<String>,
    /// The sandbox it was in.
    pub sandbox_id: Option<String>,
}

impl<'a> Observed<'a> {
    /// The latest life of the container `name`.
    pub fn last(&self, name: &str) -> Last<'a> {
        match self.state.current(name) {
            Some(container) => life(container),
            None => self.lost(name).map_or(Last::Never, Last::Ended),
        }
    }

    /// The latest life of the container `name` in the sandbox `sandbox_id`.
    pub fn last_in(&self, name: &str, sandbox_id: &str) -> Last<'a> {
        let mut lives = self.state.containers.iter().filter(|c| c.name == name && c.sandbox_id == sandbox_id);
        let newest = lives.clone().next();
        lives.find(|c| c.is_running()).or(newest).map_or(Last::Never, life)
    }

    /// How often the container `name` has started again so far, counted by what ended; `None`: it never was.
    pub fn restart_count(&self, name: &str) -> Option<i32> {
        match self.last(name) {
            Last::Never => None,
            Last::Created(container) | Last::Running(container) => Some(container.restart_count),
            Last::Ended(ended) => Some(ended.restart_count),
        }
    }

    /// What the last status said of the container `name`.
    pub fn status(&self, name: &str) -> Option<&'a ContainerStatus> {
        let history = self.history;
        let statuses = history.container_statuses.iter().chain(&history.init_container_statuses);
        statuses.chain(&history.ephemeral_container_statuses).flatten().find(|s| s.name == name)
    }

    /// What probes and hooks said of the container with this id.
    pub fn health(&self, id: &str) -> Health {
        self.health.get(id).copied().unwrap_or_default()
    }

    /// Whether the `running` container of `spec` has started: at once, unless it has a probe for that.
    pub fn has_started(&self, spec: &Spec, running: &Container) -> bool {
        let health = self.health(&running.id);
        !health.hook_failed && (spec.startup_probe.is_none() || health.started == Some(true))
    }

    /// Whether the `running` container of `spec` is ready: once it has started and its readiness probe says so.
    pub fn is_ready(&self, spec: &Spec, running: &Container) -> bool {
        let probed = spec.readiness_probe.is_none() || self.health(&running.id).ready == Some(true);
        probed && self.has_started(spec, running)
    }

    /// A container the status knows and the runtime does not.
    fn lost(&self, name: &str) -> Option<Ended<'a>> {
        let status = self.status(name)?;
        let terminated = lost_state(status)?;
        let started_at = terminated.started_at.map(|t| t.0);
        let finished_at = terminated.finished_at.map(|t| t.0);
        Some(Ended {
            id: None,
            restart_count: status.restart_count,
            code: terminated.exit_code,
            finished_at,
            ran: ran(started_at, finished_at),
            backoff: if status.restart_count == 0 { Duration::ZERO } else { super::backoff::INITIAL },
            hash: None,
            sandbox_id: None,
        })
    }
}

/// How a container ended of which only the status is left: as the status says, or, if it ran when last seen, unknown
/// (`ContainerStatusUnknown` in `pkg/kubelet/kubelet_pods.go`).
pub fn lost_state(status: &ContainerStatus) -> Option<ContainerStateTerminated> {
    let state = status.state.as_ref();
    if let Some(terminated) = state.and_then(|s| s.terminated.clone()) {
        return Some(terminated);
    }
    if let Some(running) = state.and_then(|s| s.running.as_ref()) {
        return Some(ContainerStateTerminated {
            exit_code: crate::KILLED_EXIT_CODE,
            reason: Some("ContainerStatusUnknown".to_owned()),
            message: Some("The container could not be located when the pod was terminated".to_owned()),
            container_id: status.container_id.clone(),
            started_at: running.started_at.clone(),
            ..ContainerStateTerminated::default()
        });
    }
    status.last_state.as_ref().and_then(|s| s.terminated.clone())
}

fn life(container: &Container) -> Last<'_> {
    match container.exit() {
        None if container.is_running() => Last::Running(container),
        None => Last::Created(container),
        Some(exit) => Last::Ended(Ended {
            id: Some(&container.id),
            restart_count: container.restart_count,
            code: exit.code,
            finished_at: Some(exit.finished_at.unwrap_or(container.created_at)),
            ran: ran(container.started_at, exit.finished_at),
            backoff: container.backoff,
            hash: Some(container.hash.clone()),
            sandbox_id: Some(container.sandbox_id.clone()),
        }),
    }
}

fn ran(started_at: Option<Timestamp>, finished_at: Option<Timestamp>) -> Duration {
    match (started_at, finished_at) {
        (Some(started), Some(finished)) => crate::clock::until(started, finished),
        _ => Duration::ZERO,
    }
}
