//! What a pod worker tells the world in Events; the reasons and texts are upstream's (`pkg/kubelet/events/event.go`).

use client::EventType;
use k8s_openapi::api::core::v1::Pod;

use super::Worker;
use crate::pod::actions::PodActions;

impl Worker {
    /// An Event about the pod.
    pub(super) fn pod_event(&self, pod: &Pod, event_type: EventType, reason: &str, message: String) {
        self.kubelet.recorder.event(&client::object_reference(pod), event_type, reason, message);
    }

    /// An Event about one of the pod's containers.
    pub(super) fn container_event(
        &self,
        pod: &Pod,
        container: &str,
        event_type: EventType,
        reason: &str,
        message: String,
    ) {
        let sort = pod.spec.as_ref().and_then(|s| crate::pod::sort(s, container));
        let list = sort.unwrap_or(crate::pod::Sort::Main).list();
        let mut reference = client::object_reference(pod);
        reference.field_path = Some(format!("spec.{list}{{{container}}}"));
        self.kubelet.recorder.event(&reference, event_type, reason, message);
    }

    /// Says why the pod fails as a whole, when it does; its status does not say so yet.
    pub(super) fn tell_failure(&self, pod: &Pod, plan: &PodActions) {
        if let Some(refusal) = &plan.refusal {
            self.pod_event(pod, EventType::Warning, refusal.reason, refusal.message.clone());
        }
        if plan.deadline_exceeded {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            self.pod_event(pod, EventType::Normal, "DeadlineExceeded", message);
        }
    }

    /// Says of each container once that it backs off.
    pub(super) fn tell_back_offs(&mut self, pod: &Pod, plan: &PodActions) {
        let crashing = |name: &String| plan.waiting.get(name).is_some_and(|w| w.reason == "CrashLoopBackOff");
        self.backing_off.retain(crashing);
        let new: Vec<String> =
            plan.waiting.keys().filter(|name| crashing(name) && !self.backing_off.contains(*name)).cloned().collect();
        for name in new {
            let message = format!("Back-off restarting failed container {name} in pod {}", crate::pod::full_name(pod));
            self.container_event(pod, &name, EventType::Warning, "BackOff", message);
            self.backing_off.insert(name);
        }
    }
}
