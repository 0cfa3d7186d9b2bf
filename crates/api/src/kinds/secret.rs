//! Secret: data that pods read and others should not.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::Resource;
use crate::kinds::{AGE, KindInfo, NAME, Scope, column};
use crate::names::NameRule;

impl Resource for Secret {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        subresources: &[],
        columns: &[
            NAME,
            column("Type", "string", "Who reads the data and which keys it must have"),
            column("Data", "integer", "Number of entries"),
            AGE,
        ],
        selectable_fields: &["type"],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        vec![self.type_.as_deref().unwrap_or("").into()]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let entries = self.data.as_ref().map_or(0, |d| d.len());
        vec![json!(self.metadata.name), json!(self.type_), json!(entries), crate::printing::age(&self.metadata, now)]
    }
}
