//! ComponentStatus: whether a part of the control plane is well. Not stored: the API server looks when it is asked.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ComponentStatus;
use serde_json::{Value, json};

use crate::Resource;
use crate::kinds::{KindInfo, NAME, Scope, Verb, column};
use crate::names::NameRule;

impl Resource for ComponentStatus {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "ComponentStatus",
        plural: "componentstatuses",
        singular: "componentstatus",
        short_names: &["cs"],
        categories: &[],
        scope: Scope::Cluster,
        verbs: Verb::READ_ONLY,
        subresources: &[],
        columns: &[
            NAME,
            column("Status", "string", "Healthy, Unhealthy or Unknown"),
            column("Message", "string", "What the component says"),
            column("Error", "string", "Why it could not be asked"),
        ],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        let healthy = self.conditions.iter().flatten().find(|c| c.type_ == "Healthy");
        let status = match healthy.map(|c| c.status.as_str()) {
            Some("True") => "Healthy",
            Some(_) => "Unhealthy",
            None => "Unknown",
        };
        let text = |of: Option<&String>| json!(of.map_or("", String::as_str));
        vec![
            json!(self.metadata.name),
            json!(status),
            text(healthy.and_then(|c| c.message.as_ref())),
            text(healthy.and_then(|c| c.error.as_ref())),
        ]
    }
}
