//! The columns of `kubectl get services` (`printService` upstream).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use serde_json::{Value, json};

use crate::kinds::printers::labels;
use crate::kinds::{AGE, Column, NAME, column, wide};
use crate::printing::or_none;

pub(super) const COLUMNS: &[Column] = &[
    NAME,
    column("Type", "string", "How the service is exposed"),
    column("Cluster-IP", "string", "Address inside the cluster"),
    column("External-IP", "string", "Addresses outside the cluster"),
    column("Port(s)", "string", "Ports, with node ports, and protocols"),
    AGE,
    wide("Selector", "string", "Labels of the pods behind the service"),
];

pub(super) fn cells(service: &Service, now: Timestamp) -> Vec<Value> {
    let empty = ServiceSpec::default();
    let spec = service.spec.as_ref().unwrap_or(&empty);
    let ports: Vec<String> = spec.ports.iter().flatten().map(port).collect();
    vec![
        json!(service.metadata.name),
        json!(spec.type_.as_deref().unwrap_or("ClusterIP")),
        or_none(spec.cluster_ip.as_deref()),
        json!(external_ip(service, spec)),
        or_none(Some(&ports.join(","))),
        crate::printing::age(&service.metadata, now),
        labels(spec.selector.as_ref()),
    ]
}

/// `80/TCP`, `80:30080/TCP`.
fn port(port: &ServicePort) -> String {
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    match port.node_port {
        Some(node_port) if node_port > 0 => format!("{}:{node_port}/{protocol}", port.port),
        _ => format!("{}/{protocol}", port.port),
    }
}

fn external_ip(service: &Service, spec: &ServiceSpec) -> String {
    let mut addresses: Vec<&str> = Vec::new();
    let is_load_balancer = spec.type_.as_deref() == Some("LoadBalancer");
    if is_load_balancer {
        let ingress = service.status.as_ref().and_then(|s| s.load_balancer.as_ref()?.ingress.as_ref());
        addresses.extend(ingress.into_iter().flatten().filter_map(|i| i.ip.as_deref().or(i.hostname.as_deref())));
    }
    if spec.type_.as_deref() == Some("ExternalName") {
        return spec.external_name.clone().unwrap_or_default();
    }
    addresses.extend(spec.external_ips.iter().flatten().map(String::as_str));
    match addresses.is_empty() {
        true if is_load_balancer => "<pending>".to_owned(),
        true => "<none>".to_owned(),
        false => addresses.join(","),
    }
}
