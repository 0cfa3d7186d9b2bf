//! A service's own addresses: their form, and that they stay.

use k8s_openapi::api::core::v1::ServiceSpec;
use serde_json::json;

use super::defaults::{is, needs_health_port};
use crate::field::{ErrorList, Path, duplicate, forbidden, invalid};
use crate::kinds::rules;
use crate::names;

/// One address for each IP family.
const MAX_CLUSTER_IPS: usize = 2;
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["PreferDualStack", "RequireDualStack", "SingleStack"];

/// Services without an address of their own: names lead to the pods.
pub(super) fn is_headless(spec: &ServiceSpec) -> bool {
    spec.cluster_ip.as_deref() == Some("None")
}

/// `ValidateServiceClusterIPsRelatedFields` upstream.
pub(super) fn validate(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    if is(spec, "ExternalName") {
        return;
    }
    cluster_ips(spec, &path.child("clusterIPs"), errors);
    let families = spec.ip_families.as_deref().unwrap_or(&[]);
    for (index, family) in families.iter().enumerate() {
        let path = path.child("ipFamilies").index(index);
        rules::optional_one_of(Some(family), FAMILIES, &path, errors);
        if families[..index].contains(family) {
            errors.push(duplicate(&path, family.as_str()));
        }
    }
    let policy = spec.ip_family_policy.as_deref();
    rules::optional_one_of(policy, FAMILY_POLICIES, &path.child("ipFamilyPolicy"), errors);
}

fn cluster_ips(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let ips = spec.cluster_ips.as_deref().unwrap_or(&[]);
    let first = spec.cluster_ip.as_deref().unwrap_or("");
    match ips.first() {
        Some(_) if first.is_empty() => {
            errors.push(invalid(path, json!(ips), "`clusterIP` must be set when `clusterIPs` is set"));
        }
        Some(primary) if primary != first => {
            errors.push(invalid(path, json!(ips), "first value must match `clusterIP`"));
        }
        _ => {}
    }
    if ips.len() > MAX_CLUSTER_IPS {
        errors.push(invalid(path, json!(ips), "may only hold up to 2 values"));
    }
    if ips.len() > 1 && ips.iter().any(|ip| ip == "None") {
        let path = path.index(0);
        errors.push(invalid(&path, json!(ips), "'None' must be the first and only value"));
        return;
    }
    for (index, ip) in ips.iter().enumerate().filter(|(_, ip)| *ip != "None") {
        rules::all(names::is_ip(ip), ip.as_str(), &path.index(index), errors);
    }
}

/// The first address and family of a service never change; its pods' clients may have remembered them.
pub(super) fn update(new: &ServiceSpec, old: &ServiceSpec, errors: &mut ErrorList) {
    if is(new, "ExternalName") || is(old, "ExternalName") {
        return;
    }
    let path = Path::new("spec");
    let (ips, old_ips) = (new.cluster_ips.as_deref().unwrap_or(&[]), old.cluster_ips.as_deref().unwrap_or(&[]));
    match (ips.first(), old_ips.first()) {
        (None, Some(_)) => {
            let detail = "primary clusterIP can not be unset";
            errors.push(invalid(&path.child("clusterIPs").index(0), json!(ips), detail));
        }
        (Some(new), Some(old)) if new != old => {
            errors.push(invalid(&path.child("clusterIPs").index(0), json!(ips), "may not change once set"));
        }
        _ => {}
    }
    let (families, old_families) =
        (new.ip_families.as_deref().unwrap_or(&[]), old.ip_families.as_deref().unwrap_or(&[]));
    if let (Some(family), Some(before)) = (families.first(), old_families.first())
        && family != before
    {
        errors.push(invalid(&path.child("ipFamilies").index(0), json!(families), "may not change once set"));
    }
    let (health, old_health) = (new.health_check_node_port.unwrap_or(0), old.health_check_node_port.unwrap_or(0));
    if needs_health_port(old) && needs_health_port(new) && health != old_health {
        errors.push(invalid(&path.child("healthCheckNodePort"), health, "field is immutable"));
    }
    let (class, old_class) = (new.load_balancer_class.as_deref(), old.load_balancer_class.as_deref());
    if is(old, "LoadBalancer") && is(new, "LoadBalancer") && class != old_class {
        errors.push(invalid(&path.child("loadBalancerClass"), json!(class), "may not change once set"));
    }
}

/// An external name has no addresses.
pub(super) fn none_of_its_own(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let set = [
        (spec.cluster_ips.as_ref().is_some_and(|ips| !ips.is_empty()), "clusterIPs"),
        (spec.ip_families.as_ref().is_some_and(|f| !f.is_empty()), "ipFamilies"),
        (spec.ip_family_policy.is_some(), "ipFamilyPolicy"),
    ];
    for (_, field) in set.into_iter().filter(|(is_set, _)| *is_set) {
        errors.push(forbidden(&path.child(field), "may not be set for ExternalName services"));
    }
}
