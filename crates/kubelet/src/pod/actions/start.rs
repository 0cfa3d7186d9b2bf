//! What is to run: init containers in their order, sidecars beside what follows them, then the pod's containers; and
//! when what ended may start again.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Container as Spec;

use super::super::observed::{Ended, Last};
use super::super::{Sort, backoff, container_hash, init_containers, is_sidecar, restarts};
use super::{Action, KillReason, Planner, Waiting};
use crate::clock::after;
use crate::runtime::{Container, Sandbox};

impl Planner<'_> {
    /// Whether the init containers have done their work, so that the others may start; otherwise starts the next. A
    /// sidecar holds up what follows it until it has started, and later on nothing. What came before one that has had a life
    /// in this sandbox has done its work, though nothing may be left of it (`computeInitContainerActions`).
    pub(super) fn initialized(&mut self, sandbox: &Sandbox) -> bool {
        let spec = self.spec;
        let lived = |c: &Spec| self.observed.last_in(&c.name, &sandbox.id) != Last::Never;
        let begun = spec.containers.iter().any(lived);
        let furthest = init_containers(spec).iter().rposition(lived).unwrap_or(0);
        for (index, init) in init_containers(spec).iter().enumerate() {
            let last = self.observed.last_in(&init.name, &sandbox.id);
            if is_sidecar(init) {
                let started = matches!(last, Last::Running(running) if self.observed.has_started(init, running));
                self.keep_running(init);
                if !started && !begun {
                    return false;
                }
                continue;
            }
            match last {
                _ if begun => {}
                Last::Running(_) => return false,
                _ if index < furthest => {}
                Last::Ended(ended) if ended.code == 0 => {}
                _ => {
                    self.start(init);
                    return false;
                }
            }
        }
        true
    }

    /// Sees to one container that is to run while the pod does.
    pub(super) fn keep_running(&mut self, container: &Spec) {
        match self.observed.last(&container.name) {
            Last::Running(running) => match self.must_end(container, running) {
                Some(reason) => self.terminate(running, reason),
                None => self.fit(container, running),
            },
            Last::Ended(ended) if !self.restarts(container, &ended) => {}
            Last::Ended(ended) => {
                self.out.resizing |= self.ended_for_resize(container, &ended);
                self.start(container);
            }
            Last::Never | Last::Created(_) => self.start(container),
        }
    }

    /// Why a container of a pod that runs is to end, if it is.
    fn must_end(&self, container: &Spec, running: &Container) -> Option<KillReason> {
        if running.hash != container_hash(container) {
            return Some(KillReason::DefinitionChanged);
        }
        let health = self.observed.health(&running.id);
        // As it will have failed, whatever its exit code.
        let restarts = restarts(self.spec, container, crate::KILLED_EXIT_CODE);
        if health.alive == Some(false) {
            return Some(KillReason::LivenessProbe { restarts });
        }
        if health.started == Some(false) {
            return Some(KillReason::StartupProbe { restarts });
        }
        health.hook_failed.then_some(KillReason::PostStartHook)
    }

    /// Whether a container that ended is to run again. One that was ended for its health has failed, though it may
    /// have ended with 0.
    pub(super) fn restarts(&self, container: &Spec, ended: &Ended) -> bool {
        let unhealthy = ended.id.is_some_and(|id| self.observed.health(id).is_fatal());
        let code = if unhealthy && ended.code == 0 { crate::KILLED_EXIT_CODE } else { ended.code };
        restarts(self.spec, container, code) || self.ended_for_resize(container, ended)
    }

    /// Starts `container`, unless its back-off or a failed start say not yet.
    pub(super) fn start(&mut self, container: &Spec) {
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

    /// A container whose definition or size changed since, or an init container that had succeeded, does not wait.
    fn step(&self, container: &Spec, ended: &Ended) -> backoff::Step {
        let changed = ended.hash.as_ref().is_some_and(|hash| *hash != container_hash(container));
        let rerun = ended.code == 0 && self.sort(&container.name) == Some(Sort::Init);
        if changed || rerun || self.ended_for_resize(container, ended) {
            backoff::Step::default()
        } else {
            backoff::step(ended.backoff, ended.ran)
        }
    }

    fn back_off(&mut self, container: &Spec, at: Timestamp, wait: Duration) {
        let message = format!(
            "back-off {} restarting failed container={} pod={}",
            crate::names::go_duration(wait),
            container.name,
            super::super::full_name(self.pod)
        );
        self.out.waiting.insert(container.name.clone(), Waiting { reason: "CrashLoopBackOff".to_owned(), message });
        self.wake(at);
    }

    /// Whether a failed start holds `name` back.
    pub(super) fn held(&mut self, name: &str) -> bool {
        let Some(hold) = self.observed.holds.get(name).filter(|hold| hold.until > self.now) else { return false };
        if !name.is_empty() {
            let waiting = Waiting { reason: hold.reason.clone(), message: hold.message.clone() };
            self.out.waiting.insert(name.to_owned(), waiting);
        }
        self.wake(hold.until);
        true
    }
}
