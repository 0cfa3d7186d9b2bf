//! PersistentVolume: storage that outlives pods. The volume controller binds it to a claim.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeSpec, PersistentVolumeStatus};
use serde_json::{Map, Value, json};

use super::pod::defaults::{or_text, volumes::azure_disk};
use super::volume_sources::{self, Holder};
use super::{pod, printers, rules};
use crate::Resource;
use crate::field::{ErrorList, Path, forbidden, invalid, not_supported, required};
use crate::kinds::{AGE, KindInfo, NAME, Scope, Subresource, Verb, column, wide};
use crate::names::NameRule;
use crate::quantity::{self, canonicalize};

/// What happens to a volume whose claim is gone.
const RECLAIM_POLICIES: &[&str] = &["Delete", "Recycle", "Retain"];
/// The fields of a spec that say where the storage is.
const SOURCES: &[&str] = &[
    "awsElasticBlockStore",
    "azureDisk",
    "azureFile",
    "cephfs",
    "cinder",
    "csi",
    "fc",
    "flexVolume",
    "flocker",
    "gcePersistentDisk",
    "glusterfs",
    "hostPath",
    "iscsi",
    "local",
    "nfs",
    "photonPersistentDisk",
    "portworxVolume",
    "quobyte",
    "rbd",
    "scaleIO",
    "storageos",
    "vsphereVolume",
];

const RECYCLE_IS_DEPRECATED: &str =
    "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.";

