//! Removes pods nobody else will remove: finished ones beyond a number, those of nodes that are gone, and those
//! deleted before they had a node.
//!
//! Behaviour follows `pkg/controller/podgc/gc_controller.go`, woken by changes instead of every 20 seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use client::{Change, Lister, Outcome, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Error;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::Config;
use crate::context::{Context, Key as PodKey, new_queue, outcome};
use crate::informers::{BY_NODE, BY_PHASE, TERMINAL};
use crate::pod::PodInfo;
use crate::rest::{self, Rest};

const NAME: &str = "pod-garbage-collector";
const WORKERS: usize = 4;

/// What to look at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    /// All finished pods.
    Finished,
    /// The pods bound to a node.
    Node(String),
    /// One pod.
    Pod(PodKey),
}

struct Controller {
    pods: Lister<PodInfo>,
    nodes: Lister<Node>,
    /// Since when a node with pods has been missing.
    missing: Mutex<HashMap<String, Instant>>,
    config: Arc<Config>,
    queue: WorkQueue<Key>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller {
        pods: caches.pods.clone(),
        nodes: caches.nodes.clone(),
        missing: Mutex::default(),
        config: context.config.clone(),
        queue: new_queue(),
        rest: context.rest.clone(),
    });
    let c = controller.clone();
    context.informers.pods.on_change(move |change| c.pod_changed(change));
    let queue = controller.queue.clone();
    context.informers.nodes.on_change(move |change| {
        if let Change::Deleted(node) = change {
            queue.add(Key::Node(node.metadata.name.clone().unwrap_or_default()));
        }
    });
    let synced = async move {
        caches.pods.synced().await;
        caches.nodes.synced().await;
    };
    let queue = controller.queue.clone();
    context.run_workers(synced, &queue, WORKERS, move |key| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&key).await;
            outcome(NAME, &key, result)
        }
    });
}

impl Controller {
    fn pod_changed(&self, change: &Change<PodInfo>) {
        let (old, pod) = match change {
            Change::Added(pod) => (None, pod),
            Change::Updated { old, new } => (Some(old), new),
            Change::Deleted(_) => return,
        };
        if pod.is_terminal() && !old.is_some_and(|old| old.is_terminal()) {
            self.queue.add(Key::Finished);
        }
        if is_unscheduled_terminating(pod) {
            self.queue.add(Key::Pod(PodKey::of_pod(pod)));
        }
        if let Some(node) = &pod.node
            && old.is_none_or(|old| old.node.is_none())
            && self.nodes.get(None, node).is_none()
        {
            self.queue.add(Key::Node(node.to_string()));
        }
    }

    async fn sync(&self, key: &Key) -> Result<Outcome, Error> {
        let (doomed, outcome) = match key {
            Key::Finished => {
                let finished = self.pods.by_index(BY_PHASE, TERMINAL);
                (surplus(finished, self.config.terminated_pod_gc_threshold), Outcome::Done)
            }
            Key::Node(name) => self.orphans(name).await?,
            Key::Pod(key) => {
                let pod = self.pods.get(Some(&key.namespace), &key.name);
                let doomed = pod
                    .filter(|pod| is_unscheduled_terminating(pod))
                    .map(|pod| Removal { pod, reason: Reason::Unscheduled });
                (doomed.into_iter().collect(), Outcome::Done)
            }
        };
        for removal in doomed {
            self.remove(removal).await?;
        }
        Ok(outcome)
    }

    /// The pods of a node that has been gone for long enough, or when that will be.
    async fn orphans(&self, name: &str) -> Result<(Vec<Removal>, Outcome), Error> {
        let pods = self.pods.by_index(BY_NODE, name);
        if pods.is_empty() || self.nodes.get(None, name).is_some() {
            self.missing.lock().remove(name);
            return Ok((Vec::new(), Outcome::Done));
        }
        let now = Instant::now();
        let since = *self.missing.lock().entry(name.to_owned()).or_insert(now);
        let left = (since + self.config.orphaned_pod_grace).saturating_duration_since(now);
        if !left.is_zero() {
            return Ok((Vec::new(), Outcome::After(left)));
        }
        // The cache may be behind: ask.
        if self.rest.get_metadata(&rest::path::<Node>(None), name).await?.is_some() {
            return Ok((Vec::new(), Outcome::Done));
        }
        self.missing.lock().remove(name);
        Ok((orphaned(pods), Outcome::Done))
    }

    async fn remove(&self, removal: Removal) -> Result<(), Error> {
        let Removal { pod, reason } = removal;
        let path = rest::path::<Pod>(Some(&pod.namespace));
        tracing::info!(namespace = &*pod.namespace, pod = &*pod.name, ?reason, "removing pod");
        if let Some(status) = failed(&pod, reason, Timestamp::now()) {
            rest::ignore_not_found(self.rest.patch_pod_status(&pod, &status).await)?;
        }
        self.rest.delete(&path, &pod.name, &rest::only_uid(&pod.uid).grace_period(0)).await
    }
}

