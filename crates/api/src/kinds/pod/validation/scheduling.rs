//! Scheduling gates, topology spread, tolerations, priority.

use k8s_openapi::api::core::v1::{PodSpec, Toleration, TopologySpreadConstraint};
use serde_json::json;

use crate::field::{ErrorList, Path, duplicate, forbidden, invalid, not_supported, required};
use crate::kinds::rules::{self, Unique};
use crate::names;

/// What a taint does to pods that do not tolerate it.
pub(in crate::kinds) const TAINT_EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) fn gates(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    for (index, gate) in spec.readiness_gates.iter().flatten().enumerate() {
        let path = path.child("readinessGates").index(index).child("conditionType");
        rules::label_key(&gate.condition_type, &path, errors);
    }
    let mut seen = Unique::new();
    for (index, gate) in spec.scheduling_gates.iter().flatten().enumerate() {
        let path = path.child("schedulingGates").index(index);
        rules::label_key(&gate.name, &path, errors);
        seen.add(gate.name.as_str(), &path, errors);
    }
    let is_gated = spec.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty());
    if is_gated && spec.node_name.as_deref().is_some_and(|n| !n.is_empty()) {
        let detail = "cannot be set until all schedulingGates have been cleared";
        errors.push(forbidden(&path.child("nodeName"), detail));
    }
}

pub(super) fn topology_spread(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let constraints = spec.topology_spread_constraints.as_deref().unwrap_or_default();
    for (index, constraint) in constraints.iter().enumerate() {
        let path = path.index(index);
        if constraint.max_skew <= 0 {
            errors.push(invalid(&path.child("maxSkew"), constraint.max_skew, "must be greater than zero"));
        }
        let key = path.child("topologyKey");
        if constraint.topology_key.is_empty() {
            errors.push(required(&key, "can not be empty"));
        } else {
            rules::label_key(&constraint.topology_key, &key, errors);
        }
        let action = constraint.when_unsatisfiable.as_str();
        rules::optional_one_of(
            Some(action),
            &["DoNotSchedule", "ScheduleAnyway"],
            &path.child("whenUnsatisfiable"),
            errors,
        );
        let key = &constraint.topology_key;
        let is_same =
            |other: &TopologySpreadConstraint| (&other.topology_key, &*other.when_unsatisfiable) == (key, action);
        if constraints[index + 1..].iter().any(is_same) {
            let text = format!("{{{key}, {action}}}");
            errors.push(duplicate(&path.child("{topologyKey, whenUnsatisfiable}"), text));
        }
        min_domains(constraint.min_domains, action, &path.child("minDomains"), errors);
        let policies = [
            (constraint.node_affinity_policy.as_deref(), "nodeAffinityPolicy"),
            (constraint.node_taints_policy.as_deref(), "nodeTaintsPolicy"),
        ];
        for (policy, field) in policies {
            rules::optional_one_of(policy, &["Honor", "Ignore"], &path.child(field), errors);
        }
        rules::label_selector(constraint.label_selector.as_ref(), &path.child("labelSelector"), errors);
    }
}

fn min_domains(min: Option<i32>, action: &str, path: &Path, errors: &mut ErrorList) {
    let Some(min) = min else { return };
    if min <= 0 {
        errors.push(invalid(path, min, "must be greater than zero"));
    }
    if action != "DoNotSchedule" {
        let detail = format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {action}");
        errors.push(invalid(path, min, &detail));
    }
}

pub(super) fn tolerations(tolerations: &[Toleration], path: &Path, errors: &mut ErrorList) {
    for (index, toleration) in tolerations.iter().enumerate() {
        self::toleration(toleration, &path.index(index), errors);
    }
}

fn toleration(toleration: &Toleration, path: &Path, errors: &mut ErrorList) {
    let text = |field: &'_ Option<String>| field.clone().unwrap_or_default();
    let (key, operator) = (text(&toleration.key), text(&toleration.operator));
    let (value, effect) = (text(&toleration.value), text(&toleration.effect));
    let operator_path = path.child("operator");
    if !key.is_empty() {
        rules::label_key(&key, &path.child("key"), errors);
    } else if operator != "Exists" {
        let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(invalid(&operator_path, operator.as_str(), detail));
    }
    if toleration.toleration_seconds.is_some() && effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(invalid(&path.child("effect"), effect.as_str(), detail));
    }
    match operator.as_str() {
        "" | "Equal" => {
            let messages = names::is_label_value(&value);
            if !messages.is_empty() {
                errors.push(invalid(&operator_path, value, &messages.join(";")));
            }
        }
        "Exists" if !value.is_empty() => {
            let detail = "value must be empty when `operator` is 'Exists'";
            errors.push(invalid(&operator_path, json!(toleration), detail));
        }
        "Exists" => {}
        _ => errors.push(not_supported(&operator_path, operator, &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        rules::optional_one_of(Some(&effect), TAINT_EFFECTS, &path.child("effect"), errors);
    }
}

/// Tolerations may be added to a pod, and how long one holds may change; nothing else.
pub(in crate::kinds::pod) fn added_only(new: &[Toleration], old: &[Toleration], path: &Path, errors: &mut ErrorList) {
    let timeless = |t: &Toleration| Toleration { toleration_seconds: None, ..t.clone() };
    if old.iter().any(|old| !new.iter().any(|new| timeless(new) == timeless(old))) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(forbidden(path, detail));
    }
}

pub(super) fn priority(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let policy = spec.preemption_policy.as_deref();
    rules::optional_one_of(policy, &["PreemptLowerPriority", "Never"], &path.child("preemptionPolicy"), errors);
}
