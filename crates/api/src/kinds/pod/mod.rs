//! Pod: containers that live and die together on one node.
//!
//! - [`printing`]: the columns of `kubectl get pods`.

mod printing;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use crate::Resource;
use crate::kinds::{KindInfo, Scope, Subresource};
use crate::names::NameRule;

impl Resource for Pod {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        scope: Scope::Namespaced,
        subresources: &[Subresource::Status, Subresource::Binding, Subresource::Log],
        columns: printing::COLUMNS,
        selectable_fields: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        name_rule: NameRule::Dns1123Subdomain,
    };

    const HAS_GENERATION: bool = true;

    fn generation_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let host_network = spec.and_then(|s| s.host_network).unwrap_or(false);
        vec![
            spec.and_then(|s| s.node_name.as_deref()).unwrap_or("").into(),
            spec.and_then(|s| s.restart_policy.as_deref()).unwrap_or("").into(),
            spec.and_then(|s| s.scheduler_name.as_deref()).unwrap_or("").into(),
            spec.and_then(|s| s.service_account_name.as_deref()).unwrap_or("").into(),
            if host_network { "true" } else { "false" }.into(),
            crate::pods::phase(self).into(),
            status.and_then(|s| s.pod_ip.as_deref()).unwrap_or("").into(),
            status.and_then(|s| s.nominated_node_name.as_deref()).unwrap_or("").into(),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        printing::cells(self, now)
    }
}
