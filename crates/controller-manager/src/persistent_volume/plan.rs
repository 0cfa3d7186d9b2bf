//! What must be written so that claims have volumes and volumes know their claims.
//!
//! Binding takes several writes, each planned from what the ones before have left: the volume names the claim, the claim
//! names the volume, both say so in their status. A crash in between is taken up where it was.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim, PersistentVolumeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::matching::{best, claim_ref, fits};

/// On a claim that has been bound: from then on its volume must be there.
pub(super) const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On whatever the controller bound, rather than the user.
pub(super) const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Action {
    /// The volume names its claim, or no claim any more.
    Volume(PersistentVolume),
    /// The volume's phase.
    VolumeStatus(PersistentVolume),
    /// The claim names its volume.
    Claim(PersistentVolumeClaim),
    /// The claim's phase, and what it has got.
    ClaimStatus(PersistentVolumeClaim),
    /// A volume that was to be wiped or deleted, which nobody here can do: its phase says so.
    NotReclaimed { volume: PersistentVolume, reason: &'static str, message: String },
}

/// The next write for each volume and claim that needs one; planning again on the result gives the one after that, in the
/// end none.
pub(super) fn plan(
    volumes: &[Arc<PersistentVolume>],
    claims: &[Arc<PersistentVolumeClaim>],
    now: Timestamp,
) -> Vec<Action> {
    let mut actions: Vec<Action> = volumes.iter().filter_map(|v| for_volume(v, claims, now)).collect();
    let mut taken = BTreeSet::new();
    for claim in claims.iter().filter(|c| c.metadata.deletion_timestamp.is_none()) {
        if let Some(action) = for_claim(claim, volumes, &taken) {
            if let Action::Volume(volume) = &action {
                // One volume is given once, and written once.
                taken.insert(volume.metadata.name.clone());
                actions.retain(|a| !matches!(a, Action::VolumeStatus(v) if v.metadata.name == volume.metadata.name));
            }
            actions.push(action);
        }
    }
    actions
}

pub(super) fn has(metadata: &ObjectMeta, annotation: &str) -> bool {
    metadata.annotations.as_ref().is_some_and(|a| a.contains_key(annotation))
}

fn annotate(metadata: &mut ObjectMeta, annotation: &str) {
    metadata.annotations.get_or_insert_default().insert(annotation.to_owned(), "yes".to_owned());
}

pub(super) fn volume_name(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|n| !n.is_empty())
}

/// Whether `reference` means this claim: the same name, and the same object if it says which.
pub(super) fn means(reference: &ObjectReference, claim: &PersistentVolumeClaim) -> bool {
    reference.namespace == claim.metadata.namespace
        && reference.name == claim.metadata.name
        && reference.uid.as_deref().is_none_or(|uid| uid.is_empty() || Some(uid) == claim.metadata.uid.as_deref())
}

fn for_volume(volume: &Arc<PersistentVolume>, claims: &[Arc<PersistentVolumeClaim>], now: Timestamp) -> Option<Action> {
    let Some(reference) = claim_ref(volume) else { return phase(volume, "Available", now) };
    if reference.uid.as_deref().is_none_or(str::is_empty) {
        // Reserved for a claim that has not come yet, or has not been bound yet.
        return phase(volume, "Available", now);
    }
    match claims.iter().find(|claim| means(reference, claim)) {
        // The claim has got another one meanwhile.
        Some(claim) if volume_name(claim).is_some_and(|n| Some(n) != volume.metadata.name.as_deref()) => {
            has(&volume.metadata, BOUND_BY_CONTROLLER).then(|| Action::Volume(unbound(volume)))
        }
        Some(_) => phase(volume, "Bound", now),
        None => released(volume, now),
    }
}

fn unbound(volume: &PersistentVolume) -> PersistentVolume {
    let mut new = volume.clone();
    new.spec.get_or_insert_default().claim_ref = None;
    if let Some(annotations) = new.metadata.annotations.as_mut() {
        annotations.remove(BOUND_BY_CONTROLLER);
    }
    new
}

