//! Rules as an nft script. Every script is one transaction: all of it happens or nothing.

use std::fmt::Write as _;
use std::sync::Arc;

use ipnet::Ipv4Net;

use crate::ruleset::{
    CLUSTER_IPS, Comparison, ENDPOINT_IPS, ENDPOINT_NODE_PORTS, Elements, FIREWALL_IPS, HAIRPIN, MARK_MASQUERADE,
    NO_ENDPOINT_IPS, NO_ENDPOINT_NODE_PORTS, Part, RuleSet, SERVICE_IPS, SERVICE_NODE_PORTS,
};
use crate::{Config, dns};

/// Our own table; nothing of anyone else's is ever in it.
pub const TABLE: &str = "ip coracle";
/// A set with one element: the signature of our latest transaction (see [`crate::monitor`]).
pub const SIGNATURE: &str = "signature";
/// Elements on one line; nft reads lines of any length, people do not.
const ELEMENTS_PER_LINE: usize = 256;

/// A script that replaces the whole table, signed with `signature`.
pub fn full(rules: &RuleSet, signature: u32) -> String {
    let whole = rules.whole();
    // `delete` fails on a table that is not there; nft 1.0.6 has no `destroy` yet.
    let mut script = format!("add table {TABLE}\ndelete table {TABLE}\nadd table {TABLE}\n");
    skeleton(&mut script, &rules.config);
    for (set, seconds) in &whole.affinity {
        add_affinity(&mut script, set, *seconds);
    }
    for chain in whole.chains.keys() {
        let _ = writeln!(script, "add chain {TABLE} {chain}");
    }
    for (chain, body) in &whole.chains {
        add_rules(&mut script, chain, body);
    }
    for (set, elements) in &whole.elements {
        add_elements(&mut script, set, elements.iter());
    }
    let _ = writeln!(script, "add element {TABLE} {SIGNATURE} {{ {signature:#x} }}");
    script
}

/// A script that turns `old` into `new`, or nothing where they are equal. Both describe the same node. Only what differs is
/// looked at, and what others share with it.
pub fn difference(old: &RuleSet, new: &RuleSet, signature: u32) -> Option<String> {
    if old.config != new.config {
        return Some(full(new, signature));
    }
    let Comparison { before, after, same } = old.compare(new);
    let (mut before, mut after) = (Part::merge(before), Part::merge(after));
    if before == after {
        return None;
    }
    if is_contested(&before, &after, &same) {
        return Some(full(new, signature));
    }
    // Endpoints may serve several services: what another still has neither goes nor comes.
    let with_hairpins: Vec<&Elements> = same.iter().filter_map(|part| part.elements.get(HAIRPIN)).collect();
    for elements in [before.elements.get_mut(HAIRPIN), after.elements.get_mut(HAIRPIN)].into_iter().flatten() {
        elements.retain(|key, _| !with_hairpins.iter().any(|others| others.contains_key(key)));
    }
    Some(change(&before, &after) + &greeting(signature))
}

/// Whether an external address that changes is, or was, wanted by a service that does not. Rare: then all is said anew.
fn is_contested(before: &Part, after: &Part, others: &[&Arc<Part>]) -> bool {
    let changing = [before, after];
    others.iter().any(|other| {
        let wants = |key: &String| other.external.contains(key) || other.cluster.contains(key);
        changing.iter().any(|part| {
            part.external.iter().any(wants)
                || (!other.external.is_empty() && part.cluster.iter().any(|key| other.external.contains(key)))
        })
    })
}

/// The script that turns what `old` describes into what `new` does.
fn change(old: &Part, new: &Part) -> String {
    let mut script = String::new();
    for (set, seconds) in new.affinity.iter().filter(|(set, _)| !old.affinity.contains_key(*set)) {
        add_affinity(&mut script, set, *seconds);
    }
    for chain in new.chains.keys().filter(|chain| !old.chains.contains_key(*chain)) {
        let _ = writeln!(script, "add chain {TABLE} {chain}");
    }
    // References go before what they refer to: rules and elements first, then chains and sets.
    for chain in old.chains.iter().filter(|(chain, body)| new.chains.get(*chain) != Some(body)).map(|(chain, _)| chain)
    {
        let _ = writeln!(script, "flush chain {TABLE} {chain}");
    }
    change_elements(&mut script, old, new);
    for (chain, body) in new.chains.iter().filter(|(chain, body)| old.chains.get(*chain) != Some(body)) {
        add_rules(&mut script, chain, body);
    }
    for chain in old.chains.keys().filter(|chain| !new.chains.contains_key(*chain)) {
        let _ = writeln!(script, "delete chain {TABLE} {chain}");
    }
    for set in old.affinity.keys().filter(|set| !new.affinity.contains_key(*set)) {
        let _ = writeln!(script, "delete set {TABLE} {set}");
    }
    script
}

