//! The scheduler without its client: observations go in, steps come out. All state is here, behind one lock held for
//! one observation or one decision at a time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use api::affinity::NodeTerms;
use rand::Rng;

use crate::filter;
use crate::node::{NodeName, NodeSpec};
use crate::pod::{Observed, PodInfo};
use crate::queue::{Hope, Queue};
use crate::schedule::{Decision, Unschedulable, schedule};
use crate::snapshot::Snapshot;
use crate::storage::{ClaimInfo, ClaimKey, Storage};

/// How many changed nodes one step offers to the refused pods: the lock is not held for longer.
const CHANGED_NODES_PER_STEP: usize = 16;

/// What to do next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Write this down at the API server; the pod's room is taken already.
    Bind(Arc<PodInfo>, Decision),
    /// Tell the pod's owner.
    Refuse(Arc<PodInfo>, Unschedulable),
    /// Nothing until something is observed, or until then.
    Wait(Option<Instant>),
}

/// The cluster as observed, and the pods that wait.
#[derive(Debug, Default)]
pub struct Cluster {
    snapshot: Snapshot,
    queue: Queue,
    /// Nodes on which something changed that may let a waiting pod in.
    changed: BTreeSet<NodeName>,
    storage: Storage,
}

impl Cluster {
    /// A node is there, or is different.
    pub fn node_seen(&mut self, node: NodeSpec) {
        let name = node.name.clone();
        if self.snapshot.set_node(node) {
            self.changed.insert(name);
        }
    }

    /// A node is gone.
    pub fn node_gone(&mut self, name: &str) {
        self.snapshot.remove_node(name);
    }

    /// A pod is there, or is different.
    pub fn pod_seen(&mut self, uid: &str, observed: Observed) {
        match observed {
            Observed::Waiting(pod) => self.pod_waits(pod),
            Observed::Placed { pod, node } => {
                self.storage.forget(uid);
                self.queue.remove(uid);
                let freed = self.snapshot.place(pod, &node);
                self.changed.extend(freed);
            }
            Observed::Finished => self.pod_gone(uid),
            Observed::NotOurs => {
                self.storage.forget(uid);
                self.queue.remove(uid);
                // The binding under way decides whether an assumed pod gets its room after all.
                if !self.snapshot.is_assumed(uid) {
                    self.changed.extend(self.snapshot.remove(uid));
                }
            }
        }
    }

    fn pod_waits(&mut self, pod: Arc<PodInfo>) {
        // An event from before our binding: what it says is older than what we decided.
        let settled = self.snapshot.is_assumed(&pod.uid) && !self.queue.holds(&pod.uid);
        if !settled {
            let pod = self.storage.resolve(pod);
            self.queue.add(pod);
        }
    }

    /// A claim is there, different, or gone.
    pub fn claim_seen(&mut self, key: ClaimKey, claim: Option<ClaimInfo>) {
        if self.storage.set_claim(key, claim) {
            self.storage_changed();
        }
    }

    /// A volume is there, different, or gone; `place` is where it can be used.
    pub fn volume_seen(&mut self, name: &str, place: Option<Option<Arc<NodeTerms>>>) {
        if self.storage.set_volume(name, place) {
            self.storage_changed();
        }
    }

    /// Pods that waited for what changed demand something else now.
    fn storage_changed(&mut self) {
        for pod in self.storage.waiting() {
            if self.queue.holds(&pod.uid) {
                self.queue.add(pod);
            }
        }
    }

    /// A pod is gone, or takes no room any more.
    pub fn pod_gone(&mut self, uid: &str) {
        self.storage.forget(uid);
        self.queue.remove(uid);
        self.changed.extend(self.snapshot.remove(uid));
    }

    /// The binding is written down.
    pub fn bound(&mut self, uid: &str) {
        self.queue.remove(uid);
    }

    /// The binding failed; nobody knows better than the watch where the pod is now.
    pub fn bind_failed(&mut self, uid: &str, now: Instant) {
        self.changed.extend(self.snapshot.forget(uid));
        self.queue.failed(uid, now);
    }

    /// Decides about the next pod.
    pub fn step(&mut self, now: Instant, rng: &mut impl Rng) -> Step {
        self.wake(now);
        while let Some((pod, hope)) = self.queue.pop(now) {
            if self.is_disappointed(&pod, &hope) {
                self.queue.disappointed(&pod.uid, now);
                continue;
            }
            return match schedule(&pod, &self.snapshot, rng) {
                Ok(decision) => {
                    self.snapshot.assume(pod.clone(), &decision.node);
                    Step::Bind(pod, decision)
                }
                Err(refusal) => {
                    self.queue.refused(&pod.uid, refusal.to_string().into(), now);
                    Step::Refuse(pod, refusal)
                }
            };
        }
        // More changed nodes than one step looks at: come back at once, others may have the lock in between.
        let at_once = Some(now).filter(|_| !self.changed.is_empty());
        Step::Wait(at_once.or_else(|| self.queue.next_deadline()))
    }

    /// The pod and why it was refused last, if it still waits.
    pub fn refusal(&self, uid: &str) -> Option<(Arc<PodInfo>, Arc<str>)> {
        self.queue.refusal(uid)
    }

    /// What decisions are made on.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Looks at changed nodes, each once however often it changed.
    fn wake(&mut self, now: Instant) {
        let mut reasons = Vec::new();
        for _ in 0..CHANGED_NODES_PER_STEP {
            let Some(name) = self.changed.pop_first() else { return };
            let Some(node) = self.snapshot.node(&name) else { continue };
            self.queue.node_changed(&name, now, |pod| filter::admits(pod, node, &mut reasons));
        }
    }

    fn is_disappointed(&self, pod: &PodInfo, hope: &Hope) -> bool {
        let Hope::On(name) = hope else { return false };
        !self.snapshot.node(name).is_some_and(|node| filter::admits(pod, node, &mut Vec::new()))
    }
}

#[cfg(test)]
#[path = "cluster_tests.rs"]
mod tests;
