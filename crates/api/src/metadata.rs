//! Metadata: checked once for all kinds, at creation and at every update.
//!
//! After `k8s.io/apimachinery/pkg/api/validation/objectmeta.go`, and `BeforeUpdate` of
//! `k8s.io/apiserver/pkg/registry/rest` for what a client cannot change.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::Value;

use crate::field::{ErrorList, Path, forbidden, invalid, required, too_long};
use crate::kinds::{KindInfo, Scope};
use crate::names;

/// The most bytes all annotations of an object may have together, keys and values.
pub const TOTAL_ANNOTATION_SIZE_LIMIT: usize = 256 * 1024;

/// Finalizer of foreground deletion: dependents go first.
pub const FINALIZER_FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of orphaning deletion: dependents stay.
pub const FINALIZER_ORPHAN: &str = "orphan";
/// Finalizer of a namespace's spec, and the only other one without a domain.
const FINALIZER_KUBERNETES: &str = "kubernetes";

/// Kinds whose finalizers may be any name: upstream validates them with the metadata rules of its machinery alone.
const WITHOUT_STANDARDS: [(&str, &str); 2] = [("coordination.k8s.io", "Lease"), ("", "Event")];

/// Everything wrong with the metadata of a new object of kind `info` (`ValidateObjectMeta`).
pub fn validate_metadata(info: &KindInfo, meta: &ObjectMeta, errors: &mut ErrorList) {
    let root = Path::new("metadata");
    validate_names(info, meta, &root, errors);
    validate_namespace(info, meta, &root.child("namespace"), errors);
    if meta.generation.is_some_and(|g| g < 0) {
        errors.push(invalid(&root.child("generation"), meta.generation, "must be greater than or equal to 0"));
    }
    validate_common(meta, &root, errors);
    validate_finalizers(info, meta, &root.child("finalizers"), errors);
}

/// Everything wrong with the step from the metadata `old` to `new` of an object of kind `info`
/// (`ValidateObjectMetaUpdate`). Run [`inherit_metadata`] first: what the client left out is then the same as before.
pub fn validate_metadata_update(info: &KindInfo, new: &ObjectMeta, old: &ObjectMeta, errors: &mut ErrorList) {
    let root = Path::new("metadata");
    if old.deletion_timestamp.is_some() {
        forbid_new_finalizers(new, old, &root.child("finalizers"), errors);
    }
    if new.generation < old.generation {
        errors.push(invalid(&root.child("generation"), new.generation.unwrap_or(0), "must not be decremented"));
    }
    immutable(&root.child("name"), &new.name, &old.name, errors);
    immutable(&root.child("namespace"), &new.namespace, &old.namespace, errors);
    immutable(&root.child("uid"), &new.uid, &old.uid, errors);
    immutable(&root.child("creationTimestamp"), &new.creation_timestamp, &old.creation_timestamp, errors);
    immutable(&root.child("deletionTimestamp"), &new.deletion_timestamp, &old.deletion_timestamp, errors);
    immutable(
        &root.child("deletionGracePeriodSeconds"),
        &new.deletion_grace_period_seconds,
        &old.deletion_grace_period_seconds,
        errors,
    );
    validate_common(new, &root, errors);
    // All kinds but Events are looked at as if they were new.
    if info.plural != "events" {
        validate_finalizers(info, new, &root.child("finalizers"), errors);
    }
}

/// Takes over from `old` what a client may leave out or cannot change: uid (where left out), namespace (where left
/// out), creation time, self link; that it is being deleted. That it is to be, no update says.
pub fn inherit_metadata(new: &mut ObjectMeta, old: &ObjectMeta) {
    let keep = |new: &mut Option<String>, old: &Option<String>| {
        if new.as_deref().unwrap_or("").is_empty() {
            new.clone_from(old);
        }
    };
    keep(&mut new.uid, &old.uid);
    keep(&mut new.namespace, &old.namespace);
    new.creation_timestamp.clone_from(&old.creation_timestamp);
    if old.deletion_timestamp.is_some() {
        new.deletion_timestamp.clone_from(&old.deletion_timestamp);
    }
    new.deletion_grace_period_seconds = new.deletion_grace_period_seconds.or(old.deletion_grace_period_seconds);
    new.self_link = None;
}

