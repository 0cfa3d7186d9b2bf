//! Service: one stable address for a changing set of pods.

mod printing;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

use crate::Resource;
use crate::kinds::{KindInfo, Scope, Subresource};
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
        subresources: &[Subresource::Status],
        columns: printing::COLUMNS,
        selectable_fields: &["spec.clusterIP", "spec.type"],
        name_rule: NameRule::Dns1035Label,
    };

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
