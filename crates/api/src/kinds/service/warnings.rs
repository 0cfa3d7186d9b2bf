//! What of a service has no effect, or will not have it for ever (`pkg/api/service/warnings.go`).

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use crate::field::Path;

const TOPOLOGY_AWARE_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";

pub(super) fn service(service: &Service) -> Vec<String> {
    let mut said = Vec::new();
    if service.metadata.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(TOPOLOGY_AWARE_HINTS)) {
        said.push(format!("annotation {TOPOLOGY_AWARE_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"));
    }
    let Some(spec) = &service.spec else { return said };
    let is_external_name = spec.type_.as_deref() == Some("ExternalName");
    let is_headless = spec.type_.as_deref() == Some("ClusterIP") && spec.cluster_ip.as_deref() == Some("None");
    if is_headless {
        said.extend(ignored_without_address(spec));
    }
    said.extend(addresses(spec));
    let external_ips = spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    if is_external_name && external_ips {
        said.push(r#"spec.externalIPs is ignored when spec.type is "ExternalName""#.to_owned());
    }
    if !is_external_name && spec.external_name.as_ref().is_some_and(|name| !name.is_empty()) {
        said.push(r#"spec.externalName is ignored when spec.type is not "ExternalName""#.to_owned());
    }
    if spec.traffic_distribution.as_deref() == Some("PreferClose") {
        said.push(r#"spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone""#.to_owned());
    }
    said
}

fn ignored_without_address(spec: &ServiceSpec) -> Vec<String> {
    let ignored = [
        (spec.load_balancer_ip.as_ref().is_some_and(|ip| !ip.is_empty()), "spec.loadBalancerIP"),
        (spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty()), "spec.externalIPs"),
        (spec.session_affinity.as_deref().is_some_and(|affinity| affinity != "None"), "spec.SessionAffinity"),
    ];
    let ignored = ignored.iter().filter(|(is_set, _)| *is_set);
    ignored.map(|(_, field)| format!("{field} is ignored for headless services")).collect()
}

/// Addresses and ranges that are not written as they are compared.
fn addresses(spec: &ServiceSpec) -> Vec<String> {
    let path = Path::new("spec");
    let list = |name: &str, values: &Option<Vec<String>>| -> Vec<_> {
        let path = path.child(name);
        values.iter().flatten().enumerate().map(|(index, value)| (path.index(index), value.clone())).collect()
    };
    let mut all = list("clusterIPs", &spec.cluster_ips);
    all.extend(list("externalIPs", &spec.external_ips));
    all.extend(spec.load_balancer_ip.iter().map(|ip| (path.child("loadBalancerIP"), ip.clone())));
    let mut said: Vec<String> = all.into_iter().filter_map(|(path, written)| address(&path, &written)).collect();
    let ranges = list("loadBalancerSourceRanges", &spec.load_balancer_source_ranges);
    said.extend(ranges.into_iter().flat_map(|(path, written)| range(&path, &written)));
    said
}

/// `GetWarningsForIP` (`k8s.io/apimachinery/pkg/util/validation/ip.go`).
fn address(path: &Path, written: &str) -> Option<String> {
    let IpAddr::V6(address) = written.parse().ok()? else { return None };
    if let Some(mapped) = address.to_ipv4_mapped() {
        return Some(format!(
            "{path}: non-standard IP address {written:?} will be considered invalid in a future Kubernetes release: use \"{mapped}\""
        ));
    }
    let canonical = address.to_string();
    let say = || format!("{path}: IPv6 address {written:?} should be in RFC 5952 canonical format ({canonical:?})");
    (canonical != written).then(say)
}

/// `GetWarningsForCIDR`. What is in spaces is said nothing of there.
fn range(path: &Path, written: &str) -> Vec<String> {
    let Ok(range) = written.parse::<IpNet>() else { return Vec::new() };
    let mapped = match range.addr() {
        IpAddr::V6(address) => address.to_ipv4_mapped(),
        IpAddr::V4(_) => None,
    };
    // Go shows a range of mapped addresses as one of IPv4.
    let in_ipv4 = || Some(Ipv4Net::new(mapped?, range.prefix_len().checked_sub(96)?).ok()?.trunc().to_string());
    let network = in_ipv4().unwrap_or_else(|| range.trunc().to_string());
    let mut said = Vec::new();
    if range.addr() != range.network() {
        let address = mapped.map_or(range.addr(), IpAddr::V4);
        let single = format!("{address}/{}", range.max_prefix_len());
        said.push(format!(
            "{path}: CIDR value {written:?} is ambiguous in this context (should be {network:?} or {single:?}?)"
        ));
    }
    if mapped.is_some() {
        said.push(format!(
            "{path}: non-standard CIDR value {written:?} will be considered invalid in a future Kubernetes release: use {network:?}"
        ));
    }
    let canonical = range.to_string();
    if said.is_empty() && range.addr().is_ipv6() && canonical != written {
        said.push(format!(
            "{path}: IPv6 CIDR value {written:?} should be in RFC 5952 canonical format ({canonical:?})"
        ));
    }
    said
}
