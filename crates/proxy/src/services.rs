//! The part of a Service that rules are made of: one [`ServicePort`] per port, typed, or nothing.

use std::net::Ipv4Addr;

use api::well_known::LABEL_SERVICE_PROXY_NAME;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1 as core;

/// Affinity of a client to its endpoint where the service does not say for how long (`DefaultClientIPServiceAffinitySeconds`).
const DEFAULT_AFFINITY_SECONDS: i32 = 10_800;

/// Who may use a load balancer, before there was a field for it.
const ANNOTATION_SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

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
    /// Those of them that a load balancer has.
    pub balancer_ips: Vec<Ipv4Addr>,
    /// Who may use a load balancer's addresses; `None`: everyone.
    pub source_ranges: Option<Vec<Ipv4Net>>,
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
    // The cluster IP is the service's already, with rules of its own.
    let others = |ip: &Ipv4Addr| *ip != cluster_ip;
    let balancer_ips: Vec<Ipv4Addr> = balancer_ips(service).into_iter().filter(others).collect();
    let given = spec.external_ips.iter().flatten().filter_map(|ip| ip.parse().ok()).filter(others);
    let external_ips = in_order(given.chain(balancer_ips.iter().copied()));
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
            balancer_ips: balancer_ips.clone(),
            source_ranges: source_ranges(service, spec),
            affinity_seconds: affinity_seconds(spec),
            internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
            external_local: spec.external_traffic_policy.as_deref() == Some("Local"),
        })
    });
    ports.collect()
}

/// The port on which load balancers ask for the health of a service whose traffic from outside stays on the node.
pub fn health_port(service: &core::Service) -> Option<u16> {
    let spec = service.spec.as_ref()?;
    let asked =
        spec.type_.as_deref() == Some("LoadBalancer") && spec.external_traffic_policy.as_deref() == Some("Local");
    spec.health_check_node_port.filter(|_| asked).and_then(port_number)
}

/// A port number, if it is one.
pub fn port_number(port: i32) -> Option<u16> {
    u16::try_from(port).ok().filter(|p| *p != 0)
}

/// The load balancer's addresses at which packets arrive as they were sent. `ipMode: Proxy` asks that the load balancer
/// itself sees the traffic.
fn balancer_ips(service: &core::Service) -> Vec<Ipv4Addr> {
    let ingress =
        service.status.iter().filter_map(|s| s.load_balancer.as_ref()).flat_map(|b| b.ingress.iter().flatten());
    let ours = ingress.filter(|i| i.ip_mode.as_deref() != Some("Proxy")).filter_map(|i| i.ip.as_ref());
    in_order(ours.filter_map(|ip| ip.parse().ok()))
}

/// The field, or the annotation it once was. Ranges of the other family count: they let nobody in.
fn source_ranges(service: &core::Service, spec: &core::ServiceSpec) -> Option<Vec<Ipv4Net>> {
    let given: Vec<&str> = match spec.load_balancer_source_ranges.as_ref().filter(|ranges| !ranges.is_empty()) {
        Some(ranges) => ranges.iter().map(String::as_str).collect(),
        None => {
            let annotation = service.metadata.annotations.as_ref()?.get(ANNOTATION_SOURCE_RANGES)?;
            annotation.split(',').collect()
        }
    };
    let given: Vec<&str> = given.into_iter().map(str::trim).filter(|range| !range.is_empty()).collect();
    if given.is_empty() {
        return None;
    }
    let ranges: Vec<Ipv4Net> = given.iter().filter_map(|range| range.parse().ok()).collect();
    Some(Ipv4Net::aggregate(&ranges)).filter(|ranges| !ranges.iter().any(|range| range.prefix_len() == 0))
}

fn in_order(ips: impl Iterator<Item = Ipv4Addr>) -> Vec<Ipv4Addr> {
    let mut ips: Vec<Ipv4Addr> = ips.collect();
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
    fn source_ranges_are_for_those_of_our_family() {
        let ranges = |given: Value| {
            let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80}], "loadBalancerSourceRanges": given});
            let ranges = ports(spec)[0].source_ranges.clone();
            ranges.map(|r| r.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(ranges(json!([])), None);
        assert_eq!(ranges(json!(["0.0.0.0/0"])), None);
        assert_eq!(ranges(json!(["192.0.2.0/25", "192.0.2.128/25"])).as_deref(), Some("192.0.2.0/24"));
        assert_eq!(ranges(json!(["2001:db8::/32"])).as_deref(), Some(""));
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
