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
    known: Arc<Mutex<Known>>,
    read: watch::Sender<BTreeMap<&'static str, bool>>,
}

/// Pods by name.
#[derive(Default)]
struct Known {
    /// Those that are to run.
    wanted: BTreeMap<String, Wanted>,
    /// All that each source has: a name that its first source no longer has is another's, which may not say so again.
    offers: BTreeMap<&'static str, BTreeMap<String, Arc<Pod>>>,
}

#[derive(Clone)]
struct Wanted {
    source: &'static str,
    pod: Arc<Pod>,
}

fn is_same(one: &Wanted, other: &Wanted) -> bool {
    crate::pod::uid(&one.pod) == crate::pod::uid(&other.pod)
}

/// Which of the pods of one name is to run: that of the source which had it before, else that of any.
fn choose(
    before: &BTreeMap<String, Wanted>,
    offers: &BTreeMap<&'static str, BTreeMap<String, Arc<Pod>>>,
) -> BTreeMap<String, Wanted> {
    let mut chosen: BTreeMap<String, Wanted> = BTreeMap::new();
    for (source, pods) in offers {
        for (name, pod) in pods {
            let had = before.get(name).filter(|wanted| wanted.source == *source);
            if chosen.contains_key(name) && had.is_none() {
                continue;
            }
            // The object that waits for its start is known by its place in memory.
            let kept = had.filter(|wanted| crate::pod::uid(&wanted.pod) == crate::pod::uid(pod));
            let pod = kept.map_or(pod, |wanted| &wanted.pod).clone();
            chosen.insert(name.clone(), Wanted { source, pod });
        }
    }
    chosen
}

impl StaticPods {
    /// None yet of any of `sources`.
    pub(crate) fn new(pods: Pods, sources: &[&'static str]) -> StaticPods {
        let read = sources.iter().map(|source| (*source, false)).collect();
        StaticPods { pods, known: Arc::default(), read: watch::Sender::new(read) }
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
        let mut known = self.known.lock();
        let known = &mut *known;
        let mut offers: BTreeMap<String, Arc<Pod>> = BTreeMap::new();
        for pod in pods {
            let name = full_name(&pod);
            let elsewhere = known.wanted.get(&name).is_some_and(|w| w.source != source);
            if elsewhere || offers.contains_key(&name) {
                tracing::error!(pod = name, source, "two manifests have a pod of this name; the first counts");
            }
            offers.entry(name).or_insert_with(|| Arc::new(pod));
        }
        known.offers.insert(source, offers);
        let chosen = choose(&known.wanted, &known.offers);
        let before = std::mem::replace(&mut known.wanted, chosen);
        for (name, old) in &before {
            if known.wanted.get(name).is_none_or(|new| !is_same(old, new)) {
                self.pods.removed(old.pod.clone());
            }
        }
        for (name, new) in &known.wanted {
            if before.get(name).is_none_or(|old| !is_same(old, new)) {
                self.start_when_alone(name.clone(), new.pod.clone());
            }
        }
        self.read.send_modify(|read| _ = read.insert(source, true));
    }

    /// Starts the pod once none of its name is left, if it is still wanted then.
    fn start_when_alone(&self, name: String, pod: Arc<Pod>) {
        let this = self.clone();
        self.pods.tasks().spawn(async move {
            this.pods.alone(&name, crate::pod::uid(&pod)).await;
            let known = this.known.lock();
            if known.wanted.get(&name).is_some_and(|w| Arc::ptr_eq(&w.pod, &pod)) {
                this.pods.set(pod);
            }
        });
    }
}
