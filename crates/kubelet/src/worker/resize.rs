//! The worker's part in resizing its pod: asks the node for what the pod wants, works with what is set aside meanwhile, has
//! containers use it, and says how it stands (`handlePodResourcesResize` in `pkg/kubelet/allocation`).

use std::sync::Arc;

use api::pods::Requests;
use client::EventType;
use k8s_openapi::api::core::v1::Pod;

use super::{Desired, Worker};
use crate::clock::after;
use crate::node::allocations::{Verdict, Wish};
use crate::pod::actions::{HOLD_RESIZE, PodActions, Resized};
use crate::pod::observed::Hold;
use crate::pod::resize::{self, Allocation, Standing};
use crate::runtime::Error;
use crate::sources::is_static;

/// What a worker remembers of its pod's size. All of it is in the pod's status too.
#[derive(Default)]
pub(super) struct Size {
    /// What is set aside; `None` before the first look.
    allocation: Option<Allocation>,
    pub(super) standing: Standing,
    /// Generation and reason of the last thing told about what is pending.
    told: Option<(Option<i64>, &'static str)>,
    /// The generation that is being put in force.
    in_progress: Option<i64>,
}

impl Worker {
    /// The pod with what is set aside for it in place of what it wants; asks for that first.
    pub(super) fn sized(&mut self, desired: &Desired) -> Arc<Pod> {
        let pod = &desired.pod;
        let uid = crate::pod::uid(pod).to_owned();
        let wanted = resize::wanted(pod);
        let ended = matches!(self.history.phase.as_deref(), Some("Failed" | "Succeeded"));
        if ended || desired.gone || self.standing.left() {
            self.kubelet.allocations.release(&uid);
            self.size.standing = Standing::default();
            return self.size.allocation.as_ref().map_or_else(|| pod.clone(), |set| resize::with(pod, set));
        }
        if self.size.allocation.is_none() {
            self.adopt(pod);
        }
        let allocation = self.size.allocation.clone().unwrap_or_default();
        let set_aside = resize::with(pod, &allocation);
        let held = self.held(&set_aside);
        // A static pod that changes is another one, and its mirror cannot be resized.
        if is_static(pod) || resize::same(&wanted, &allocation) {
            self.kubelet.allocations.hold(&uid, held, &self.handle.wake);
            self.size.standing.pending = None;
            return set_aside;
        }
        let pending = resize::condition(&self.history, resize::PENDING);
        let wish = Wish {
            wanted: api::pods::requests(pod),
            priority: pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0),
            guaranteed: api::pods::qos_class(pod) == "Guaranteed",
            since: pending.and_then(|c| c.last_transition_time.as_ref()).map(|time| time.0),
        };
        match self.kubelet.allocations.ask(&uid, held, wish, &self.handle.wake) {
            Verdict::Unknown => set_aside,
            Verdict::Granted => {
                self.granted(pod, wanted);
                pod.clone()
            }
            Verdict::Refused(pending) => {
                let (generation, reason) = (pod.metadata.generation, pending.reason);
                if self.size.told.replace((generation, reason)) != Some((generation, reason)) {
                    let event = if reason == "Infeasible" { "ResizeInfeasible" } else { "ResizeDeferred" };
                    let message = resize::event_message(reason, pod, generation, Some(&pending.message));
                    self.pod_event(pod, EventType::Warning, event, message);
                }
                self.size.standing.pending = Some(pending);
                set_aside
            }
        }
    }

    /// Takes over what the last status says, as the kubelet before this one left it.
    fn adopt(&mut self, pod: &Pod) {
        self.size.standing = Standing::of(&self.history);
        let generation = |type_| resize::condition(&self.history, type_).map(|c| c.observed_generation);
        self.size.told = generation(resize::PENDING).zip(self.size.standing.pending.as_ref().map(|p| p.reason));
        self.size.in_progress = generation(resize::IN_PROGRESS).map(|generation| generation.unwrap_or(0));
        self.size.allocation = Some(resize::allocation(pod, &self.history));
    }

