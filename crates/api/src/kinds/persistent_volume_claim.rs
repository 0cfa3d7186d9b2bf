//! PersistentVolumeClaim: what a pod needs of storage. The volume controller finds a volume for it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimStatus, TypedLocalObjectReference,
    TypedObjectReference,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use serde_json::{Value, json};

use super::{pod, printers, rules};
use crate::Resource;
use crate::field::{ErrorList, Path, forbidden, invalid, required};
use crate::kinds::{AGE, KindInfo, NAME, Scope, Subresource, Verb, column, wide};
use crate::metadata::immutable;
use crate::names::{self, NameRule};
use crate::quantity::{Quantity, canonicalize, of};

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
        if let Some(spec) = self.spec.as_mut() {
            sources(spec, None);
        }
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        if let Some(spec) = self.spec.as_mut() {
            sources(spec, old.spec.as_ref());
        }
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
        validate_sources(spec, &path, errors);
        if let Some(class) = spec.volume_attributes_class_name.as_deref().filter(|class| !class.is_empty()) {
            rules::dns_subdomain(class, &path.child("volumeAttributesClassName"), errors);
        }
    }

    /// A claim is bound once; how much it asks for is for `PersistentVolumeClaimResize` to judge once it is bound.
    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        let (Some(new), Some(old_spec)) = (self.spec.as_ref(), old.spec.as_ref()) else { return };
        let mut expected = old_spec.clone();
        // One that was written when there was one word only.
        sources(&mut expected, Some(old_spec));
        if old_spec.volume_name.as_deref().unwrap_or("").is_empty() {
            expected.volume_name.clone_from(&new.volume_name);
        }
        let is_bound = self.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound");
        if let Some(amount) = storage(new).filter(|_| is_bound) {
            let requests = expected.resources.get_or_insert_default().requests.get_or_insert_default();
            requests.insert("storage".to_owned(), amount.clone());
        }
        if is_bound && new.volume_attributes_class_name.is_some() {
            expected.volume_attributes_class_name.clone_from(&new.volume_attributes_class_name);
        }
        class(self, old, &mut expected, errors);
        if *new != expected {
            let detail = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
            errors.push(forbidden(&Path::new("spec"), detail));
        }
        // Who asked for more than there was may ask for less of it again, but not for less than there is.
        let has = old.status.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage")).map_or(Quantity::ZERO, of);
        let (asks, asked) = (storage(new).map(of), storage(old_spec).map(of));
        if asks < asked && asks.is_some_and(|asks| asks <= has) {
            let path = Path::new("spec").child("resources").child("requests").child("storage");
            errors.push(forbidden(&path, "field can not be less than status.capacity"));
        }
        immutable(&Path::new("volumeMode"), &new.volume_mode, &old_spec.volume_mode, errors);
        attributes_class(new, old_spec, errors);
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

/// Where a claim's content comes from is said twice: in the older words for claims and snapshots, in the newer for anything.
/// Each is filled in from the other; what the older never meant is dropped, unless it is there already
/// (`EnforceDataSourceBackwardsCompatibility`, `NormalizeDataSources` in `pkg/api/persistentvolumeclaim`). No claim takes
/// from another namespace, which is a feature of its own upstream.
fn sources(spec: &mut PersistentVolumeClaimSpec, old: Option<&PersistentVolumeClaimSpec>) {
    let is_meant = |source: &TypedLocalObjectReference| {
        let group = source.api_group.as_deref().unwrap_or("");
        matches!((group, &*source.kind), ("", CLAIM) | ("snapshot.storage.k8s.io", "VolumeSnapshot"))
    };
    if old.is_none_or(|old| old.data_source.is_none()) {
        spec.data_source = spec.data_source.take().filter(is_meant);
    }
    if old.is_none_or(|old| old.data_source_ref.as_ref().is_none_or(|source| source.namespace.is_none()))
        && let Some(source) = spec.data_source_ref.as_mut()
    {
        source.namespace = None;
    }
    match (&spec.data_source, &spec.data_source_ref) {
        (Some(source), None) => {
            let TypedLocalObjectReference { api_group, kind, name } = source.clone();
            spec.data_source_ref = Some(TypedObjectReference { api_group, kind, name, namespace: None });
        }
        (None, Some(source)) if source.namespace.as_deref().unwrap_or("").is_empty() => {
            let TypedObjectReference { api_group, kind, name, .. } = source.clone();
            spec.data_source = Some(TypedLocalObjectReference { api_group, kind, name });
        }
        _ => {}
    }
}

