//! What runs is given what is set aside for it, in place where its policy allows that (`computePodResizeAction`,
//! `doPodResizeAction` in `pkg/kubelet/kuberuntime/kuberuntime_manager.go`).

use k8s_openapi::api::core::v1::Container as Spec;

use super::super::observed::Ended;
use super::super::resize::{self, IN_PROGRESS};
use super::{Action, KillReason, Planner, Resized};
use crate::container_spec::resources;
use crate::runtime::Container;

/// What holds back resizes that failed; no container can be called so.
pub(crate) const HOLD: &str = "/resize";

impl Planner<'_> {
    /// Sees to it that `running` uses what is set aside for `container`.
    pub(super) fn fit(&mut self, container: &Spec, running: &Container) {
        let (has, wanted) = (running.resources, resources(container));
        if has == wanted || self.observed.actuated.get(&running.id) == Some(&wanted) {
            return;
        }
        self.out.resizing = true;
        if resize::restarts(container, &has, &wanted) {
            self.terminate(running, KillReason::Resize);
        } else {
            let (id, name) = (running.id.clone(), running.name.clone());
            self.resized.push(Resized { id, name, has, wanted });
        }
    }

    /// All that changes in place does so together, or, where something keeps it from that, is tried again together.
    pub(super) fn resize(&mut self) {
        if self.resized.is_empty() {
            return;
        }
        if let Some(hold) = self.observed.holds.get(HOLD).filter(|hold| hold.until > self.now) {
            self.wake(hold.until);
            return;
        }
        let mut containers = std::mem::take(&mut self.resized);
        // What is given back is there for the next.
        containers.sort_by_key(|c| (!c.takes_memory(), c.wanted.cpu_shares > c.has.cpu_shares));
        self.out.actions.push(Action::Resize { containers });
    }

    /// Whether a container that ended did so for its resize, and is to run again whatever its exit code.
    pub(super) fn ended_for_resize(&self, container: &Spec, ended: &Ended<'_>) -> bool {
        let Some(began) = resize::condition(self.observed.history, IN_PROGRESS) else { return false };
        let since = began.last_transition_time.as_ref().map(|time| time.0);
        let life = ended.id.and_then(|id| self.observed.state.containers.iter().find(|c| c.id == id));
        let later = since.is_some_and(|since| ended.finished_at.is_some_and(|at| at >= since));
        later && life.is_some_and(|life| resize::restarts(container, &life.resources, &resources(container)))
    }
}
