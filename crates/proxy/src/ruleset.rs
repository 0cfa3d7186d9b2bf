//! The decision: which chains and map elements make the services reachable. Pure and in a fixed order, so that equal
//! input gives equal rules and only differences are sent to the kernel.
//!
//! What is in the table (the shape follows kube-proxy's nftables mode, see `pkg/proxy/nftables/README.md` upstream):
//! - map `service_ips`: address . protocol . port → the service port's chain (`service-…`, or `external-…`);
//! - map `service_node_ports`: protocol . port → `external-…`;
//! - maps `no_endpoint_ips`, `no_endpoint_node_ports`: the same keys → refuse or drop;
//! - chain `service-…`: marks traffic from outside for masquerading, then picks an endpoint;
//! - chain `external-…`: what comes from outside the cluster, by the external traffic policy;
//! - chain `endpoint-…` and set `affinity-…`: only with ClientIP affinity, which has to remember its choice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::Config;
use crate::endpoints::{Endpoints, Target, Targets};
use crate::services::{Protocol, ServicePort, service_ports};

/// Map of addresses that lead to a chain.
pub const SERVICE_IPS: &str = "service_ips";
/// Map of node ports that lead to a chain.
pub const SERVICE_NODE_PORTS: &str = "service_node_ports";
/// Map of addresses that nothing answers.
pub const NO_ENDPOINT_IPS: &str = "no_endpoint_ips";
/// Map of node ports that nothing answers.
pub const NO_ENDPOINT_NODE_PORTS: &str = "no_endpoint_node_ports";
/// Set of every cluster IP: other ports of theirs are refused.
pub const CLUSTER_IPS: &str = "cluster_ips";
/// Set of `address . address` of local endpoints: connections that come back to where they started.
pub const HAIRPIN: &str = "hairpin";

/// Marks a packet for masquerading.
pub(crate) const MARK_MASQUERADE: &str = "meta mark set meta mark | 0x4000";
/// nft 1.0.6 refuses names of 128 bytes and more; the longest prefix and suffix we add take less than 40.
const NAME_BYTES_MAX: usize = 80;

/// Elements of a map (key → verdict) or a set (key → nothing), as nft writes them.
pub type Elements = BTreeMap<String, Option<String>>;

/// All that is particular to the present services; [`crate::render`] adds what is always there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// What the constant part of the table depends on.
    pub config: Config,
    /// Chain → its rules.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Affinity set → timeout in seconds.
    pub affinity: BTreeMap<String, u32>,
    /// Map or set → its elements.
    pub elements: BTreeMap<&'static str, Elements>,
    /// Where UDP flows enter → where they are led; see [`crate::conntrack`].
    pub udp: BTreeMap<Frontend, BTreeSet<Ipv4Addr>>,
}

/// Where a flow enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frontend {
    /// A cluster IP or an external one.
    Address(Ipv4Addr, u16),
    /// A port of the node.
    NodePort(u16),
}

/// The rules for `services` with the endpoints in `slices`, on the node that `config` describes.
pub fn ruleset<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    config: &Config,
) -> RuleSet {
    let endpoints = Endpoints::collect(slices, &config.node_name);
    let mut ports: Vec<ServicePort> = services.into_iter().flat_map(service_ports).collect();
    ports.sort_unstable();
    let mut rules = RuleSet::empty(config);
    for port in &ports {
        rules.add(port, &endpoints.targets(port));
    }
    rules
}

/// What happens to traffic for an address.
enum Fate<'a> {
    Goto(&'a str),
    Refuse,
    Drop,
}

impl RuleSet {
    /// The rules where there is no service.
    pub fn empty(config: &Config) -> RuleSet {
        let names = [SERVICE_IPS, SERVICE_NODE_PORTS, NO_ENDPOINT_IPS, NO_ENDPOINT_NODE_PORTS, CLUSTER_IPS, HAIRPIN];
        RuleSet {
            config: config.clone(),
            chains: BTreeMap::new(),
            affinity: BTreeMap::new(),
            elements: names.into_iter().map(|name| (name, Elements::new())).collect(),
            udp: BTreeMap::new(),
        }
    }

