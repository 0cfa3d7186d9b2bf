//! What must happen to a node and its pods.

use std::sync::Arc;
use std::time::Duration;

use api::nodes;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::{evictions, taints};
use crate::pod::PodInfo;

/// The conditions a kubelet answers for.
const KUBELET_CONDITIONS: &[&str] = &["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

/// What is known beyond the objects.
pub(super) struct View<'a> {
    /// The node has not been heard of for the whole grace.
    pub(super) silent: bool,
    /// So many nodes are lost that no pod should be moved.
    pub(super) hold: bool,
    /// How long pods that say nothing about it stay on a lost node.
    pub(super) eviction_timeout: Duration,
    /// Since when the node has taints that do not say so themselves.
    pub(super) first_seen: &'a [(Taint, Timestamp)],
}

/// A step.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// The node has gone silent: nobody knows its condition.
    SetConditions(Vec<NodeCondition>),
    /// Its taints should be these, by its conditions.
    SetTaints(Vec<Taint>),
    /// The pod's node is unreachable, so nothing should be sent to the pod.
    MarkNotReady(Arc<PodInfo>),
    /// The pod has tolerated the taint for as long as it wanted.
    Evict {
        /// The pod.
        pod: Arc<PodInfo>,
        /// The reason.
        taint: Taint,
    },
}

/// The steps, and when to look again though nothing changes.
#[derive(Debug, PartialEq)]
pub(super) struct Plan {
    /// In the order in which they should be taken.
    pub(super) actions: Vec<Action>,
    /// Until the next pod must go.
    pub(super) next: Option<Duration>,
}

/// What must happen to `node` and the `pods` bound to it.
pub(super) fn plan(node: &Node, pods: &[Arc<PodInfo>], view: &View<'_>, now: Timestamp) -> Plan {
    let mut actions = Vec::new();
    let mut node = node.clone();
    if let Some(conditions) = view.silent.then(|| unknown_conditions(&node, now)).flatten() {
        node.status.get_or_insert_with(NodeStatus::default).conditions = Some(conditions.clone());
        actions.push(Action::SetConditions(conditions));
    }
    let taints = taints::wanted(&node, view.hold, now);
    if taints != nodes::taints(&node) {
        actions.push(Action::SetTaints(taints.clone()));
    }

    let unreachable = nodes::condition(&node, "Ready").is_some_and(|ready| ready.status == "Unknown");
    let since = |taint: &Taint| {
        let noted = view.first_seen.iter().find(|(t, _)| t == taint).map(|(_, since)| *since);
        taint.time_added.as_ref().map(|time| time.0).or(noted).unwrap_or(now)
    };
    let mut next: Option<Duration> = None;
    for pod in pods {
        if unreachable && pod.ready && !pod.is_terminal() {
            actions.push(Action::MarkNotReady(pod.clone()));
        }
        if pod.is_terminating() || pod.mirror {
            continue;
        }
        match evictions::deadline(pod, &taints, since, view.eviction_timeout) {
            Some((taint, at)) if at <= now => actions.push(Action::Evict { pod: pod.clone(), taint: taint.clone() }),
            Some((_, at)) => {
                let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
                next = Some(next.map_or(wait, |next| next.min(wait)));
            }
            None => (),
        }
    }
    Plan { actions, next }
}