/// What a source is by default.
const CLAIM: &str = "PersistentVolumeClaim";

fn validate_sources(spec: &PersistentVolumeClaimSpec, path: &Path, errors: &mut ErrorList) {
    if let Some(source) = &spec.data_source {
        let said = (source.api_group.as_deref(), &*source.kind, &*source.name);
        validate_source(said, &path.child("dataSource"), errors);
    }
    let Some(source) = &spec.data_source_ref else { return };
    let (said, here) = ((source.api_group.as_deref(), &*source.kind, &*source.name), path.child("dataSourceRef"));
    validate_source(said, &here, errors);
    let namespace = source.namespace.as_deref().unwrap_or("");
    if !namespace.is_empty() {
        rules::all(names::is_dns1123_label(namespace), namespace, &here.child("namespace"), errors);
    }
    let Some(older) = &spec.data_source else { return };
    if !namespace.is_empty() {
        let detail = "may not be specified when dataSourceRef.namespace is specified";
        errors.push(invalid(path, path.child("dataSource").as_str(), detail));
    } else if (older.api_group.as_deref(), &*older.kind, &*older.name) != said {
        errors.push(invalid(path, path.child("dataSource").as_str(), "must match dataSourceRef"));
    }
}

fn validate_source((group, kind, name): (Option<&str>, &str, &str), path: &Path, errors: &mut ErrorList) {
    rules::given(name, &path.child("name"), errors);
    rules::given(kind, &path.child("kind"), errors);
    match group.unwrap_or("") {
        "" if kind != CLAIM => {
            errors.push(invalid(path, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup"));
        }
        "" => {}
        group => rules::dns_subdomain(group, &path.child("apiGroup"), errors),
    }
}

/// A claim without a class may get one, as where the default class came later than the claim; in the annotation that was
/// the class's place before it never changes.
fn class(
    new: &PersistentVolumeClaim,
    old: &PersistentVolumeClaim,
    expected: &mut PersistentVolumeClaimSpec,
    errors: &mut ErrorList,
) {
    let (annotation, _) = rules::BETA_STORAGE_CLASS;
    let noted = |claim: &PersistentVolumeClaim| claim.metadata.annotations.as_ref()?.get(annotation).cloned();
    let wanted = new.spec.as_ref().and_then(|spec| spec.storage_class_name.clone());
    let (before, now) = (noted(old), noted(new));
    let moves = before.is_some() && wanted == before && (now.is_none() || now == before);
    if !(moves && expected.storage_class_name.is_none()) {
        let path = Path::new("metadata").child("annotations").child(annotation);
        immutable(&path, &now.unwrap_or_default(), &before.clone().unwrap_or_default(), errors);
    }
    if expected.storage_class_name.is_none() && wanted.is_some() && (before.is_none() || before == wanted) {
        expected.storage_class_name = wanted;
    }
}

fn attributes_class(new: &PersistentVolumeClaimSpec, old: &PersistentVolumeClaimSpec, errors: &mut ErrorList) {
    let detail = match (&old.volume_attributes_class_name, &new.volume_attributes_class_name) {
        (Some(_), None) => "update from non-nil value to nil is forbidden",
        (Some(old), Some(new)) if new.is_empty() && !old.is_empty() => {
            "update from non-nil value to an empty string is forbidden"
        }
        _ => return,
    };
    errors.push(forbidden(&Path::new("spec").child("volumeAttributesClassName"), detail));
}

fn storage(spec: &PersistentVolumeClaimSpec) -> Option<&Amount> {
    spec.resources.as_ref()?.requests.as_ref()?.get("storage")
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
    }

    /// What is said when a claim that is bound, and has 1Gi of the 2Gi it asks for, becomes another.
    fn bound_becomes(change: impl FnOnce(&mut Value)) -> String {
        let bound = |v: &mut Value| {
            v["spec"]["resources"]["requests"]["storage"] = json!("2Gi");
            v["spec"]["volumeAttributesClassName"] = json!("gold");
            v["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}});
        };
        let new = claim(|v| {
            bound(v);
            change(v);
        });
        let errors = Object::validate_update(&new, &claim(bound));
        errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn what_of_a_bound_claim_may_change() {
        type Change = fn(&mut Value);
        let still = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        let cases: [(Change, String); 9] = [
            (|_| (), String::new()),
            (|v| v["spec"]["resources"]["requests"]["storage"] = json!("3Gi"), String::new()),
            (|v| v["spec"]["resources"]["requests"]["storage"] = json!("1536Mi"), String::new()),
            (
                |v| v["spec"]["resources"]["requests"]["storage"] = json!("1Gi"),
                "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity".into(),
            ),
            (|v| v["spec"]["resources"]["requests"]["cpu"] = json!("1"), still.into()),
            (|v| v["spec"]["storageClassName"] = json!("fast"), String::new()),
            (|v| v["spec"]["volumeAttributesClassName"] = json!("silver"), String::new()),
            (
                |v| v["spec"]["volumeAttributesClassName"] = json!(null),
                format!(
                    "{still}; spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"
                ),
            ),
            (
                |v| v["spec"]["volumeMode"] = json!("Block"),
                format!(r#"{still}; volumeMode: Invalid value: "Block": field is immutable"#),
            ),
        ];
        for (change, expected) in cases {
            assert_eq!(bound_becomes(change), expected);
        }
    }

    #[test]
    fn the_class_moves_from_its_annotation_and_stays() {
        let noted = |class: &str, spec: Value| {
            let class = json!({rules::BETA_STORAGE_CLASS.0: class});
            claim(|v| (v["metadata"]["annotations"], v["spec"]["storageClassName"]) = (class, spec))
        };
        let said = |new: &PersistentVolumeClaim, old: &PersistentVolumeClaim| Object::validate_update(new, old).len();
        assert_eq!(said(&noted("a", json!("a")), &noted("a", json!(null))), 0);
        assert_eq!(said(&noted("a", json!("b")), &noted("a", json!(null))), 1, "another class");
        assert_eq!(said(&noted("b", json!(null)), &noted("a", json!(null))), 1, "another annotation");
        assert_eq!(said(&claim(|v| v["spec"]["storageClassName"] = json!("b")), &noted("a", json!("a"))), 2);
    }

    #[test]
    fn a_source_is_said_in_both_words() {
        let made = |field: &str, source: Value| {
            let mut claim = claim(|v| v["spec"][field] = source);
            Object::prepare_create(&mut claim);
            let errors: Vec<String> = Object::validate(&claim).iter().map(ToString::to_string).collect();
            let spec = claim.spec.unwrap();
            (json!([spec.data_source, spec.data_source_ref]), errors)
        };
        let other = json!({"kind": "PersistentVolumeClaim", "name": "a"});
        let any = json!({"apiGroup": "a.b", "kind": "Any", "name": "a"});
        let elsewhere = json!({"kind": "PersistentVolumeClaim", "name": "a", "namespace": "b"});
        for (field, source, expected) in [
            ("dataSource", &other, json!([other, other])),
            ("dataSource", &any, json!([null, null])),
            ("dataSourceRef", &any, json!([any, any])),
            ("dataSourceRef", &elsewhere, json!([other, other])),
        ] {
            assert_eq!(made(field, source.clone()), (expected, vec![]), "{field} {source}");
        }
        let (_, errors) = made("dataSourceRef", json!({"kind": "Any", "name": ""}));
        let refused = r#"Invalid value: "Any": must be 'PersistentVolumeClaim' when referencing the default apiGroup"#;
        let expected =
            ["dataSource", "dataSourceRef"].map(|f| format!("spec.{f}.name: Required value; spec.{f}: {refused}"));
        assert_eq!(errors.join("; "), expected.join("; "));
        let (_, errors) = made("dataSource", json!({"kind": "PersistentVolumeClaim", "name": ""}));
        assert_eq!(errors, ["spec.dataSource.name: Required value", "spec.dataSourceRef.name: Required value"]);
        let (_, errors) = made("dataSourceRef", json!({"apiGroup": "A_b", "kind": "Any", "name": "a"}));
        assert!(errors[0].starts_with(r#"spec.dataSource.apiGroup: Invalid value: "A_b": a lowercase"#), "{errors:?}");
    }
}