impl Resource for PersistentVolume {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        singular: "persistentvolume",
        short_names: &["pv"],
        categories: &[],
        scope: Scope::Cluster,
        verbs: Verb::ALL,
        subresources: &[Subresource::Status],
        columns: &[
            NAME,
            column("Capacity", "string", "How much it holds"),
            column("Access Modes", "string", "How it may be mounted"),
            column("Reclaim Policy", "string", "What happens to it when its claim is gone"),
            column("Status", "string", "Available, Bound, Released or Failed"),
            column("Claim", "string", "The claim it is bound to"),
            column("StorageClass", "string", "StorageClass of the pv"),
            column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pv"),
            column("Reason", "string", "Why it is in this state"),
            AGE,
            wide("VolumeMode", "string", "A file system or a block device"),
        ],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.persistent_volume_reclaim_policy.get_or_insert_with(|| "Retain".to_owned());
        spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
        spec.capacity.iter_mut().flat_map(|c| c.values_mut()).for_each(canonicalize);
        if let Some(host_path) = spec.host_path.as_mut() {
            host_path.type_.get_or_insert_default();
        }
        network_defaults(spec);
    }

    fn prepare_create(&mut self) {
        self.status = Some(PersistentVolumeStatus { phase: Some("Pending".to_owned()), ..Default::default() });
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let mut said = rules::old_annotation(&self.metadata, rules::BETA_STORAGE_CLASS);
        said.extend(rules::old_annotation(&self.metadata, rules::MOUNT_OPTIONS));
        let Some(spec) = &self.spec else { return said };
        let path = Path::new("spec");
        if spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle") {
            let policy = path.child("persistentVolumeReclaimPolicy");
            said.push(format!("{policy}: {RECYCLE_IS_DEPRECATED}"));
        }
        let required = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
        let terms = path.child("nodeAffinity").child("required").child("nodeSelectorTerms");
        for (index, term) in required.iter().flat_map(|required| &required.node_selector_terms).enumerate() {
            said.extend(pod::warnings::node_selector_term(term, &terms.index(index)));
        }
        said
    }

    fn validate(&self, errors: &mut ErrorList) {
        let (empty, path) = (PersistentVolumeSpec::default(), Path::new("spec"));
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        if modes.is_empty() {
            errors.push(required(&path.child("accessModes"), ""));
        }
        rules::access_modes(modes, &path.child("accessModes"), errors);
        capacity(spec, &path.child("capacity"), errors);
        let policy = spec.persistent_volume_reclaim_policy.as_deref();
        rules::optional_one_of(policy, RECLAIM_POLICIES, &path.child("persistentVolumeReclaimPolicy"), errors);
        source(spec, self.metadata.name.as_deref().unwrap_or(""), &path, errors);
        let (class, mode) = (spec.storage_class_name.as_deref(), spec.volume_mode.as_deref());
        rules::storage_class_and_mode(class, mode, &path, errors);
        if let Some(affinity) = &spec.node_affinity {
            let path = path.child("nodeAffinity").child("required");
            match &affinity.required {
                Some(required) => {
                    let path = path.child("nodeSelectorTerms");
                    pod::validation::node_selector_terms(&required.node_selector_terms, &path, errors);
                }
                None => errors.push(self::required(&path, "must specify required node constraints")),
            }
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        let (new, old) = (self.spec.as_ref(), old.spec.as_ref());
        if new.map(sources) != old.map(sources) {
            let path = Path::new("spec").child("persistentvolumesource");
            errors.push(forbidden(&path, "spec.persistentvolumesource is immutable after creation"));
        }
        let mode = |spec: Option<&PersistentVolumeSpec>| spec.and_then(|s| s.volume_mode.clone());
        crate::metadata::immutable(&Path::new("volumeMode"), &mode(new), &mode(old), errors);
        let affinity = |spec: Option<&PersistentVolumeSpec>| spec.and_then(|s| s.node_affinity.clone());
        if affinity(old).is_some() {
            crate::metadata::immutable(&Path::new("nodeAffinity"), &affinity(new), &affinity(old), errors);
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (empty, status) = (PersistentVolumeSpec::default(), self.status.as_ref());
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let capacity = spec.capacity.as_ref().and_then(|c| c.get("storage")).map_or("0", |q| q.0.as_str());
        let claim = spec.claim_ref.as_ref().map_or_else(String::new, |claim| {
            format!("{}/{}", claim.namespace.as_deref().unwrap_or(""), claim.name.as_deref().unwrap_or(""))
        });
        vec![
            json!(self.metadata.name),
            json!(capacity),
            json!(printers::access_modes(spec.access_modes.as_ref())),
            json!(spec.persistent_volume_reclaim_policy.as_deref().unwrap_or("")),
            printers::phase(&self.metadata, status.and_then(|s| s.phase.as_ref())),
            json!(claim),
            json!(printers::storage_class(&self.metadata, spec.storage_class_name.as_ref())),
            printers::or_unset(spec.volume_attributes_class_name.as_ref()),
            json!(status.and_then(|s| s.reason.as_deref()).unwrap_or("")),
            crate::printing::age(&self.metadata, now),
            printers::or_unset(spec.volume_mode.as_ref()),
        ]
    }
}

/// What may be left out of storage that machines elsewhere serve.
fn network_defaults(spec: &mut PersistentVolumeSpec) {
    if let Some(iscsi) = spec.iscsi.as_mut() {
        or_text(&mut iscsi.iscsi_interface, "default");
    }
    if let Some(rbd) = spec.rbd.as_mut() {
        or_text(&mut rbd.pool, "rbd");
        or_text(&mut rbd.user, "admin");
        or_text(&mut rbd.keyring, "/etc/ceph/keyring");
    }
    if let Some(scale_io) = spec.scale_io.as_mut() {
        or_text(&mut scale_io.storage_mode, "ThinProvisioned");
        or_text(&mut scale_io.fs_type, "xfs");
    }
    spec.azure_disk.as_mut().into_iter().for_each(azure_disk);
}

fn capacity(spec: &PersistentVolumeSpec, path: &Path, errors: &mut ErrorList) {
    let capacity = spec.capacity.as_ref();
    if capacity.is_none_or(BTreeMap::is_empty) {
        errors.push(required(path, ""));
    }
    if capacity.is_none_or(|capacity| !capacity.contains_key("storage") || capacity.len() > 1) {
        errors.push(not_supported(path, json!(capacity), &["storage"]));
    }
    for (name, amount) in capacity.into_iter().flatten() {
        let (path, held) = (path.key(name), quantity::of(amount));
        if held.is_negative() {
            errors.push(invalid(&path, held.units(), "must be a valid resource quantity"));
        }
        rules::positive_quantity(amount, &path, errors);
    }
}

/// The parts of a spec that say where the storage is.
fn sources(spec: &PersistentVolumeSpec) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(spec) else { return Map::new() };
    fields.retain(|name, _| SOURCES.contains(&name.as_str()));
    fields
}

