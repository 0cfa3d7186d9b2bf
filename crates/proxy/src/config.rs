//! What the proxy must know about its node.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::dns;

/// The bridge pods are on, unless configured otherwise.
pub const DEFAULT_BRIDGE: &str = "coracle0";

/// One node's place in the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The Node object's name; endpoints that carry it are local.
    pub node_name: String,
    /// The zone the node is in, by its label.
    pub zone: Option<String>,
    /// The node's own address, source of host-made connections to services where there is no default route.
    pub node_ip: Ipv4Addr,
    /// Where all pods' addresses are from; everything else is outside and gets masqueraded.
    pub cluster_cidr: Ipv4Net,
    /// Where cluster IPs are from.
    pub service_cidr: Ipv4Net,
    /// NodePorts answer on local addresses in these networks only; empty means all but loopback.
    pub node_port_addresses: Vec<Ipv4Net>,
    /// The bridge this node's pods are on.
    pub bridge: String,
    /// The DNS server of this node; none: names are answered elsewhere.
    pub dns: Option<dns::Config>,
    /// Whether packets for other nodes' pods go through VXLAN: their nodes may be behind routers.
    pub overlay: bool,
}

impl Config {
    /// A node of that name and address, with the cluster's default ranges.
    pub fn new(node_name: &str, node_ip: Ipv4Addr) -> Config {
        let range = |a, b, length| Ipv4Net::new(Ipv4Addr::new(10, a, b, 0), length).expect("the length is below 33");
        Config {
            node_name: node_name.to_owned(),
            zone: None,
            node_ip,
            cluster_cidr: range(244, 0, 16),
            service_cidr: range(96, 0, 12),
            node_port_addresses: Vec::new(),
            bridge: DEFAULT_BRIDGE.to_owned(),
            dns: None,
            overlay: false,
        }
    }
}