/// `field is immutable` unless the two are equal (`ValidateImmutableField`).
pub fn immutable<T: PartialEq + serde::Serialize>(path: &Path, new: &T, old: &T, errors: &mut ErrorList) {
    if new != old {
        let value = serde_json::to_value(new).unwrap_or_default();
        errors.push(invalid(path, value, "field is immutable"));
    }
}

/// Every key and value of `labels` (`ValidateLabels`).
pub fn validate_labels(labels: Option<&BTreeMap<String, String>>, path: &Path, errors: &mut ErrorList) {
    for (key, value) in labels.into_iter().flatten() {
        push_invalid(path, key, names::is_qualified_name(key), errors);
        push_invalid(path, value, names::is_label_value(value), errors);
    }
}

/// Every key of `annotations`, and their size (`ValidateAnnotations`). Case does not matter in keys.
pub fn validate_annotations(annotations: Option<&BTreeMap<String, String>>, path: &Path, errors: &mut ErrorList) {
    let mut size = 0;
    for (key, value) in annotations.into_iter().flatten() {
        push_invalid(path, key, names::is_qualified_name(&key.to_lowercase()), errors);
        size += key.len() + value.len();
    }
    if size > TOTAL_ANNOTATION_SIZE_LIMIT {
        errors.push(too_long(path, TOTAL_ANNOTATION_SIZE_LIMIT));
    }
}

/// Takes away owners that are named twice in the same words, as upstream does before anything else is done
/// (`dedupOwnerReferences` in `k8s.io/apiserver`); gives what to tell the client.
pub fn drop_repeated_owners(meta: &mut ObjectMeta) -> Option<String> {
    let owners = meta.owner_references.as_mut().filter(|owners| owners.len() > 1)?;
    let (mut kept, mut repeated) = (Vec::with_capacity(owners.len()), Vec::new());
    for owner in owners.drain(..) {
        if kept.contains(&owner) {
            repeated.push(owner.uid);
        } else {
            kept.push(owner);
        }
    }
    *owners = kept;
    (!repeated.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may \
             reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            repeated.join(", ")
        )
    })
}

/// What is checked at creation and update alike.
fn validate_common(meta: &ObjectMeta, root: &Path, errors: &mut ErrorList) {
    validate_labels(meta.labels.as_ref(), &root.child("labels"), errors);
    validate_annotations(meta.annotations.as_ref(), &root.child("annotations"), errors);
    validate_owners(meta.owner_references.as_deref().unwrap_or_default(), &root.child("ownerReferences"), errors);
}

fn push_invalid(path: &Path, value: &str, problems: Vec<String>, errors: &mut ErrorList) {
    errors.extend(problems.iter().map(|problem| invalid(path, value, problem)));
}

fn validate_names(info: &KindInfo, meta: &ObjectMeta, root: &Path, errors: &mut ErrorList) {
    let (name, prefix) = (meta.name.as_deref().unwrap_or(""), meta.generate_name.as_deref().unwrap_or(""));
    if !prefix.is_empty() {
        let problems = names::validate_name_prefix(info.name_rule, prefix);
        push_invalid(&root.child("generateName"), prefix, problems, errors);
    }
    if name.is_empty() {
        errors.push(required(&root.child("name"), "name or generateName is required"));
    } else {
        push_invalid(&root.child("name"), name, names::validate_name(info.name_rule, name), errors);
    }
}

fn validate_namespace(info: &KindInfo, meta: &ObjectMeta, path: &Path, errors: &mut ErrorList) {
    let namespace = meta.namespace.as_deref().unwrap_or("");
    match info.scope {
        Scope::Namespaced if namespace.is_empty() => errors.push(required(path, "")),
        Scope::Namespaced => push_invalid(path, namespace, names::is_dns1123_label(namespace), errors),
        Scope::Cluster if namespace.is_empty() => {}
        Scope::Cluster => errors.push(forbidden(path, "not allowed on this type")),
    }
}