/// Why a pod is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    /// It has ended, and so have more pods than are kept.
    Finished,
    /// Its node is gone.
    Orphaned,
    /// It was deleted before it had a node, so no kubelet will end it.
    Unscheduled,
}

/// The removal of one pod, without grace.
#[derive(Clone, Debug, PartialEq)]
struct Removal {
    pod: Arc<PodInfo>,
    reason: Reason,
}

/// The oldest of the `finished` pods beyond `threshold`, evicted ones first; none with a threshold of 0.
fn surplus(finished: Vec<Arc<PodInfo>>, threshold: usize) -> Vec<Removal> {
    if threshold == 0 || finished.len() <= threshold {
        return Vec::new();
    }
    let mut oldest = finished;
    oldest.sort_by(|a, b| (!a.evicted, a.created, &a.name).cmp(&(!b.evicted, b.created, &b.name)));
    let count = oldest.len() - threshold;
    oldest.into_iter().take(count).map(|pod| Removal { pod, reason: Reason::Finished }).collect()
}

fn orphaned(pods: Vec<Arc<PodInfo>>) -> Vec<Removal> {
    pods.into_iter().map(|pod| Removal { pod, reason: Reason::Orphaned }).collect()
}

fn is_unscheduled_terminating(pod: &PodInfo) -> bool {
    pod.is_terminating() && pod.node.is_none()
}

/// What its status should say to those who watch the pod: one that did not finish has failed.
fn failed(pod: &PodInfo, reason: Reason, now: Timestamp) -> Option<Value> {
    if pod.is_terminal() {
        return None;
    }
    let mut status = json!({"phase": "Failed"});
    if reason == Reason::Orphaned {
        let mut disrupted = json!({
            "type": "DisruptionTarget", "status": "True",
            "reason": "DeletionByPodGC", "message": "PodGC: node no longer exists",
        });
        if !pod.disrupted {
            disrupted["lastTransitionTime"] = json!(Time(now));
        }
        status["conditions"] = json!([disrupted]);
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pod::Phase;

    fn finished(name: &str, created: i64, evicted: bool) -> Arc<PodInfo> {
        let created = Some(Timestamp::from_second(created).unwrap());
        Arc::new(PodInfo { name: name.into(), created, evicted, phase: Phase::Succeeded, ..PodInfo::default() })
    }

    fn names(removals: &[Removal]) -> Vec<&str> {
        removals.iter().map(|removal| &*removal.pod.name).collect()
    }

    #[test]
    fn the_oldest_finished_pods_go_and_evicted_ones_before_them() {
        let pods = || vec![finished("old", 1, false), finished("young", 3, false), finished("evicted", 4, true)];
        let cases = [
            ("as many as are kept", 3, vec![]),
            ("one too many", 2, vec!["evicted"]),
            ("two too many", 1, vec!["evicted", "old"]),
            ("no threshold", 0, vec![]),
        ];
        for (sentence, threshold, expected) in cases {
            assert_eq!(names(&surplus(pods(), threshold)), expected, "{sentence}");
        }
    }

    #[test]
    fn a_pod_whose_node_is_gone_has_failed() {
        let mut lost = PodInfo::default();
        let status = failed(&lost, Reason::Orphaned, Timestamp::UNIX_EPOCH).unwrap();
        let condition = &status["conditions"][0];
        assert_eq!((&status["phase"], &condition["reason"]), (&json!("Failed"), &json!("DeletionByPodGC")));
        assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:00:00Z");
        lost.disrupted = true;
        let status = failed(&lost, Reason::Orphaned, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(status["conditions"][0]["lastTransitionTime"], Value::Null, "one that was disrupted stays so");
        assert_eq!(failed(&lost, Reason::Unscheduled, Timestamp::UNIX_EPOCH), Some(json!({"phase": "Failed"})));
        lost.phase = Phase::Failed;
        assert_eq!(failed(&lost, Reason::Orphaned, Timestamp::UNIX_EPOCH), None, "and is not changed again");
    }

    #[test]
    fn only_a_deleted_pod_without_node_is_removed_at_once() {
        let mut pod = PodInfo::default();
        assert!(!is_unscheduled_terminating(&pod));
        pod.deletion = Some(Timestamp::UNIX_EPOCH);
        assert!(is_unscheduled_terminating(&pod));
        pod.node = Some("box1".into());
        assert!(!is_unscheduled_terminating(&pod));
    }

    proptest! {
        #[test]
        fn planning_again_on_the_result_gives_nothing(count in 0..30_usize, threshold in 0..30_usize) {
            let mut pods: Vec<_> = (0..count).map(|n| finished(&format!("p{n}"), n as i64, false)).collect();
            for removal in surplus(pods.clone(), threshold) {
                pods.retain(|pod| pod.name != removal.pod.name);
            }
            prop_assert_eq!(surplus(pods, threshold), vec![]);
        }
    }
}
