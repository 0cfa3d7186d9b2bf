//! Who owns whom: the metadata of all objects by UID.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use api::KindInfo;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::plan::{FOREGROUND, ORPHAN, OwnerState};

/// An object, as far as ownership goes.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Its kind.
    pub(super) kind: &'static KindInfo,
    /// Its namespace, if its kind has one.
    pub(super) namespace: Option<String>,
    /// Its name.
    pub(super) name: String,
    /// Its UID.
    pub(super) uid: String,
    /// The version this was read from.
    pub(super) version: Option<String>,
    /// What it belongs to.
    pub(super) owners: Vec<OwnerReference>,
    /// Someone asked for its deletion.
    pub(super) deleting: bool,
    /// What keeps it.
    pub(super) finalizers: Vec<String>,
}

impl Node {
    /// The node of an object of `kind`.
    pub(super) fn new(kind: &'static KindInfo, metadata: &ObjectMeta) -> Node {
        Node {
            kind,
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            version: metadata.resource_version.clone(),
            owners: metadata.owner_references.clone().unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
        }
    }

    /// Whether a finalizer keeps it.
    pub(super) fn has(&self, finalizer: &str) -> bool {
        self.finalizers.iter().any(|f| f == finalizer)
    }

    /// Whether it waits for its dependents to go.
    pub(super) fn is_waiting(&self) -> bool {
        self.deleting && self.has(FOREGROUND)
    }

    fn needs_us(&self) -> bool {
        self.deleting && (self.has(FOREGROUND) || self.has(ORPHAN))
    }
}

/// Everything known.
#[derive(Default)]
pub(super) struct Graph {
    nodes: HashMap<String, Arc<Node>>,
    /// The UIDs of what names an owner, by the owner's UID, whether or not the owner is known.
    dependents: HashMap<String, HashSet<String>>,
}

impl Graph {
    /// An object exists; returns the UIDs of the objects to look at.
    pub(super) fn observe(&mut self, kind: &'static KindInfo, metadata: &ObjectMeta) -> Vec<String> {
        let node = Arc::new(Node::new(kind, metadata));
        let old = self.nodes.insert(node.uid.clone(), node.clone());
        let old_owners = old.as_ref().map(|old| old.owners.as_slice()).unwrap_or_default();
        if old_owners != node.owners {
            self.unlink(old_owners, &node.uid);
            for owner in &node.owners {
                self.dependents.entry(owner.uid.clone()).or_default().insert(node.uid.clone());
            }
        }
        let mut woken = self.waiting(old_owners.iter().chain(&node.owners));
        if node.needs_us() || node.owners.iter().any(|owner| !self.is_solid(&owner.uid)) {
            woken.push(node.uid.clone());
        }
        woken
    }

    /// An object is gone; returns the UIDs of the objects to look at.
    pub(super) fn forget(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        self.unlink(&node.owners, uid);
        let mut woken = self.waiting(node.owners.iter());
        woken.extend(self.dependents.get(uid).into_iter().flatten().cloned());
        woken
    }

    /// An object and what names it as an owner.
    pub(super) fn with_dependents(&self, uid: &str) -> Option<(Arc<Node>, Vec<Arc<Node>>)> {
        let node = self.nodes.get(uid)?.clone();
        let dependents = self.dependents.get(uid).into_iter().flatten();
        Some((node, dependents.filter_map(|uid| self.nodes.get(uid).cloned()).collect()))
    }

    /// The state of an owner that is known, and is what `reference` says it is.
    pub(super) fn owner_state(&self, item: &Node, reference: &OwnerReference) -> Option<OwnerState> {
        let owner = self.nodes.get(&reference.uid)?;
        let same = owner.name == reference.name
            && owner.kind.kind == reference.kind
            && owner.kind.api_version() == reference.api_version
            && (owner.namespace.is_none() || owner.namespace == item.namespace);
        same.then(|| if owner.is_waiting() { OwnerState::Waiting } else { OwnerState::Solid })
    }

    fn is_solid(&self, uid: &str) -> bool {
        self.nodes.get(uid).is_some_and(|node| !node.is_waiting())
    }

    fn unlink(&mut self, owners: &[OwnerReference], uid: &str) {
        for owner in owners {
            if let Some(dependents) = self.dependents.get_mut(&owner.uid) {
                dependents.remove(uid);
                if dependents.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
        }
    }

    fn waiting<'a>(&self, owners: impl Iterator<Item = &'a OwnerReference>) -> Vec<String> {
        owners
            .map(|owner| &owner.uid)
            .filter(|uid| self.nodes.get(*uid).is_some_and(|n| n.is_waiting()))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{kind, metadata};
    use super::*;

    #[test]
    fn what_an_object_changes_for_others_wakes_them() {
        let mut graph = Graph::default();
        assert_eq!(graph.observe(kind("pods"), &metadata("pod", &["rc"])), ["pod"], "its owner is not known yet");
        assert_eq!(graph.observe(kind("replicationcontrollers"), &metadata("rc", &[])), [""; 0]);
        assert_eq!(graph.observe(kind("pods"), &metadata("pod", &["rc"])), [""; 0], "its owner is known");
        assert_eq!(graph.forget("rc"), ["pod"], "its owner is gone");
        assert_eq!(graph.forget("pod"), [""; 0]);
        assert!(graph.nodes.is_empty() && graph.dependents.is_empty(), "nothing is kept");
    }

    #[test]
    fn an_owner_that_waits_is_woken_by_its_dependents() {
        let mut graph = Graph::default();
        let mut waiting = metadata("rc", &[]);
        waiting.finalizers = Some(vec![FOREGROUND.to_owned()]);
        waiting.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(graph.observe(kind("replicationcontrollers"), &waiting), ["rc"]);
        assert_eq!(graph.observe(kind("pods"), &metadata("pod", &["rc"])), ["rc", "pod"]);
        assert_eq!(graph.forget("pod"), ["rc"]);
    }

    #[test]
    fn an_owner_is_known_by_more_than_its_uid() {
        let mut graph = Graph::default();
        graph.observe(kind("replicationcontrollers"), &metadata("rc", &[]));
        let item = Node::new(kind("pods"), &metadata("pod", &["rc"]));
        let right = item.owners[0].clone();
        assert_eq!(graph.owner_state(&item, &right), Some(OwnerState::Solid));
        let other_kind = OwnerReference { kind: "Service".to_owned(), ..right.clone() };
        assert_eq!(graph.owner_state(&item, &other_kind), None);
        let elsewhere = Node { namespace: Some("other".to_owned()), ..item };
        assert_eq!(graph.owner_state(&elsewhere, &right), None);
    }
}
