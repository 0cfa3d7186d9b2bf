//! PersistentVolumeClaim: what a pod needs of storage. The volume controller finds a volume for it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus};
use serde_json::{Value, json};

use super::{pod, printers, rules};
use crate::Resource;
use crate::field::{ErrorList, Path, forbidden, required};
use crate::kinds::{AGE, KindInfo, NAME, Scope, Subresource, Verb, column, wide};
use crate::names::NameRule;
use crate::quantity::canonicalize;

impl Resource for PersistentVolumeClaim {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short_names: &["pvc"],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[Subresource::Status],
        columns: &[
            NAME,
            column("Status", "string", "Pending, Bound or Lost"),
            column("Volume", "string", "The volume it is bound to"),
            column("Capacity", "string", "How much that holds"),
            column("Access Modes", "string", "How that may be mounted"),
            column("StorageClass", "string", "StorageClass of the pvc"),
            column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pvc"),
            AGE,
            wide("VolumeMode", "string", "A file system or a block device"),
        ],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.volume_mode.get_or_insert_with(|| "Filesystem".to_owned());
        if let Some(resources) = spec.resources.as_mut() {
            let all = [resources.requests.as_mut(), resources.limits.as_mut()];
            all.into_iter().flatten().flat_map(|m| m.values_mut()).for_each(canonicalize);
        }
        let capacity = self.status.as_mut().and_then(|s| s.capacity.as_mut());
        capacity.into_iter().flat_map(|c| c.values_mut()).for_each(canonicalize);
    }

    fn prepare_create(&mut self) {
        self.status = Some(PersistentVolumeClaimStatus { phase: Some("Pending".to_owned()), ..Default::default() });
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let mut said = rules::old_annotation(&self.metadata, rules::BETA_STORAGE_CLASS);
        if let Some(resources) = self.spec.as_ref().and_then(|spec| spec.resources.as_ref()) {
            let path = Path::new("spec").child("resources");
            said.extend(pod::warnings::fraction(resources.requests.as_ref(), "storage", &path.child("requests")));
            said.extend(pod::warnings::fraction(resources.limits.as_ref(), "storage", &path.child("limits")));
        }
        said
    }

    fn validate(&self, errors: &mut ErrorList) {
        let (empty, path) = (PersistentVolumeClaimSpec::default(), Path::new("spec"));
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let modes = spec.access_modes.as_deref().unwrap_or_default();
        if modes.is_empty() {
            errors.push(required(&path.child("accessModes"), "at least 1 access mode is required"));
        }
        rules::label_selector(spec.selector.as_ref(), &path.child("selector"), errors);
        rules::access_modes(modes, &path.child("accessModes"), errors);
        let storage = path.child("resources").key("storage");
        match spec.resources.as_ref().and_then(|r| r.requests.as_ref()?.get("storage")) {
            Some(amount) => rules::positive_quantity(amount, &storage, errors),
            None => errors.push(required(&storage, "")),
        }
        let (class, mode) = (spec.storage_class_name.as_deref(), spec.volume_mode.as_deref());
        rules::storage_class_and_mode(class, mode, &path, errors);
    }

    /// A claim is bound once; how much it asks for is for `PersistentVolumeClaimResize` to judge once it is bound.
    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        let (Some(new), Some(old_spec)) = (self.spec.as_ref(), old.spec.as_ref()) else { return };
        let mut expected = old_spec.clone();
        if old_spec.volume_name.as_deref().unwrap_or("").is_empty() {
            expected.volume_name.clone_from(&new.volume_name);
        }
        if old.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound") {
            let requests = new.resources.as_ref().and_then(|r| r.requests.clone());
            expected.resources.get_or_insert_default().requests = requests;
            expected.volume_attributes_class_name.clone_from(&new.volume_attributes_class_name);
        }
        if *new != expected {
            let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            errors.push(forbidden(&Path::new("spec"), detail));
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut ErrorList) {
        let (status, path) = (self.status.as_ref(), Path::new("status"));
        rules::quantities(status.and_then(|s| s.capacity.as_ref()), &path.child("capacity"), errors);
        let allocated = status.and_then(|s| s.allocated_resources.as_ref());
        rules::quantities(allocated, &path.child("allocatedResources"), errors);
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let (empty, status) = (PersistentVolumeClaimSpec::default(), self.status.as_ref());
        let spec = self.spec.as_ref().unwrap_or(&empty);
        let volume = spec.volume_name.as_deref().unwrap_or("");
        let bound = status.filter(|_| !volume.is_empty());
        let capacity = bound.map(|s| s.capacity.as_ref().and_then(|c| c.get("storage")).map_or("0", |q| q.0.as_str()));
        vec![
            json!(self.metadata.name),
            printers::phase(&self.metadata, status.and_then(|s| s.phase.as_ref())),
            json!(volume),
            json!(capacity.unwrap_or("")),
            json!(bound.map_or_else(String::new, |s| printers::access_modes(s.access_modes.as_ref()))),
            json!(printers::storage_class(&self.metadata, spec.storage_class_name.as_ref())),
            printers::or_unset(spec.volume_attributes_class_name.as_ref()),
            crate::printing::age(&self.metadata, now),
            printers::or_unset(spec.volume_mode.as_ref()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn claim(change: impl FnOnce(&mut Value)) -> PersistentVolumeClaim {
        let mut value = json!({"metadata": {"name": "c"}, "spec": {
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
        }});
        change(&mut value);
        let mut claim: PersistentVolumeClaim = serde_json::from_value(value).unwrap();
        Object::set_defaults(&mut claim);
        claim
    }

    #[test]
    fn a_claim_says_how_much_it_needs_and_how() {
        type Change = fn(&mut Value);
        let cases: [(Change, &str); 4] = [
            (|_| (), ""),
            (
                |v| v["spec"]["accessModes"] = json!(null),
                "spec.accessModes: Required value: at least 1 access mode is required",
            ),
            (|v| v["spec"]["resources"] = json!(null), "spec.resources[storage]: Required value"),
            (
                |v| v["spec"]["accessModes"] = json!(["ReadWriteOncePod", "ReadOnlyMany"]),
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            ),
        ];
        for (change, expected) in cases {
            let errors = Object::validate(&claim(change));
            assert_eq!(errors.first().map(ToString::to_string).unwrap_or_default(), expected);
        }
    }

    #[test]
    fn a_claim_is_bound_once_and_grows_only_when_bound() {
        let old = claim(|_| ());
        let bound = claim(|v| v["spec"]["volumeName"] = json!("v"));
        let other = claim(|v| v["spec"]["volumeName"] = json!("w"));
        let larger = claim(|v| v["spec"]["resources"]["requests"]["storage"] = json!("2Gi"));
        assert!(Object::validate_update(&bound, &old).is_empty());
        assert_eq!(Object::validate_update(&other, &bound).len(), 1);
        assert_eq!(Object::validate_update(&larger, &old).len(), 1);
        let mut with_status = old;
        with_status.status.get_or_insert_default().phase = Some("Bound".into());
        assert!(Object::validate_update(&larger, &with_status).is_empty());
    }
}
