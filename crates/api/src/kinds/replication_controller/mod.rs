//! ReplicationController: keeps exactly N pods of one template.

mod printing;
mod validation;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerStatus};
use serde_json::Value;

use crate::Resource;
use crate::field::{ErrorList, Path};
use crate::kinds::pod;
use crate::kinds::{KindInfo, Scope, Subresource, Verb};
use crate::names::NameRule;

impl Resource for ReplicationController {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        singular: "replicationcontroller",
        short_names: &["rc"],
        categories: &["all"],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[Subresource::Status, Subresource::Scale],
        columns: printing::COLUMNS,
        selectable_fields: &["status.replicas"],
        name_rule: NameRule::Dns1123Subdomain,
    };

    const HAS_GENERATION: bool = true;

    fn generation_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    /// What it selects and is labelled with follows from its template (`SetDefaults_ReplicationController`).
    fn set_defaults(&mut self) {
        let spec = self.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let Some(template) = spec.template.as_mut() else { return };
        pod::defaults::template(template);
        let Some(labels) = template.metadata.as_ref().and_then(|m| m.labels.clone()) else { return };
        if spec.selector.as_ref().is_none_or(|s| s.is_empty()) {
            spec.selector = Some(labels.clone());
        }
        if self.metadata.labels.as_ref().is_none_or(|l| l.is_empty()) {
            self.metadata.labels = Some(labels);
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(ReplicationControllerStatus::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut ErrorList) {
        validation::spec(self, errors);
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        let mut said = match old {
            None => pod::warnings::hostname(&self.metadata, "Pod names and hostnames"),
            Some(old) if old.metadata.generation == self.metadata.generation => return Vec::new(),
            Some(_) => Vec::new(),
        };
        let template = self.spec.as_ref().and_then(|spec| spec.template.as_ref());
        let path = Path::new("spec").child("template");
        said.extend(template.map(|template| pod::warnings::template(template, &path)).unwrap_or_default());
        said
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut ErrorList) {
        validation::status(self, errors);
    }

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        vec![self.status.as_ref().map_or(0, |s| s.replicas).to_string().into()]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        printing::cells(self, now)
    }
}
