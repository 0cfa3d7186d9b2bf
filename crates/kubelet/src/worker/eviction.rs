//! A pod that must go because the machine runs short or goes down: it has failed from then on, whatever its containers do.

use std::sync::Arc;

use k8s_openapi::api::core::v1::PodCondition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Desired, Ending, Worker};

impl Worker {
    /// Takes an eviction into account: whether it is new.
    pub(super) fn evicted(&mut self, desired: &mut Desired) -> bool {
        let Some(Ending { reason, message, condition, grace_seconds }) = self.handle.ended.lock().clone() else {
            return false;
        };
        if desired.pod.metadata.deletion_timestamp.is_none() {
            let mut pod = (*desired.pod).clone();
            pod.metadata.deletion_grace_period_seconds = Some(grace_seconds);
            desired.pod = Arc::new(pod);
        }
        if matches!(self.history.phase.as_deref(), Some("Failed" | "Succeeded")) {
            return false;
        }
        let target = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("TerminationByKubelet".to_owned()),
            message: Some(condition.map_or_else(|| message.clone(), str::to_owned)),
            last_transition_time: Some(Time(self.kubelet.config.clock.now())),
            ..PodCondition::default()
        };
        let history = Arc::make_mut(&mut self.history);
        let conditions = history.conditions.get_or_insert_default();
        conditions.retain(|condition| condition.type_ != target.type_);
        conditions.push(target);
        history.phase = Some("Failed".to_owned());
        history.reason = Some(reason.to_owned());
        history.message = Some(message);
        true
    }
}
