//! What must happen to one object because of who owns it and whom it owns.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PropagationPolicy;

use super::graph::Node;

/// Keeps an owner until nothing that blocks it is left.
pub(super) const FOREGROUND: &str = "foregroundDeletion";
/// Keeps an owner until nothing names it.
pub(super) const ORPHAN: &str = "orphan";

/// What is known of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OwnerState {
    /// It lives, or we cannot know that it does not.
    Solid,
    /// It is being deleted and waits for its dependents.
    Waiting,
    /// It is gone.
    Absent,
}

impl OwnerState {
    /// The state of an owner the API has.
    pub(super) fn of(live: &ObjectMeta) -> OwnerState {
        let waits = live.finalizers.iter().flatten().any(|finalizer| finalizer == FOREGROUND);
        if waits && live.deletion_timestamp.is_some() { OwnerState::Waiting } else { OwnerState::Solid }
    }
}

/// Why an object is collected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// All its owners are gone.
    OwnersGone,
    /// An owner waits for it to go, and no other owner wants it.
    OwnerWaits,
}

/// A step.
#[derive(Clone, Debug)]
pub(super) enum Action {
    /// Deletes the object.
    Delete {
        /// The object.
        item: Arc<Node>,
        /// What becomes of what it owns.
        propagation: PropagationPolicy,
        /// Why.
        reason: Reason,
    },
    /// Takes owners off the object: they are gone, or let it go.
    RemoveOwners {
        /// The object.
        item: Arc<Node>,
        /// Their UIDs.
        owners: Vec<String>,
    },
    /// Lets all owners go before the object: it waits for dependents itself, and two that wait for each other would
    /// wait forever.
    Unblock {
        /// The object.
        item: Arc<Node>,
    },
    /// Lets the object go: what the finalizer stands for is done.
    RemoveFinalizer {
        /// The object.
        item: Arc<Node>,
        /// The finalizer.
        finalizer: &'static str,
    },
}

/// The steps, and the objects to look at because of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Plan {
    /// In this order; a step relies on those before it.
    pub(super) actions: Vec<Action>,
    /// UIDs.
    pub(super) wake: Vec<String>,
}

/// What must happen to `item`, given the state of its owners and what names it as an owner. The owners of an object
/// that is being deleted do not matter.
pub(super) fn plan(item: &Arc<Node>, owners: &[(OwnerReference, OwnerState)], dependents: &[Arc<Node>]) -> Plan {
    if item.deleting && item.has(ORPHAN) {
        return orphan(item, dependents);
    }
    if item.is_waiting() {
        return wait(item, dependents);
    }
    if item.deleting {
        return Plan::default();
    }
    Plan { actions: collect(item, owners, dependents), wake: Vec::new() }
}

fn orphan(item: &Arc<Node>, dependents: &[Arc<Node>]) -> Plan {
    let release =
        |dependent: &Arc<Node>| Action::RemoveOwners { item: dependent.clone(), owners: vec![item.uid.to_string()] };
    let mut actions: Vec<_> = dependents.iter().map(release).collect();
    actions.push(Action::RemoveFinalizer { item: item.clone(), finalizer: ORPHAN });
    Plan { actions, wake: Vec::new() }
}

fn wait(item: &Arc<Node>, dependents: &[Arc<Node>]) -> Plan {
    let blocks = |dependent: &Arc<Node>| {
        dependent.owners.iter().any(|owner| *owner.uid == *item.uid && owner.block_owner_deletion == Some(true))
    };
    if !dependents.iter().any(blocks) {
        let finalizer = Action::RemoveFinalizer { item: item.clone(), finalizer: FOREGROUND };
        return Plan { actions: vec![finalizer], wake: Vec::new() };
    }
    // Each dependent finds out for itself that its owner waits.
    let idle = dependents.iter().filter(|dependent| !dependent.deleting);
    Plan { actions: Vec::new(), wake: idle.map(|dependent| dependent.uid.to_string()).collect() }
}

fn collect(item: &Arc<Node>, owners: &[(OwnerReference, OwnerState)], dependents: &[Arc<Node>]) -> Vec<Action> {
    let is = |wanted: OwnerState| owners.iter().any(|(_, state)| *state == wanted);
    if !is(OwnerState::Absent) && !is(OwnerState::Waiting) {
        return Vec::new();
    }
    if is(OwnerState::Solid) {
        let lost = owners.iter().filter(|(_, state)| *state != OwnerState::Solid);
        return vec![Action::RemoveOwners { item: item.clone(), owners: lost.map(|(o, _)| o.uid.clone()).collect() }];
    }
    if is(OwnerState::Waiting) && !dependents.is_empty() {
        let circular = dependents.iter().any(|dependent| dependent.is_waiting());
        if circular && item.owners.iter().any(|owner| owner.block_owner_deletion == Some(true)) {
            // Its new version wakes it, and then it is deleted.
            return vec![Action::Unblock { item: item.clone() }];
        }
        return vec![delete(item, PropagationPolicy::Foreground, Reason::OwnerWaits)];
    }
    let propagation = if item.has(ORPHAN) {
        PropagationPolicy::Orphan
    } else if item.has(FOREGROUND) {
        PropagationPolicy::Foreground
    } else {
        PropagationPolicy::Background
    };
    let reason = if is(OwnerState::Waiting) { Reason::OwnerWaits } else { Reason::OwnersGone };
    vec![delete(item, propagation, reason)]
}

