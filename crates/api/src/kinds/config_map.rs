//! ConfigMap: non-secret data that pods read.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use crate::Resource;
use crate::kinds::{AGE, KindInfo, NAME, Scope, column};
use crate::names::NameRule;

impl Resource for ConfigMap {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        categories: &[],
        scope: Scope::Namespaced,
        subresources: &[],
        columns: &[NAME, column("Data", "integer", "Number of entries"), AGE],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let entries = self.data.as_ref().map_or(0, |d| d.len()) + self.binary_data.as_ref().map_or(0, |d| d.len());
        vec![json!(self.metadata.name), json!(entries), crate::printing::age(&self.metadata, now)]
    }
}