/// Every finalizer (`ValidateFinalizerName`), and that not both of the collector's are there.
pub(crate) fn validate_finalizers(info: &KindInfo, meta: &ObjectMeta, path: &Path, errors: &mut ErrorList) {
    let finalizers = meta.finalizers.as_deref().unwrap_or_default();
    for (i, finalizer) in finalizers.iter().enumerate() {
        push_invalid(path, finalizer, names::is_qualified_name(finalizer), errors);
        if !finalizer.contains('/')
            && !WITHOUT_STANDARDS.contains(&(info.group, info.kind))
            && ![FINALIZER_FOREGROUND, FINALIZER_ORPHAN, FINALIZER_KUBERNETES].contains(&finalizer.as_str())
        {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(invalid(&path.index(i), finalizer.as_str(), detail));
        }
    }
    if [FINALIZER_FOREGROUND, FINALIZER_ORPHAN].iter().all(|f| finalizers.iter().any(|g| g == f)) {
        let detail = format!("finalizer {FINALIZER_ORPHAN} and {FINALIZER_FOREGROUND} cannot be both set");
        errors.push(invalid(path, finalizers, &detail));
    }
}

fn validate_owners(owners: &[OwnerReference], path: &Path, errors: &mut ErrorList) {
    let mut controller: Option<String> = None;
    for owner in owners {
        validate_owner(owner, path, errors);
        if owner.controller != Some(true) {
            continue;
        }
        let this = format!("{}/{}", owner.kind, owner.name);
        match &controller {
            None => controller = Some(this),
            Some(first) => {
                let detail = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                errors.push(invalid(path, serde_json::to_value(owners).unwrap_or_default(), &detail));
            }
        }
    }
}

