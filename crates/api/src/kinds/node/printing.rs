//! The columns of `kubectl get nodes` (`printNode` upstream).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::kinds::{AGE, Column, NAME, column, wide};

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Status", "string", "Whether the node takes and runs pods"),
    column("Roles", "string", "Roles of the node, from its labels"),
    AGE,
    column("Version", "string", "Version of the kubelet"),
    wide("Internal-IP", "string", "First address inside the cluster"),
    wide("External-IP", "string", "First address outside the cluster"),
    wide("OS-Image", "string", "Operating system"),
    wide("Kernel-Version", "string", "Version of the kernel"),
    wide("Container-Runtime", "string", "Container runtime and its version"),
];

/// `node-role.kubernetes.io/<role>`: a role as a label's key.
const LABEL_ROLE_PREFIX: &str = "node-role.kubernetes.io/";
/// A role as a label's value.
const LABEL_ROLE: &str = "kubernetes.io/role";

pub(super) fn cells(node: &Node, now: Timestamp) -> Vec<Value> {
    let info = node.status.as_ref().and_then(|s| s.node_info.as_ref());
    let unknown = |text: Option<&str>| json!(text.filter(|t| !t.is_empty()).unwrap_or("<unknown>"));
    vec![
        json!(node.metadata.name),
        json!(status(node)),
        json!(roles(node)),
        crate::printing::age(&node.metadata, now),
        json!(info.map_or("", |i| i.kubelet_version.as_str())),
        json!(address(node, "InternalIP")),
        json!(address(node, "ExternalIP")),
        unknown(info.map(|i| i.os_image.as_str())),
        unknown(info.map(|i| i.kernel_version.as_str())),
        unknown(info.map(|i| i.container_runtime_version.as_str())),
    ]
}

fn status(node: &Node) -> String {
    let ready = match crate::nodes::condition(node, "Ready") {
        Some(condition) if condition.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let cordoned = node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false);
    if cordoned { format!("{ready},SchedulingDisabled") } else { ready.to_owned() }
}

fn roles(node: &Node) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (key, value) in node.metadata.labels.iter().flatten() {
        match key.strip_prefix(LABEL_ROLE_PREFIX) {
            Some(role) if !role.is_empty() => roles.push(role),
            _ if key == LABEL_ROLE && !value.is_empty() => roles.push(value),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn address<'a>(node: &'a Node, address_type: &str) -> &'a str {
    let addresses = node.status.as_ref().and_then(|s| s.addresses.as_ref());
    addresses.into_iter().flatten().find(|a| a.type_ == address_type).map_or("<none>", |a| a.address.as_str())
}