fn delete(item: &Arc<Node>, propagation: PropagationPolicy, reason: Reason) -> Action {
    Action::Delete { item: item.clone(), propagation, reason }
}

/// Objects for the tests of this folder: each is called what its UID is.
#[cfg(test)]
pub(super) mod testing {
    use api::KindInfo;

    use super::*;

    pub(crate) fn kind(plural: &str) -> &'static KindInfo {
        api::kinds().find(|kind| kind.info.plural == plural).unwrap().info
    }

    /// The metadata of an object that belongs to the replication controllers `owners`, and blocks them.
    pub(crate) fn metadata(uid: &str, owners: &[&str]) -> ObjectMeta {
        let reference = |owner: &&str| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "ReplicationController".to_owned(),
            name: (*owner).to_owned(),
            uid: (*owner).to_owned(),
            controller: None,
            block_owner_deletion: Some(true),
        };
        ObjectMeta {
            name: Some(uid.to_owned()),
            uid: Some(uid.to_owned()),
            namespace: Some("default".to_owned()),
            owner_references: Some(owners.iter().map(reference).collect()),
            ..ObjectMeta::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::OwnerState::{Absent, Solid, Waiting};
    use super::testing::{kind, metadata};
    use super::*;

    fn node(uid: &str, owners: &[&str]) -> Node {
        Node::new(kind("pods"), &metadata(uid, owners))
    }

    fn summary(plan: &Plan) -> Vec<String> {
        let text = |action: &Action| match action {
            Action::Delete { item, propagation, .. } => format!("delete {} {propagation:?}", item.uid),
            Action::RemoveOwners { item, owners } => format!("take {} off {}", owners.join("+"), item.uid),
            Action::Unblock { item } => format!("unblock {}", item.uid),
            Action::RemoveFinalizer { item, finalizer } => format!("take {finalizer} off {}", item.uid),
        };
        let wake = plan.wake.iter().map(|uid| format!("wake {uid}"));
        plan.actions.iter().map(text).chain(wake).collect()
    }

    #[test]
    fn an_object_goes_when_all_its_owners_have() {
        let cases: [(&str, &[OwnerState], &[&str]); 7] = [
            ("without owners it stays", &[], &[]),
            ("with living owners it stays", &[Solid, Solid], &[]),
            ("with no owner left it goes", &[Absent], &["delete pod Background"]),
            ("with none of two left it goes", &[Absent, Absent], &["delete pod Background"]),
            ("with one of two left it forgets the other", &[Solid, Absent], &["take b off pod"]),
            ("an owner that waits lets go of what another wants", &[Waiting, Solid], &["take a off pod"]),
            ("an owner that waits takes it along", &[Waiting], &["delete pod Background"]),
        ];
        for (sentence, states, expected) in cases {
            let uids = &["a", "b"][..states.len()];
            let item = Arc::new(node("pod", uids));
            let owners: Vec<_> = item.owners.iter().cloned().zip(states.iter().copied()).collect();
            assert_eq!(summary(&plan(&item, &owners, &[])), expected, "{sentence}");
        }
    }

    #[test]
    fn an_object_with_dependents_goes_after_them_where_its_owner_waits() {
        let item = Arc::new(node("pod", &["a"]));
        let owners = [(item.owners[0].clone(), Waiting)];
        let dependent = Arc::new(node("child", &["pod"]));
        assert_eq!(summary(&plan(&item, &owners, &[dependent])), ["delete pod Foreground"]);
        let circular = Node { deleting: true, finalizers: [FOREGROUND.into()].into(), ..node("child", &["pod"]) };
        assert_eq!(summary(&plan(&item, &owners, &[Arc::new(circular)])), ["unblock pod"]);
    }

    #[test]
    fn an_object_that_waits_goes_once_nothing_blocks_it() {
        let item = Arc::new(Node { deleting: true, finalizers: [FOREGROUND.into()].into(), ..node("rc", &[]) });
        assert_eq!(summary(&plan(&item, &[], &[])), ["take foregroundDeletion off rc"]);
        assert_eq!(summary(&plan(&item, &[], &[Arc::new(node("pod", &["rc"]))])), ["wake pod"]);
        let going = Arc::new(Node { deleting: true, ..node("pod", &["rc"]) });
        assert_eq!(summary(&plan(&item, &[], &[going])), [""; 0]);
        let mut loose = node("pod", &["rc"]);
        Arc::make_mut(&mut loose.owners)[0].block_owner_deletion = None;
        assert_eq!(summary(&plan(&item, &[], &[Arc::new(loose)])), ["take foregroundDeletion off rc"]);
    }

    #[test]
    fn an_object_that_leaves_orphans_takes_itself_off_them_first() {
        let item = Arc::new(Node { deleting: true, finalizers: [ORPHAN.into()].into(), ..node("rc", &[]) });
        let planned = plan(&item, &[], &[Arc::new(node("pod", &["rc"]))]);
        assert_eq!(summary(&planned), ["take rc off pod", "take orphan off rc"]);
        let mut released = Node { ..(*item).clone() };
        released.finalizers = Box::default();
        assert_eq!(summary(&plan(&Arc::new(released), &[], &[])), [""; 0], "and then there is nothing to do");
    }
}
