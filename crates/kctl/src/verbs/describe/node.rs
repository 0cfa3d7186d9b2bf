//! Nodes.

use serde_json::Value;

use super::text::{Text, date};
use crate::object::{items, pairs, text as at};

/// `pods` are those that run on the node.
pub(super) fn describe(text: &mut Text, node: &Value, pods: &[Value]) {
    text.name(node);
    text.field(0, "Roles", roles(node));
    text.labels(0, &node["metadata"]);
    text.field(0, "CreationTimestamp", date(at(node, &["metadata", "creationTimestamp"])));
    taints(text, node);
    text.field(0, "Unschedulable", node["spec"]["unschedulable"] == true);
    conditions(text, node);
    text.line(0, "Addresses:");
    for address in items(node, &["status", "addresses"]) {
        text.field(1, at(address, &["type"]), at(address, &["address"]));
    }
    text.amounts(0, "Capacity", &node["status"]["capacity"]);
    text.amounts(0, "Allocatable", &node["status"]["allocatable"]);
    system_info(text, node);
    text.field_if(0, "PodCIDR", at(node, &["spec", "podCIDR"]));
    let cidrs: Vec<&str> = items(node, &["spec", "podCIDRs"]).iter().filter_map(Value::as_str).collect();
    text.field_if(0, "PodCIDRs", &cidrs.join(","));
    running(text, pods);
}

fn roles(node: &Value) -> String {
    let labels = pairs(&node["metadata"]["labels"]);
    let roles: Vec<&str> = labels.iter().filter_map(|(k, _)| k.strip_prefix("node-role.kubernetes.io/")).collect();
    if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") }
}

fn taints(text: &mut Text, node: &Value) {
    let taints = items(node, &["spec", "taints"]);
    if taints.is_empty() {
        return text.field(0, "Taints", "<none>");
    }
    for (i, taint) in taints.iter().enumerate() {
        let value = at(taint, &["value"]);
        let value = if value.is_empty() { String::new() } else { format!("={value}") };
        let key = if i == 0 { "Taints:" } else { "" };
        text.line(0, &format!("{key}\t{}{value}:{}", at(taint, &["key"]), at(taint, &["effect"])));
    }
}

fn conditions(text: &mut Text, node: &Value) {
    text.line(0, "Conditions:");
    text.line(1, "Type\tStatus\tLastHeartbeatTime\tLastTransitionTime\tReason\tMessage");
    text.line(1, "----\t------\t-----------------\t------------------\t------\t-------");
    for c in items(node, &["status", "conditions"]) {
        let (heartbeat, transition) = (date(at(c, &["lastHeartbeatTime"])), date(at(c, &["lastTransitionTime"])));
        let words =
            [at(c, &["type"]), at(c, &["status"]), &heartbeat, &transition, at(c, &["reason"]), at(c, &["message"])];
        text.line(1, &words.join(" \t"));
    }
}

fn system_info(text: &mut Text, node: &Value) {
    text.line(0, "System Info:");
    for (key, field) in [
        ("Machine ID", "machineID"),
        ("System UUID", "systemUUID"),
        ("Boot ID", "bootID"),
        ("Kernel Version", "kernelVersion"),
        ("OS Image", "osImage"),
        ("Operating System", "operatingSystem"),
        ("Architecture", "architecture"),
        ("Container Runtime Version", "containerRuntimeVersion"),
        ("Kubelet Version", "kubeletVersion"),
    ] {
        text.field(1, key, at(node, &["status", "nodeInfo", field]));
    }
}

fn running(text: &mut Text, pods: &[Value]) {
    text.line(0, &format!("Non-terminated Pods:\t({} in total)", pods.len()));
    text.line(1, "Namespace\tName\tCPU Requests\tMemory Requests\tAge");
    text.line(1, "---------\t----\t------------\t---------------\t---");
    let now = jiff::Timestamp::now();
    for pod in pods {
        let created: Option<jiff::Timestamp> = at(pod, &["metadata", "creationTimestamp"]).parse().ok();
        let age =
            created.map_or_else(|| "<unknown>".to_owned(), |c| api::printing::human_duration(now.duration_since(c)));
        let (cpu, memory) = (requested(pod, "cpu"), requested(pod, "memory"));
        text.line(
            1,
            &format!(
                "{}\t{}\t{cpu}\t{memory}\t{age}",
                at(pod, &["metadata", "namespace"]),
                at(pod, &["metadata", "name"])
            ),
        );
    }
}

/// What the containers of a pod ask for, as written.
fn requested(pod: &Value, resource: &str) -> String {
    let containers = items(pod, &["spec", "containers"]).iter();
    let amounts: Vec<&str> =
        containers.map(|c| at(c, &["resources", "requests", resource])).filter(|a| !a.is_empty()).collect();
    if amounts.is_empty() { "0".to_owned() } else { amounts.join("+") }
}
