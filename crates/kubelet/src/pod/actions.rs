//! What must happen so that what runs matches the pod: the decision behind every pod worker. Compare
//! `computePodActions` in `pkg/kubelet/kuberuntime/kuberuntime_manager.go`.
//!
//! Ending a container is two actions, [`Action::Terminate`] now and [`Action::Kill`] when its grace has passed, so
//! that no worker ever sits in a call that waits for someone else's process.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container as Spec, Pod, PodSpec};

use super::observed::{Ended, Last, Observed};
use super::{RestartPolicy, backoff, container_hash, init_containers, is_sidecar, restart_policy};
use crate::clock::{after, until};
use crate::runtime::{Container, Sandbox};

/// A killed container that still runs is killed again after this long.
const KILL_AGAIN: Duration = Duration::from_secs(10);

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
    /// Ask a container to end.
    Terminate {
        /// Its id.
        id: String,
        /// Its name in the spec.
        name: String,
        /// Why.
        reason: KillReason,
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
}

impl KillReason {
    /// The message of the Killing event.
    pub fn message(self, name: &str) -> String {
        match self {
            KillReason::DefinitionChanged => format!("Container {name} definition changed, will be restarted"),
            _ => format!("Stopping container {name}"),
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
    /// Whether the pod passed its active deadline.
    pub deadline_exceeded: bool,
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
    let Some(spec) = &pod.spec else { return PodActions { gone: true, ..PodActions::default() } };
    let mut plan = Planner { pod, spec, observed, now, out: PodActions::default() };
    match plan.goal() {
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
        let done = |last| matches!(last, Last::Ended(ended) if !self.restarts(&ended));
        self.spec.containers.iter().all(|c| done(self.observed.last(&c.name)))
    }

    /// Whether an init container failed that is not to be tried again.
    fn initialization_failed(&self) -> bool {
        let failed = |last| matches!(last, Last::Ended(ended) if ended.code != 0);
        restart_policy(self.spec) == RestartPolicy::Never
            && init_containers(self.spec).iter().any(|i| !is_sidecar(i) && failed(self.observed.last(&i.name)))
    }

    fn active_deadline(&self) -> Option<Timestamp> {
        let seconds = u64::try_from(self.spec.active_deadline_seconds?).ok()?;
        let start = self.observed.history.start_time.as_ref().map_or(self.now, |t| t.0);
        Some(after(start, Duration::from_secs(seconds)))
    }

    fn wake(&mut self, at: Timestamp) {
        self.out.wake_at = Some(self.out.wake_at.map_or(at, |earlier| earlier.min(at)));
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

    /// The sandbox runs: init containers one by one, then all others.
    fn run_in(&mut self, sandbox: &Sandbox) {
        if self.held("") || self.terminate_strays(sandbox) || !self.initialized(sandbox) {
            return;
        }
        let spec = self.spec;
        for container in &spec.containers {
            self.keep_running(container);
        }
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

    /// Whether the init containers have done their work, so that the others may start; otherwise starts the next.
    fn initialized(&mut self, sandbox: &Sandbox) -> bool {
        let spec = self.spec;
        let begun = spec.containers.iter().any(|c| self.observed.last_in(&c.name, &sandbox.id) != Last::Never);
        for init in init_containers(spec) {
            if is_sidecar(init) {
                let running = matches!(self.observed.last_in(&init.name, &sandbox.id), Last::Running(_));
                self.keep_running(init);
                if !running && !begun {
                    return false;
                }
                continue;
            }
            if begun {
                continue;
            }
            match self.observed.last_in(&init.name, &sandbox.id) {
                Last::Ended(ended) if ended.code == 0 => {}
                Last::Running(_) => return false,
                _ => {
                    self.start(init);
                    return false;
                }
            }
        }
        true
    }

    /// Sees to one container that is to run while the pod does.
    fn keep_running(&mut self, container: &Spec) {
        match self.observed.last(&container.name) {
            Last::Running(running) if running.hash != container_hash(container) => {
                self.terminate(running, KillReason::DefinitionChanged);
            }
            Last::Running(_) => {}
            Last::Ended(ended) if !is_sidecar(container) && !self.restarts(&ended) => {}
            Last::Never | Last::Created(_) | Last::Ended(_) => self.start(container),
        }
    }

    fn restarts(&self, ended: &Ended) -> bool {
        match restart_policy(self.spec) {
            RestartPolicy::Always => true,
            RestartPolicy::OnFailure => ended.code != 0,
            RestartPolicy::Never => false,
        }
    }

    /// Starts `container`, unless its back-off or a failed start say not yet.
    fn start(&mut self, container: &Spec) {
        let (restart_count, step) = match self.observed.last(&container.name) {
            Last::Never => (0, backoff::Step::default()),
            Last::Created(created) => {
                (created.restart_count, backoff::Step { next: created.backoff, ..Default::default() })
            }
            Last::Running(running) => (running.restart_count + 1, backoff::Step::default()),
            Last::Ended(ended) => {
                let step = self.step(container, &ended);
                if let Some(at) = ended.finished_at.map(|at| after(at, step.wait)).filter(|at| *at > self.now) {
                    self.back_off(container, at, step.wait);
                    return;
                }
                (ended.restart_count + 1, step)
            }
        };
        if self.held(&container.name) {
            return;
        }
        self.out.actions.push(Action::Start { name: container.name.clone(), restart_count, backoff: step.next });
    }

    /// A container whose definition changed since, or an init container that had succeeded, does not wait.
    fn step(&self, container: &Spec, ended: &Ended) -> backoff::Step {
        let changed = ended.hash.as_ref().is_some_and(|hash| *hash != container_hash(container));
        let rerun =
            ended.code == 0 && init_containers(self.spec).iter().any(|i| i.name == container.name && !is_sidecar(i));
        if changed || rerun { backoff::Step::default() } else { backoff::step(ended.backoff, ended.ran) }
    }

    fn back_off(&mut self, container: &Spec, at: Timestamp, wait: Duration) {
        let message = format!(
            "back-off {} restarting failed container={} pod={}",
            crate::names::go_duration(wait),
            container.name,
            super::full_name(self.pod)
        );
        self.out.waiting.insert(container.name.clone(), Waiting { reason: "CrashLoopBackOff".to_owned(), message });
        self.wake(at);
    }

    /// Whether a failed start holds `name` back.
    fn held(&mut self, name: &str) -> bool {
        let Some(hold) = self.observed.holds.get(name).filter(|hold| hold.until > self.now) else { return false };
        if !name.is_empty() {
            let waiting = Waiting { reason: hold.reason.clone(), message: hold.message.clone() };
            self.out.waiting.insert(name.to_owned(), waiting);
        }
        self.wake(hold.until);
        true
    }

    /// The pod ends: its containers, then its sidecars, then its sandbox.
    fn end(&mut self) {
        if self.terminate_all(KillReason::PodEnds) {
            return;
        }
        self.sweep();
        for sandbox in &self.observed.state.sandboxes {
            self.remove_id(&sandbox.id);
        }
    }

    /// Nothing is to be left.
    fn remove(&mut self) {
        if self.terminate_all(KillReason::PodEnds) {
            return;
        }
        for container in &self.observed.state.containers {
            self.remove_id(&container.id);
        }
        for sandbox in &self.observed.state.sandboxes {
            self.remove_id(&sandbox.id);
        }
        self.out.gone = self.observed.state.is_empty();
    }

    fn remove_id(&mut self, id: &str) {
        let action = Action::Remove { id: id.to_owned() };
        if !self.out.actions.contains(&action) {
            self.out.actions.push(action);
        }
    }

    /// Ends everything that runs, sidecars last; whether anything still does.
    fn terminate_all(&mut self, reason: KillReason) -> bool {
        let state = self.observed.state;
        let running: Vec<&Container> = state.containers.iter().filter(|c| c.is_running()).collect();
        let (sidecars, others): (Vec<&Container>, Vec<&Container>) =
            running.into_iter().partition(|c| self.is_sidecar(c));
        for container in if others.is_empty() { &sidecars } else { &others } {
            self.terminate(container, reason);
        }
        !(sidecars.is_empty() && others.is_empty())
    }

    fn is_sidecar(&self, container: &Container) -> bool {
        init_containers(self.spec).iter().any(|i| i.name == container.name && is_sidecar(i))
    }

    /// Asks `container` to end, or kills it when its grace has passed.
    fn terminate(&mut self, container: &Container, reason: KillReason) {
        let Some(termination) = self.observed.terminations.get(&container.id) else {
            let (id, name) = (container.id.clone(), container.name.clone());
            self.out.actions.push(Action::Terminate { id, name, reason });
            return;
        };
        let grace = super::grace(self.pod);
        let due = termination.killed_at.map_or(after(termination.asked_at, grace), |at| after(at, KILL_AGAIN));
        if until(self.now, due).is_zero() {
            self.out.actions.push(Action::Kill { id: container.id.clone() });
        } else {
            self.wake(due);
        }
    }

    /// Removes what no one will look at again: dead sandboxes, containers that never started, and of ended containers
    /// all but the newest of each name. Of two that run under one name the older goes.
    fn sweep(&mut self) {
        let state = self.observed.state;
        let live = state.live_sandbox().map(|s| s.id.as_str());
        for sandbox in state.sandboxes.iter().filter(|s| Some(s.id.as_str()) != live) {
            // The newest dead sandbox carries the attempt count until its successor lives.
            if live.is_some() || state.sandboxes.first().is_some_and(|newest| newest.id != sandbox.id) {
                self.remove_id(&sandbox.id);
            }
        }
        let mut ended: Vec<&str> = Vec::new();
        let mut running: Vec<&str> = Vec::new();
        for container in &state.containers {
            let name = container.name.as_str();
            let kept = match container.exit() {
                _ if super::container(self.spec, name).is_none() => container.is_running(),
                Some(_) => !ended.contains(&name),
                None => container.is_running() && !running.contains(&name),
            };
            if kept && container.is_running() && super::container(self.spec, name).is_none() {
                self.terminate(container, KillReason::Unwanted);
            }
            if !kept {
                self.remove_id(&container.id);
            }
            if container.is_running() {
                running.push(name)
            } else if container.exit().is_some() {
                ended.push(name)
            }
        }
    }
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;
