use std::collections::BTreeMap;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};

use super::*;
use crate::fixtures::{node, pod, pod_with_cpu};

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

fn cluster(nodes: impl IntoIterator<Item = (&'static str, Value)>) -> Snapshot {
    let mut snapshot = Snapshot::default();
    for (name, change) in nodes {
        snapshot.set_node(node(name, change));
    }
    snapshot
}

#[test]
fn the_refusal_reads_as_upstreams() {
    let tainted = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
    let snapshot = cluster([("a", tainted.clone()), ("b", json!({})), ("c", tainted)]);
    let refusal = schedule(&pod_with_cpu("p", 9000), &snapshot, &mut rng()).unwrap_err();
    let text = "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {k: v}.";
    assert_eq!(refusal.to_string(), text);
}

#[test]
fn without_nodes_it_says_so() {
    let refusal = schedule(&pod("p", json!({})), &Snapshot::default(), &mut rng()).unwrap_err();
    assert_eq!(refusal.to_string(), "no nodes available to schedule pods");
}

#[test]
fn the_only_node_that_admits_is_chosen() {
    let snapshot = cluster([
        ("cordoned", json!({"spec": {"unschedulable": true}})),
        ("plain", json!({})),
        ("lost", json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}})),
    ]);
    let decision = schedule(&pod("p", json!({})), &snapshot, &mut rng()).unwrap();
    assert_eq!((&*decision.node, decision.candidates, decision.evaluated), ("plain", 1, 3));
}

#[test]
fn equal_nodes_are_drawn_by_lot() {
    let snapshot = cluster([("a", json!({})), ("b", json!({})), ("c", json!({}))]);
    let mut rng = rng();
    let mut drawn = BTreeMap::new();
    for _ in 0..300 {
        let decision = schedule(&pod("p", json!({})), &snapshot, &mut rng).unwrap();
        *drawn.entry(decision.node).or_insert(0) += 1;
    }
    assert!(drawn.len() == 3 && drawn.values().all(|count| *count > 50), "{drawn:?}");
}

#[test]
fn the_same_seed_makes_the_same_choices() {
    let snapshot = cluster([("a", json!({})), ("b", json!({})), ("c", json!({}))]);
    let choose = || {
        let mut rng = rng();
        (0..20).map(|_| schedule(&pod("p", json!({})), &snapshot, &mut rng).unwrap().node).collect::<Vec<_>>()
    };
    assert_eq!(choose(), choose());
}

#[test]
fn replicas_of_one_controller_land_on_different_nodes() {
    let mut snapshot = cluster([("a", json!({})), ("b", json!({})), ("c", json!({}))]);
    let owner = json!([{"apiVersion": "v1", "kind": "ReplicaSet", "name": "rs", "uid": "rs", "controller": true}]);
    for name in ["p1", "p2", "p3"] {
        let pod = pod(name, json!({"metadata": {"ownerReferences": owner}}));
        let decision = schedule(&pod, &snapshot, &mut rng()).unwrap();
        snapshot.assume(pod.into(), &decision.node);
    }
    assert!(snapshot.nodes().iter().all(|node| node.usage.pods == 1));
}

#[test]
fn large_clusters_are_searched_in_part() {
    let table = [(1, 1), (99, 99), (100, 100), (150, 100), (1000, 420), (5000, 500), (10000, 500)];
    for (nodes, wanted) in table {
        assert_eq!(candidates_wanted(nodes), wanted, "{nodes} nodes");
    }
}

#[test]
fn explaining_tells_of_every_node() {
    let snapshot = cluster([("cordoned", json!({"spec": {"unschedulable": true}})), ("plain", json!({}))]);
    let verdicts: BTreeMap<NodeName, Verdict> = explain(&pod("p", json!({})), &snapshot).into_iter().collect();
    assert_eq!(verdicts["cordoned"], Verdict::Refused(vec![Reason::Unschedulable]));
    assert!(matches!(verdicts["plain"], Verdict::Candidate(_)));
}

