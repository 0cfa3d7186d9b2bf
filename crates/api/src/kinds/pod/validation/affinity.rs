//! Which nodes and which company a pod prefers or demands.

use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, WeightedPodAffinityTerm,
};

use crate::field::{ErrorList, Path, invalid, required};
use crate::kinds::rules;
use crate::names;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub(super) fn affinity(affinity: Option<&Affinity>, path: &Path, errors: &mut ErrorList) {
    let Some(affinity) = affinity else { return };
    if let Some(node) = &affinity.node_affinity {
        node_affinity(node, &path.child("nodeAffinity"), errors);
    }
    if let Some(pods) = &affinity.pod_affinity {
        let path = path.child("podAffinity");
        pod_terms(pods.required_during_scheduling_ignored_during_execution.as_deref(), &path, errors);
        weighted_pod_terms(pods.preferred_during_scheduling_ignored_during_execution.as_deref(), &path, errors);
    }
    if let Some(pods) = &affinity.pod_anti_affinity {
        let path = path.child("podAntiAffinity");
        pod_terms(pods.required_during_scheduling_ignored_during_execution.as_deref(), &path, errors);
        weighted_pod_terms(pods.preferred_during_scheduling_ignored_during_execution.as_deref(), &path, errors);
    }
}

fn node_affinity(affinity: &NodeAffinity, path: &Path, errors: &mut ErrorList) {
    if let Some(selector) = &affinity.required_during_scheduling_ignored_during_execution {
        let path = path.child(REQUIRED).child("nodeSelectorTerms");
        node_selector_terms(&selector.node_selector_terms, &path, errors);
    }
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    for (index, term) in preferred.enumerate() {
        let path = path.child(PREFERRED).index(index);
        weight(term.weight, &path.child("weight"), errors);
        node_term(&term.preference, &path.child("preference"), errors);
    }
}

/// The alternatives of a node selector, of which there is at least one.
pub(in crate::kinds) fn node_selector_terms(terms: &[NodeSelectorTerm], path: &Path, errors: &mut ErrorList) {
    if terms.is_empty() {
        errors.push(required(path, "must have at least one node selector term"));
    }
    for (index, term) in terms.iter().enumerate() {
        node_term(term, &path.index(index), errors);
    }
}

fn node_term(term: &NodeSelectorTerm, path: &Path, errors: &mut ErrorList) {
    for (index, requirement) in term.match_expressions.iter().flatten().enumerate() {
        label_requirement(requirement, &path.child("matchExpressions").index(index), errors);
    }
    for (index, requirement) in term.match_fields.iter().flatten().enumerate() {
        field_requirement(requirement, &path.child("matchFields").index(index), errors);
    }
}

fn label_requirement(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut ErrorList) {
    let values = requirement.values.as_deref().unwrap_or(&[]);
    match requirement.operator.as_str() {
        "Gt" | "Lt" if values.len() == 1 => {}
        "Gt" | "Lt" => errors
            .push(required(&path.child("values"), "must be specified single value when `operator` is 'Lt' or 'Gt'")),
        operator => rules::selector_values(operator, values, path, errors),
    }
    rules::label_key(&requirement.key, &path.child("key"), errors);
}

fn field_requirement(requirement: &NodeSelectorRequirement, path: &Path, errors: &mut ErrorList) {
    let values = requirement.values.as_deref().unwrap_or(&[]);
    match (requirement.operator.as_str(), values) {
        ("In" | "NotIn", [_]) => {}
        ("In" | "NotIn", _) => errors.push(required(
            &path.child("values"),
            "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
        )),
        (operator, _) => errors.push(invalid(&path.child("operator"), operator, "not a valid selector operator")),
    }
    if requirement.key == "metadata.name" {
        for (index, value) in values.iter().enumerate() {
            rules::dns_subdomain(value, &path.child("values").index(index), errors);
        }
    } else {
        errors.push(invalid(&path.child("key"), requirement.key.as_str(), "not a valid field selector key"));
    }
}

fn pod_terms(terms: Option<&[PodAffinityTerm]>, path: &Path, errors: &mut ErrorList) {
    for (index, term) in terms.unwrap_or(&[]).iter().enumerate() {
        pod_term(term, &path.child(REQUIRED).index(index), errors);
    }
}

fn weighted_pod_terms(terms: Option<&[WeightedPodAffinityTerm]>, path: &Path, errors: &mut ErrorList) {
    for (index, term) in terms.unwrap_or(&[]).iter().enumerate() {
        let path = path.child(PREFERRED).index(index);
        weight(term.weight, &path.child("weight"), errors);
        pod_term(&term.pod_affinity_term, &path.child("podAffinityTerm"), errors);
    }
}

fn pod_term(term: &PodAffinityTerm, path: &Path, errors: &mut ErrorList) {
    rules::label_selector(term.label_selector.as_ref(), &path.child("labelSelector"), errors);
    rules::label_selector(term.namespace_selector.as_ref(), &path.child("namespaceSelector"), errors);
    for name in term.namespaces.iter().flatten() {
        rules::all(names::is_dns1123_label(name), name.as_str(), &path.child("namespace"), errors);
    }
    let key = path.child("topologyKey");
    if term.topology_key.is_empty() {
        errors.push(required(&key, "can not be empty"));
    }
    rules::label_key(&term.topology_key, &key, errors);
}

fn weight(weight: i32, path: &Path, errors: &mut ErrorList) {
    if !(1..=100).contains(&weight) {
        errors.push(invalid(path, weight, "must be in the range 1-100"));
    }
}
