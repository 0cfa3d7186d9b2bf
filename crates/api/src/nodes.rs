//! What every component must agree on about nodes.

use k8s_openapi::api::core::v1::{Node, NodeCondition};

/// The condition of type `condition_type`.
pub fn condition<'a>(node: &'a Node, condition_type: &str) -> Option<&'a NodeCondition> {
    node.status.as_ref()?.conditions.as_ref()?.iter().find(|c| c.type_ == condition_type)
}

/// Whether the node's `Ready` condition is true.
pub fn is_ready(node: &Node) -> bool {
    condition(node, "Ready").is_some_and(|c| c.status == "True")
}

/// The first address of type `InternalIP`.
pub fn internal_ip(node: &Node) -> Option<&str> {
    let addresses = node.status.as_ref()?.addresses.as_ref()?;
    addresses.iter().find(|a| a.type_ == "InternalIP").map(|a| a.address.as_str())
}