/// The node's conditions with all that only the kubelet could tell set to `Unknown`; `None` if they are.
fn unknown_conditions(node: &Node, now: Timestamp) -> Option<Vec<NodeCondition>> {
    let old = node.status.as_ref().and_then(|status| status.conditions.clone()).unwrap_or_default();
    let mut new = old.clone();
    for condition_type in KUBELET_CONDITIONS {
        match new.iter_mut().find(|condition| condition.type_ == *condition_type) {
            Some(condition) if condition.status == "Unknown" => (),
            Some(condition) => {
                condition.status = "Unknown".to_owned();
                condition.reason = Some("NodeStatusUnknown".to_owned());
                condition.message = Some("Kubelet stopped posting node status.".to_owned());
                condition.last_transition_time = Some(Time(now));
            }
            None => new.push(NodeCondition {
                type_: (*condition_type).to_owned(),
                status: "Unknown".to_owned(),
                reason: Some("NodeStatusNeverUpdated".to_owned()),
                message: Some("Kubelet never posted node status.".to_owned()),
                last_heartbeat_time: node.metadata.creation_timestamp.clone(),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    (new != old).then_some(new)
}

/// What the status of a pod that was ready should say instead; why it was ready stays.
pub(super) fn not_ready(now: Timestamp) -> Value {
    json!({"conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": Time(now)}]})
}

/// Nodes for the tests of this folder.
#[cfg(test)]
pub(super) mod testing {
    use k8s_openapi::api::core::v1::NodeSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    /// The time of the tests.
    pub(crate) const NOW: i64 = 1_800_000_000;

    pub(crate) fn now() -> Timestamp {
        Timestamp::from_second(NOW).unwrap()
    }

    /// A node that is well.
    pub(crate) fn node() -> Node {
        let mut node = Node {
            metadata: ObjectMeta { name: Some("box1".to_owned()), ..ObjectMeta::default() },
            spec: Some(NodeSpec::default()),
            status: Some(NodeStatus::default()),
        };
        KUBELET_CONDITIONS.iter().for_each(|condition| set_condition(&mut node, condition, "False"));
        set_condition(&mut node, "Ready", "True");
        node
    }

    /// A node that is lost.
    pub(crate) fn lost_node() -> Node {
        let mut node = node();
        set_condition(&mut node, "Ready", "Unknown");
        node
    }

    pub(crate) fn set_condition(node: &mut Node, condition_type: &str, status: &str) {
        let conditions = node.status.get_or_insert_default().conditions.get_or_insert_default();
        conditions.retain(|c| c.type_ != condition_type);
        let (type_, status) = (condition_type.to_owned(), status.to_owned());
        conditions.push(NodeCondition { type_, status, ..NodeCondition::default() });
    }
}

#[cfg(test)]
mod tests {
    use api::well_known::TAINT_UNREACHABLE;
    use k8s_openapi::api::core::v1::Toleration;
    use proptest::prelude::*;

    use super::testing::{NOW, lost_node, node, now};
    use super::*;
    use crate::pod::Common;

    const TIMEOUT: Duration = Duration::from_secs(300);

    fn view(silent: bool, hold: bool) -> View<'static> {
        View { silent, hold, eviction_timeout: TIMEOUT, first_seen: &[] }
    }

    fn pod(n: usize, toleration_seconds: Option<i64>) -> Arc<PodInfo> {
        let toleration = |seconds| Toleration {
            key: Some(TAINT_UNREACHABLE.to_owned()),
            operator: Some("Exists".to_owned()),
            toleration_seconds: Some(seconds),
            ..Toleration::default()
        };
        let tolerations = toleration_seconds.map(toleration).into_iter().collect();
        let common = Common { tolerations, ..Common::default() }.into();
        let (name, uid) = (format!("web-{n}").into(), format!("u{n}").into());
        Arc::new(PodInfo { name, uid, common, ready: true, ..PodInfo::default() })
    }

    fn apply(node: &mut Node, pods: &mut Vec<Arc<PodInfo>>, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::SetConditions(new) => node.status.get_or_insert_default().conditions = Some(new),
                Action::SetTaints(new) => node.spec.get_or_insert_default().taints = Some(new),
                Action::MarkNotReady(marked) => {
                    let pod = pods.iter_mut().find(|pod| pod.uid == marked.uid).unwrap();
                    Arc::make_mut(pod).ready = false;
                }
                Action::Evict { pod: evicted, .. } => pods.retain(|pod| pod.uid != evicted.uid),
            }
        }
    }

    #[test]
    fn a_node_that_is_well_is_left_alone() {
        assert_eq!(plan(&node(), &[pod(0, None)], &view(false, false), now()), Plan { actions: vec![], next: None });
    }

    #[test]
    fn a_silent_node_becomes_unknown_and_its_pods_not_ready() {
        let planned = plan(&node(), &[pod(0, None)], &view(true, false), now());
        let [Action::SetConditions(conditions), Action::SetTaints(taints), Action::MarkNotReady(_)] =
            &planned.actions[..]
        else {
            panic!("{:?}", planned.actions)
        };
        let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        assert_eq!(ready.message.as_deref(), Some("Kubelet stopped posting node status."));
        assert_eq!(taints.len(), 2);
        assert_eq!(planned.next, Some(TIMEOUT), "the pod has until then");
    }

    #[test]
    fn a_node_that_never_said_anything_is_told_apart() {
        let mut mute = node();
        mute.status = None;
        let planned = plan(&mute, &[], &view(true, false), now());
        let Action::SetConditions(conditions) = &planned.actions[0] else { panic!("{:?}", planned.actions) };
        assert_eq!(conditions.len(), KUBELET_CONDITIONS.len());
        assert_eq!(conditions[0].reason.as_deref(), Some("NodeStatusNeverUpdated"));
    }

    #[test]
    fn a_pod_goes_when_its_time_is_over_and_stays_while_most_nodes_are_lost() {
        let (mut node, mut pods) = (lost_node(), vec![pod(0, Some(20))]);
        let planned = plan(&node, &pods, &view(true, false), now());
        apply(&mut node, &mut pods, planned.actions);
        let later = Timestamp::from_second(NOW + 20).unwrap();
        let planned = plan(&node, &pods, &view(true, false), later);
        assert!(matches!(&planned.actions[..], [Action::Evict { .. }]), "{planned:?}");
        let held = plan(&node, &pods, &view(true, true), later);
        assert!(matches!(&held.actions[..], [Action::SetTaints(_)]), "{held:?}");
    }

    #[test]
    fn everything_is_undone_when_the_node_is_back() {
        let (mut lost, mut pods) = (lost_node(), vec![]);
        let planned = plan(&lost, &pods, &view(true, false), now());
        apply(&mut lost, &mut pods, planned.actions);
        lost.status = node().status;
        let planned = plan(&lost, &pods, &view(false, false), now());
        assert_eq!(planned.actions, [Action::SetTaints(vec![])]);
    }

    proptest! {
        #[test]
        fn planning_again_on_the_result_gives_nothing(
            lost in any::<bool>(),
            silent in any::<bool>(),
            hold in any::<bool>(),
            seconds in proptest::collection::vec(proptest::option::of(-1..600_i64), 0..10),
        ) {
            let mut node = if lost { lost_node() } else { node() };
            let mut pods: Vec<_> = seconds.into_iter().enumerate().map(|(n, seconds)| pod(n, seconds)).collect();
            for at in [NOW, NOW + 300] {
                let at = Timestamp::from_second(at).unwrap();
                let planned = plan(&node, &pods, &view(silent, hold), at);
                apply(&mut node, &mut pods, planned.actions);
                prop_assert_eq!(plan(&node, &pods, &view(silent, hold), at).actions, vec![]);
            }
        }
    }
}
