//! Scores: which of the nodes a pod may run on suits it best.
//!
//! Each score is 0 to 100 for every candidate and counts with a weight; the weights are upstream's
//! (`pkg/scheduler/apis/config/v1/default_plugins.go`), spreading takes the place and the weight of `PodTopologySpread`.

use crate::node::NodeInfo;
use crate::pod::{Demand, PodInfo};

/// The best score.
const MAX: i64 = 100;
const WEIGHT_LEAST_REQUESTED: i64 = 1;
const WEIGHT_BALANCED: i64 = 1;
const WEIGHT_SPREAD: i64 = 2;
const WEIGHT_AFFINITY: i64 = 2;
const WEIGHT_TAINTS: i64 = 3;

/// The scores of one candidate, each 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scores {
    /// The emptier the better (`LeastAllocated`).
    pub least_requested: i64,
    /// CPU and memory used to like parts (`BalancedAllocation`).
    pub balanced: i64,
    /// Few pods of the same controller.
    pub spread: i64,
    /// Preferred node affinity fulfilled.
    pub affinity: i64,
    /// Few `PreferNoSchedule` taints that the pod does not tolerate.
    pub taints: i64,
}

impl Scores {
    /// What candidates are compared by.
    pub fn total(&self) -> i64 {
        self.least_requested * WEIGHT_LEAST_REQUESTED
            + self.balanced * WEIGHT_BALANCED
            + self.spread * WEIGHT_SPREAD
            + self.affinity * WEIGHT_AFFINITY
            + self.taints * WEIGHT_TAINTS
    }
}

/// Scores `candidates`, in their order. Three of the scores are relative to the best or worst candidate.
pub fn score(pod: &PodInfo, candidates: &[&NodeInfo]) -> Vec<Scores> {
    let demand = &pod.demand;
    let raw = |node: &&NodeInfo| Scores {
        least_requested: least_requested(demand, node),
        balanced: balanced(demand, node),
        spread: demand.controller.as_ref().map_or(0, |controller| node.usage.pods_of(controller).into()),
        affinity: if demand.affinity.has_preferences() {
            demand.affinity.preference(&node.spec.name, &node.spec.labels)
        } else {
            0
        },
        taints: disliked_taints(demand, node),
    };
    let mut scores: Vec<Scores> = candidates.iter().map(raw).collect();
    normalize(&mut scores);
    scores
}

/// Turns counts into scores: many is good for affinity, bad for spread and taints.
fn normalize(scores: &mut [Scores]) {
    let most = |count: fn(&Scores) -> i64| scores.iter().map(count).max().unwrap_or(0);
    let (spread, affinity, taints) = (most(|s| s.spread), most(|s| s.affinity), most(|s| s.taints));
    for score in scores {
        score.spread = MAX - part(score.spread, spread);
        score.affinity = part(score.affinity, affinity);
        score.taints = MAX - part(score.taints, taints);
    }
}

fn part(count: i64, most: i64) -> i64 {
    if most <= 0 { 0 } else { count.max(0) * MAX / most }
}

/// The mean of the free parts of CPU and memory, with the pod on the node.
fn least_requested(pod: &Demand, node: &NodeInfo) -> i64 {
    let total = &node.spec.allocatable.resources;
    let cpu = free_part(node.usage.scoring_milli_cpu + pod.scoring_milli_cpu, total.milli_cpu);
    let memory = free_part(node.usage.scoring_memory + pod.scoring_memory, total.memory);
    match (cpu, memory) {
        (Some(cpu), Some(memory)) => (cpu + memory) / 2,
        (one, other) => one.or(other).unwrap_or(0),
    }
}

/// `None` where the node has nothing of it, which then does not count.
fn free_part(used: i128, total: i128) -> Option<i64> {
    if total <= 0 {
        return None;
    }
    Some(i64::try_from(((total - used).max(0)) * i128::from(MAX) / total).unwrap_or(0))
}

/// 100 where CPU and memory are used to the same part, less the further these are apart (the standard deviation of
/// two values is half their distance).
fn balanced(pod: &Demand, node: &NodeInfo) -> i64 {
    let (total, used) = (&node.spec.allocatable.resources, &node.usage.requested);
    let fraction = |used: i128, total: i128| if total <= 0 { 0.0 } else { (used as f64 / total as f64).min(1.0) };
    let cpu = fraction(used.milli_cpu + pod.requests.milli_cpu, total.milli_cpu);
    let memory = fraction(used.memory + pod.requests.memory, total.memory);
    ((1.0 - (cpu - memory).abs() / 2.0) * MAX as f64) as i64
}

