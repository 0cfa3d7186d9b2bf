//! Namespace: a scope for names.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use serde_json::{Value, json};

use crate::Resource;
use crate::kinds::{AGE, KindInfo, NAME, Scope, Subresource, column};
use crate::names::NameRule;

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
        subresources: &[Subresource::Status, Subresource::Finalize],
        columns: &[NAME, column("Status", "string", "Active, or Terminating while its objects are being deleted"), AGE],
        selectable_fields: &["status.phase"],
        name_rule: NameRule::Dns1123Label,
    };

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        vec![phase(self).into()]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), json!(phase(self)), crate::printing::age(&self.metadata, now)]
    }
}

fn phase(namespace: &Namespace) -> &str {
    namespace.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("")
}
