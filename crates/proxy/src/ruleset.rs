//! The decision: which chains and map elements make the services reachable. Pure and in a fixed order, so that equal
//! input gives equal rules and only differences are sent to the kernel. Each service is decided alone ([`Part`]): a change
//! of one costs nothing for the others.
//!
//! What is in the table (the shape follows kube-proxy's nftables mode, see `pkg/proxy/nftables/README.md` upstream):
//! - map `service_ips`: address . protocol . port → the service port's chain (`service-…`, or `external-…`);
//! - map `service_node_ports`: protocol . port → `external-…`;
//! - maps `endpoint_ips`, `endpoint_node_ports`: the same keys . number → endpoint. Maps of all services rather than one in
//!   each rule: the kernel takes 20,000 elements in a tenth of the time it takes for 5,000 maps;
//! - maps `no_endpoint_ips`, `no_endpoint_node_ports`: the same keys → refuse or drop;
//! - map `firewall_ips`: the same keys → `firewall-…`, where only some clients are let in;
//! - chain `service-…`: marks traffic from outside for masquerading, then draws a number;
//! - chain `external-…`: what comes from outside the cluster, by the external traffic policy;
//! - chain `endpoint-…` and set `affinity-…`: only with ClientIP affinity, which has to remember its choice.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::Config;
use crate::endpoints::{Endpoints, Target, Targets, owner};
pub use crate::part::{Comparison, Elements, Frontend, Health, Part, RuleSet, ServiceKey};
use crate::services::{Protocol, ServicePort, health_port, service_ports};

/// Map of addresses that lead to a chain.
pub const SERVICE_IPS: &str = "service_ips";
/// Map of node ports that lead to a chain.
pub const SERVICE_NODE_PORTS: &str = "service_node_ports";
/// Map of addresses and a number that lead to an endpoint.
pub const ENDPOINT_IPS: &str = "endpoint_ips";
/// Map of node ports and a number that lead to an endpoint.
pub const ENDPOINT_NODE_PORTS: &str = "endpoint_node_ports";
/// Map of addresses that nothing answers.
pub const NO_ENDPOINT_IPS: &str = "no_endpoint_ips";
/// Map of node ports that nothing answers.
pub const NO_ENDPOINT_NODE_PORTS: &str = "no_endpoint_node_ports";
/// Map of addresses that not everyone may use.
pub const FIREWALL_IPS: &str = "firewall_ips";
/// Set of every cluster IP: other ports of theirs are refused.
pub const CLUSTER_IPS: &str = "cluster_ips";
/// Set of `address . address` of local endpoints: connections that come back to where they started.
pub const HAIRPIN: &str = "hairpin";

/// Marks a packet for masquerading.
pub(crate) const MARK_MASQUERADE: &str = "meta mark set meta mark | 0x4000";
/// nft 1.0.6 refuses names of 128 bytes and more; the longest prefix and suffix we add take less than 40.
const NAME_BYTES_MAX: usize = 80;
/// The most endpoints a service port is spread over: their numbers have 16 bits.
const ENDPOINTS_MAX: usize = 0xffff;

/// The rules for `services` with the endpoints in `slices`, on the node that `config` describes.
pub fn ruleset<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    config: &Config,
) -> RuleSet {
    let mut owned: BTreeMap<ServiceKey, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in slices {
        if let Some((namespace, name)) = owner(slice) {
            owned.entry((namespace.to_owned(), name.to_owned())).or_default().push(slice);
        }
    }
    let mut rules = RuleSet::empty(config);
    for service in services {
        let name = (service.metadata.namespace.clone(), service.metadata.name.clone());
        let (Some(namespace), Some(name)) = name else { continue };
        let key = (namespace, name);
        let slices = owned.get(&key).into_iter().flatten().copied();
        if let Some(part) = part(service, slices, config) {
            rules.services.insert(key, Arc::new(part));
        }
    }
    rules
}