fn disliked_taints(pod: &Demand, node: &NodeInfo) -> i64 {
    let soft = node.spec.taints.iter().filter(|taint| !taint.effect.forbids());
    soft.map(|taint| i64::from(!taint.tolerated_by(&pod.tolerations))).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::fixtures::{node, pod, pod_with_cpu};

    fn with(name: &str, change: Value, pods: &[PodInfo]) -> NodeInfo {
        let mut node = NodeInfo { spec: node(name, change), ..NodeInfo::default() };
        pods.iter().for_each(|pod| node.usage.add(&pod.demand));
        node
    }

    fn scores(pod: &PodInfo, nodes: &[NodeInfo]) -> Vec<Scores> {
        score(pod, &nodes.iter().collect::<Vec<_>>())
    }

    #[test]
    fn the_emptier_node_has_more_left() {
        let nodes = [with("idle", json!({}), &[]), with("busy", json!({}), &[pod_with_cpu("a", 2000)])];
        let scores = scores(&pod_with_cpu("p", 1000), &nodes);
        // CPU: 3 of 4 cores stay free (75) against 1 of 4 (25); memory: one or two defaults of 200 MiB of 8 GiB.
        assert_eq!((scores[0].least_requested, scores[1].least_requested), ((75 + 97) / 2, (25 + 95) / 2));
    }

    #[test]
    fn like_parts_of_cpu_and_memory_are_balanced() {
        let half = |cpu: &str, memory: &str| {
            pod(
                "a",
                json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu, "memory": memory}}}]}}),
            )
        };
        let nodes = [with("even", json!({}), &[half("2", "4Gi")]), with("odd", json!({}), &[half("4", "0")])];
        let scores = scores(&pod("p", json!({})), &nodes);
        assert_eq!((scores[0].balanced, scores[1].balanced), (100, 50));
    }

    #[test]
    fn pods_of_one_controller_keep_apart() {
        let owned = |name: &str| {
            let owner = json!([{"apiVersion": "v1", "kind": "ReplicationController", "name": "rc", "uid": "rc", "controller": true}]);
            pod(name, json!({"metadata": {"ownerReferences": owner}}))
        };
        let nodes = [
            with("none", json!({}), &[pod("x", json!({}))]),
            with("one", json!({}), &[owned("a")]),
            with("two", json!({}), &[owned("b"), owned("c")]),
        ];
        let scores = scores(&owned("p"), &nodes);
        assert_eq!(scores.iter().map(|s| s.spread).collect::<Vec<_>>(), [100, 50, 0]);
    }

    #[test]
    fn fulfilled_wishes_count_against_the_best() {
        let wish = |weight: i32, value: &str| {
            json!({"weight": weight, "preference": {"matchExpressions":
                [{"key": "disk", "operator": "In", "values": [value]}]}})
        };
        let wishes = json!([wish(20, "ssd"), wish(5, "hdd")]);
        let pod = pod(
            "p",
            json!({"spec": {"affinity": {"nodeAffinity":
            {"preferredDuringSchedulingIgnoredDuringExecution": wishes}}}}),
        );
        let disk = |kind: &str| json!({"metadata": {"labels": {"disk": kind}}});
        let nodes = [with("a", disk("ssd"), &[]), with("b", disk("hdd"), &[]), with("c", disk("tape"), &[])];
        assert_eq!(scores(&pod, &nodes).iter().map(|s| s.affinity).collect::<Vec<_>>(), [100, 25, 0]);
    }

    #[test]
    fn disliked_taints_count_against_a_node() {
        let tainted = json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}});
        let nodes = [with("clean", json!({}), &[]), with("tainted", tainted, &[])];
        let plain = scores(&pod("p", json!({})), &nodes);
        assert_eq!(plain.iter().map(|s| s.taints).collect::<Vec<_>>(), [100, 0]);
        let tolerant = pod("p", json!({"spec": {"tolerations": [{"key": "k", "operator": "Exists"}]}}));
        assert_eq!(scores(&tolerant, &nodes).iter().map(|s| s.taints).collect::<Vec<_>>(), [100, 100]);
    }
}