fn current_phase(volume: &PersistentVolume) -> &str {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

fn phase(volume: &PersistentVolume, wanted: &str, now: Timestamp) -> Option<Action> {
    (current_phase(volume) != wanted).then(|| Action::VolumeStatus(with_phase(volume, wanted, None, now)))
}

fn with_phase(volume: &PersistentVolume, phase: &str, message: Option<String>, now: Timestamp) -> PersistentVolume {
    let mut new = volume.clone();
    new.status = Some(PersistentVolumeStatus {
        phase: Some(phase.to_owned()),
        last_phase_transition_time: Some(Time(now)),
        message,
        reason: None,
    });
    new
}

/// The claim is gone: the volume is kept for its owner to look at, or should be made free again.
fn released(volume: &PersistentVolume, now: Timestamp) -> Option<Action> {
    match current_phase(volume) {
        "Released" => {}
        "Failed" => return None,
        _ => return phase(volume, "Released", now),
    }
    let policy = volume.spec.as_ref().and_then(|s| s.persistent_volume_reclaim_policy.as_deref());
    let name = volume.metadata.name.as_deref().unwrap_or("");
    let (reason, message) = match policy {
        Some("Delete") => (
            "VolumeFailedDelete",
            format!("error getting deleter volume plugin for volume {name:?}: no volume plugin matched"),
        ),
        Some("Recycle") => ("VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned()),
        _ => return None,
    };
    Some(Action::NotReclaimed { volume: with_phase(volume, "Failed", Some(message.clone()), now), reason, message })
}

fn for_claim(
    claim: &Arc<PersistentVolumeClaim>,
    volumes: &[Arc<PersistentVolume>],
    taken: &BTreeSet<Option<String>>,
) -> Option<Action> {
    let named = volume_name(claim);
    let found = volumes.iter().find(|v| v.metadata.name.as_deref() == named && named.is_some());
    if has(&claim.metadata, BIND_COMPLETED) {
        let holds = found.filter(|v| claim_ref(v).is_some_and(|r| means(r, claim) && r.uid == claim.metadata.uid));
        return match holds {
            Some(volume) => bound_status(claim, volume),
            None => claim_phase(claim, "Lost"),
        };
    }
    let free = |volume: &PersistentVolume| {
        !taken.contains(&volume.metadata.name) && claim_ref(volume).is_none_or(|r| means(r, claim))
    };
    let chosen = match named {
        Some(_) => found.filter(|v| free(v) && fits(claim, v)),
        // The volume that was given to the claim already comes before any other.
        None => volumes.iter().find(|v| is_bound_to(v, claim)).or_else(|| best(claim, volumes, free)),
    };
    match chosen {
        Some(volume) if is_bound_to(volume, claim) => Some(Action::Claim(bind_claim(claim, volume))),
        Some(volume) => Some(Action::Volume(bind_volume(volume, claim))),
        None => claim_phase(claim, "Pending"),
    }
}

/// Whether the volume says that it is this very claim's.
pub(super) fn is_bound_to(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    claim.metadata.uid.is_some() && claim_ref(volume).is_some_and(|r| means(r, claim) && r.uid == claim.metadata.uid)
}

fn bind_volume(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> PersistentVolume {
    let mut new = volume.clone();
    if claim_ref(volume).is_none() {
        annotate(&mut new.metadata, BOUND_BY_CONTROLLER);
    }
    new.spec.get_or_insert_default().claim_ref = Some(ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("PersistentVolumeClaim".to_owned()),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        ..ObjectReference::default()
    });
    new
}

fn bind_claim(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> PersistentVolumeClaim {
    let mut new = claim.clone();
    if volume_name(claim).is_none() {
        annotate(&mut new.metadata, BOUND_BY_CONTROLLER);
    }
    annotate(&mut new.metadata, BIND_COMPLETED);
    new.spec.get_or_insert_default().volume_name.clone_from(&volume.metadata.name);
    new
}

/// A bound claim shows what its volume is.
fn bound_status(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Option<Action> {
    let spec = volume.spec.as_ref();
    let mut new = claim.clone();
    let status = new.status.get_or_insert_default();
    status.phase = Some("Bound".to_owned());
    status.access_modes = spec.and_then(|s| s.access_modes.clone());
    status.capacity = spec.and_then(|s| s.capacity.clone());
    (new.status != claim.status).then_some(Action::ClaimStatus(new))
}

fn claim_phase(claim: &PersistentVolumeClaim, phase: &str) -> Option<Action> {
    let present = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("");
    if present == phase {
        return None;
    }
    let mut new = claim.clone();
    new.status.get_or_insert_default().phase = Some(phase.to_owned());
    Some(Action::ClaimStatus(new))
}

#[cfg(test)]
#[path = "tests.rs"]
pub(super) mod tests;
