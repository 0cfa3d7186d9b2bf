//! The part of a Service that rules are made of: one [`ServicePort`] per port, typed, or nothing.

use std::net::Ipv4Addr;

use api::well_known::LABEL_SERVICE_PROXY_NAME;
use k8s_openapi::api::core::v1 as core;

/// Affinity of a client to its endpoint where the service does not say for how long (`DefaultClientIPServiceAffinitySeconds`).
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// What nft calls a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// `tcp`.
    Tcp,
    /// `udp`.
    Udp,
    /// `sctp`.
    Sctp,
}

impl Protocol {
    /// As the API writes it; absent means TCP.
    pub fn parse(text: Option<&str>) -> Option<Protocol> {
        match text {
            None | Some("" | "TCP") => Some(Protocol::Tcp),
            Some("UDP") => Some(Protocol::Udp),
            Some("SCTP") => Some(Protocol::Sctp),
            Some(_) => None,
        }
    }

    /// As nft and conntrack write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

/// One port of one service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServicePort {
    /// The service's namespace.
    pub namespace: String,
    /// The service's name.
    pub name: String,
    /// The port's name, empty where the service has a single one; endpoint slices refer to it.
    pub port_name: String,
    /// The protocol.
    pub protocol: Protocol,
    /// The port on the cluster IP and on external addresses.
    pub port: u16,
    /// The port on every node.
    pub node_port: Option<u16>,
    /// The service's virtual address.
    pub cluster_ip: Ipv4Addr,
    /// Addresses from outside that lead here: `externalIPs` and a load balancer's.
    pub external_ips: Vec<Ipv4Addr>,
    /// For how long a client stays with its endpoint (`sessionAffinity: ClientIP`).
    pub affinity_seconds: Option<u32>,
    /// Traffic from inside the cluster stays on the node.
    pub internal_local: bool,
    /// Traffic from outside stays on the node and keeps its source address.
    pub external_local: bool,
}

/// The ports of a service that this proxy serves: none for headless and `ExternalName` services, for another proxy's, and
/// for whatever is not IPv4.
pub fn service_ports(service: &core::Service) -> Vec<ServicePort> {
    let (Some(spec), Some(namespace), Some(name)) =
        (service.spec.as_ref(), service.metadata.namespace.as_ref(), service.metadata.name.as_ref())
    else {
        return Vec::new();
    };
    let foreign = service.metadata.labels.as_ref().is_some_and(|l| l.contains_key(LABEL_SERVICE_PROXY_NAME));
    let cluster_ip = spec.cluster_ip.as_deref().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
    let (Some(cluster_ip), false, false) = (cluster_ip, foreign, spec.type_.as_deref() == Some("ExternalName")) else {
        return Vec::new();
    };
    let external_ips = external_ips(service, spec);
    let ports = spec.ports.iter().flatten().filter_map(|port| {
        Some(ServicePort {
            namespace: namespace.clone(),
            name: name.clone(),
            port_name: port.name.clone().unwrap_or_default(),
            protocol: Protocol::parse(port.protocol.as_deref())?,
            port: port_number(port.port)?,
            node_port: port.node_port.and_then(port_number),
            cluster_ip,
            external_ips: external_ips.clone(),
            affinity_seconds: affinity_seconds(spec),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        })
    });
    ports.collect()
}

/// A port number, if it is one.
pub fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|p| *p != 0)
}

fn external_ips(service: &core::Service, spec: &core::ServiceSpec) -> Vec<Ipv4Addr> {
    let ingress =
        service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|b| b.ingress.iter().flatten());
    // `ipMode: Proxy` asks that the load balancer itself sees the traffic.
    let balancer = ingress.filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| i.ip.as_ref());
    let mut ips: Vec<Ipv4Addr> =
        spec.external_ips.iter().flatten().chain(balancer).filter_map(|ip| ip.parse().ok()).collect();
    ips.sort_unstable();
    ips.dedup();
    ips
}

fn affinity_seconds(spec: &core::ServiceSpec) -> Option<u32> {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return None;
    }
    let client_ip = spec.session_affinity_config.as_ref().and_then(|c| c.client_ip.as_ref());
    let seconds = client_ip.and_then(|c| c.timeout_seconds).unwrap_or(DEFAULT_AFFINITY_SECONDS);
    u32::try_from(seconds).ok().filter(|s| *s > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn ports(spec: Value) -> Vec<ServicePort> {
        let object = json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec});
        service_ports(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn services_without_an_address_of_their_own_have_no_ports() {
        let port = json!([{"port": 80}]);
        let table = [
            ("headless", json!({"clusterIP": "None", "ports": port})),
            ("no address yet", json!({"ports": port})),
            ("external name", json!({"type": "ExternalName", "clusterIP": "10.96.0.1", "ports": port})),
            ("IPv6", json!({"clusterIP": "fd00::1", "ports": port})),
            ("not an address", json!({"clusterIP": "10.96.0.1; flush ruleset", "ports": port})),
            ("a port that is none", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 70000}]})),
            ("an unknown protocol", json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80, "protocol": "DCCP"}]})),
        ];
        for (sentence, spec) in table {
            assert_eq!(ports(spec), vec![], "{sentence}");
        }
    }

    #[test]
    fn affinity_has_a_default_and_a_value() {
        let spec = |extra: Value| {
            let mut spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}]});
            spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            ports(spec)[0].affinity_seconds
        };
        assert_eq!(spec(json!({})), None);
        assert_eq!(spec(json!({"sessionAffinity": "ClientIP"})), Some(10_800));
        let config =
            json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 7}}});
        assert_eq!(spec(config), Some(7));
    }
}
