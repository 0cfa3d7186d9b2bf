//! What an owner's status should say about its pods.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Error;

use super::plan::active;
use super::replicas::{Condition, Replicas, Status};
use crate::pod::PodInfo;

/// The condition that says that pods could not be created or deleted.
const REPLICA_FAILURE: &str = "ReplicaFailure";

/// What became of the last attempt to reach the wanted number.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Failure {
    /// It succeeded, or nothing was to be done.
    None,
    /// Nothing was attempted.
    Unchanged,
    /// It failed.
    Failed {
        /// `FailedCreate` or `FailedDelete`.
        reason: &'static str,
        /// The error.
        message: String,
    },
}

impl Failure {
    /// What `result` means for `owner`, which had `pods` before.
    pub(super) fn of<R: Replicas>(result: &Result<(), Error>, owner: &R, pods: &[Arc<PodInfo>]) -> Failure {
        let Err(error) = result else { return Failure::None };
        let too_few = active(owner, pods).len() < owner.desired();
        Failure::Failed {
            reason: if too_few { "FailedCreate" } else { "FailedDelete" },
            message: super::execute::message(error),
        }
    }
}

/// What to write, and when to look again though nothing changes.
#[derive(Debug, PartialEq)]
pub(super) struct StatusPlan {
    /// The new status, if it differs from what is written.
    pub(super) write: Option<Status>,
    /// Until the next pod becomes available by having been ready for long enough.
    pub(super) next: Option<Duration>,
}

/// The status of `owner` with these pods.
pub(super) fn plan<R: Replicas>(owner: &R, pods: &[Arc<PodInfo>], failure: Failure, now: Timestamp) -> StatusPlan {
    let old = owner.status();
    let selector = owner.selector();
    let counted: Vec<_> = active(owner, pods)
        .into_iter()
        .filter(|pod| selector.as_ref().is_some_and(|selector| selector.matches(Some(pod.labels()))))
        .collect();
    let mut new = Status {
        replicas: count(counted.len()),
        observed_generation: owner.meta().generation.unwrap_or(0),
        conditions: conditions(&old.conditions, failure, now),
        ..Status::default()
    };
    let mut next: Option<Duration> = None;
    for pod in counted {
        new.fully_labeled += i32::from(fully_labeled(owner, pod));
        new.ready += i32::from(pod.ready);
        match until_available(pod, owner.min_ready_seconds(), now) {
            Some(wait) if wait.is_zero() => new.available += 1,
            Some(wait) => next = Some(next.map_or(wait, |next| next.min(wait))),
            None => (),
        }
    }
    StatusPlan { write: (new != old).then_some(new), next }
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// How long until a ready pod counts as available; `None` for one that is not ready.
fn until_available(pod: &PodInfo, min_ready_seconds: i64, now: Timestamp) -> Option<Duration> {
    if !pod.ready {
        return None;
    }
    if min_ready_seconds <= 0 {
        return Some(Duration::ZERO);
    }
    let left = (pod.ready_since()?.as_millisecond() + min_ready_seconds * 1000).saturating_sub(now.as_millisecond());
    Some(Duration::from_millis(u64::try_from(left).unwrap_or(0)))
}

fn fully_labeled<R: Replicas>(owner: &R, pod: &PodInfo) -> bool {
    let wanted = owner.template().and_then(|template| template.metadata.as_ref()).and_then(|m| m.labels.as_ref());
    wanted.into_iter().flatten().all(|(key, value)| pod.labels().get(key) == Some(value))
}

/// The conditions with `ReplicaFailure` as `failure` says. A failure that lasts keeps its first words, so that a
/// message that differs each time does not make us write, wake and fail in a circle.
fn conditions(old: &[Condition], failure: Failure, now: Timestamp) -> Vec<Condition> {
    let mut conditions = old.to_vec();
    match failure {
        Failure::Unchanged => (),
        Failure::None => conditions.retain(|c| c.type_ != REPLICA_FAILURE),
        Failure::Failed { .. } if conditions.iter().any(|c| c.type_ == REPLICA_FAILURE) => (),
        Failure::Failed { reason, message } => conditions.push(Condition {
            type_: REPLICA_FAILURE.to_owned(),
            status: "True".to_owned(),
            reason: Some(reason.to_owned()),
            message: Some(message),
            last_transition_time: Some(Time(now)),
        }),
    }
    conditions
}

#[cfg(test)]
mod tests {
    use super::super::testing::{common, controller, now, pod, ready, set_ready};
    use super::*;

    #[test]
    fn pods_are_counted_by_what_they_have_reached() {
        let mut unlabelled = ready("c");
        common(&mut unlabelled).labels.remove("tier");
        let pods = [pod("a"), ready("b"), unlabelled].map(Arc::new);
        let status = plan(&controller(3), &pods, Failure::None, now()).write.unwrap();
        assert_eq!((status.replicas, status.fully_labeled, status.ready, status.available), (3, 2, 2, 2));
    }

    #[test]
    fn a_pod_is_available_once_it_has_been_ready_for_long_enough() {
        let mut owner = controller(1);
        owner.spec.as_mut().unwrap().min_ready_seconds = Some(30);
        let mut young = ready("a");
        set_ready(&mut young, 10);
        let planned = plan(&owner, &[Arc::new(young)], Failure::None, now());
        assert_eq!(planned.write.unwrap().available, 0);
        assert_eq!(planned.next, Some(Duration::from_secs(20)));
        let mut old = ready("a");
        set_ready(&mut old, 30);
        let planned = plan(&owner, &[Arc::new(old)], Failure::None, now());
        assert_eq!((planned.write.unwrap().available, planned.next), (1, None));
    }

    #[test]
    fn a_failure_is_told_once_and_taken_back() {
        let failed = |message: &str| Failure::Failed { reason: "FailedCreate", message: message.to_owned() };
        let owner = controller(1);
        let owner = owner.with_status(plan(&owner, &[], failed("first"), now()).write.unwrap());
        assert_eq!(plan(&owner, &[], failed("second"), now()).write, None);
        assert_eq!(plan(&owner, &[], Failure::Unchanged, now()).write, None);
        let status = plan(&owner, &[], Failure::None, now()).write.unwrap();
        assert_eq!(status.conditions, vec![]);
    }

    #[test]
    fn a_written_status_is_not_written_again() {
        let owner = controller(2);
        let pods = [ready("a"), pod("b")].map(Arc::new);
        let written = owner.with_status(plan(&owner, &pods, Failure::None, now()).write.unwrap());
        assert_eq!(plan(&written, &pods, Failure::None, now()).write, None);
    }
}
