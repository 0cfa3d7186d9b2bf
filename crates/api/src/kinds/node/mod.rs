//! Node: a box that runs pods.

//!
//! A node is born with the status its kubelet gives it; afterwards spec and status are written apart.

mod printing;
mod validation;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use crate::Resource;
use crate::field::ErrorList;
use crate::kinds::{KindInfo, Scope, Subresource, Verb};
use crate::names::NameRule;
use crate::quantity::canonicalize;

impl Resource for Node {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        categories: &[],
        scope: Scope::Cluster,
        verbs: Verb::ALL,
        subresources: &[Subresource::Status, Subresource::Proxy],
        columns: printing::COLUMNS,
        selectable_fields: &["spec.unschedulable"],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn set_defaults(&mut self) {
        if let Some(status) = self.status.as_mut() {
            let amounts = status.capacity.iter_mut().chain(&mut status.allocatable).flat_map(|m| m.values_mut());
            amounts.for_each(canonicalize);
            if status.allocatable.is_none() {
                status.allocatable.clone_from(&status.capacity);
            }
        }
        if let Some(spec) = self.spec.as_mut() {
            let cidr = spec.pod_cidr.clone().filter(|c| !c.is_empty());
            match (cidr, spec.pod_cidrs.as_ref().and_then(|c| c.first()).cloned()) {
                (Some(cidr), first) if first.as_ref() != Some(&cidr) => spec.pod_cidrs = Some(vec![cidr]),
                (None, first) => spec.pod_cidr = first.filter(|first| !first.is_empty()),
                _ => {}
            }
        }
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut ErrorList) {
        validation::node(self, errors);
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let external_id = self.spec.as_ref().and_then(|spec| spec.external_id.as_deref()).unwrap_or("");
        let warning = "spec.externalID: this field is deprecated, and is unused by Kubernetes";
        (!external_id.is_empty()).then(|| warning.to_owned()).into_iter().collect()
    }

    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        validation::update(self, old, errors);
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut ErrorList) {
        validation::status(self, errors);
    }

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        let unschedulable = self.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
        vec![if unschedulable { "true" } else { "false" }.into()]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        printing::cells(self, now)
    }
}