/// Exactly one place, which says where it is.
fn source(spec: &PersistentVolumeSpec, name: &str, path: &Path, errors: &mut ErrorList) {
    let sources = sources(spec);
    match sources.iter().next() {
        Some((field, value)) => volume_sources::validate(field, value, path, Holder::PersistentVolume(name), errors),
        None => errors.push(required(path, "must specify a volume type")),
    }
    for field in sources.keys().skip(1) {
        errors.push(forbidden(&path.child(field), "may not specify more than 1 volume type"));
    }
    if let Some(host_path) = &spec.host_path {
        let recycles = spec.persistent_volume_reclaim_policy.as_deref() == Some("Recycle");
        if recycles && host_path.path.split('/').all(str::is_empty) {
            let detail = "may not be 'recycle' for a hostPath mount of '/'";
            errors.push(forbidden(&Path::new("spec").child("persistentVolumeReclaimPolicy"), detail));
        }
    }
    if let Some(local) = &spec.local {
        let local_path = path.child("local").child("path");
        if rules::given(&local.path, &local_path, errors) {
            rules::no_backsteps(&local.path, &local_path, errors);
        }
        if spec.node_affinity.as_ref().is_none_or(|a| a.required.is_none()) {
            errors.push(required(&path.child("nodeAffinity"), "Local volume requires node affinity"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn volume(change: impl FnOnce(&mut Value)) -> PersistentVolume {
        let mut value = json!({"metadata": {"name": "v"}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/data"},
        }});
        change(&mut value);
        let mut volume: PersistentVolume = serde_json::from_value(value).unwrap();
        Object::set_defaults(&mut volume);
        volume
    }

    #[test]
    fn a_volume_says_how_much_it_holds_and_where() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 7] = [
            (|_| (), ""),
            (|v| v["spec"]["accessModes"] = json!([]), "spec.accessModes: Required value"),
            (|v| v["spec"]["capacity"] = json!(null), "spec.capacity: Required value"),
            (
                |v| v["spec"]["capacity"]["storage"] = json!("0"),
                r#"spec.capacity[storage]: Invalid value: "0": must be greater than zero"#,
            ),
            (|v| v["spec"]["hostPath"] = json!(null), "spec: Required value: must specify a volume type"),
            (
                |v| v["spec"]["nfs"] = json!({"server": "a", "path": "/"}),
                "spec.nfs: Forbidden: may not specify more than 1 volume type",
            ),
            (
                |v| v["spec"]["persistentVolumeReclaimPolicy"] = json!("Forget"),
                r#"spec.persistentVolumeReclaimPolicy: Unsupported value: "Forget": supported values: "Delete", "Recycle", "Retain""#,
            ),
        ];
        for (change, expected) in cases {
            let errors = Object::validate(&volume(change));
            assert_eq!(errors.first().map(ToString::to_string).unwrap_or_default(), expected);
        }
    }

    #[test]
    fn storage_does_not_move() {
        let new = volume(|v| v["spec"]["hostPath"]["path"] = json!("/other"));
        let errors = Object::validate_update(&new, &volume(|_| ()));
        let expected =
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation";
        assert_eq!(errors[0].to_string(), expected);
    }

    #[test]
    fn storage_stays_with_its_nodes() {
        let on = |node: &str| {
            let terms = json!([{"matchExpressions": [{"key": "a", "operator": "In", "values": [node]}]}]);
            volume(|v| v["spec"]["nodeAffinity"] = json!({"required": {"nodeSelectorTerms": terms}}))
        };
        assert!(Object::validate_update(&on("a"), &volume(|_| ())).is_empty(), "it may be said later");
        assert!(Object::validate_update(&on("a"), &on("a")).is_empty());
        for new in [on("b"), volume(|_| ())] {
            let errors = Object::validate_update(&new, &on("a"));
            assert!(errors[0].to_string().starts_with("nodeAffinity: Invalid value: "), "{errors:?}");
        }
        let errors = Object::validate(&volume(|v| v["spec"]["nodeAffinity"] = json!({})));
        let expected = "spec.nodeAffinity.required: Required value: must specify required node constraints";
        assert_eq!(errors[0].to_string(), expected);
    }
}
