//! Node: a box that runs pods.

mod printing;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use crate::Resource;
use crate::kinds::{KindInfo, Scope, Subresource};
use crate::names::NameRule;

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
        subresources: &[Subresource::Status],
        columns: printing::COLUMNS,
        selectable_fields: &["spec.unschedulable"],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        let unschedulable = self.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
        vec![if unschedulable { "true" } else { "false" }.into()]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        printing::cells(self, now)
    }
}
