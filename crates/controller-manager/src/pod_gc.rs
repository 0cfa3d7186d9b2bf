//! Removes pods nobody else will remove: finished ones beyond a number, those of nodes that are gone, and those
//! deleted before they had a node.
//!
//! Behaviour follows `pkg/controller/podgc/gc_controller.go`, woken by changes instead of every 20 seconds.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use api::pods;
use client::{Change, Lister, Outcome, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, PodCondition};
use kube::Error;
use parking_lot::Mutex;

use crate::Config;
use crate::context::{Context, Key as PodKey, new_queue, outcome};
use crate::informers::{BY_NODE, BY_PHASE, TERMINAL};
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
    pods: Lister<Pod>,
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
    fn pod_changed(&self, change: &Change<Pod>) {
        let (old, pod) = match change {
            Change::Added(pod) => (None, pod),
            Change::Updated { old, new } => (Some(old), new),
            Change::Deleted(_) => return,
        };
        if pods::is_terminal(pod) && !old.is_some_and(|old| pods::is_terminal(old)) {
            self.queue.add(Key::Finished);
        }
        if is_unscheduled_terminating(pod) {
            self.queue.add(Key::Pod(PodKey::of(&pod.metadata)));
        }
        if let Some(node) = pods::node_name(pod)
            && old.is_none_or(|old| pods::node_name(old).is_none())
            && self.nodes.get(None, node).is_none()
        {
            self.queue.add(Key::Node(node.to_owned()));
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
        let (namespace, name) = (pod.metadata.namespace.as_deref(), pod.metadata.name.as_deref().unwrap_or_default());
        let path = rest::path::<Pod>(namespace);
        tracing::info!(namespace, pod = name, ?reason, "removing pod");
        if let Some(failed) = failed(&pod, reason, Timestamp::now()) {
            let written = self.rest.replace(&path, name, Some("status"), rest::encode(&failed)).await;
            rest::ignore_not_found(written.map(|_| ()))?;
        }
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        self.rest.delete(&path, name, &rest::only_uid(uid).grace_period(0)).await
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
    pod: Arc<Pod>,
    reason: Reason,
}

/// The oldest of the `finished` pods beyond `threshold`, evicted ones first; none with a threshold of 0.
fn surplus(finished: Vec<Arc<Pod>>, threshold: usize) -> Vec<Removal> {
    if threshold == 0 || finished.len() <= threshold {
        return Vec::new();
    }
    let evicted = |pod: &Pod| pod.status.as_ref().and_then(|status| status.reason.as_deref()) == Some("Evicted");
    let created = |pod: &Pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
    let mut oldest = finished;
    oldest.sort_by_key(|pod| (!evicted(pod), created(pod), pod.metadata.name.clone()));
    let count = oldest.len() - threshold;
    oldest.into_iter().take(count).map(|pod| Removal { pod, reason: Reason::Finished }).collect()
}

fn orphaned(pods: Vec<Arc<Pod>>) -> Vec<Removal> {
    pods.into_iter().map(|pod| Removal { pod, reason: Reason::Orphaned }).collect()
}

fn is_unscheduled_terminating(pod: &Pod) -> bool {
    pods::is_terminating(pod) && pods::node_name(pod).is_none()
}

/// The pod as it should be remembered by those who watch it: one that did not finish has failed.
fn failed(pod: &Pod, reason: Reason, now: Timestamp) -> Option<Pod> {
    if pods::is_terminal(pod) {
        return None;
    }
    let mut pod = pod.clone();
    let status = pod.status.get_or_insert_default();
    status.phase = Some("Failed".to_owned());
    if reason == Reason::Orphaned {
        let disrupted = PodCondition {
            type_: "DisruptionTarget".to_owned(),
            status: "True".to_owned(),
            reason: Some("DeletionByPodGC".to_owned()),
            message: Some("PodGC: node no longer exists".to_owned()),
            ..PodCondition::default()
        };
        pods::set_condition(status, disrupted, now);
    }
    Some(pod)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodStatus;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
    use proptest::prelude::*;

    use super::*;

    fn finished(name: &str, created: i64, reason: Option<&str>) -> Arc<Pod> {
        let status = PodStatus {
            phase: Some("Succeeded".to_owned()),
            reason: reason.map(str::to_owned),
            ..PodStatus::default()
        };
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            creation_timestamp: Some(Time(Timestamp::from_second(created).unwrap())),
            ..ObjectMeta::default()
        };
        Arc::new(Pod { metadata, spec: None, status: Some(status) })
    }

    fn names(removals: &[Removal]) -> Vec<&str> {
        removals.iter().map(|removal| removal.pod.metadata.name.as_deref().unwrap()).collect()
    }

    #[test]
    fn the_oldest_finished_pods_go_and_evicted_ones_before_them() {
        let pods =
            || vec![finished("old", 1, None), finished("young", 3, None), finished("evicted", 4, Some("Evicted"))];
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
        let lost = failed(&Pod::default(), Reason::Orphaned, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(pods::phase(&lost), "Failed");
        assert_eq!(pods::condition(&lost, "DisruptionTarget").unwrap().reason.as_deref(), Some("DeletionByPodGC"));
        assert_eq!(failed(&lost, Reason::Orphaned, Timestamp::UNIX_EPOCH), None, "and is not changed again");
    }

    #[test]
    fn only_a_deleted_pod_without_node_is_removed_at_once() {
        let mut pod = Pod::default();
        assert!(!is_unscheduled_terminating(&pod));
        pod.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        assert!(is_unscheduled_terminating(&pod));
        pod.spec.get_or_insert_default().node_name = Some("box1".into());
        assert!(!is_unscheduled_terminating(&pod));
    }

    proptest! {
        #[test]
        fn planning_again_on_the_result_gives_nothing(count in 0..30_usize, threshold in 0..30_usize) {
            let mut pods: Vec<_> = (0..count).map(|n| finished(&format!("p{n}"), n as i64, None)).collect();
            for removal in surplus(pods.clone(), threshold) {
                pods.retain(|pod| pod.metadata.name != removal.pod.metadata.name);
            }
            prop_assert_eq!(surplus(pods, threshold), vec![]);
        }
    }
}
