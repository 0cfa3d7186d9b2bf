//! Which taints a node's conditions ask for.

use api::nodes;
use api::well_known::{TAINT_NOT_READY, TAINT_UNREACHABLE, TAINT_UNSCHEDULABLE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

const NO_SCHEDULE: &str = "NoSchedule";
/// Pods that do not tolerate the taint are evicted.
pub(super) const NO_EXECUTE: &str = "NoExecute";

/// Conditions other than `Ready` that keep new pods away while they are true, and the taints that do it.
const BY_CONDITION: &[(&str, &str)] = &[
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];

/// The taints `node` should have: those of its conditions, and those that others gave it. With `hold` no taint of
/// ours evicts. Taints that stay keep their time.
pub(super) fn wanted(node: &Node, hold: bool, now: Timestamp) -> Vec<Taint> {
    let ours = of_conditions(node, hold);
    let old = nodes::taints(node);
    let kept = old.iter().filter(|taint| !is_ours(taint) || ours.contains(&(taint.key.as_str(), &taint.effect)));
    let mut taints: Vec<Taint> = kept.cloned().collect();
    for (key, effect) in ours {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let (key, effect) = (key.to_owned(), effect.to_owned());
            taints.push(Taint { key, effect, value: None, time_added: Some(Time(now)) });
        }
    }
    taints
}

/// Whether the taint comes and goes with a condition.
fn is_ours(taint: &Taint) -> bool {
    let by_ready = taint.key == TAINT_NOT_READY || taint.key == TAINT_UNREACHABLE;
    let by_condition = taint.key == TAINT_UNSCHEDULABLE || BY_CONDITION.iter().any(|(_, key)| taint.key == *key);
    match taint.effect.as_str() {
        NO_EXECUTE => by_ready,
        NO_SCHEDULE => by_ready || by_condition,
        _ => false,
    }
}

fn of_conditions(node: &Node, hold: bool) -> Vec<(&'static str, &'static str)> {
    let mut taints = Vec::new();
    let ready = nodes::condition(node, "Ready").map(|ready| ready.status.as_str());
    let unwell = match ready {
        Some("True") => None,
        Some("Unknown") => Some(TAINT_UNREACHABLE),
        _ => Some(TAINT_NOT_READY),
    };
    if let Some(key) = unwell {
        taints.push((key, NO_SCHEDULE));
        // A node that has never said anything has no pods of its own to lose.
        if ready.is_some() && !hold {
            taints.push((key, NO_EXECUTE));
        }
    }
    for (condition, key) in BY_CONDITION {
        if nodes::condition(node, condition).is_some_and(|c| c.status == "True") {
            taints.push((key, NO_SCHEDULE));
        }
    }
    if nodes::is_unschedulable(node) {
        taints.push((TAINT_UNSCHEDULABLE, NO_SCHEDULE));
    }
    taints
}

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{NOW, node, now, set_condition};
    use super::*;

    fn keys(taints: &[Taint]) -> Vec<String> {
        let last = |key: &str| key.rsplit('/').next().unwrap().to_owned();
        taints.iter().map(|taint| format!("{}:{}", last(&taint.key), taint.effect)).collect()
    }

    #[test]
    fn conditions_become_taints() {
        type Change = fn(&mut Node);
        let cases: &[(&str, Change, bool, &[&str])] = &[
            ("a node that is well has none", |_| (), false, &[]),
            (
                "not ready",
                |n| set_condition(n, "Ready", "False"),
                false,
                &["not-ready:NoSchedule", "not-ready:NoExecute"],
            ),
            (
                "unreachable",
                |n| set_condition(n, "Ready", "Unknown"),
                false,
                &["unreachable:NoSchedule", "unreachable:NoExecute"],
            ),
            (
                "unreachable with most others",
                |n| set_condition(n, "Ready", "Unknown"),
                true,
                &["unreachable:NoSchedule"],
            ),
            ("short of memory", |n| set_condition(n, "MemoryPressure", "True"), false, &["memory-pressure:NoSchedule"]),
            ("cordoned", |n| n.spec.as_mut().unwrap().unschedulable = Some(true), false, &["unschedulable:NoSchedule"]),
            ("never heard of", |n| n.status = None, false, &["not-ready:NoSchedule"]),
        ];
        for (sentence, change, hold, expected) in cases {
            let mut node = node();
            change(&mut node);
            assert_eq!(keys(&wanted(&node, *hold, now())), *expected, "{sentence}");
        }
    }

    #[test]
    fn taints_of_others_stay_and_ours_keep_their_time() {
        let mut node = node();
        let foreign = Taint { key: "dedicated".into(), effect: NO_EXECUTE.into(), value: None, time_added: None };
        node.spec.as_mut().unwrap().taints = Some(vec![foreign.clone()]);
        set_condition(&mut node, "Ready", "Unknown");
        let early = wanted(&node, false, now());
        node.spec.as_mut().unwrap().taints = Some(early.clone());
        let later = Timestamp::from_second(NOW + 100).unwrap();
        assert_eq!(wanted(&node, false, later), early);
        set_condition(&mut node, "Ready", "True");
        assert_eq!(wanted(&node, false, later), [foreign], "all ours go when the node is back");
    }
}
