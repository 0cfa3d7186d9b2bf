//! Good nodes and pods for tests to spoil.

use serde_json::{Value, json};

use crate::node::NodeSpec;
use crate::pod::PodInfo;

/// A ready node of 4 cores, 8 GiB and 110 pods, with `change` merged in.
pub(crate) fn node(name: &str, change: Value) -> NodeSpec {
    let mut node = json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "status": {
            "allocatable": {"cpu": "4", "memory": "8Gi", "ephemeral-storage": "100Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    merge(&mut node, change);
    NodeSpec::of(&serde_json::from_value(node).unwrap())
}

/// A pod of one container that requests nothing, with `change` merged in; its UID is its name.
pub(crate) fn pod(name: &str, change: Value) -> PodInfo {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name},
        "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c"}]},
    });
    merge(&mut pod, change);
    PodInfo::of(&serde_json::from_value(pod).unwrap())
}

/// A pod that requests that many thousandths of a core.
pub(crate) fn pod_with_cpu(name: &str, milli: u32) -> PodInfo {
    pod(name, json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": format!("{milli}m")}}}]}}))
}

fn merge(base: &mut Value, change: Value) {
    match (base, change) {
        (Value::Object(base), Value::Object(change)) => {
            for (key, value) in change {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, change) => *base = change,
    }
}