    fn add(&mut self, port: &ServicePort, targets: &Targets) {
        self.element(CLUSTER_IPS, port.cluster_ip.to_string(), None);
        for target in &targets.here {
            self.element(HAIRPIN, format!("{0} . {0}", target.ip), None);
        }
        self.add_internal(port, targets);
        if port.node_port.is_some() || !port.external_ips.is_empty() {
            self.add_external(port, targets);
        }
    }

    /// The cluster IP.
    fn add_internal(&mut self, port: &ServicePort, targets: &Targets) {
        let chosen = if port.internal_local { &targets.local } else { &targets.all };
        let chain = format!("service-{}", base_name(port));
        if !chosen.is_empty() {
            let mut rules = vec![format!("ip saddr != {} {MARK_MASQUERADE}", self.config.cluster_cidr)];
            rules.extend(self.balance(port, chosen));
            self.chains.insert(chain.clone(), rules);
        }
        self.lead_address(port, port.cluster_ip, fate(&chain, !chosen.is_empty(), !targets.all.is_empty()));
        self.lead_udp(port, Frontend::Address(port.cluster_ip, port.port), chosen);
    }

    /// Node port and external addresses.
    fn add_external(&mut self, port: &ServicePort, targets: &Targets) {
        let chain = format!("external-{}", base_name(port));
        if !targets.all.is_empty() {
            let rules = self.external_rules(port, targets);
            self.chains.insert(chain.clone(), rules);
        }
        // With policy Local and no local endpoint the chain still serves pods and the node itself; what comes from
        // outside falls out of it and is dropped, so that a load balancer looks elsewhere.
        let answered = !targets.all.is_empty();
        let unanswered = port.external_local && targets.local.is_empty() && answered;
        for ip in &port.external_ips {
            self.lead_address(port, *ip, fate(&chain, answered, answered));
            if unanswered {
                self.element(NO_ENDPOINT_IPS, address_key(*ip, port), Some("drop".to_owned()));
            }
            self.lead_udp(port, Frontend::Address(*ip, port.port), &targets.all);
        }
        if let Some(node_port) = port.node_port {
            let key = format!("{} . {node_port}", port.protocol.as_str());
            self.lead(SERVICE_NODE_PORTS, NO_ENDPOINT_NODE_PORTS, key.clone(), fate(&chain, answered, answered));
            if unanswered {
                self.element(NO_ENDPOINT_NODE_PORTS, key, Some("drop".to_owned()));
            }
            self.lead_udp(port, Frontend::NodePort(node_port), &targets.all);
        }
    }

    /// What an `external-…` chain says, given that there are endpoints somewhere.
    fn external_rules(&mut self, port: &ServicePort, targets: &Targets) -> Vec<String> {
        let base = base_name(port);
        // The chain over all endpoints: the service's own, unless that one is kept on this node.
        let cluster = if port.internal_local {
            let rules = self.balance(port, &targets.all);
            self.chains.insert(format!("cluster-{base}"), rules);
            format!("cluster-{base}")
        } else {
            format!("service-{base}")
        };
        if !port.external_local {
            return vec![MARK_MASQUERADE.to_owned(), format!("goto {cluster}")];
        }
        let mut rules = vec![
            format!("ip saddr {} goto {cluster}", self.config.cluster_cidr),
            format!("fib saddr type local {MARK_MASQUERADE} goto {cluster}"),
        ];
        if !targets.local.is_empty() {
            rules.extend(self.balance(port, &targets.local));
        }
        rules
    }