fn validate_owner(owner: &OwnerReference, path: &Path, errors: &mut ErrorList) {
    // More than one slash is no version (`ParseGroupVersion`).
    let version = match owner.api_version.split_once('/') {
        Some((_, version)) if version.contains('/') => "",
        Some((_, version)) => version,
        None => owner.api_version.as_str(),
    };
    if version.is_empty() {
        errors.push(invalid(&path.child("apiVersion"), owner.api_version.as_str(), "version must not be empty"));
    }
    for (field, value) in [("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)] {
        if value.is_empty() {
            errors.push(invalid(&path.child(field), value.as_str(), "must not be empty"));
        }
    }
    if owner.api_version == "v1" && owner.kind == "Event" {
        let value = serde_json::to_value(owner).unwrap_or(Value::Null);
        errors.push(invalid(path, value, "/v1, Kind=Event is disallowed from being an owner"));
    }
}

fn forbid_new_finalizers(new: &ObjectMeta, old: &ObjectMeta, path: &Path, errors: &mut ErrorList) {
    let old = old.finalizers.as_deref().unwrap_or_default();
    let mut added: Vec<&String> = new.finalizers.iter().flatten().filter(|f| !old.contains(f)).collect();
    added.sort();
    added.dedup();
    if !added.is_empty() {
        let list = added.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>().join(", ");
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{list}}}"
        );
        errors.push(forbidden(path, &detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Resource;
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    fn meta(value: Value) -> ObjectMeta {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn an_owner_named_twice_counts_once() {
        let owner =
            |name: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "1", "controller": true});
        let mut twice = meta(json!({"ownerReferences": [owner("a"), owner("a"), owner("b"), owner("a")]}));
        let told = drop_repeated_owners(&mut twice).unwrap();
        assert!(told.ends_with("duplicate UID(s) observed: 1, 1"), "{told}");
        let names: Vec<_> = twice.owner_references.iter().flatten().map(|owner| owner.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(drop_repeated_owners(&mut twice), None);
    }

    fn good() -> Value {
        json!({"name": "web", "namespace": "default", "uid": "1"})
    }

    /// What creation says of a good object with `field` set to `value`.
    fn creation(field: &str, value: Value) -> Vec<String> {
        let mut object = good();
        object[field] = value;
        let mut errors = ErrorList::new();
        validate_metadata(&ConfigMap::INFO, &meta(object), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn good_metadata_has_no_errors() {
        for (field, value) in [
            ("labels", json!({"a/b": "c", "d": ""})),
            ("annotations", json!({"Example.com/A": "any text\n"})),
            ("finalizers", json!(["orphan", "example.com/x"])),
            (
                "ownerReferences",
                json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true}]),
            ),
            ("generateName", json!("web-")),
        ] {
            assert_eq!(creation(field, value), [""; 0], "{field}");
        }
    }

    #[test]
    fn bad_metadata_is_refused_in_upstreams_words() {
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u", "controller": true});
        for (field, value, error) in [
            ("name", json!(""), "metadata.name: Required value: name or generateName is required"),
            ("name", json!("A"), "metadata.name: Invalid value: \"A\": a lowercase RFC 1123 subdomain must consist"),
            ("generateName", json!("AB-"), "metadata.generateName: Invalid value: \"AB-\": a lowercase RFC 1123"),
            ("namespace", json!(""), "metadata.namespace: Required value"),
            ("namespace", json!("a.b"), "metadata.namespace: Invalid value: \"a.b\": must not contain dots"),
            ("labels", json!({"a": "b c"}), "metadata.labels: Invalid value: \"b c\": a valid label must be"),
            ("labels", json!({"a/": "b"}), "metadata.labels: Invalid value: \"a/\": name part must be non-empty"),
            (
                "annotations",
                json!({"a": "x".repeat(TOTAL_ANNOTATION_SIZE_LIMIT)}),
                "metadata.annotations: Too long: may not be more than 262144 bytes",
            ),
            ("finalizers", json!(["x"]), "metadata.finalizers[0]: Invalid value: \"x\": name is neither a standard"),
            ("finalizers", json!(["orphan", "foregroundDeletion"]), "cannot be both set"),
            ("ownerReferences", json!([{}]), "metadata.ownerReferences.apiVersion: Invalid value: \"\": version must"),
            ("ownerReferences", json!([owner, owner]), "Only one reference can have Controller set to true."),
            ("generation", json!(-1), "metadata.generation: Invalid value: -1: must be greater than or equal to 0"),
        ] {
            let errors = creation(field, value);
            assert!(errors.iter().any(|e| e.contains(error)), "{field}: {errors:?}");
        }
    }

    #[test]
    fn a_lease_may_have_any_finalizer() {
        let object = json!({"name": "a", "namespace": "default", "finalizers": ["x"]});
        let mut errors = ErrorList::new();
        validate_metadata(&k8s_openapi::api::coordination::v1::Lease::INFO, &meta(object), &mut errors);
        assert!(errors.is_empty(), "{errors:?}");
    }

    #[test]
    fn what_names_an_object_is_immutable() {
        let update = |new: Value, old: Value| {
            let mut errors = ErrorList::new();
            validate_metadata_update(&ConfigMap::INFO, &meta(new), &meta(old), &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(update(good(), good()), [""; 0]);
        let mut held = good();
        held["finalizers"] = json!(["x", "a.b/c"]);
        assert_eq!(
            update(held, good()),
            [
                r#"metadata.finalizers[0]: Invalid value: "x": name is neither a standard finalizer name nor is it fully qualified"#
            ]
        );
        let mut graceful = good();
        graceful["deletionGracePeriodSeconds"] = json!(5);
        assert_eq!(
            update(graceful, good()),
            ["metadata.deletionGracePeriodSeconds: Invalid value: 5: field is immutable"]
        );
        let mut dead = good();
        dead["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(
            update(dead, good()),
            [r#"metadata.deletionTimestamp: Invalid value: "2026-01-01T00:00:00Z": field is immutable"#]
        );
        for field in ["name", "namespace", "uid"] {
            let mut new = good();
            new[field] = json!("other");
            assert_eq!(
                update(new, good()),
                [format!("metadata.{field}: Invalid value: \"other\": field is immutable")]
            );
        }
        let mut dying = good();
        dying["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        assert_eq!(
            update(good(), dying.clone()),
            ["metadata.deletionTimestamp: Invalid value: null: field is immutable"]
        );
        let mut extended = dying.clone();
        extended["finalizers"] = json!(["orphan"]);
        assert_eq!(
            update(extended, dying),
            [
                r#"metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{"orphan"}"#
            ]
        );
    }

    #[test]
    fn what_a_client_leaves_out_is_inherited() {
        let old = meta(json!({"name": "a", "namespace": "b", "uid": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
            "deletionTimestamp": "2026-01-02T00:00:00Z", "deletionGracePeriodSeconds": 5}));
        let mut new = meta(json!({"name": "a"}));
        inherit_metadata(&mut new, &old);
        assert_eq!(new, old);
    }
}
