//! Who owns whom: the metadata of all objects by UID. There is a node for every object, so it is kept small: a UID is in
//! memory once, and so are the owner references of those that have the same.

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
    pub(super) namespace: Option<Box<str>>,
    /// Its name.
    pub(super) name: Box<str>,
    /// Its UID.
    pub(super) uid: Arc<str>,
    /// The version this was read from.
    pub(super) version: Option<Box<str>>,
    /// What it belongs to.
    pub(super) owners: Arc<[OwnerReference]>,
    /// Someone asked for its deletion.
    pub(super) deleting: bool,
    /// What keeps it.
    pub(super) finalizers: Box<[String]>,
}

impl Node {
    /// The node of an object of `kind`.
    pub(super) fn new(kind: &'static KindInfo, metadata: &ObjectMeta) -> Node {
        Node {
            kind,
            namespace: metadata.namespace.as_deref().map(Box::from),
            name: metadata.name.as_deref().unwrap_or_default().into(),
            uid: metadata.uid.as_deref().unwrap_or_default().into(),
            version: metadata.resource_version.as_deref().map(Box::from),
            owners: metadata.owner_references.as_deref().unwrap_or_default().into(),
            deleting: metadata.deletion_timestamp.is_some(),
            finalizers: metadata.finalizers.as_deref().unwrap_or_default().into(),
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
    nodes: HashMap<Arc<str>, Arc<Node>>,
    /// The UIDs of what names an owner, by the owner's UID, whether or not the owner is known.
    dependents: HashMap<Arc<str>, HashSet<Arc<str>>>,
}

impl Graph {
    /// An object exists; returns the UIDs of the objects to look at.
    pub(super) fn observe(&mut self, kind: &'static KindInfo, metadata: &ObjectMeta) -> Vec<String> {
        let mut node = Node::new(kind, metadata);
        self.share(&mut node);
        let node = Arc::new(node);
        let old = self.nodes.insert(node.uid.clone(), node.clone());
        let old_owners = old.as_ref().map(|old| &*old.owners).unwrap_or_default();
        if old_owners != &*node.owners {
            self.unlink(old_owners, &node.uid);
            for owner in &*node.owners {
                let known = self.nodes.get_key_value(&*owner.uid).map(|(uid, _)| uid.clone());
                let owner = known.unwrap_or_else(|| owner.uid.as_str().into());
                self.dependents.entry(owner).or_default().insert(node.uid.clone());
            }
        }
        let mut woken = self.waiting(old_owners.iter().chain(&*node.owners));
        let lacks = |owner: &OwnerReference| self.owner_state(&node, owner) != Some(OwnerState::Solid);
        if node.needs_us() || node.owners.iter().any(lacks) {
            woken.push(node.uid.to_string());
        }
        woken
    }

    /// Lets a new node have the UID and the owner references that are in memory already: those of its last version, or
    /// of something else that has the same owner.
    fn share(&self, node: &mut Node) {
        if let Some((uid, _)) = self.nodes.get_key_value(&node.uid) {
            node.uid = uid.clone();
        }
        let Some(owner) = node.owners.first() else { return };
        let sibling = self.dependents.get(&*owner.uid).and_then(|dependents| dependents.iter().next());
        for alike in [Some(&node.uid), sibling].into_iter().flatten().filter_map(|uid| self.nodes.get(uid)) {
            if alike.owners == node.owners {
                node.owners = alike.owners.clone();
                return;
            }
        }
    }

    /// An object is gone; returns the UIDs of the objects to look at.
    pub(super) fn forget(&mut self, uid: &str) -> Vec<String> {
        let Some(node) = self.nodes.remove(uid) else { return Vec::new() };
        self.unlink(&node.owners, uid);
        let mut woken = self.waiting(node.owners.iter());
        woken.extend(self.dependents.get(uid).into_iter().flatten().map(|uid| uid.to_string()));
        if self.nodes.len() < self.nodes.capacity() / 8 {
            self.nodes.shrink_to(2 * self.nodes.len());
        }
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
        let owner = self.nodes.get(&*reference.uid)?;
        let same = *owner.name == *reference.name
            && owner.kind.kind == reference.kind
            && owner.kind.api_version() == reference.api_version
            && (owner.namespace.is_none() || owner.namespace == item.namespace);
        same.then(|| if owner.is_waiting() { OwnerState::Waiting } else { OwnerState::Solid })
    }

    /// Whether what `reference` means is there, and not where `item` could belong to it.
    pub(super) fn is_elsewhere(&self, item: &Node, reference: &OwnerReference) -> bool {
        let owner = self.nodes.get(&*reference.uid);
        owner.is_some_and(|owner| owner.namespace.is_some() && owner.namespace != item.namespace)
    }

    fn unlink(&mut self, owners: &[OwnerReference], uid: &str) {
        for owner in owners {
            let Some(dependents) = self.dependents.get_mut(&*owner.uid) else { continue };
            dependents.remove(uid);
            if dependents.is_empty() {
                self.dependents.remove(&*owner.uid);
            } else if dependents.len() < dependents.capacity() / 8 {
                dependents.shrink_to(2 * dependents.len());
            }
        }
    }

    fn waiting<'a>(&self, owners: impl Iterator<Item = &'a OwnerReference>) -> Vec<String> {
        owners
            .map(|owner| &owner.uid)
            .filter(|uid| self.nodes.get(uid.as_str()).is_some_and(|n| n.is_waiting()))
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
        assert_eq!(graph.observe(kind("pods"), &metadata("other", &["rc"])), ["other"]);
        assert!(Arc::ptr_eq(&graph.nodes["pod"].owners, &graph.nodes["other"].owners), "alike owners are kept once");
        assert_eq!((graph.forget("pod"), graph.forget("other")), (vec![], vec![]));
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
        let elsewhere = Node { namespace: Some("other".into()), ..item.clone() };
        assert_eq!(graph.owner_state(&elsewhere, &right), None);
        assert!(graph.is_elsewhere(&elsewhere, &right) && !graph.is_elsewhere(&item, &right));
        let mut child = metadata("pod", &["rc"]);
        child.namespace = Some("other".to_owned());
        assert_eq!(graph.observe(kind("pods"), &child), ["pod"], "it has no owner where it is");
    }
}
