//! ReplicationController: keeps exactly N pods of one template.

mod printing;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ReplicationController;
use serde_json::Value;

use crate::Resource;
use crate::kinds::{KindInfo, Scope, Subresource};
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
        subresources: &[Subresource::Status, Subresource::Scale],
        columns: printing::COLUMNS,
        selectable_fields: &["status.replicas"],
        name_rule: NameRule::Dns1123Subdomain,
    };

    const HAS_GENERATION: bool = true;

    fn generation_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        vec![self.status.as_ref().map_or(0, |s| s.replicas).to_string().into()]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        printing::cells(self, now)
    }
}
