use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::json;

use super::*;
use crate::fixtures::{node, pod_with_cpu};
use crate::queue::{BACKOFF_MIN, UNSCHEDULABLE_MAX};

struct World {
    cluster: Cluster,
    rng: StdRng,
    now: Instant,
}

/// A cluster of one node of four cores.
fn world() -> World {
    let mut cluster = Cluster::default();
    cluster.node_seen(node("n", json!({})));
    World { cluster, rng: StdRng::seed_from_u64(1), now: Instant::now() }
}

impl World {
    fn waits(&mut self, name: &str, milli_cpu: u32) {
        self.cluster.pod_seen(name, Observed::Waiting(pod_with_cpu(name, milli_cpu).into()));
    }

    fn placed(&mut self, name: &str, milli_cpu: u32, node: &str) {
        let pod = pod_with_cpu(name, milli_cpu);
        self.cluster.pod_seen(name, Observed::Placed { pod: pod.into(), node: node.to_owned() });
    }

    /// One step in short: `bind p to n`, `refuse p`, `wait`.
    fn step(&mut self) -> String {
        match self.cluster.step(self.now, &mut self.rng) {
            Step::Bind(pod, decision) => format!("bind {} to {}", pod.name, decision.node),
            Step::Refuse(pod, _) => format!("refuse {}", pod.name),
            Step::Wait(_) => "wait".to_owned(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

#[test]
fn room_is_taken_before_the_binding_is_acknowledged() {
    let mut world = world();
    world.waits("a", 3000);
    world.waits("b", 3000);
    assert_eq!([world.step(), world.step(), world.step()], ["bind a to n", "refuse b", "wait"]);
}

#[test]
fn a_failed_binding_frees_the_room_for_the_next_pod() {
    let mut world = world();
    world.waits("a", 3000);
    world.waits("b", 3000);
    world.step();
    world.step();
    world.cluster.bind_failed("a", world.now);
    assert_eq!([world.step(), world.step()], ["bind b to n", "wait"]);
    world.cluster.bound("b");
    world.pass(BACKOFF_MIN);
    assert_eq!(world.step(), "refuse a");
}

#[test]
fn a_stale_event_does_not_undo_a_binding() {
    let mut world = world();
    world.waits("a", 3000);
    world.step();
    world.waits("a", 3000);
    world.cluster.bound("a");
    world.waits("a", 3000);
    assert_eq!(world.step(), "wait");
    world.placed("a", 3000, "n");
    assert_eq!(world.cluster.snapshot().node("n").unwrap().usage.pods, 1);
}

#[test]
fn a_pod_deleted_while_it_is_bound_leaves_no_trace() {
    let mut world = world();
    world.waits("a", 3000);
    world.step();
    world.cluster.pod_gone("a");
    world.cluster.bind_failed("a", world.now);
    world.pass(UNSCHEDULABLE_MAX);
    assert_eq!(world.step(), "wait");
    assert_eq!(world.cluster.snapshot().pod_count(), 0);
}

#[test]
fn a_finished_pod_lets_the_next_one_in_at_once() {
    let mut world = world();
    world.placed("old", 4000, "n");
    world.waits("a", 1000);
    assert_eq!([world.step(), world.step()], ["refuse a", "wait"]);
    world.cluster.pod_seen("old", Observed::Finished);
    assert_eq!(world.step(), "bind a to n");
}

#[test]
fn refused_pods_wake_for_what_helps_them_and_for_nothing_else() {
    let mut world = world();
    world.waits("a", 6000);
    assert_eq!(world.step(), "refuse a");
    let table = [
        ("another small node", node("small", json!({})), "wait"),
        ("a label", node("n", json!({"metadata": {"labels": {"disk": "ssd"}}})), "wait"),
        (
            "a big node, cordoned",
            node("big", json!({"status": {"allocatable": {"cpu": "8"}}, "spec": {"unschedulable": true}})),
            "wait",
        ),
        ("the big node again, open", node("big", json!({"status": {"allocatable": {"cpu": "8"}}})), "bind a to big"),
    ];
    for (sentence, node, expected) in table {
        world.cluster.node_seen(node);
        assert_eq!(world.step(), expected, "{sentence}");
    }
}

#[test]
fn room_for_one_wakes_all_who_fit_and_takes_one() {
    let mut world = world();
    world.placed("old", 4000, "n");
    for name in ["a", "b", "c"] {
        world.waits(name, 4000);
        world.step();
    }
    world.cluster.pod_gone("old");
    assert!(world.step().starts_with("bind"));
    assert_eq!(world.step(), "wait", "the others sleep on without a second refusal");
}

#[test]
fn many_changed_nodes_are_looked_at_in_several_steps() {
    let mut world = world();
    world.waits("a", 8000);
    assert_eq!(world.step(), "refuse a");
    for number in 0..3 * CHANGED_NODES_PER_STEP {
        world.cluster.node_seen(node(&format!("a{number:03}"), json!({})));
    }
    world.cluster.node_seen(node("big", json!({"status": {"allocatable": {"cpu": "9"}}})));
    let steps: Vec<String> = (0..4).map(|_| world.step()).collect();
    assert_eq!(steps, ["wait", "wait", "wait", "bind a to big"]);
}

#[test]
fn a_pod_that_is_no_longer_ours_is_left_alone() {
    let mut world = world();
    world.waits("a", 1000);
    world.cluster.pod_seen("a", Observed::NotOurs);
    assert_eq!(world.step(), "wait");
}

#[test]
fn after_a_restart_bound_pods_take_their_room_first() {
    let mut world = world();
    world.placed("old", 3500, "n");
    world.waits("a", 1000);
    assert_eq!(world.step(), "refuse a");
}
