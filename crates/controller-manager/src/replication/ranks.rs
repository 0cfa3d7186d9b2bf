//! Which pods to delete first when there are too many: those whose loss hurts least.
//!
//! The order is that of `ActivePodsWithRanks` in `pkg/controller/controller_utils.go`.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;

use crate::pod::{Phase, PodInfo};

/// `pods` in the order in which they should be deleted.
pub(super) fn sorted_for_deletion(pods: &[&Arc<PodInfo>], now: Timestamp) -> Vec<Arc<PodInfo>> {
    let mut per_node: HashMap<&str, usize> = HashMap::new();
    for node in pods.iter().filter_map(|pod| pod.node.as_deref()) {
        *per_node.entry(node).or_default() += 1;
    }
    let doubled = |pod: &PodInfo| pod.node.as_deref().map_or(0, |node| per_node[node]);
    let mut sorted: Vec<_> = pods.iter().map(|pod| (Rank::of(pod, doubled(pod), now), (*pod).clone())).collect();
    sorted.sort_by(|(a, _), (b, _)| a.cmp(b));
    sorted.into_iter().map(|(_, pod)| pod).collect()
}

/// What the order looks at; the least is deleted first.
struct Rank {
    assigned: bool,
    phase: Phase,
    ready: bool,
    cost: i32,
    /// How many of the pods are on the same node.
    doubled: usize,
    /// When it became ready, and the power of two of how long ago; compared only between ready pods.
    ready_since: Option<(Timestamp, i64)>,
    restarts: i32,
    created: Option<(Timestamp, i64)>,
    uid: Box<str>,
}

impl Rank {
    fn of(pod: &PodInfo, doubled: usize, now: Timestamp) -> Rank {
        Rank {
            assigned: pod.node.is_some(),
            // All others are alike; those that have ended are not asked about.
            phase: pod.phase.min(Phase::Running),
            ready: pod.ready,
            cost: pod.deletion_cost,
            doubled,
            ready_since: pod.ready_since().map(|since| (since, age_bucket(since, now))),
            restarts: pod.restarts,
            created: pod.created.map(|at| (at, age_bucket(at, now))),
            uid: pod.uid.clone(),
        }
    }

    fn cmp(&self, other: &Rank) -> Ordering {
        self.assigned
            .cmp(&other.assigned)
            .then(self.phase.cmp(&other.phase))
            .then(self.ready.cmp(&other.ready))
            .then(self.cost.cmp(&other.cost))
            .then(other.doubled.cmp(&self.doubled))
            .then_with(|| younger_first(self.ready_since, other.ready_since, self, other))
            .then(other.restarts.cmp(&self.restarts))
            .then_with(|| younger_first(self.created, other.created, self, other))
    }
}

/// The younger of two first, where ages of the same power of two count as alike and the UID decides: otherwise a
/// rollout's newest pods would always be the ones to go.
fn younger_first(a: Option<(Timestamp, i64)>, b: Option<(Timestamp, i64)>, of_a: &Rank, of_b: &Rank) -> Ordering {
    match (a, b) {
        (Some((a, _)), Some((b, _))) if a == b => Ordering::Equal,
        (Some((_, a)), Some((_, b))) => a.cmp(&b).then_with(|| of_a.uid.cmp(&of_b.uid)),
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (None, None) => Ordering::Equal,
    }
}

fn age_bucket(since: Timestamp, now: Timestamp) -> i64 {
    let age = now.as_nanosecond() - since.as_nanosecond();
    if age <= 0 { -1 } else { i64::from(age.ilog2()) }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{NOW, pod, ready, set_ready};
    use super::*;

    fn node(pod: &mut PodInfo, node: &str) {
        pod.node = Some(node.into());
    }

    #[test]
    fn pods_whose_loss_hurts_least_go_first() {
        type Change = fn(&mut PodInfo);
        let cases: &[(&str, Change, Change)] = &[
            ("unassigned before assigned", |_| (), |p| node(p, "n")),
            (
                "pending before running",
                |p| {
                    node(p, "n");
                    p.phase = Phase::Pending;
                },
                |p| node(p, "m"),
            ),
            ("unknown before running", |p| p.phase = Phase::Unknown, |p| p.phase = Phase::Running),
            ("not ready before ready", |_| (), |p| set_ready(p, 100)),
            ("cheap before dear", |p| p.deletion_cost = -5, |_| ()),
            ("ready for a short time before ready for long", |p| set_ready(p, 10), |p| set_ready(p, 1000)),
            ("often restarted before never restarted", |p| p.restarts = 3, |_| ()),
            (
                "young before old",
                |p| p.created = Some(Timestamp::from_second(NOW - 5).unwrap()),
                |p| p.created = Some(Timestamp::from_second(NOW - 5000).unwrap()),
            ),
        ];
        for (sentence, first, second) in cases {
            let (mut a, mut b) = (pod("a"), pod("b"));
            first(&mut a);
            second(&mut b);
            let (a, b) = (Arc::new(a), Arc::new(b));
            let sorted = sorted_for_deletion(&[&b, &a], Timestamp::from_second(NOW).unwrap());
            assert_eq!(&*sorted[0].name, "a", "{sentence}");
        }
    }

    #[test]
    fn doubled_up_on_a_node_goes_before_alone_on_a_node() {
        let on = |name: &str, n: &str| {
            let mut pod = ready(name);
            node(&mut pod, n);
            Arc::new(pod)
        };
        let pods = [on("alone", "m"), on("twin-a", "n"), on("twin-b", "n")];
        let pods: Vec<_> = pods.iter().collect();
        let sorted = sorted_for_deletion(&pods, Timestamp::from_second(NOW).unwrap());
        assert_eq!(&*sorted[2].name, "alone");
    }

    #[test]
    fn ages_of_one_power_of_two_are_alike() {
        let now = Timestamp::from_second(NOW).unwrap();
        let ago = |seconds: i64| age_bucket(Timestamp::from_second(NOW - seconds).unwrap(), now);
        assert_eq!(ago(600), ago(1000));
        assert!(ago(10) < ago(1000));
        assert_eq!(ago(-5), -1);
    }
}
