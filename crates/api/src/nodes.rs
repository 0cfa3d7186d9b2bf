//! What every component must agree on about nodes.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, Taint, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

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

/// Whether by an interface of this name no other machine reaches this one: those of containers and tunnels. Docker's bridges
/// are called by twelve digits of their network's id; others that begin so may be a machine's own.
pub fn is_inner_interface(name: &str) -> bool {
    const INNER: [&str; 7] = ["docker", "veth", "virbr", "cni", "coracle", "flannel", "kube-"];
    let of_docker = |id: &str| id.len() == 12 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    INNER.iter().any(|inner| name.starts_with(inner)) || name.strip_prefix("br-").is_some_and(of_docker)
}

/// Whether the node is cordoned.
pub fn is_unschedulable(node: &Node) -> bool {
    node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false)
}

/// The node's taints.
pub fn taints(node: &Node) -> &[Taint] {
    node.spec.as_ref().and_then(|s| s.taints.as_deref()).unwrap_or(&[])
}

/// Whether `toleration` lets a pod stay in spite of `taint`. An empty key with `Exists` matches every key, an empty
/// effect every effect (`Toleration.ToleratesTaint`).
pub fn toleration_matches(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let (key, effect) = (text(&toleration.key), text(&toleration.effect));
    if (!effect.is_empty() && effect != taint.effect) || (!key.is_empty() && key != taint.key) {
        return false;
    }
    match toleration.operator.as_deref().unwrap_or("") {
        "" | "Equal" => text(&toleration.value) == text(&taint.value),
        "Exists" => true,
        _ => false,
    }
}

/// Whether one of `tolerations` matches `taint`.
pub fn tolerates(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|t| toleration_matches(t, taint))
}

/// The first taint of the node with one of `effects` that `tolerations` do not match.
pub fn untolerated_taint<'a>(node: &'a Node, tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    taints(node).iter().filter(|t| effects.contains(&t.effect.as_str())).find(|t| !tolerates(t, tolerations))
}

/// Sets the condition of `condition.type_`. The transition time stays where the condition's status does.
pub fn set_condition(status: &mut NodeStatus, mut condition: NodeCondition, now: Timestamp) {
    let conditions = status.conditions.get_or_insert_default();
    match conditions.iter_mut().find(|c| c.type_ == condition.type_) {
        Some(old) => {
            let same_status = old.status == condition.status && old.last_transition_time.is_some();
            condition.last_transition_time =
                if same_status { old.last_transition_time.clone() } else { Some(Time(now)) };
            *old = condition;
        }
        None => {
            condition.last_transition_time = Some(Time(now));
            conditions.push(condition);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taint(key: &str, value: &str, effect: &str) -> Taint {
        Taint { key: key.into(), value: Some(value.into()), effect: effect.into(), time_added: None }
    }

    fn toleration(key: &str, operator: &str, value: &str, effect: &str) -> Toleration {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Toleration {
            key: some(key),
            operator: some(operator),
            value: some(value),
            effect: some(effect),
            toleration_seconds: None,
        }
    }

    #[test]
    fn tolerations_match_taints_by_key_operator_value_and_effect() {
        let gpu = taint("gpu", "yes", "NoSchedule");
        let table = [
            ("equal by default", toleration("gpu", "", "yes", "NoSchedule"), true),
            ("another value", toleration("gpu", "Equal", "no", "NoSchedule"), false),
            ("any value", toleration("gpu", "Exists", "", "NoSchedule"), true),
            ("any effect", toleration("gpu", "Exists", "", ""), true),
            ("any key", toleration("", "Exists", "", ""), true),
            ("another key", toleration("disk", "Exists", "", ""), false),
            ("another effect", toleration("gpu", "Exists", "", "NoExecute"), false),
            ("an operator nobody knows", toleration("gpu", "Gt", "yes", ""), false),
        ];
        for (sentence, toleration, expected) in table {
            assert_eq!(tolerates(&gpu, &[toleration]), expected, "{sentence}");
        }
        assert!(!tolerates(&gpu, &[]), "no toleration at all");
    }
}
