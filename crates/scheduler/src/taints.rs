//! Taints of nodes and tolerations of pods.

use std::sync::Arc;

use api::well_known;
use k8s_openapi::api::core::v1::{Node, Toleration};

/// What a taint does to pods that do not tolerate it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// They are not placed here.
    NoSchedule,
    /// They are placed elsewhere if that is possible.
    PreferNoSchedule,
    /// They are not placed here, and those that run are evicted.
    NoExecute,
}

/// One taint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taint {
    /// `node.kubernetes.io/not-ready`.
    pub key: Arc<str>,
    /// Often empty.
    pub value: Arc<str>,
    /// What it does.
    pub effect: Effect,
}

/// Conditions of a node and the taints that stand for them: a type, a status and a taint key. The node lifecycle
/// controller sets these taints (`nodeConditionToTaintKeyStatusMap`); they hold here from the moment the condition is
/// seen, so that no pod slips onto a bad node before the controller has written.
const CONDITION_TAINTS: &[(&str, &str, &str)] = &[
    ("Ready", "False", well_known::TAINT_NOT_READY),
    ("Ready", "Unknown", well_known::TAINT_UNREACHABLE),
    ("MemoryPressure", "True", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "True", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "True", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "True", "node.kubernetes.io/network-unavailable"),
];

impl Effect {
    fn parse(text: &str) -> Option<Effect> {
        match text {
            "NoSchedule" => Some(Effect::NoSchedule),
            "PreferNoSchedule" => Some(Effect::PreferNoSchedule),
            "NoExecute" => Some(Effect::NoExecute),
            _ => None,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Effect::NoSchedule => "NoSchedule",
            Effect::PreferNoSchedule => "PreferNoSchedule",
            Effect::NoExecute => "NoExecute",
        }
    }

    /// Whether the taint keeps pods away for certain.
    pub fn forbids(self) -> bool {
        self != Effect::PreferNoSchedule
    }
}

impl Taint {
    /// A taint of these parts.
    pub fn new(key: &str, value: &str, effect: Effect) -> Taint {
        Taint { key: key.into(), value: value.into(), effect }
    }

    /// Whether one of `tolerations` covers this taint (`Toleration.ToleratesTaint`).
    pub fn tolerated_by(&self, tolerations: &[Toleration]) -> bool {
        tolerations.iter().any(|toleration| self.covered_by(toleration))
    }

    fn covered_by(&self, toleration: &Toleration) -> bool {
        if !empty_or(toleration.effect.as_deref(), self.effect.as_str())
            || !empty_or(toleration.key.as_deref(), &self.key)
        {
            return false;
        }
        match toleration.operator.as_deref().unwrap_or("") {
            "" | "Equal" => toleration.value.as_deref().unwrap_or("") == &*self.value,
            "Exists" => true,
            _ => false,
        }
    }
}

/// An empty field of a toleration covers everything.
fn empty_or(field: Option<&str>, wanted: &str) -> bool {
    field.is_none_or(|text| text.is_empty() || text == wanted)
}

/// The taints of `node`: those written and those its conditions imply.
pub fn of(node: &Node) -> Vec<Taint> {
    let mut taints: Vec<Taint> = written(node);
    for key in implied(node) {
        if !taints.iter().any(|taint| &*taint.key == key && taint.effect.forbids()) {
            taints.push(Taint::new(key, "", Effect::NoSchedule));
        }
    }
    taints
}

fn written(node: &Node) -> Vec<Taint> {
    let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    let read = |taint: &k8s_openapi::api::core::v1::Taint| {
        Some(Taint::new(&taint.key, taint.value.as_deref().unwrap_or(""), Effect::parse(&taint.effect)?))
    };
    taints.filter_map(read).collect()
}

fn implied(node: &Node) -> Vec<&'static str> {
    let holds = |(kind, status, _): &&(&str, &str, &str)| {
        api::nodes::condition(node, kind).is_some_and(|condition| condition.status == *status)
    };
    let mut keys: Vec<&str> = CONDITION_TAINTS.iter().filter(holds).map(|(_, _, key)| *key).collect();
    if api::nodes::condition(node, "Ready").is_none() {
        keys.push(well_known::TAINT_NOT_READY);
    }
    keys
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(node: serde_json::Value) -> Vec<String> {
        let node: Node = serde_json::from_value(node).unwrap();
        of(&node).iter().map(|taint| format!("{}:{}", taint.key, taint.effect.as_str())).collect()
    }

    #[test]
    fn tolerations_cover_taints_as_upstream_says() {
        let taint = Taint::new("k", "v", Effect::NoSchedule);
        let table = [
            ("equal", json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), true),
            ("equal by default", json!({"key": "k", "value": "v"}), true),
            ("another value", json!({"key": "k", "value": "w"}), false),
            ("exists", json!({"key": "k", "operator": "Exists"}), true),
            ("another key", json!({"key": "l", "operator": "Exists"}), false),
            ("another effect", json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false),
            ("everything", json!({"operator": "Exists"}), true),
            ("an unknown operator", json!({"key": "k", "operator": "Like", "value": "v"}), false),
        ];
        for (sentence, toleration, expected) in table {
            let toleration: Toleration = serde_json::from_value(toleration).unwrap();
            assert_eq!(taint.tolerated_by(&[toleration]), expected, "{sentence}");
        }
        assert!(!taint.tolerated_by(&[]), "no tolerations");
    }

    #[test]
    fn conditions_imply_taints_until_the_controller_writes_them() {
        let ready = |status: &str| json!({"type": "Ready", "status": status});
        let table = [
            ("a ready node has none", json!({"status": {"conditions": [ready("True")]}}), vec![]),
            (
                "not ready",
                json!({"status": {"conditions": [ready("False")]}}),
                vec!["node.kubernetes.io/not-ready:NoSchedule"],
            ),
            (
                "lost",
                json!({"status": {"conditions": [ready("Unknown")]}}),
                vec!["node.kubernetes.io/unreachable:NoSchedule"],
            ),
            ("never reported", json!({}), vec!["node.kubernetes.io/not-ready:NoSchedule"]),
            (
                "written already",
                json!({"spec": {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}}),
                vec!["node.kubernetes.io/not-ready:NoExecute"],
            ),
            (
                "a full disk",
                json!({"status": {"conditions": [ready("True"), {"type": "DiskPressure", "status": "True"}]}}),
                vec!["node.kubernetes.io/disk-pressure:NoSchedule"],
            ),
        ];
        for (sentence, node, expected) in table {
            assert_eq!(keys(node), expected, "{sentence}");
        }
    }
}
