//! Which volume a claim gets (`pkg/volume/util` and `pv_controller.findBestMatchForClaim` upstream): the smallest that is
//! large enough and fits in every other way.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::quantity::{Quantity, of};
use api::well_known::ANNOTATION_STORAGE_CLASS;
use k8s_openapi::api::core::v1::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

/// The volume for a claim that names none, among those `free` for it.
pub(super) fn best<'a>(
    claim: &PersistentVolumeClaim,
    volumes: &'a [Arc<PersistentVolume>],
    free: impl Fn(&PersistentVolume) -> bool,
) -> Option<&'a Arc<PersistentVolume>> {
    let fitting = || volumes.iter().filter(|v| v.metadata.deletion_timestamp.is_none() && free(v) && fits(claim, v));
    // Whoever made a volume for this claim is heard first.
    let reserved = fitting().find(|v| claim_ref(v).is_some());
    reserved.or_else(|| fitting().min_by_key(|v| (capacity(v), v.metadata.name.clone())))
}

/// Whether the volume can be what the claim asks for.
pub(super) fn fits(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> bool {
    let (Some(asked), Some(spec)) = (claim.spec.as_ref(), volume.spec.as_ref()) else { return false };
    let wanted = asked.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage")).map_or(Quantity::ZERO, of);
    let modes = spec.access_modes.as_deref().unwrap_or_default();
    let mode = |mode: &Option<String>| mode.as_deref().unwrap_or("Filesystem").to_owned();
    let class = |metadata: &ObjectMeta, class: &Option<String>| storage_class(metadata, class.as_ref());
    capacity(volume) >= wanted
        && asked.access_modes.iter().flatten().all(|m| modes.contains(m))
        && mode(&asked.volume_mode) == mode(&spec.volume_mode)
        && class(&claim.metadata, &asked.storage_class_name) == class(&volume.metadata, &spec.storage_class_name)
        && asked.selector.as_ref().is_none_or(|s| selects(s, volume.metadata.labels.as_ref()))
}

pub(super) fn claim_ref(volume: &PersistentVolume) -> Option<&ObjectReference> {
    volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref())
}

fn capacity(volume: &PersistentVolume) -> Quantity {
    volume.spec.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage")).map_or(Quantity::ZERO, of)
}

/// The class of a claim or volume; empty for none.
pub(super) fn storage_class(metadata: &ObjectMeta, class: Option<&String>) -> String {
    let annotation = metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_STORAGE_CLASS));
    annotation.or(class).cloned().unwrap_or_default()
}

fn selects(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    let value = |key: &str| labels.and_then(|l| l.get(key));
    let exact = selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    exact
        && selector.match_expressions.iter().flatten().all(|e| {
            let is_one = value(&e.key).is_some_and(|v| e.values.as_ref().is_some_and(|values| values.contains(v)));
            match e.operator.as_str() {
                "In" => is_one,
                "NotIn" => !is_one,
                "Exists" => value(&e.key).is_some(),
                "DoesNotExist" => value(&e.key).is_none(),
                _ => false,
            }
        })
}