    /// The rules that pick one of `targets` by chance, or the one the client had before.
    fn balance(&mut self, port: &ServicePort, targets: &[Target]) -> Vec<String> {
        let Some(seconds) = port.affinity_seconds else { return vec![pick(port.protocol, targets)] };
        let chains: Vec<String> = targets.iter().map(|t| self.sticky_endpoint(port, *t, seconds)).collect();
        let mut rules: Vec<String> =
            chains.iter().map(|chain| format!("ip saddr @affinity-{chain} goto endpoint-{chain}")).collect();
        rules.push(match chains.as_slice() {
            [only] => format!("goto endpoint-{only}"),
            several => {
                let choices = several.iter().enumerate().map(|(i, chain)| format!("{i} : goto endpoint-{chain}"));
                format!("numgen random mod {} vmap {{ {} }}", several.len(), join(choices))
            }
        });
        rules
    }

    /// Makes the chain and set of one endpoint that remembers its clients; returns their common name. The timeout is part
    /// of the name because a set in use cannot change it.
    fn sticky_endpoint(&mut self, port: &ServicePort, target: Target, seconds: u32) -> String {
        let name = format!("{}/{}/{}/{seconds}s", base_name(port), target.ip, target.port);
        self.affinity.insert(format!("affinity-{name}"), seconds);
        let rules = vec![format!("update @affinity-{name} {{ ip saddr }}"), pick(port.protocol, &[target])];
        self.chains.insert(format!("endpoint-{name}"), rules);
        name
    }

    fn lead_address(&mut self, port: &ServicePort, ip: Ipv4Addr, fate: Fate<'_>) {
        self.lead(SERVICE_IPS, NO_ENDPOINT_IPS, address_key(ip, port), fate);
    }

    fn lead(&mut self, served: &'static str, unserved: &'static str, key: String, fate: Fate<'_>) {
        match fate {
            Fate::Goto(chain) => self.element(served, key, Some(format!("goto {chain}"))),
            Fate::Refuse => self.element(unserved, key, Some("goto refuse".to_owned())),
            Fate::Drop => self.element(unserved, key, Some("drop".to_owned())),
        }
    }

    fn lead_udp(&mut self, port: &ServicePort, frontend: Frontend, targets: &[Target]) {
        if port.protocol == Protocol::Udp {
            self.udp.insert(frontend, targets.iter().map(|t| t.ip).collect());
        }
    }

    fn element(&mut self, set: &'static str, key: String, verdict: Option<String>) {
        self.elements.entry(set).or_default().insert(key, verdict);
    }
}

/// Refused only where nobody serves; endpoints elsewhere that policy forbids mean drop.
fn fate(chain: &str, chosen: bool, anywhere: bool) -> Fate<'_> {
    match (chosen, anywhere) {
        (true, _) => Fate::Goto(chain),
        (false, true) => Fate::Drop,
        (false, false) => Fate::Refuse,
    }
}

fn address_key(ip: Ipv4Addr, port: &ServicePort) -> String {
    format!("{ip} . {} . {}", port.protocol.as_str(), port.port)
}

/// `dnat` to one of the targets, each as likely.
fn pick(protocol: Protocol, targets: &[Target]) -> String {
    let protocol = protocol.as_str();
    if let [only] = targets {
        return format!("meta l4proto {protocol} dnat to {}:{}", only.ip, only.port);
    }
    let choices = targets.iter().enumerate().map(|(i, t)| format!("{i} : {} . {}", t.ip, t.port));
    format!("meta l4proto {protocol} dnat ip to numgen random mod {} map {{ {} }}", targets.len(), join(choices))
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(", ")
}

/// `default/web/tcp/http`, safe as part of an nft name whatever the object says. Long ones are cut and told apart by a hash.
fn base_name(port: &ServicePort) -> String {
    let full = format!("{}/{}/{}/{}", port.namespace, port.name, port.protocol.as_str(), port.port_name);
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '/');
    if full.len() <= NAME_BYTES_MAX && full.chars().all(legal) {
        return full;
    }
    let mut name: String = full.chars().filter(|c| legal(*c)).take(NAME_BYTES_MAX - 17).collect();
    let _ = write!(name, "_{:016x}", fnv1a(full.as_bytes()));
    name
}

/// FNV-1a: the same in every process and release, unlike the standard library's hasher.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
