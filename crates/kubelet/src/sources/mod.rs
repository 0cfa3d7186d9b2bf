//! Pods from elsewhere than the API: static pods, which run with no master at all (`pkg/kubelet/config`).
//!
//! ```text
//!  manifest directory ── files ──┐                                   ┌─▶ workers, like any pod's
//!                                ├─ manifest ──▶ StaticPods (newest) ┤
//!  manifest URL ──────── url ────┘                                   └─▶ mirror ──▶ API: how they are, for others to see
//! ```
//!
//! - [`manifest`]: from text to pods, or what is wrong with it. Pure.
//! - [`files`]: a directory, read when inotify says that something changed there.
//! - [`url`]: a document that is asked for again and again, and sent only when it changed.
//! - [`mirror`]: what the API has of a static pod; deleting that never ends the pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::pods::Pods;

pub(crate) mod files;
pub mod manifest;
pub(crate) mod mirror;
#[cfg(test)]
mod tests;
pub(crate) mod url;

/// Whether the pod is one that a source other than the API has.
pub(crate) fn is_static(pod: &Pod) -> bool {
    let source = pod.metadata.annotations.as_ref().and_then(|a| a.get(manifest::ANNOTATION_SOURCE));
    source.is_some_and(|source| source == manifest::FILE || source == manifest::HTTP)
}

/// `namespace/name`.
pub(crate) fn full_name(pod: &Pod) -> String {
    format!("{}/{}", crate::pod::namespace(&pod.metadata), crate::pod::name(&pod.metadata))
}

/// What all sources have, by name. Cheap to clone.
#[derive(Clone)]
pub(crate) struct StaticPods {
    pods: Pods,
    wanted: Arc<Mutex<BTreeMap<String, Wanted>>>,
    read: watch::Sender<BTreeMap<&'static str, bool>>,
}

struct Wanted {
    source: &'static str,
    pod: Arc<Pod>,
}

impl StaticPods {
    /// None yet of any of `sources`.
    pub(crate) fn new(pods: Pods, sources: &[&'static str]) -> StaticPods {
        let read = sources.iter().map(|source| (*source, false)).collect();
        StaticPods { pods, wanted: Arc::default(), read: watch::Sender::new(read) }
    }

    /// A manifest from `place` is no good: for who looks at the machine, and for who looks at its Node.
    pub(crate) fn refused(&self, place: &str, problem: &str) {
        tracing::error!(place, problem, "this manifest is no good; the others run");
        let message = format!("Error validating the static pod manifest {place}, ignoring: {problem}");
        self.pods.node_event("FailedValidation", message);
    }

    /// Waits until every source was read once: whatever runs for no pod is nobody's from then on.
    pub(crate) async fn all_read(&self) {
        // The sender is ours.
        let _ = self.read.subscribe().wait_for(|read| read.values().all(|read| *read)).await;
    }

    /// `source` has these pods now and no others. One that changed is another pod of the same name: it starts when the one
    /// before has ended.
    pub(crate) fn set(&self, source: &'static str, pods: Vec<Pod>) {
        let mut wanted = self.wanted.lock();
        let mut present: BTreeMap<String, Pod> = BTreeMap::new();
        for pod in pods {
            let name = full_name(&pod);
            let elsewhere = wanted.get(&name).is_some_and(|w| w.source != source);
            if elsewhere || present.contains_key(&name) {
                tracing::error!(pod = name, source, "two manifests have a pod of this name; the first counts");
                continue;
            }
            present.insert(name, pod);
        }
        let gone: Vec<String> = wanted
            .iter()
            .filter(|(n, w)| w.source == source && !present.contains_key(*n))
            .map(|(n, _)| n.clone())
            .collect();
        for name in gone {
            if let Some(gone) = wanted.remove(&name) {
                self.pods.removed(gone.pod);
            }
        }
        for (name, pod) in present {
            let before = wanted.get(&name).map(|w| w.pod.clone());
            if before.as_ref().is_some_and(|before| crate::pod::uid(before) == crate::pod::uid(&pod)) {
                continue;
            }
            let pod = Arc::new(pod);
            wanted.insert(name.clone(), Wanted { source, pod: pod.clone() });
            if let Some(before) = &before {
                self.pods.removed(before.clone());
            }
            self.start_when_alone(name, pod);
        }
        drop(wanted);
        self.read.send_modify(|read| _ = read.insert(source, true));
    }

    /// Starts the pod once none of its name is left, if it is still wanted then.
    fn start_when_alone(&self, name: String, pod: Arc<Pod>) {
        let this = self.clone();
        self.pods.tasks().spawn(async move {
            this.pods.alone(&name, crate::pod::uid(&pod)).await;
            let wanted = this.wanted.lock();
            if wanted.get(&name).is_some_and(|w| Arc::ptr_eq(&w.pod, &pod)) {
                this.pods.set(pod);
            }
        });
    }
}
