//! What must happen so that an owner has the pods it wants.

use std::sync::Arc;

use jiff::Timestamp;

use super::ranks::sorted_for_deletion;
use super::replicas::Replicas;
use crate::pod::PodInfo;

/// At most this many pods are created or deleted in one go.
pub(super) const BURST: usize = 500;

/// How many pods are wanted and how many there are: the reason for what is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// Wanted.
    pub(super) desired: usize,
    /// There, neither finished nor being deleted.
    pub(super) active: usize,
}

/// A step towards the wanted number.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// Becomes the controller of a pod that matches the selector and has none.
    Adopt(Arc<PodInfo>),
    /// Gives up a pod that no longer matches the selector.
    Release(Arc<PodInfo>),
    /// Creates so many pods.
    Create(usize, Difference),
    /// Deletes a pod.
    Delete(Arc<PodInfo>, Difference),
}

/// The steps for `owner`, given the pods it controls and those without controller that it may adopt. Applying them
/// and planning again gives nothing, unless more than [`BURST`] pods differ.
pub(super) fn plan<R: Replicas>(owner: &R, pods: &[Arc<PodInfo>], now: Timestamp) -> Vec<Action> {
    let active = active(owner, pods);
    // An owner on its way out claims and makes nothing; its pods belong to the garbage collector.
    if owner.meta().deletion_timestamp.is_some() {
        return Vec::new();
    }
    let Some(selector) = owner.selector() else { return Vec::new() };
    let mut actions = Vec::new();
    let mut claimed = Vec::new();
    for pod in active {
        let matches = selector.matches(Some(pod.labels()));
        match (pod.controller().is_some(), matches) {
            (true, true) => claimed.push(pod),
            (true, false) => actions.push(Action::Release(pod.clone())),
            (false, true) => {
                actions.push(Action::Adopt(pod.clone()));
                claimed.push(pod);
            }
            (false, false) => (),
        }
    }
    let difference = Difference { desired: owner.desired(), active: claimed.len() };
    actions.extend(scale(&claimed, difference, now));
    actions
}

fn scale(claimed: &[&Arc<PodInfo>], difference: Difference, now: Timestamp) -> Vec<Action> {
    let Difference { desired, active } = difference;
    if active < desired {
        return vec![Action::Create((desired - active).min(BURST), difference)];
    }
    let surplus = (active - desired).min(BURST);
    if surplus == 0 {
        return Vec::new();
    }
    let doomed = sorted_for_deletion(claimed, now).into_iter().take(surplus);
    doomed.map(|pod| Action::Delete(pod, difference)).collect()
}

/// The pods that count: neither finished nor being deleted, and controlled by `owner` or by nobody.
pub(super) fn active<'a, R: Replicas>(owner: &R, pods: &'a [Arc<PodInfo>]) -> Vec<&'a Arc<PodInfo>> {
    let uid = owner.meta().uid.as_deref();
    let ours = |pod: &PodInfo| pod.controller().is_none_or(|owner| Some(owner.uid.as_str()) == uid);
    pods.iter().filter(|pod| !pod.is_terminal() && !pod.is_terminating() && ours(pod)).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use proptest::prelude::*;

    use super::super::testing::{apply, common, controller, now, orphan, pod, ready};
    use super::*;
    use crate::pod::Phase;

    fn pods(count: usize) -> Vec<Arc<PodInfo>> {
        (0..count).map(|n| Arc::new(ready(&format!("web-{n}")))).collect()
    }

    fn summary(actions: &[Action]) -> Vec<String> {
        let name = |pod: &PodInfo| pod.name.clone();
        let text = |action: &Action| match action {
            Action::Adopt(pod) => format!("adopt {}", name(pod)),
            Action::Release(pod) => format!("release {}", name(pod)),
            Action::Create(count, _) => format!("create {count}"),
            Action::Delete(pod, _) => format!("delete {}", name(pod)),
        };
        actions.iter().map(text).collect()
    }

    #[test]
    fn the_number_of_pods_is_exact() {
        let cases = [
            ("nine become ten", 9, 10, vec!["create 1"]),
            ("ten stay ten", 10, 10, vec![]),
            ("none become three", 0, 3, vec!["create 3"]),
            ("one becomes none", 1, 0, vec!["delete web-0"]),
            ("a burst is bounded", 0, 1200, vec!["create 500"]),
        ];
        for (sentence, have, want, expected) in cases {
            assert_eq!(summary(&plan(&controller(want), &pods(have), now())), expected, "{sentence}");
        }
        assert_eq!(plan(&controller(10), &pods(11), now()).len(), 1, "eleven become ten");
    }

    #[test]
    fn only_pods_that_live_and_match_count() {
        type Change = fn(&mut PodInfo);
        let cases: &[(&str, Change, Vec<&str>)] = &[
            ("a finished pod is replaced", |p| p.phase = Phase::Failed, vec!["create 1"]),
            ("a pod being deleted is replaced", |p| p.deletion = Some(now()), vec!["create 1"]),
            ("a matching orphan is adopted", |p| common(p).owners.clear(), vec!["adopt web-0"]),
            ("another's pod is left alone", |p| common(p).owners[0].uid = "x".into(), vec!["create 1"]),
            ("a pod with other labels is released", |p| common(p).labels.clear(), vec!["release web-0", "create 1"]),
            (
                "an orphan with other labels is left alone",
                |p| {
                    common(p).labels.clear();
                    common(p).owners.clear();
                },
                vec!["create 1"],
            ),
        ];
        for (sentence, change, expected) in cases {
            let mut changed = ready("web-0");
            change(&mut changed);
            assert_eq!(summary(&plan(&controller(1), &[Arc::new(changed)], now())), *expected, "{sentence}");
        }
    }

    #[test]
    fn an_owner_being_deleted_does_nothing() {
        let mut owner = controller(3);
        owner.metadata.deletion_timestamp = Some(Time(now()));
        assert_eq!(plan(&owner, &[Arc::new(orphan("web-0"))], now()), vec![]);
    }

    proptest! {
        #[test]
        fn planning_again_on_the_result_gives_nothing(
            want in 0..40_i32,
            kinds in proptest::collection::vec(0..6_u8, 0..40),
        ) {
            let owner = controller(want);
            let mut pods: Vec<Arc<PodInfo>> = kinds.iter().enumerate().map(|(n, kind)| {
                let name = format!("web-{n}");
                let mut pod = if *kind == 1 { orphan(&name) } else if *kind == 2 { pod(&name) } else { ready(&name) };
                match kind {
                    3 => common(&mut pod).labels.clear(),
                    4 => pod.phase = Phase::Succeeded,
                    5 => pod.deletion = Some(now()),
                    _ => (),
                }
                Arc::new(pod)
            }).collect();
            let actions = plan(&owner, &pods, now());
            apply(&owner, &mut pods, actions);
            prop_assert_eq!(plan(&owner, &pods, now()), vec![]);
        }
    }
}
