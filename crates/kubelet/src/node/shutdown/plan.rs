//! Who ends when (`groupByPriority`, `killPods` in `pkg/kubelet/nodeshutdown/nodeshutdown_manager.go`). Pure.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::pod;

/// Pods of this priority and above are critical (`SystemCriticalPriority`).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;
/// What the status of a pod says that ended so.
pub const MESSAGE: &str = "Pod was terminated in response to imminent node shutdown.";

/// Pods that end together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// How long they are waited for.
    pub time: Duration,
    /// Their UIDs, and how many seconds each has.
    pub pods: Vec<(String, i64)>,
}

/// The rounds in which `pods` end, within `grace`, the last `critical` of it for the critical ones. A round without pods is
/// none; those that have ended are in none, so that planning again when all is done gives nothing.
pub fn rounds(pods: &[Arc<Pod>], grace: Duration, critical: Duration) -> Vec<Round> {
    let active = pods.iter().filter(|pod| !api::pods::is_terminal(pod));
    let is_critical = |pod: &Pod| pod.spec.as_ref().and_then(|s| s.priority).unwrap_or(0) >= CRITICAL_PRIORITY;
    let (last, first): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) = active.partition(|pod| is_critical(pod));
    let round = |(time, pods): (Duration, Vec<&Arc<Pod>>)| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        let own = |pod: &Pod| i64::try_from(pod::grace(pod).as_secs()).unwrap_or(i64::MAX);
        let mut pods: Vec<(String, i64)> =
            pods.into_iter().map(|pod| (pod::uid(pod).to_owned(), own(pod).min(seconds))).collect();
        pods.sort();
        Round { time, pods }
    };
    let all = [(grace.saturating_sub(critical), first), (critical, last)];
    all.into_iter().filter(|(_, pods)| !pods.is_empty()).map(round).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn ordinary_pods_end_first_and_critical_ones_have_their_time() {
        let pod = |uid: &str, priority: i32, grace: i64, phase: &str| -> Arc<Pod> {
            let spec = json!({"containers": [], "priority": priority, "terminationGracePeriodSeconds": grace});
            let all = json!({"metadata": {"uid": uid}, "spec": spec, "status": {"phase": phase}});
            Arc::new(serde_json::from_value(all).unwrap())
        };
        let (long, short) = (pod("long", 0, 600, "Running"), pod("short", 1000, 5, "Pending"));
        let (critical, done) = (pod("critical", 2_000_001_000, 30, "Running"), pod("done", 0, 30, "Succeeded"));
        let secs = Duration::from_secs;
        let shown = |pods: &[&Arc<Pod>]| {
            let pods: Vec<Arc<Pod>> = pods.iter().map(|pod| (*pod).clone()).collect();
            let rounds = rounds(&pods, secs(30), secs(10));
            let shown: Vec<(u64, Vec<(String, i64)>)> =
                rounds.into_iter().map(|round| (round.time.as_secs(), round.pods)).collect();
            json!(shown)
        };
        for (sentence, pods, expected) in [
            (
                "all",
                vec![&critical, &long, &short, &done],
                json!([[20, [["long", 20], ["short", 5]]], [10, [["critical", 10]]]]),
            ),
            ("nobody waits for no one", vec![&critical], json!([[10, [["critical", 10]]]])),
            ("nothing is left", vec![&done], json!([])),
        ] {
            assert_eq!(shown(&pods), expected, "{sentence}");
        }
    }
}
