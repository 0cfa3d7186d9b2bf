use serde_json::json;

use super::*;
use crate::fixtures::pod;

const SECOND: Duration = Duration::from_secs(1);

fn with_priority(name: &str, priority: i32) -> PodInfo {
    pod(name, json!({"spec": {"priority": priority}}))
}

fn plain(name: &str) -> PodInfo {
    with_priority(name, 0)
}

fn popped(queue: &mut Queue, now: Instant) -> Option<String> {
    queue.pop(now).map(|(pod, _)| pod.name.clone())
}

/// A queue with one pod `a` that was refused once, at the instant returned.
fn refused_once() -> (Queue, Instant) {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(plain("a"));
    queue.pop(now);
    queue.refused("a", "no room".into(), now);
    (queue, now)
}

#[test]
fn higher_priority_goes_first_then_first_come_first_served() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    for pod in [with_priority("low", 1), with_priority("high", 9), with_priority("late", 9)] {
        queue.add(pod);
    }
    let order: Vec<String> = std::iter::from_fn(|| popped(&mut queue, now)).collect();
    assert_eq!(order, ["high", "late", "low"]);
}

#[test]
fn a_refused_pod_sleeps_until_a_node_takes_it() {
    let (mut queue, now) = refused_once();
    queue.node_changed(&"n".into(), now + 60 * SECOND, |_| false);
    assert_eq!(popped(&mut queue, now + 60 * SECOND), None);
    queue.node_changed(&"n".into(), now + 61 * SECOND, |_| true);
    let (pod, hope) = queue.pop(now + 61 * SECOND).unwrap();
    assert_eq!((pod.name.as_str(), hope), ("a", Hope::On("n".into())));
}

#[test]
fn hope_does_not_wait_for_the_back_off_while_nothing_is_active() {
    let (mut queue, now) = refused_once();
    queue.node_changed(&"n".into(), now, |_| true);
    assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
}

#[test]
fn hope_waits_behind_active_pods_until_the_back_off_is_over() {
    let (mut queue, now) = refused_once();
    queue.node_changed(&"n".into(), now, |_| true);
    queue.add(with_priority("b", -1));
    queue.add(with_priority("c", -1));
    assert_eq!(popped(&mut queue, now).as_deref(), Some("b"), "its back-off still runs");
    assert_eq!(popped(&mut queue, now + SECOND).as_deref(), Some("a"), "its back-off is over and its priority higher");
}

#[test]
fn hope_on_two_nodes_is_hope_anywhere() {
    let (mut queue, now) = refused_once();
    queue.node_changed(&"n".into(), now, |_| true);
    queue.node_changed(&"m".into(), now, |_| true);
    assert_eq!(queue.pop(now).unwrap().1, Hope::Anywhere);
}

#[test]
fn a_disappointed_pod_sleeps_on() {
    let (mut queue, now) = refused_once();
    queue.node_changed(&"n".into(), now, |_| true);
    queue.pop(now);
    queue.disappointed("a", now);
    assert_eq!(popped(&mut queue, now + 10 * SECOND), None);
    queue.node_changed(&"n".into(), now + SECOND, |_| true);
    assert_eq!(popped(&mut queue, now + SECOND).as_deref(), Some("a"), "only one attempt counts");
}

#[test]
fn a_failed_binding_backs_off_doubling_to_ten_seconds() {
    let (mut queue, mut now) = (Queue::default(), Instant::now());
    queue.add(plain("a"));
    for seconds in [1, 2, 4, 8, 10, 10] {
        assert!(queue.pop(now).is_some());
        queue.failed("a", now);
        assert_eq!(queue.next_deadline(), Some(now + seconds * SECOND));
        assert_eq!(popped(&mut queue, now + seconds * SECOND - SECOND / 2), None, "before {seconds} s");
        now += seconds * SECOND;
    }
    assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
}

#[test]
fn after_five_minutes_a_refused_pod_is_tried_anyway() {
    let (mut queue, now) = refused_once();
    assert_eq!(queue.next_deadline(), Some(now + UNSCHEDULABLE_MAX));
    assert_eq!(popped(&mut queue, now + UNSCHEDULABLE_MAX).as_deref(), Some("a"));
}

#[test]
fn an_empty_queue_has_no_deadline() {
    assert_eq!(Queue::default().next_deadline(), None);
}

#[test]
fn a_changed_demand_wakes_a_refused_pod_and_a_changed_status_does_not() {
    let (mut queue, now) = refused_once();
    queue.add(PodInfo { reported: Some("no room".into()), ..plain("a") });
    assert_eq!(popped(&mut queue, now), None);
    queue.add(pod("a", json!({"spec": {"nodeSelector": {"disk": "ssd"}}})));
    assert_eq!(popped(&mut queue, now).as_deref(), Some("a"));
}

#[test]
fn a_pod_that_is_being_decided_about_is_not_given_out_twice() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(plain("a"));
    queue.pop(now);
    queue.add(with_priority("a", 5));
    assert_eq!(popped(&mut queue, now), None);
    queue.failed("a", now);
    assert_eq!(popped(&mut queue, now + SECOND).as_deref(), Some("a"));
}

#[test]
fn a_removed_pod_is_gone_from_everywhere() {
    let (mut queue, now) = refused_once();
    queue.remove("a");
    queue.node_changed(&"n".into(), now, |_| true);
    queue.failed("a", now);
    assert!(queue.is_empty() && queue.pop(now + UNSCHEDULABLE_MAX).is_none() && queue.next_deadline().is_none());
}

#[test]
fn a_new_priority_moves_a_pod_that_waits() {
    let (mut queue, now) = (Queue::default(), Instant::now());
    queue.add(plain("a"));
    queue.add(plain("b"));
    queue.add(with_priority("b", 3));
    assert_eq!(popped(&mut queue, now).as_deref(), Some("b"));
    assert_eq!(queue.len(), 2, "it is being decided about");
}