/// A script that changes nothing but the signature.
pub fn greeting(signature: u32) -> String {
    format!("flush set {TABLE} {SIGNATURE}\nadd element {TABLE} {SIGNATURE} {{ {signature:#x} }}\n")
}

/// A script that removes the table, also where there is none.
pub fn removal() -> String {
    format!("add table {TABLE}\ndelete table {TABLE}\n")
}

fn change_elements(script: &mut String, old: &Part, new: &Part) {
    let none = Elements::new();
    for (set, before) in &old.elements {
        let after = new.elements.get(set).unwrap_or(&none);
        let gone: Vec<&str> =
            before.iter().filter(|(k, v)| after.get(*k) != Some(v)).map(|(k, _)| k.as_str()).collect();
        for keys in gone.chunks(ELEMENTS_PER_LINE) {
            let _ = writeln!(script, "delete element {TABLE} {set} {{ {} }}", keys.join(", "));
        }
    }
    for (set, after) in &new.elements {
        let before = old.elements.get(set).unwrap_or(&none);
        add_elements(script, set, after.iter().filter(|(k, v)| before.get(*k) != Some(v)));
    }
}

fn add_affinity(script: &mut String, set: &str, seconds: u32) {
    let _ = writeln!(script, "add set {TABLE} {set} {{ type ipv4_addr; flags dynamic, timeout; timeout {seconds}s; }}");
}

fn add_rules(script: &mut String, chain: &str, body: &[String]) {
    for rule in body {
        let _ = writeln!(script, "add rule {TABLE} {chain} {rule}");
    }
}

fn add_elements<'a>(script: &mut String, set: &str, elements: impl Iterator<Item = (&'a String, &'a Option<String>)>) {
    let texts: Vec<String> = elements
        .map(|(key, verdict)| match verdict {
            Some(verdict) => format!("{key} : {verdict}"),
            None => key.clone(),
        })
        .collect();
    for texts in texts.chunks(ELEMENTS_PER_LINE) {
        let _ = writeln!(script, "add element {TABLE} {set} {{ {} }}", texts.join(", "));
    }
}

/// What is there whatever the services are: maps, sets, base chains.
fn skeleton(script: &mut String, config: &Config) {
    let (address, node_port) = ("ipv4_addr . inet_proto . inet_service", "inet_proto . inet_service");
    for (map, key, value) in [
        (SERVICE_IPS, address, "verdict"),
        (SERVICE_NODE_PORTS, node_port, "verdict"),
        (ENDPOINT_IPS, &format!("{address} . classid"), "ipv4_addr . inet_service"),
        (ENDPOINT_NODE_PORTS, &format!("{node_port} . classid"), "ipv4_addr . inet_service"),
        (NO_ENDPOINT_IPS, address, "verdict"),
        (NO_ENDPOINT_NODE_PORTS, node_port, "verdict"),
        (FIREWALL_IPS, address, "verdict"),
    ] {
        let _ = writeln!(script, "add map {TABLE} {map} {{ type {key} : {value}; }}");
    }
    for (set, body) in [(SIGNATURE, "mark"), (CLUSTER_IPS, "ipv4_addr"), (HAIRPIN, "ipv4_addr . ipv4_addr")] {
        let _ = writeln!(script, "add set {TABLE} {set} {{ type {body}; }}");
    }
    for (chain, body) in base_chains(config) {
        let _ = writeln!(script, "add chain {TABLE} {chain}{body}");
    }
    for (chain, rule) in base_rules(config) {
        let _ = writeln!(script, "add rule {TABLE} {chain} {rule}");
    }
}

/// Base chains. Refusing happens after DNAT (output: -90, forward by nature), so that only what found no endpoint is left,
/// and before the filters of others (0).
fn base_chains(config: &Config) -> Vec<(&'static str, &'static str)> {
    let mut chains = vec![
        ("nat_prerouting", " { type nat hook prerouting priority -100; }"),
        ("nat_output", " { type nat hook output priority -100; }"),
        ("nat_postrouting", " { type nat hook postrouting priority 100; }"),
        ("filter_prerouting", " { type filter hook prerouting priority -110; }"),
        ("mark_established", " { type filter hook forward priority -150; }"),
        ("filter_input", " { type filter hook input priority -90; }"),
        ("filter_forward", " { type filter hook forward priority -90; }"),
        ("filter_output", " { type filter hook output priority -90; }"),
        ("services", ""),
        ("pick", ""),
        ("unserved", ""),
        ("refuse", ""),
    ];
    if config.overlay {
        chains.push(("unmark", " { type filter hook postrouting priority 110; }"));
    }
    if config.dns.is_some() {
        chains.extend([
            ("raw_prerouting", " { type filter hook prerouting priority -300; }"),
            ("raw_output", " { type filter hook output priority -300; }"),
            ("dns", ""),
        ]);
    }
    chains
}