/// A node and what is in it, drawn at random.
fn any_node() -> impl Strategy<Value = Value> {
    (0..4000u32, 0..5u32, any::<bool>(), any::<bool>(), prop::sample::select(vec!["ssd", "hdd"])).prop_map(
        |(cpu, pods, cordoned, tainted, disk)| {
            let taints = if tainted { json!([{"key": "k", "effect": "NoSchedule"}]) } else { json!([]) };
            json!({
                "metadata": {"labels": {"disk": disk}},
                "spec": {"unschedulable": cordoned, "taints": taints},
                "status": {"allocatable": {"cpu": format!("{cpu}m"), "pods": pods.to_string()}},
            })
        },
    )
}

fn any_pod() -> impl Strategy<Value = Value> {
    (0..1500u32, prop::option::of(8000..8002u16), any::<bool>(), any::<bool>()).prop_map(
        |(cpu, port, tolerant, picky)| {
            let ports = port.map_or(json!([]), |port| json!([{"containerPort": 80, "hostPort": port}]));
            let container = json!({"name": "c", "ports": ports, "resources": {"requests": {"cpu": format!("{cpu}m")}}});
            json!({"spec": {
                "containers": [container],
                "tolerations": if tolerant { json!([{"key": "k", "operator": "Exists"}]) } else { json!([]) },
                "nodeSelector": if picky { json!({"disk": "ssd"}) } else { json!({}) },
            }})
        },
    )
}

fn port_of(pod: &Value) -> Option<i64> {
    pod["spec"]["containers"][0]["ports"][0]["hostPort"].as_i64()
}

fn milli(quantity: &Value) -> i64 {
    quantity.as_str().unwrap().trim_end_matches('m').parse().unwrap()
}

/// Checks a node and its pods from their JSON alone, knowing nothing of filters.
fn assert_legal(node: &Value, pods: &[&Value]) -> Result<(), TestCaseError> {
    let cpu: i64 = pods.iter().map(|p| milli(&p["spec"]["containers"][0]["resources"]["requests"]["cpu"])).sum();
    prop_assert!(cpu <= milli(&node["status"]["allocatable"]["cpu"]), "cpu is over-committed");
    let room: usize = node["status"]["allocatable"]["pods"].as_str().unwrap().parse().unwrap();
    prop_assert!(pods.len() <= room, "too many pods");
    prop_assert!(pods.is_empty() || node["spec"]["unschedulable"] == false, "cordoned");
    let mut ports: Vec<i64> = pods.iter().filter_map(|p| port_of(p)).collect();
    ports.sort_unstable();
    prop_assert!(ports.windows(2).all(|pair| pair[0] != pair[1]), "a host port twice");
    for pod in pods {
        let tainted = node["spec"]["taints"][0].is_object();
        prop_assert!(!tainted || pod["spec"]["tolerations"][0].is_object(), "untolerated taint");
        let disk = &pod["spec"]["nodeSelector"]["disk"];
        prop_assert!(disk.is_null() || *disk == node["metadata"]["labels"]["disk"], "wrong disk");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However many pods come, none is put where a rule forbids it, nothing is given twice, and none is refused
    /// that fits somewhere.
    #[test]
    fn no_decision_breaks_a_rule(
        nodes in prop::collection::vec(any_node(), 1..6),
        pods in prop::collection::vec(any_pod(), 0..30),
        seed in any::<u64>(),
    ) {
        let mut snapshot = Snapshot::default();
        for (position, change) in nodes.iter().enumerate() {
            snapshot.set_node(node(&position.to_string(), change.clone()));
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let mut placed: Vec<Vec<&Value>> = vec![Vec::new(); nodes.len()];
        for (position, change) in pods.iter().enumerate() {
            let pod = pod(&position.to_string(), change.clone());
            match schedule(&pod, &snapshot, &mut rng) {
                Ok(decision) => {
                    placed[decision.node.parse::<usize>().unwrap()].push(change);
                    snapshot.assume(pod.into(), &decision.node);
                }
                Err(_) => for (node, pods) in nodes.iter().zip(&placed) {
                    let with = [pods.as_slice(), &[change]].concat();
                    prop_assert!(assert_legal(node, &with).is_err(), "refused although it fits");
                },
            }
        }
        for (node, pods) in nodes.iter().zip(&placed) {
            assert_legal(node, pods)?;
        }
    }
}
