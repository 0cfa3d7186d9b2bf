//! PodTemplate: a pod to be, kept for whoever makes pods of it.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodTemplate};
use serde_json::{Value, json};

use super::{pod, printers};
use crate::Resource;
use crate::field::{ErrorList, Path, required};
use crate::kinds::{KindInfo, NAME, Scope, Verb, column};
use crate::names::NameRule;

impl Resource for PodTemplate {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "PodTemplate",
        plural: "podtemplates",
        singular: "podtemplate",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[],
        columns: &[
            NAME,
            column("Containers", "string", "Names of the template's containers"),
            column("Images", "string", "Images of the template's containers"),
            column("Pod Labels", "string", "Labels of the template"),
        ],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    const HAS_GENERATION: bool = true;

    fn generation_changed(&self, old: &Self) -> bool {
        self.template != old.template
    }

    fn set_defaults(&mut self) {
        if let Some(template) = self.template.as_mut() {
            pod::defaults::template(template);
        }
    }

    fn validate(&self, errors: &mut ErrorList) {
        let path = Path::new("template");
        match &self.template {
            Some(template) => pod::validation::template(template, &path, errors),
            None => errors.push(required(&path.child("spec").child("containers"), "")),
        }
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        if old.is_some_and(|old| old.metadata.generation == self.metadata.generation) {
            return Vec::new();
        }
        let path = Path::new("template");
        self.template.as_ref().map(|template| pod::warnings::template(template, &path)).unwrap_or_default()
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let template = self.template.as_ref();
        let containers = template.and_then(|t| t.spec.as_ref()).map_or(&[][..], |s| s.containers.as_slice());
        let join = |of: fn(&Container) -> &str| containers.iter().map(of).collect::<Vec<_>>().join(",");
        vec![
            json!(self.metadata.name),
            json!(join(|c| &c.name)),
            json!(join(|c| c.image.as_deref().unwrap_or(""))),
            printers::labels(template.and_then(|t| t.metadata.as_ref()?.labels.as_ref())),
        ]
    }
}