/// The rules of the constant chains, in order.
fn base_rules(config: &Config) -> Vec<(&'static str, String)> {
    let Config { cluster_cidr, bridge, .. } = config;
    let outward = format!("ip saddr {cluster_cidr} ip daddr != {cluster_cidr} oifname != \"{bridge}\"");
    let mut rules = vec![
        ("nat_prerouting", "jump services".to_owned()),
        ("nat_output", "jump services".to_owned()),
        ("services", format!("ip daddr . meta l4proto . th dport vmap @{SERVICE_IPS}")),
        ("filter_prerouting", format!("ct state new ip daddr . meta l4proto . th dport vmap @{FIREWALL_IPS}")),
        // The number drawn by a service's chain (see `ruleset::draw`) has done its work.
        ("nat_postrouting", "ct status dnat meta priority set 0:0".to_owned()),
        // What was marked for it, what comes back to the pod it left, and what pods send out of the cluster.
        (
            "nat_postrouting",
            "meta mark & 0x4000 == 0x4000 meta mark set meta mark & 0xffffbfff masquerade fully-random".to_owned(),
        ),
        ("nat_postrouting", format!("ct status dnat ip saddr . ip daddr @{HAIRPIN} masquerade fully-random")),
        ("nat_postrouting", format!("{outward} masquerade fully-random")),
        // NAT chains see the first packet of a connection only, so here the mark means nothing but "ours" to the accept
        // rules of `forward`, which cannot look at the connection's state themselves.
        ("mark_established", format!("ct state established {MARK_MASQUERADE}")),
        ("filter_input", "ct state new jump unserved".to_owned()),
        ("filter_forward", "ct state new jump unserved".to_owned()),
        ("filter_output", "ct state new jump unserved".to_owned()),
        ("refuse", "meta l4proto tcp reject with tcp reset".to_owned()),
        ("refuse", "reject".to_owned()),
    ];
    let mut on_node_ports = |chain, map: &str| {
        let matches = node_port_matches(config).into_iter();
        rules.extend(matches.map(|m| (chain, format!("{m} meta l4proto . th dport vmap @{map}"))));
    };
    on_node_ports("services", SERVICE_NODE_PORTS);
    on_node_ports("unserved", NO_ENDPOINT_NODE_PORTS);
    rules.push(("unserved", format!("ip daddr . meta l4proto . th dport vmap @{NO_ENDPOINT_IPS}")));
    rules.push(("unserved", format!("ip daddr @{CLUSTER_IPS} goto refuse")));
    rules.extend(["tcp", "udp", "sctp"].into_iter().flat_map(pick_rules));
    if config.overlay {
        // The mark of `mark_established` would go with the packet into the overlay, and the VXLAN packet around it would be
        // masqueraded: it does not arrive where checksums are left to the network card.
        rules.push(("unmark", "meta mark & 0x4000 == 0x4000 meta mark set meta mark & 0xffffbfff".to_owned()));
    }
    rules.extend(config.dns.iter().flat_map(|dns| dns_rules(dns, *cluster_cidr)));
    rules
}

/// The rules that lead a packet to the endpoint whose number it drew.
fn pick_rules(protocol: &str) -> [(&'static str, String); 2] {
    let to = format!("meta l4proto {protocol} dnat ip to");
    let port = "meta l4proto . th dport . meta priority";
    [
        ("pick", format!("{to} ip daddr . {port} map @{ENDPOINT_IPS}")),
        ("pick", format!("{to} {port} map @{ENDPOINT_NODE_PORTS}")),
    ]
}

/// The rules of the node's own DNS server: it answers pods and the node, nobody else, and nothing else answers at its
/// address. Questions are not tracked: thousands a second would fill the kernel's table.
fn dns_rules(dns: &dns::Config, cluster_cidr: Ipv4Net) -> Vec<(&'static str, String)> {
    let (ip, port) = (dns.address, dns::PORT);
    vec![
        ("raw_prerouting", format!("ip daddr {ip} udp dport {port} notrack")),
        ("raw_output", format!("ip daddr {ip} udp dport {port} notrack")),
        ("raw_output", format!("ip saddr {ip} udp sport {port} notrack")),
        ("filter_input", format!("ip daddr {ip} jump dns")),
        // The node asks from the same address, where the answers come back to.
        ("dns", format!("ip saddr {ip} accept")),
        ("dns", format!("ip saddr != {cluster_cidr} fib saddr type != local drop")),
        ("dns", format!("udp dport {port} accept")),
        ("dns", format!("tcp dport {port} accept")),
        ("dns", "ct state new,untracked goto refuse".to_owned()),
    ]
}

/// The addresses on which NodePorts answer: each of these matches some.
fn node_port_matches(config: &Config) -> Vec<String> {
    let mut text = "ip daddr != 127.0.0.0/8 fib daddr type local".to_owned();
    if let Some(dns) = &config.dns {
        let _ = write!(text, " ip daddr != {}", dns.address);
    }
    match Ipv4Net::aggregate(&config.node_port_addresses).as_slice() {
        [] => vec![text],
        networks => networks.iter().map(|network| format!("{text} ip daddr {network}")).collect(),
    }
}
