//! Requests and limits.

use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

use crate::field::{ErrorList, Path, forbidden, invalid, not_found, not_supported, required};
use crate::kinds::rules;
use crate::names;
use crate::quantity;

/// What a container may ask for without a group in the name.
const STANDARD: &[&str] = &["cpu", "memory", "ephemeral-storage"];
/// What a pod as a whole may ask for.
const OF_POD: &[&str] = &["cpu", "memory"];
const HUGE_PAGES_PREFIX: &str = "hugepages-";

pub(super) fn of_container(requirements: &ResourceRequirements, spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    for (name, value) in requirements.limits.iter().flatten() {
        amount(name, value, &path.child("limits").key(name), errors);
    }
    for (name, value) in requirements.requests.iter().flatten() {
        amount(name, value, &path.child("requests").key(name), errors);
        within_limit(name, value, requirements, path, errors);
    }
    huge_pages(requirements, path, errors);
    for (index, claim) in requirements.claims.iter().flatten().enumerate() {
        let path = path.child("claims").index(index).child("name");
        let known = spec.resource_claims.iter().flatten().any(|c| c.name == claim.name);
        if rules::given(&claim.name, &path, errors) && !known {
            errors.push(not_found(&path, claim.name.as_str()));
        }
    }
}

pub(super) fn of_pod(requirements: &ResourceRequirements, path: &Path, errors: &mut ErrorList) {
    let halves = [("limits", &requirements.limits), ("requests", &requirements.requests)];
    for (field, amounts) in halves {
        for (name, value) in amounts.iter().flatten() {
            let path = path.child(field).key(name);
            if !OF_POD.contains(&name.as_str()) && !name.starts_with(HUGE_PAGES_PREFIX) {
                errors.push(not_supported(&path, name.as_str(), OF_POD));
            }
            rules::quantity(value, &path, errors);
        }
    }
    for (name, value) in requirements.requests.iter().flatten() {
        within_limit(name, value, requirements, path, errors);
    }
}

/// One resource and how much of it.
pub(super) fn amount(name: &str, value: &Amount, path: &Path, errors: &mut ErrorList) {
    resource_name(name, path, errors);
    let Some(value) = rules::quantity(value, path, errors) else { return };
    if !is_native(name) && !value.is_negative() && value.milli() % 1000 != 0 {
        errors.push(invalid(path, value.to_string(), "must be an integer"));
    }
}

pub(in crate::kinds) fn resource_name(name: &str, path: &Path, errors: &mut ErrorList) {
    rules::resource_name(name, path, errors);
    if !name.contains('/') {
        let is_known = STANDARD.contains(&name) || name.starts_with(HUGE_PAGES_PREFIX);
        if !is_known && names::is_qualified_name(name).is_empty() {
            errors.push(invalid(path, name, "must be a standard resource for containers"));
        }
    } else if !is_native(name) && name.starts_with("requests.") {
        errors.push(invalid(path, name, "doesn't follow extended resource name standard"));
    }
}

/// Kubernetes' own resources; all others are counted in whole pieces.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

/// Pieces are handed out whole, so request and limit must be one number; of cpu and bytes one may request less.
fn within_limit(name: &str, value: &Amount, of: &ResourceRequirements, path: &Path, errors: &mut ErrorList) {
    let may_overcommit = is_native(name) && !name.starts_with(HUGE_PAGES_PREFIX);
    let Some(limit) = of.limits.as_ref().and_then(|l| l.get(name)) else {
        if !may_overcommit {
            errors.push(required(&path.child("limits"), "Limit must be set for non overcommitable resources"));
        }
        return;
    };
    let (request, limit) = (quantity::of(value), quantity::of(limit));
    let path = path.child("requests");
    if request != limit && !may_overcommit {
        let detail = format!("must be equal to {name} limit of {limit}");
        errors.push(invalid(&path, request.to_string(), &detail));
    } else if request > limit {
        let detail = format!("must be less than or equal to {name} limit of {limit}");
        errors.push(invalid(&path, request.to_string(), &detail));
    }
}

fn huge_pages(requirements: &ResourceRequirements, path: &Path, errors: &mut ErrorList) {
    let all = || requirements.limits.iter().chain(&requirements.requests).flat_map(|m| m.keys());
    if all().any(|n| n.starts_with(HUGE_PAGES_PREFIX)) && !all().any(|n| n == "cpu" || n == "memory") {
        errors.push(forbidden(path, "HugePages require cpu or memory"));
    }
}

/// Whether a container must restart when its resources change.
pub(super) fn resize_policy(container: &Container, restart_policy: Option<&str>, path: &Path, errors: &mut ErrorList) {
    let mut seen = rules::Unique::new();
    for (index, policy) in container.resize_policy.iter().flatten().enumerate() {
        seen.add(policy.resource_name.as_str(), &path.index(index), errors);
        if !OF_POD.contains(&policy.resource_name.as_str()) {
            errors.push(not_supported(path, policy.resource_name.as_str(), OF_POD));
        }
        rules::one_of(Some(&policy.restart_policy), &["NotRequired", "RestartContainer"], path, errors);
        if restart_policy == Some("Never") && policy.restart_policy != "NotRequired" {
            let detail = "must be 'NotRequired' when `restartPolicy` is 'Never'";
            errors.push(invalid(path, policy.restart_policy.as_str(), detail));
        }
    }
}
