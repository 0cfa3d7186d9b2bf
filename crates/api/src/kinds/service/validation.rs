//! What is wrong with a service (`ValidateService` upstream).

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde_json::json;

use super::addresses::{self, is_headless};
use super::defaults::{is, is_externally_accessible};
use crate::field::{ErrorList, Path, duplicate, forbidden, invalid, required};
use crate::kinds::rules::{self, Unique};
use crate::metadata::validate_labels;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
/// The kubelet's own port is not for the world.
const KUBELET_PORT: i32 = 10250;
/// A day.
const MAX_AFFINITY_SECONDS: i32 = 86_400;

pub(super) fn service(service: &Service, errors: &mut ErrorList) {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let path = Path::new("spec");
    let ports = spec.ports.as_deref().unwrap_or(&[]);
    if ports.is_empty() && !is_headless(spec) && !is(spec, "ExternalName") {
        errors.push(required(&path.child("ports"), ""));
    }
    of_type(spec, &path, errors);
    let mut names = Unique::new();
    for (index, port) in ports.iter().enumerate() {
        self::port(port, ports.len() > 1, &mut names, &path.child("ports").index(index), errors);
    }
    validate_labels(spec.selector.as_ref(), &path.child("selector"), errors);
    session_affinity(spec, &path, errors);
    addresses::validate(spec, &path, errors);
    for (index, ip) in spec.external_ips.iter().flatten().enumerate() {
        rules::sendable_ip(ip, &path.child("externalIPs").index(index), errors);
    }
    rules::one_of(spec.type_.as_deref(), TYPES, &path.child("type"), errors);
    distinct_ports(spec, ports, &path.child("ports"), errors);
    load_balancer(spec, &path, errors);
    traffic_policies(spec, &path, errors);
}

/// What a balancer says of itself (`ValidateLoadBalancerStatus` upstream).
pub(super) fn status(service: &Service, errors: &mut ErrorList) {
    let path = Path::new("status").child("loadBalancer").child("ingress");
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.and_then(|balancer| balancer.ingress.as_deref()).unwrap_or(&[]);
    if !ingress.is_empty() && !service.spec.as_ref().is_some_and(|spec| is(spec, "LoadBalancer")) {
        return errors.push(forbidden(&path, "may only be used when `spec.type` is 'LoadBalancer'"));
    }
    for (index, ingress) in ingress.iter().enumerate() {
        let path = path.index(index);
        if let Some(ip) = ingress.ip.as_deref().filter(|ip| !ip.is_empty()) {
            rules::ip(ip, &path.child("ip"), errors);
        }
        if let Some(name) = ingress.hostname.as_deref().filter(|name| !name.is_empty()) {
            let path = path.child("hostname");
            rules::dns_subdomain(name, &path, errors);
            if name.parse::<std::net::IpAddr>().is_ok() {
                errors.push(invalid(&path, name, "must be a DNS name, not an IP address"));
            }
        }
        let mode = &path.child("ipMode");
        if ingress.ip_mode.is_some() && ingress.ip.as_deref().unwrap_or("").is_empty() {
            errors.push(forbidden(mode, "may not be specified when `ip` is not set"));
        }
        if let Some(given) = ingress.ip_mode.as_deref() {
            rules::one_of(Some(given), &["Proxy", "VIP"], mode, errors);
        }
    }
}

/// What one type of service must or may not have.
fn of_type(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let first_ip = path.child("clusterIPs").index(0);
    let ports = spec.ports.iter().flatten().enumerate();
    match spec.type_.as_deref().unwrap_or("") {
        "LoadBalancer" => {
            for (index, _) in ports.filter(|(_, p)| p.port == KUBELET_PORT) {
                let detail = format!("may not expose port {KUBELET_PORT} externally since it is used by kubelet");
                errors.push(invalid(&path.child("ports").index(index), KUBELET_PORT, &detail));
            }
            if is_headless(spec) {
                errors.push(invalid(&first_ip, "None", "may not be set to 'None' for LoadBalancer services"));
            }
        }
        "NodePort" if is_headless(spec) => {
            errors.push(invalid(&first_ip, "None", "may not be set to 'None' for NodePort services"));
        }
        "ExternalName" => {
            addresses::none_of_its_own(spec, path, errors);
            let name = spec.external_name.as_deref().unwrap_or("");
            let name = name.strip_suffix('.').unwrap_or(name);
            if rules::given(name, &path.child("externalName"), errors) {
                rules::dns_subdomain(name, &path.child("externalName"), errors);
            }
        }
        _ => {}
    }
}

