//! What must happen so that what runs matches the pod: the decision behind every pod worker. Compare
//! `computePodActions` in `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.
//!
//! Ending a container is three actions: [`Action::Terminate`] announces it and starts its preStop hook,
//! [`Action::Signal`] asks it to end when the hook is over and its turn has come, and [`Action::Kill`] ends it when its
//! grace has passed; so no worker ever sits in a call that waits for someone else's process.
//!
//! - [`start`]: what is to run, and when it may start again;
//! - `resize`: what runs is given what is set aside for it;
//! - [`end`]: how what runs is ended, and what is left over is removed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod, PodSpec};

use super::admit::{Refusal, refusal};
use super::observed::{Last, Observed};
use super::{Sort, init_containers, init_restarts, is_sidecar};
use crate::clock::after;
use crate::runtime::{Container, Resources, Sandbox};

mod end;
#[cfg(test)]
mod properties;
mod resize;
mod start;
#[cfg(test)]
mod tests;

pub(crate) use resize::HOLD as HOLD_RESIZE;

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a sandbox.
    CreateSandbox {
        /// How many the pod had before.
        attempt: u32,
    },
    /// Make and start a container.
    Start {
        /// Its name in the spec.
        name: String,
        /// How often it was restarted before.
        restart_count: i32,
        /// The wait to write on it.
        backoff: Duration,
    },
    /// Say that a container is to end, and start its preStop hook if it has one.
    Terminate {
        /// Its id.
        id: String,
        /// Its name in the spec.
        name: String,
        /// Why.
        reason: KillReason,
        /// How long it may take.
        grace: Duration,
    },
    /// Let containers use what is set aside for them, those first that come to use less.
    Resize {
        /// Which.
        containers: Vec<Resized>,
    },
    /// Ask a container to end.
    Signal {
        /// Its id.
        id: String,
    },
    /// End a container whose grace has passed.
    Kill {
        /// Its id.
        id: String,
    },
    /// Remove a container or sandbox that is of no more use.
    Remove {
        /// Its id.
        id: String,
    },
}

/// A container that is to use something else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resized {
    /// Its id.
    pub id: String,
    /// Its name in the spec.
    pub name: String,
    /// What it uses now.
    pub has: Resources,
    /// What it is to use.
    pub wanted: Resources,
}

impl Resized {
    /// Whether its memory becomes less.
    pub fn takes_memory(&self) -> bool {
        self.wanted.memory.is_some_and(|wanted| self.has.memory.is_none_or(|has| wanted < has))
    }
}

/// Why a container must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// The pod ends: deleted, past its deadline, or its other containers are done.
    PodEnds,
    /// The pod's definition changed under it.
    DefinitionChanged,
    /// Its sandbox is gone.
    SandboxChanged,
    /// The pod no longer has such a container.
    Unwanted,
    /// Its liveness probe failed.
    LivenessProbe {
        /// Whether it is to run again.
        restarts: bool,
    },
    /// Its startup probe failed.
    StartupProbe {
        /// Whether it is to run again.
        restarts: bool,
    },
    /// Its postStart hook failed.
    PostStartHook,
    /// It must start anew to use what is set aside for it.
    Resize,
}

impl KillReason {
    /// The message of the Killing event.
    pub fn message(self, name: &str) -> String {
        let failed = |what: &str, restarts: bool| {
            format!("Container {name} failed {what} probe{}", if restarts { ", will be restarted" } else { "" })
        };
        match self {
            KillReason::DefinitionChanged => format!("Container {name} definition changed, will be restarted"),
            KillReason::LivenessProbe { restarts } => failed("liveness", restarts),
            KillReason::StartupProbe { restarts } => failed("startup", restarts),
            KillReason::PostStartHook => "FailedPostStartHook".to_owned(),
            KillReason::Resize => format!("Container {name} resize requires restart"),
            KillReason::PodEnds | KillReason::SandboxChanged | KillReason::Unwanted => {
                format!("Stopping container {name}")
            }
        }
    }
}

/// Why a container does not run, as its waiting state says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// `CrashLoopBackOff`.
    pub reason: String,
    /// In words.
    pub message: String,
}

/// What must happen to a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodActions {
    /// What to do now, in order.
    pub actions: Vec<Action>,
    /// When to look again even if nothing happens.
    pub wake_at: Option<Timestamp>,
    /// Containers that wait, and why.
    pub waiting: BTreeMap<String, Waiting>,
    /// Whether the pod is to be nothing but removed, and nothing of it is left.
    pub gone: bool,
    /// Whether nothing of the pod is to be started any more.
    pub ends: bool,
    /// Whether the pod passed its active deadline.
    pub deadline_exceeded: bool,
    /// Why the node does not run the pod, if it does not.
    pub refusal: Option<Refusal>,
    /// Whether a container does not yet use what is set aside for it.
    pub resizing: bool,
}

/// What a pod is to become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    /// Its containers run as its policy says.
    Run,
    /// Nothing of it runs any more; its ended containers stay for their logs.
    End,
    /// Nothing is left.
    Remove,
}

