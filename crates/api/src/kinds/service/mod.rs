//! Service: one stable address for a changing set of pods.
//!
//! Addresses and node ports are given out by the API server; here is what they may look like and when they stay.

mod addresses;
mod defaults;
mod printing;
#[cfg(test)]
mod tests;
mod validation;
mod warnings;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LoadBalancerStatus, Service, ServiceStatus};
use serde_json::Value;

use crate::Resource;
use crate::field::ErrorList;
use crate::kinds::{KindInfo, Scope, Subresource, Verb};
use crate::names::NameRule;

impl Resource for Service {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[Subresource::Status, Subresource::Proxy],
        columns: printing::COLUMNS,
        selectable_fields: &["spec.clusterIP", "spec.type"],
        name_rule: NameRule::Dns1035Label,
    };

    fn set_defaults(&mut self) {
        defaults::service(self);
    }

    fn prepare_create(&mut self) {
        self.status =
            Some(ServiceStatus { load_balancer: Some(LoadBalancerStatus::default()), ..ServiceStatus::default() });
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
        if let (Some(new), Some(old)) = (self.spec.as_mut(), old.spec.as_ref()) {
            defaults::inherit(new, old);
        }
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut ErrorList) {
        validation::service(self, errors);
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        warnings::service(self)
    }

    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        if let (Some(new), Some(old)) = (self.spec.as_ref(), old.spec.as_ref()) {
            addresses::update(new, old, errors);
        }
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut ErrorList) {
        validation::status(self, errors);
    }

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        let spec = self.spec.as_ref();
        vec![
            spec.and_then(|s| s.cluster_ip.as_deref()).unwrap_or("").into(),
            spec.and_then(|s| s.type_.as_deref()).unwrap_or("").into(),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        printing::cells(self, now)
    }
}