/// What one service needs, given its slices; nothing where it has no address.
pub fn part<'a>(
    service: &Service,
    slices: impl IntoIterator<Item = &'a EndpointSlice>,
    config: &Config,
) -> Option<Part> {
    let mut ports = service_ports(service);
    if ports.is_empty() {
        return None;
    }
    ports.sort_unstable();
    let endpoints = Endpoints::collect(slices, config);
    let mut builder = Builder { config, part: Part::default() };
    for port in &ports {
        builder.add(port, &endpoints.targets(port));
    }
    if let Some(port) = health_port(service) {
        let service = (ports[0].namespace.clone(), ports[0].name.clone());
        let local_endpoints = endpoints.local_addresses().len();
        builder.part.health.insert(port, Health { service, local_endpoints });
    }
    Some(builder.part)
}

/// What happens to traffic for an address.
enum Fate<'a> {
    Goto(&'a str),
    Refuse,
    Drop,
}

/// Which endpoints a chain chooses from. Their numbers begin at different places, so that one map holds both.
#[derive(Clone, Copy)]
enum Pool {
    All,
    Local,
}

/// Decides for one service.
struct Builder<'a> {
    config: &'a Config,
    part: Part,
}

impl Builder<'_> {
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
        let (pool, chosen) =
            if port.internal_local { (Pool::Local, &targets.local) } else { (Pool::All, &targets.all) };
        let chain = format!("service-{}", base_name(port));
        if !chosen.is_empty() {
            let mut rules = vec![format!("ip saddr != {} {MARK_MASQUERADE}", self.config.cluster_cidr)];
            rules.extend(self.balance(port, pool, chosen));
            self.part.chains.insert(chain.clone(), rules);
        }
        let key = address_key(port.cluster_ip, port);
        self.part.cluster.insert(key.clone());
        self.choices(port, ENDPOINT_IPS, &key, pool, chosen);
        self.lead_address(port, port.cluster_ip, fate(&chain, !chosen.is_empty(), targets.anywhere));
        self.lead_udp(port, Frontend::Address(port.cluster_ip, port.port), chosen);
    }

    /// Node port and external addresses.
    fn add_external(&mut self, port: &ServicePort, targets: &Targets) {
        let chain = format!("external-{}", base_name(port));
        if targets.anywhere {
            let rules = self.external_rules(port, targets);
            self.part.chains.insert(chain.clone(), rules);
        }
        // With policy Local and no local endpoint the chain still serves pods and the node itself; what comes from
        // outside falls out of it and is dropped, so that a load balancer looks elsewhere.
        let answered = targets.anywhere;
        let unanswered = port.external_local && targets.local.is_empty() && answered;
        for ip in &port.external_ips {
            let key = address_key(*ip, port);
            self.lead_address(port, *ip, fate(&chain, answered, answered));
            if unanswered {
                self.element(NO_ENDPOINT_IPS, key.clone(), Some("drop".to_owned()));
            }
            self.external_choices(port, ENDPOINT_IPS, &key, targets);
            self.part.external.insert(key);
            self.lead_udp(port, Frontend::Address(*ip, port.port), &targets.all);
        }
        self.add_firewall(port);
        if let Some(node_port) = port.node_port {
            let key = format!("{} . {node_port}", port.protocol.as_str());
            self.lead(SERVICE_NODE_PORTS, NO_ENDPOINT_NODE_PORTS, key.clone(), fate(&chain, answered, answered));
            if unanswered {
                self.element(NO_ENDPOINT_NODE_PORTS, key.clone(), Some("drop".to_owned()));
            }
            self.external_choices(port, ENDPOINT_NODE_PORTS, &key, targets);
            self.lead_udp(port, Frontend::NodePort(node_port), &targets.all);
        }
    }

    /// Only some clients may use the load balancer's addresses (`loadBalancerSourceRanges`).
    fn add_firewall(&mut self, port: &ServicePort) {
        let Some(ranges) = &port.source_ranges else { return };
        let chain = format!("firewall-{}", base_name(port));
        // Ranges of another family let nobody in.
        let mut rules: Vec<String> = ranges.iter().map(|range| format!("ip saddr {range} return")).collect();
        rules.push("drop".to_owned());
        self.part.chains.insert(chain.clone(), rules);
        for ip in &port.balancer_ips {
            self.element(FIREWALL_IPS, address_key(*ip, port), Some(format!("goto {chain}")));
        }
    }

    /// What an `external-…` chain says, given that there are endpoints somewhere.
    fn external_rules(&mut self, port: &ServicePort, targets: &Targets) -> Vec<String> {
        let base = base_name(port);
        // The chain over all endpoints: the service's own, unless that one is kept on this node.
        let cluster = if port.internal_local {
            let rules = self.balance(port, Pool::All, &targets.all);
            self.part.chains.insert(format!("cluster-{base}"), rules);
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
            rules.extend(self.balance(port, Pool::Local, &targets.local));
        }
        rules
    }

    /// The rules that pick one of `targets` by chance, or the one the client had before.
    fn balance(&mut self, port: &ServicePort, pool: Pool, targets: &[Target]) -> Vec<String> {
        let Some(seconds) = port.affinity_seconds else {
            return draw(port.protocol, pool, targets).into_iter().collect();
        };
        let chains: Vec<String> = targets.iter().map(|t| self.sticky_endpoint(port, *t, seconds)).collect();
        let mut rules: Vec<String> =
            chains.iter().map(|chain| format!("ip saddr @affinity-{chain} goto endpoint-{chain}")).collect();
        for (i, chain) in chains.iter().enumerate() {
            // The first of four is taken once in four times, the second once in the three that are left.
            rules.push(match chains.len() - i {
                1 => format!("goto endpoint-{chain}"),
                left => format!("numgen random mod {left} == 0 goto endpoint-{chain}"),
            });
        }
        rules
    }

    /// Makes the chain and set of one endpoint that remembers its clients; returns their common name. The timeout is part
    /// of the name because a set in use cannot change it.
    fn sticky_endpoint(&mut self, port: &ServicePort, target: Target, seconds: u32) -> String {
        let name = format!("{}/{}/{}/{seconds}s", base_name(port), target.ip, target.port);
        self.part.affinity.insert(format!("affinity-{name}"), seconds);
        let rules = vec![format!("update @affinity-{name} {{ ip saddr }}"), only(port.protocol, target)];
        self.part.chains.insert(format!("endpoint-{name}"), rules);
        name
    }

    /// The endpoints that external traffic may be led to.
    fn external_choices(&mut self, port: &ServicePort, map: &'static str, key: &str, targets: &Targets) {
        self.choices(port, map, key, Pool::All, &targets.all);
        if port.external_local {
            self.choices(port, map, key, Pool::Local, &targets.local);
        }
    }

    /// What the numbers mean that [`draw`] draws.
    fn choices(&mut self, port: &ServicePort, map: &'static str, key: &str, pool: Pool, targets: &[Target]) {
        if targets.len() < 2 || port.affinity_seconds.is_some() {
            return;
        }
        for (i, target) in targets.iter().take(ENDPOINTS_MAX).enumerate() {
            let value = format!("{} . {}", target.ip, target.port);
            self.element(map, format!("{key} . {}:{i:x}", pool.offset()), Some(value));
        }
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
            self.part.udp.insert(frontend, targets.iter().map(|t| t.ip).collect());
        }
    }

    fn element(&mut self, set: &'static str, key: String, verdict: Option<String>) {
        self.part.elements.entry(set).or_default().insert(key, verdict);
    }
}

impl Pool {
    /// The upper half of its endpoints' numbers, as nft writes a priority (`upper:lower`).
    const fn offset(self) -> u32 {
        match self {
            Pool::All => 1,
            Pool::Local => 2,
        }
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

/// Leads to one of the targets, each as likely. The number drawn travels in the packet's priority, which nobody has set yet
/// or will read before `nat_postrouting` clears it; marks belong to others.
fn draw(protocol: Protocol, pool: Pool, targets: &[Target]) -> Option<String> {
    match targets {
        [] => None,
        [one] => Some(only(protocol, *one)),
        several => {
            let count = several.len().min(ENDPOINTS_MAX);
            Some(format!("meta priority set numgen random mod {count} offset {} goto pick", pool.offset() << 16))
        }
    }
}

/// Leads to one target.
fn only(protocol: Protocol, target: Target) -> String {
    format!("meta l4proto {} dnat to {}:{}", protocol.as_str(), target.ip, target.port)
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