/// What must happen to `pod`, given what is `observed` at `now`. Planning again on the result returns no actions.
pub fn pod_actions(pod: &Pod, observed: &Observed<'_>, now: Timestamp) -> PodActions {
    let Some(spec) = &pod.spec else { return PodActions { gone: true, ends: true, ..PodActions::default() } };
    let mut plan = Planner { pod, spec, observed, now, resized: Vec::new(), out: PodActions::default() };
    let goal = plan.goal();
    plan.out.ends = goal != Goal::Run;
    match goal {
        Goal::Run => plan.run(),
        Goal::End => plan.end(),
        Goal::Remove => plan.remove(),
    }
    plan.out
}

struct Planner<'a> {
    pod: &'a Pod,
    spec: &'a PodSpec,
    observed: &'a Observed<'a>,
    now: Timestamp,
    resized: Vec<Resized>,
    out: PodActions,
}

impl<'a> Planner<'a> {
    fn goal(&mut self) -> Goal {
        if self.observed.gone || self.pod.metadata.deletion_timestamp.is_some() {
            return Goal::Remove;
        }
        if matches!(self.observed.history.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return Goal::End;
        }
        if self.observed.state.is_empty() {
            let refused = self.observed.refused.cloned();
            self.out.refusal = refused.or_else(|| refusal(self.pod, self.observed.abilities));
            if self.out.refusal.is_some() {
                return Goal::End;
            }
        }
        if self.finished() || self.initialization_failed() {
            return Goal::End;
        }
        if let Some(deadline) = self.active_deadline() {
            if self.now >= deadline {
                self.out.deadline_exceeded = true;
                return Goal::End;
            }
            self.wake(deadline);
        }
        Goal::Run
    }

    /// Whether every container ended and none is to run again.
    fn finished(&self) -> bool {
        let done = |c: &Spec| matches!(self.observed.last(&c.name), Last::Ended(ended) if !self.restarts(c, &ended));
        self.spec.containers.iter().all(done)
    }

    /// Whether an init container failed that is not to be tried again.
    fn initialization_failed(&self) -> bool {
        let failed = |init: &Spec| match self.observed.last(&init.name) {
            Last::Ended(ended) => ended.code != 0 && !init_restarts(self.spec, init, ended.code),
            _ => false,
        };
        init_containers(self.spec).iter().any(|i| !is_sidecar(i) && failed(i))
    }

    fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = u64::try_from(self.spec.active_deadline_seconds?).ok()?;
        let start = self.observed.history.start_time.as_ref().map_or(self.now, |t| t.0);
        Some(after(start, Duration::from_secs(seconds)))
    }

    fn wake(&mut self, at: Timestamp) {
        self.out.wake_at = Some(self.out.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn sort(&self, name: &str) -> Option<Sort> {
        super::sort(self.spec, name)
    }

    /// The pod runs, or is on its way to.
    fn run(&mut self) {
        self.sweep();
        let observed = self.observed;
        match observed.state.live_sandbox() {
            Some(sandbox) => self.run_in(sandbox),
            None => self.run_without_sandbox(),
        }
    }

    fn run_without_sandbox(&mut self) {
        if self.terminate_all(KillReason::SandboxChanged) {
            return;
        }
        if self.held("") || !(self.observed.network_ready || self.host_network()) {
            return;
        }
        let attempt = self.observed.state.sandboxes.first().map_or(0, |s| s.attempt.saturating_add(1));
        self.out.actions.push(Action::CreateSandbox { attempt });
    }

    fn host_network(&self) -> bool {
        self.spec.host_network == Some(true)
    }

    /// The sandbox runs: ephemeral containers at once, init containers one by one, then all others.
    fn run_in(&mut self, sandbox: &Sandbox) {
        if self.held("") || self.terminate_strays(sandbox) {
            return;
        }
        for container in super::ephemeral_containers(self.spec) {
            if self.observed.last(&container.name) == Last::Never {
                self.start(&container);
            }
        }
        if !self.initialized(sandbox) {
            return;
        }
        let spec = self.spec;
        for container in &spec.containers {
            self.keep_running(container);
        }
        self.resize();
    }

    /// Ends what runs in a sandbox of earlier; whether anything still does.
    fn terminate_strays(&mut self, sandbox: &Sandbox) -> bool {
        let state = self.observed.state;
        let strays = state.containers.iter().filter(|c| c.is_running() && c.sandbox_id != sandbox.id);
        let strays: Vec<&Container> = strays.filter(|c| !self.is_removed(&c.id)).collect();
        strays.iter().for_each(|stray| self.terminate(stray, KillReason::SandboxChanged));
        !strays.is_empty()
    }

    /// Whether the plan so far removes the container.
    fn is_removed(&self, id: &str) -> bool {
        self.out.actions.iter().any(|action| matches!(action, Action::Remove { id: removed } if removed == id))
    }
}
