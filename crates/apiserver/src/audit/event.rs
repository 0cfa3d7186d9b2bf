//! `audit.k8s.io/v1` Event: a line of the log.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::UserInfo;
use serde::Serialize;
use serde_json::{Value, json};

use super::policy::{Level, Stage};
use crate::authz::{Attributes, Target};
use crate::status::{ApiError, status_of};

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Event {
    pub(super) kind: &'static str,
    pub(super) api_version: &'static str,
    pub(super) level: Level,
    #[serde(rename = "auditID")]
    pub(super) audit_id: String,
    pub(super) stage: Stage,
    #[serde(rename = "requestURI")]
    pub(super) request_uri: String,
    pub(super) verb: String,
    pub(super) user: UserInfo,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) impersonated_user: Option<UserInfo>,
    #[serde(rename = "sourceIPs", skip_serializing_if = "Vec::is_empty")]
    pub(super) source_ips: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) user_agent: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) object_ref: Option<ObjectRef>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_status: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_object: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) response_object: Option<Value>,
    pub(super) request_received_timestamp: String,
    pub(super) stage_timestamp: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) annotations: BTreeMap<&'static str, String>,
}

/// Which object it was about.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ObjectRef {
    resource: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    api_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
}

impl ObjectRef {
    pub(super) fn of(attributes: &Attributes<'_>) -> Option<ObjectRef> {
        let Target::Resource(target) = &attributes.target else { return None };
        Some(ObjectRef {
            resource: target.resource.to_owned(),
            namespace: target.namespace.to_owned(),
            name: target.name.to_string(),
            api_group: target.group.to_owned(),
            api_version: target.version.to_owned(),
            subresource: target.subresource.to_owned(),
        })
    }
}

/// `2006-01-02T15:04:05.000000Z`.
pub(super) fn micro_time(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The status of an answer: its code, and why it is none that was hoped for.
pub(super) fn response_status(code: u16, error: Option<&ApiError>) -> Value {
    match error {
        None => json!({"metadata": {}, "code": code}),
        Some(error) => {
            let (_, mut status) = status_of(error);
            for field in ["kind", "apiVersion"] {
                status.as_object_mut().and_then(|s| s.remove(field));
            }
            status
        }
    }
}
