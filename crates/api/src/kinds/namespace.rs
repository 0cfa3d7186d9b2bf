//! Namespace: a scope for names.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceStatus};
use serde_json::{Value, json};

use super::rules;
use crate::Resource;
use crate::field::{ErrorList, Path};
use crate::kinds::{AGE, KindInfo, NAME, Scope, Subresource, Verb, column};
use crate::names::NameRule;
use crate::well_known::LABEL_METADATA_NAME;

/// Holds a namespace until its objects are gone; removed through `/finalize` by the namespace controller.
const FINALIZER: &str = "kubernetes";

impl Resource for Namespace {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        categories: &[],
        scope: Scope::Cluster,
        verbs: Verb::WITHOUT_DELETE_COLLECTION,
        subresources: &[Subresource::Status, Subresource::Finalize],
        columns: &[NAME, column("Status", "string", "Active, or Terminating while its objects are being deleted"), AGE],
        selectable_fields: &["status.phase"],
        name_rule: NameRule::Dns1123Label,
    };

    fn set_defaults(&mut self) {
        // The name as a label lets selectors of namespaces name one.
        let name = self.metadata.name.clone().unwrap_or_default();
        if !name.is_empty() {
            self.metadata.labels.get_or_insert_default().insert(LABEL_METADATA_NAME.to_owned(), name);
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(NamespaceStatus { phase: Some("Active".to_owned()), conditions: None });
        let finalizers = self.spec.get_or_insert_default().finalizers.get_or_insert_default();
        if !finalizers.iter().any(|f| f == FINALIZER) {
            finalizers.push(FINALIZER.to_owned());
        }
    }

    fn prepare_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn prepare_subresource_update(&mut self, subresource: Subresource, old: &Self) {
        match subresource {
            Subresource::Finalize => self.status.clone_from(&old.status),
            _ => self.prepare_status_update(old),
        }
    }

    fn validate(&self, errors: &mut ErrorList) {
        let path = Path::new("spec").child("finalizers");
        finalizers(self).for_each(|finalizer| finalizer_name(finalizer, &path, errors));
    }

    fn validate_subresource_update(&self, subresource: Subresource, old: &Self, errors: &mut ErrorList) {
        if subresource != Subresource::Finalize {
            return self.validate_status_update(old, errors);
        }
        // There upstream says which one.
        let path = Path::new("spec").child("finalizers");
        for (index, finalizer) in finalizers(self).enumerate() {
            finalizer_name(finalizer, &path.index(index), errors);
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut ErrorList) {
        let is_leaving = self.metadata.deletion_timestamp.is_some();
        let (path, wanted) = (Path::new("status").child("phase"), if is_leaving { "Terminating" } else { "Active" });
        if phase(self) != wanted {
            let detail = match is_leaving {
                true => "may only be 'Terminating' if `deletionTimestamp` is not empty",
                false => "may only be 'Active' if `deletionTimestamp` is empty",
            };
            errors.push(crate::field::invalid(&path, phase(self), detail));
        }
    }

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        vec![phase(self).into()]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), json!(phase(self)), crate::printing::age(&self.metadata, now)]
    }
}

fn finalizers(namespace: &Namespace) -> impl Iterator<Item = &String> {
    namespace.spec.iter().flat_map(|spec| spec.finalizers.iter().flatten())
}

/// A finalizer is a label key; one without a domain must be one of Kubernetes' own (`ValidateFinalizerName`).
fn finalizer_name(finalizer: &str, path: &Path, errors: &mut ErrorList) {
    let before = errors.len();
    rules::label_key(finalizer, path, errors);
    let is_own = matches!(finalizer, FINALIZER | "orphan" | "foregroundDeletion");
    if errors.len() == before && !finalizer.contains('/') && !is_own {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(crate::field::invalid(path, finalizer, detail));
    }
}

fn phase(namespace: &Namespace) -> &str {
    namespace.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn created(name: &str) -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.into());
        Object::set_defaults(&mut namespace);
        Object::prepare_create(&mut namespace);
        namespace
    }

    #[test]
    fn new_namespace_is_active_and_held_by_its_finalizer() {
        let namespace = created("web");
        assert_eq!(phase(&namespace), "Active");
        assert_eq!(namespace.spec.unwrap().finalizers.unwrap(), ["kubernetes"]);
        assert_eq!(namespace.metadata.labels.unwrap()["kubernetes.io/metadata.name"], "web");
    }

    #[test]
    fn only_finalize_changes_the_spec() {
        let old = created("web");
        let mut without = Namespace { spec: None, ..old.clone() };
        Object::prepare_update(&mut without, &old);
        assert_eq!(without, old);
        let mut without = Namespace { spec: None, status: None, ..old.clone() };
        Object::prepare_subresource_update(&mut without, Subresource::Finalize, &old);
        assert_eq!((without.spec, without.status), (None, old.status));
    }

    #[test]
    fn phase_follows_the_deletion_timestamp() {
        let old = created("web");
        let mut new = old.clone();
        new.status.get_or_insert_default().phase = Some("Terminating".into());
        let errors = Object::validate_subresource_update(&new, Subresource::Status, &old);
        let detail = "may only be 'Active' if `deletionTimestamp` is empty";
        assert_eq!(errors[0].to_string(), format!(r#"status.phase: Invalid value: "Terminating": {detail}"#));
    }
}