fn port<'a>(port: &'a ServicePort, needs_name: bool, names: &mut Unique<'a>, path: &Path, errors: &mut ErrorList) {
    let name = port.name.as_deref().unwrap_or("");
    if needs_name || !name.is_empty() {
        rules::dns_label(name, &path.child("name"), errors);
    }
    if !name.is_empty() {
        names.add(name, &path.child("name"), errors);
    }
    rules::port_number(port.port, &path.child("port"), errors);
    rules::one_of(port.protocol.as_deref(), rules::PROTOCOLS, &path.child("protocol"), errors);
    if let Some(target) = &port.target_port {
        rules::port_number_or_name(target, &path.child("targetPort"), errors);
    }
    if let Some(protocol) = port.app_protocol.as_deref() {
        rules::label_key(protocol, &path.child("appProtocol"), errors);
    }
}

fn session_affinity(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let affinity = spec.session_affinity.as_deref();
    rules::one_of(affinity, &["ClientIP", "None"], &path.child("sessionAffinity"), errors);
    let config = path.child("sessionAffinityConfig");
    let seconds = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref()?.timeout_seconds);
    match (affinity, seconds) {
        (Some("ClientIP"), None) => {
            errors.push(required(&config, "when session affinity type is ClientIP"));
        }
        (Some("ClientIP"), Some(seconds)) if !(1..=MAX_AFFINITY_SECONDS).contains(&seconds) => {
            let path = config.child("clientIP").child("timeoutSeconds");
            let detail = format!("must be greater than 0 and less than {MAX_AFFINITY_SECONDS}");
            errors.push(invalid(&path, seconds, &detail));
        }
        (Some("None"), _) if spec.session_affinity_config.is_some() => {
            errors.push(forbidden(&config, "must not be set when session affinity is None"));
        }
        _ => {}
    }
}

fn distinct_ports(spec: &ServiceSpec, ports: &[ServicePort], path: &Path, errors: &mut ErrorList) {
    for (index, port) in ports.iter().enumerate() {
        let (path, before) = (path.index(index), &ports[..index]);
        let node_port = port.node_port.unwrap_or(0);
        if node_port != 0 {
            if is(spec, "ClusterIP") {
                let detail = "may not be used when `type` is 'ClusterIP'";
                errors.push(forbidden(&path.child("nodePort"), detail));
            }
            rules::port_number(node_port, &path.child("nodePort"), errors);
            if before.iter().any(|p| p.node_port == port.node_port && p.protocol == port.protocol) {
                errors.push(duplicate(&path.child("nodePort"), node_port));
            }
        }
        if before.iter().any(|p| p.port == port.port && p.protocol == port.protocol) {
            errors.push(duplicate(&path, json!({"protocol": port.protocol, "port": port.port})));
        }
    }
}

fn load_balancer(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    if is(spec, "LoadBalancer") {
        for (index, range) in spec.load_balancer_source_ranges.iter().flatten().enumerate() {
            if range.trim().parse::<ipnet::IpNet>().is_err() {
                let path = path.child("loadBalancerSourceRanges").index(index);
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                errors.push(invalid(&path, range.as_str(), detail));
            }
        }
        return;
    }
    let set = [
        (spec.load_balancer_source_ranges.as_ref().is_some_and(|r| !r.is_empty()), "loadBalancerSourceRanges"),
        (spec.allocate_load_balancer_node_ports.is_some(), "allocateLoadBalancerNodePorts"),
        (spec.load_balancer_class.is_some(), "loadBalancerClass"),
    ];
    for (_, field) in set.into_iter().filter(|(is_set, _)| *is_set) {
        errors.push(forbidden(&path.child(field), "may only be used when `type` is 'LoadBalancer'"));
    }
}

fn traffic_policies(spec: &ServiceSpec, path: &Path, errors: &mut ErrorList) {
    let policies = &["Cluster", "Local"];
    let external = spec.external_traffic_policy.as_deref().filter(|p| !p.is_empty());
    let external_path = path.child("externalTrafficPolicy");
    match (is_externally_accessible(spec), external) {
        (true, policy) => rules::one_of(policy, policies, &external_path, errors),
        (false, Some(policy)) => {
            errors.push(invalid(&external_path, policy, "may only be set for externally-accessible services"));
        }
        (false, None) => {}
    }
    if let Some(port) = spec.health_check_node_port.filter(|p| *p != 0) {
        let needs_one = is(spec, "LoadBalancer") && external == Some("Local");
        if !needs_one {
            let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            errors.push(invalid(&path.child("healthCheckNodePort"), port, detail));
        }
    }
    let internal = spec.internal_traffic_policy.as_deref();
    if internal.is_some() || !is(spec, "ExternalName") {
        rules::one_of(internal, policies, &path.child("internalTrafficPolicy"), errors);
    }
    let distributions = &["PreferClose", "PreferSameNode", "PreferSameZone"];
    let distribution = spec.traffic_distribution.as_deref();
    rules::optional_one_of(distribution, distributions, &path.child("trafficDistribution"), errors);
}
