//! What a service's author may leave out (`SetDefaults_Service` upstream), and what follows from its type.

use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::kinds::pod::defaults::or_text;

/// How long a client stays with one pod unless said otherwise: three hours.
const CLIENT_IP_TIMEOUT_SECONDS: i32 = 3 * 60 * 60;

pub(super) fn service(service: &mut Service) {
    let spec = service.spec.get_or_insert_default();
    or_text(&mut spec.type_, "ClusterIP");
    session_affinity(spec);
    for port in spec.ports.iter_mut().flatten() {
        or_text(&mut port.protocol, "TCP");
        let is_unset = match &port.target_port {
            None | Some(IntOrString::Int(0)) => true,
            Some(IntOrString::Int(_)) => false,
            Some(IntOrString::String(name)) => name.is_empty(),
        };
        port.target_port = if is_unset { Some(IntOrString::Int(port.port)) } else { port.target_port.take() };
    }
    if is_externally_accessible(spec) {
        or_text(&mut spec.external_traffic_policy, "Cluster");
    }
    if !is(spec, "ExternalName") {
        or_text(&mut spec.internal_traffic_policy, "Cluster");
    }
    if is(spec, "LoadBalancer") {
        spec.allocate_load_balancer_node_ports.get_or_insert(true);
    }
    let first = spec.cluster_ip.clone().filter(|ip| !ip.is_empty());
    if let (Some(ip), None | Some([])) = (first, spec.cluster_ips.as_deref()) {
        spec.cluster_ips = Some(vec![ip]);
    }
}

fn session_affinity(spec: &mut ServiceSpec) {
    or_text(&mut spec.session_affinity, "None");
    match spec.session_affinity.as_deref() {
        Some("None") => spec.session_affinity_config = None,
        Some("ClientIP") => {
            let client_ip = spec.session_affinity_config.get_or_insert_default().client_ip.get_or_insert_default();
            client_ip.timeout_seconds.get_or_insert(CLIENT_IP_TIMEOUT_SECONDS);
        }
        _ => {}
    }
}

pub(super) fn is(spec: &ServiceSpec, service_type: &str) -> bool {
    spec.type_.as_deref() == Some(service_type)
}

/// Whether traffic from outside the cluster may come in.
pub(super) fn is_externally_accessible(spec: &ServiceSpec) -> bool {
    let has_external_ips = spec.external_ips.as_ref().is_some_and(|ips| !ips.is_empty());
    is(spec, "LoadBalancer") || is(spec, "NodePort") || (is(spec, "ClusterIP") && has_external_ips)
}

/// Whether ports of the nodes lead to the service.
pub(super) fn has_node_ports(spec: &ServiceSpec) -> bool {
    let with_ports = spec.allocate_load_balancer_node_ports != Some(false);
    is(spec, "NodePort") || (is(spec, "LoadBalancer") && with_ports)
}

/// Whether load balancers ask each node for the service's health (`NeedsHealthCheck` upstream).
pub(super) fn needs_health_port(spec: &ServiceSpec) -> bool {
    is(spec, "LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local")
}

/// Takes over what was allocated for the service and its writer did not repeat, then drops what its new type cannot
/// have and its writer did not touch (`patchAllocatedValues`, `dropTypeDependentFields` upstream).
pub(super) fn inherit(new: &mut ServiceSpec, old: &ServiceSpec) {
    keep_allocations(new, old);
    if is(new, "ExternalName") && !is(old, "ExternalName") {
        drop_addresses(new, old);
    }
    drop_ports(new, old);
    if needs_health_port(old) && !needs_health_port(new) && new.health_check_node_port == old.health_check_node_port {
        new.health_check_node_port = None;
    }
    let policy_is_old = new.external_traffic_policy == old.external_traffic_policy;
    if is_externally_accessible(old) && !is_externally_accessible(new) && policy_is_old {
        new.external_traffic_policy = None;
    }
    if is(old, "LoadBalancer") && !is(new, "LoadBalancer") {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
    }
}

fn keep_allocations(new: &mut ServiceSpec, old: &ServiceSpec) {
    let is_unset = |text: &Option<String>| text.as_deref().unwrap_or("").is_empty();
    if !is(new, "ExternalName") && !is(old, "ExternalName") {
        let no_addresses = new.cluster_ips.as_ref().is_none_or(Vec::is_empty);
        if is_unset(&new.cluster_ip) && no_addresses {
            new.cluster_ip.clone_from(&old.cluster_ip);
            new.cluster_ips.clone_from(&old.cluster_ips);
        } else if is_unset(&new.cluster_ip) && new.cluster_ips == old.cluster_ips {
            new.cluster_ips = None;
        } else if new.cluster_ip != old.cluster_ip && new.cluster_ips == old.cluster_ips {
            new.cluster_ips = new.cluster_ip.clone().map(|ip| vec![ip]);
        }
        if new.ip_families.as_ref().is_none_or(Vec::is_empty) {
            new.ip_families.clone_from(&old.ip_families);
        }
        if new.ip_family_policy.is_none() {
            new.ip_family_policy.clone_from(&old.ip_family_policy);
        }
    }
    if needs_health_port(new) && needs_health_port(old) && new.health_check_node_port.unwrap_or(0) == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
    if !has_node_ports(new) || !has_node_ports(old) {
        return;
    }
    for port in new.ports.iter_mut().flatten().filter(|p| p.node_port.unwrap_or(0) == 0) {
        let same = old.ports.iter().flatten().find(|o| o.port == port.port && o.protocol == port.protocol);
        port.node_port = same.and_then(|o| o.node_port);
    }
}

fn drop_addresses(new: &mut ServiceSpec, old: &ServiceSpec) {
    if new.cluster_ip == old.cluster_ip && new.cluster_ips == old.cluster_ips {
        (new.cluster_ip, new.cluster_ips) = (None, None);
    }
    if new.ip_families == old.ip_families {
        new.ip_families = None;
    }
    if new.ip_family_policy == old.ip_family_policy {
        new.ip_family_policy = None;
    }
    if new.internal_traffic_policy == old.internal_traffic_policy {
        new.internal_traffic_policy = None;
    }
}

fn drop_ports(new: &mut ServiceSpec, old: &ServiceSpec) {
    if !has_node_ports(old) || has_node_ports(new) {
        return;
    }
    let ports = |spec: &ServiceSpec| spec.ports.iter().flatten().map(|p| p.node_port).collect::<Vec<_>>();
    if ports(new) == ports(old) {
        new.ports.iter_mut().flatten().for_each(|p| p.node_port = None);
    }
}
