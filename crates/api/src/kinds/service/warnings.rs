//! What of a service has no effect, or will not have it for ever (`pkg/api/service/warnings.go`).

use std::net::IpAddr;

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

/// IPv6 addresses that are not written as they are compared (`GetWarningsForIP`).
fn addresses(spec: &ServiceSpec) -> Vec<String> {
    let path = Path::new("spec");
    let list = |name: &str, ips: &Option<Vec<String>>| -> Vec<_> {
        let path = path.child(name);
        ips.iter().flatten().enumerate().map(|(index, ip)| (path.index(index), ip.clone())).collect()
    };
    let mut all = list("clusterIPs", &spec.cluster_ips);
    all.extend(list("externalIPs", &spec.external_ips));
    all.extend(spec.load_balancer_ip.iter().map(|ip| (path.child("loadBalancerIP"), ip.clone())));
    let odd = all.into_iter().filter_map(|(path, written)| {
        let address = written.parse::<IpAddr>().ok().filter(IpAddr::is_ipv6)?.to_string();
        let say = || format!("{path}: IPv6 address {written:?} should be in RFC 5952 canonical format ({address:?})");
        (address != written).then(say)
    });
    odd.collect()
}