    /// What the pod holds: what is set aside, or what its containers still have where that is more.
    fn held(&self, set_aside: &Pod) -> Requests {
        let status = Some((*self.history).clone());
        api::pods::held(&Pod { metadata: Default::default(), spec: set_aside.spec.clone(), status })
    }

    fn granted(&mut self, pod: &Pod, wanted: Allocation) {
        self.size.allocation = Some(wanted);
        self.size.standing = Standing::default();
        self.size.told = None;
        self.size.in_progress = Some(pod.metadata.generation.unwrap_or(0));
        self.holds.remove(HOLD_RESIZE);
        self.failures.remove(HOLD_RESIZE);
        let message = resize::event_message("started", pod, pod.metadata.generation, None);
        self.pod_event(pod, EventType::Normal, "ResizeStarted", message);
    }

    /// Says so when everything that is set aside has come to be used.
    pub(super) fn tell_resized(&mut self, pod: &Pod, plan: &PodActions) {
        if plan.resizing {
            self.size.in_progress.get_or_insert(pod.metadata.generation.unwrap_or(0));
        } else if let Some(generation) = self.size.in_progress.take() {
            self.size.standing.error = None;
            if !plan.ends {
                let message = resize::event_message("completed", pod, Some(generation), None);
                self.pod_event(pod, EventType::Normal, "ResizeCompleted", message);
            }
        }
    }

    /// Has containers use what is set aside for them; where that fails they are left alone for a while.
    pub(super) async fn resize(&mut self, pod: &Pod, containers: &[Resized]) {
        let done = match self.below_usage(containers).await {
            None => self.update(containers).await,
            Some(message) => Err(message),
        };
        let Err(message) = done else {
            self.failures.remove(HOLD_RESIZE);
            return;
        };
        if self.size.standing.error.is_none() {
            let text = resize::event_message("error", pod, pod.metadata.generation, Some(&message));
            self.pod_event(pod, EventType::Warning, "ResizeError", text);
        }
        self.size.standing.error = Some(message.clone());
        let until = after(self.kubelet.config.clock.now(), self.failed(HOLD_RESIZE));
        self.holds.insert(HOLD_RESIZE.to_owned(), Hold { until, reason: "Error".to_owned(), message });
    }

    async fn update(&mut self, containers: &[Resized]) -> Result<(), String> {
        for Resized { id, has, wanted, .. } in containers {
            match self.kubelet.runtime.update(id, has, wanted).await {
                Ok(()) => drop(self.actuated.insert(id.clone(), *wanted)),
                // It ended meanwhile: its next life has it.
                Err(Error::NotFound(_) | Error::Conflict(_)) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Why no memory is taken away, if there is a reason: a limit below what is used would end the container
    /// (`validateMemoryResizeAction`).
    async fn below_usage(&self, containers: &[Resized]) -> Option<String> {
        if !containers.iter().any(Resized::takes_memory) {
            return None;
        }
        let used = match self.kubelet.runtime.usage().await {
            Ok(used) => used,
            Err(error) => return Some(error.to_string()),
        };
        let refusals = containers.iter().filter(|c| c.takes_memory()).filter_map(|container| {
            let used = used.iter().find(|used| used.id == container.id)?.usage.memory?.usage;
            let limit = container.wanted.memory?;
            let name = &container.name;
            (u64::try_from(limit).unwrap_or(0) < used).then(|| {
                format!("attempting to set container {name:?} memory limit ({limit}) below current usage ({used})")
            })
        });
        let refusals: Vec<String> = refusals.collect();
        match refusals.as_slice() {
            [] => None,
            [one] => Some(format!("cannot decrease memory limits: {one}")),
            many => Some(format!("cannot decrease memory limits: [{}]", many.join(", "))),
        }
    }
}
