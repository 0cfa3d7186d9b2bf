//! What services need, each for itself: put together, and compared.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use crate::Config;
use crate::ruleset::{ENDPOINT_IPS, FIREWALL_IPS, NO_ENDPOINT_IPS, SERVICE_IPS};

/// Elements of a map (key → verdict) or a set (key → nothing), as nft writes them.
pub type Elements = BTreeMap<String, Option<String>>;
/// Namespace and name.
pub type ServiceKey = (String, String);

/// All that is particular to the present services; [`crate::render`] adds what is always there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSet {
    /// What the constant part of the table depends on.
    pub config: Config,
    /// What each service needs.
    pub services: BTreeMap<ServiceKey, Arc<Part>>,
}

/// What one service needs, or several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Chain → its rules.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Affinity set → timeout in seconds.
    pub affinity: BTreeMap<String, u32>,
    /// Map or set → its elements.
    pub elements: BTreeMap<&'static str, Elements>,
    /// Where UDP flows enter → where they are led; see [`crate::conntrack`].
    pub udp: BTreeMap<Frontend, BTreeSet<Ipv4Addr>>,
    /// Address keys of cluster IPs, which no other service has.
    pub cluster: BTreeSet<String>,
    /// Address keys of external addresses, which others may want as well.
    pub external: BTreeSet<String>,
    /// The port on which load balancers ask whether to send traffic here, and what they are told.
    pub health: BTreeMap<u16, Health>,
}

/// What a load balancer is told about a service on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Namespace and name.
    pub service: ServiceKey,
    /// Addresses here that take its traffic.
    pub local_endpoints: usize,
}

/// Where a flow enters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frontend {
    /// A cluster IP or an external one.
    Address(Ipv4Addr, u16),
    /// A port of the node.
    NodePort(u16),
}

impl RuleSet {
    /// The rules where there is no service.
    pub fn empty(config: &Config) -> RuleSet {
        RuleSet { config: config.clone(), services: BTreeMap::new() }
    }

    /// All that the services need, together.
    pub fn whole(&self) -> Part {
        Part::merge(self.services.values())
    }

    /// The services of two rule sets, side by side.
    pub fn compare<'a>(&'a self, other: &'a RuleSet) -> Comparison<'a> {
        let mut found = Comparison::default();
        let (mut ours, mut theirs) = (self.services.iter().peekable(), other.services.iter().peekable());
        loop {
            let order = match (ours.peek(), theirs.peek()) {
                (None, None) => return found,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((a, _)), Some((b, _))) => a.cmp(b),
            };
            let mine = if order.is_le() { ours.next().map(|(_, part)| part) } else { None };
            let other = if order.is_ge() { theirs.next().map(|(_, part)| part) } else { None };
            // Equal ones are mostly the same one, which compares at once.
            if mine == other {
                found.same.extend(other);
            } else {
                found.before.extend(mine);
                found.after.extend(other);
            }
        }
    }
}

/// What is the same in two rule sets, and what is not.
#[derive(Debug, Default)]
pub struct Comparison<'a> {
    /// Only in the first.
    pub before: Vec<&'a Arc<Part>>,
    /// Only in the second.
    pub after: Vec<&'a Arc<Part>>,
    /// In both.
    pub same: Vec<&'a Arc<Part>>,
}

impl Part {
    /// Several parts as one. An external address that two services want belongs to the first, and a cluster IP to its service.
    pub fn merge<'a>(parts: impl IntoIterator<Item = &'a Arc<Part>, IntoIter: Clone>) -> Part {
        let parts = parts.into_iter();
        let mut whole = Part::default();
        whole.cluster.extend(parts.clone().flat_map(|part| part.cluster.iter().cloned()));
        for part in parts {
            let taken = |key: &String| whole.external.contains(key) || whole.cluster.contains(key);
            let lost: Vec<String> = part.external.iter().filter(|key| taken(key)).cloned().collect();
            let is_lost = |set: &str, key: &str| {
                let is_it =
                    |l: &String| key.strip_prefix(l).is_some_and(|rest| rest.is_empty() || rest.starts_with(" . "));
                is_by_address(set) && lost.iter().any(is_it)
            };
            for (set, elements) in &part.elements {
                let kept = elements.iter().filter(|(key, _)| !is_lost(set, key));
                let all: &mut Elements = whole.elements.entry(set).or_default();
                all.extend(kept.map(|(key, value)| (key.clone(), value.clone())));
            }
            whole.chains.extend(part.chains.iter().map(|(chain, rules)| (chain.clone(), rules.clone())));
            whole.affinity.extend(part.affinity.iter().map(|(set, seconds)| (set.clone(), *seconds)));
            whole.udp.extend(part.udp.iter().map(|(frontend, ips)| (*frontend, ips.clone())));
            whole.external.extend(part.external.iter().cloned());
            whole.health.extend(part.health.iter().map(|(port, health)| (*port, health.clone())));
        }
        whole
    }
}

/// Whether a set's elements begin with an address that several services may want.
fn is_by_address(set: &str) -> bool {
    [SERVICE_IPS, ENDPOINT_IPS, NO_ENDPOINT_IPS, FIREWALL_IPS].contains(&set)
}
