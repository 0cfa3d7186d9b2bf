//! How what runs is ended: its hook, its signal when its turn has come, and at last by force
//! (`killContainer`, `pkg/kubelet/kuberuntime/kuberuntime_termination_order.go`); and what is removed.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

use super::super::{Sort, init_containers};
use super::{Action, KillReason, Planner};
use crate::clock::after;
use crate::runtime::Container;

/// What was asked to end is left at least this long (`minimumGracePeriodInSeconds`).
const MIN_GRACE: Duration = Duration::from_secs(2);
/// A killed container that still runs is killed again after this long.
const KILL_AGAIN: Duration = Duration::from_secs(10);

impl Planner<'_> {
    /// The pod ends: its containers, its sidecars after them, then its sandbox.
    pub(super) fn end(&mut self) {
        if self.terminate_all(KillReason::PodEnds) {
            return;
        }
        self.sweep();
        for sandbox in &self.observed.state.sandboxes {
            self.remove_id(&sandbox.id);
        }
    }

    /// Nothing is to be left.
    pub(super) fn remove(&mut self) {
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

    /// Ends everything that runs; whether anything still does.
    pub(super) fn terminate_all(&mut self, reason: KillReason) -> bool {
        let state = self.observed.state;
        let running: Vec<&Container> = state.containers.iter().filter(|c| c.is_running()).collect();
        running.iter().for_each(|container| self.terminate(container, reason));
        !running.is_empty()
    }

    /// Takes `container` one step nearer to its end.
    pub(super) fn terminate(&mut self, container: &Container, reason: KillReason) {
        let id = container.id.clone();
        let grace = self.grace(container, reason);
        let in_turn = reason != KillReason::PodEnds || self.is_its_turn(container);
        let Some(termination) = self.observed.terminations.get(&id) else {
            let name = container.name.clone();
            self.out.actions.push(Action::Terminate { id: id.clone(), name, reason, grace });
            if in_turn && !self.has_pre_stop(container) {
                self.out.actions.push(Action::Signal { id });
            }
            return;
        };
        let over = after(termination.asked_at, grace);
        let Some(signaled_at) = termination.signaled_at else {
            // Neither hook nor turn is waited for longer than the grace.
            if self.now >= over || (in_turn && !termination.hook_runs) {
                self.out.actions.push(Action::Signal { id });
            } else {
                self.wake(over);
            }
            return;
        };
        let due = match termination.killed_at {
            Some(killed_at) => after(killed_at, KILL_AGAIN),
            None => over.max(after(signaled_at, MIN_GRACE)),
        };
        if self.now >= due {
            self.out.actions.push(Action::Kill { id });
        } else {
            self.wake(due);
        }
    }

    /// How long `container` may take to end: a probe that failed may say less than the pod, a deletion overrides both
    /// (`setTerminationGracePeriod`).
    fn grace(&self, container: &Container, reason: KillReason) -> Duration {
        let pod = super::super::grace(self.pod);
        if self.pod.metadata.deletion_grace_period_seconds.is_some() {
            return pod;
        }
        let spec = super::super::container(self.spec, &container.name);
        let of = |probe: &Option<Probe>| probe.as_ref().and_then(|p| p.termination_grace_period_seconds);
        let own = match (reason, &spec) {
            (KillReason::LivenessProbe { .. }, Some((_, spec))) => of(&spec.liveness_probe),
            (KillReason::StartupProbe { .. }, Some((_, spec))) => of(&spec.startup_probe),
            _ => None,
        };
        own.and_then(|seconds| u64::try_from(seconds).ok()).map_or(pod, Duration::from_secs)
    }

    fn has_pre_stop(&self, container: &Container) -> bool {
        let spec = super::super::container(self.spec, &container.name);
        spec.is_some_and(|(_, spec)| spec.lifecycle.as_ref().is_some_and(|l| l.pre_stop.is_some()))
    }

    /// A sidecar ends after the containers it was started for, those that were started later before it.
    fn is_its_turn(&self, container: &Container) -> bool {
        if self.sort(&container.name) != Some(Sort::Sidecar) {
            return true;
        }
        let place = |name: &str| init_containers(self.spec).iter().position(|i| i.name == name);
        let own = place(&container.name);
        let before = |other: &Container| match self.sort(&other.name) {
            Some(Sort::Main) => true,
            Some(Sort::Sidecar) => place(&other.name) > own,
            _ => false,
        };
        !self.observed.state.containers.iter().any(|other| other.is_running() && before(other))
    }

    /// Removes what no one will look at again: dead sandboxes, containers that never started, and of ended containers
    /// of each name all but the newest, as many as are to be kept. Of two that run under one name the older goes.
    pub(super) fn sweep(&mut self) {
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
            let unknown = self.sort(name).is_none();
            let kept = match container.exit() {
                _ if unknown => container.is_running(),
                Some(_) => {
                    self.is_kept(container, ended.iter().filter(|n| **n == name).count(), running.contains(&name))
                }
                None => container.is_running() && !running.contains(&name),
            };
            if kept && unknown {
                self.terminate(container, KillReason::Unwanted);
            }
            if !kept {
                self.remove_id(&container.id);
            }
            if container.is_running() {
                running.push(name);
            } else if container.exit().is_some() {
                ended.push(name);
            }
        }
    }

    /// Whether an ended container stays, `newer` ones of its name having ended after it. The last life of what does not run
    /// now says what comes next, and stays in any case.
    fn is_kept(&mut self, container: &Container, newer: usize, runs: bool) -> bool {
        let policy = self.observed.dead;
        let old_at = after(container.created_at, policy.min_age);
        let surplus = policy.per_container.is_some_and(|max| newer >= max);
        if surplus && old_at > self.now {
            self.wake(old_at);
        }
        !surplus || old_at > self.now || (newer == 0 && !runs)
    }
}
