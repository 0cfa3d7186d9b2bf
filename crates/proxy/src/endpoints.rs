//! The part of EndpointSlices that rules are made of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use api::well_known::LABEL_SERVICE_NAME;
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};

use crate::Config;
use crate::services::{Protocol, ServicePort, port_number};

/// Where one connection can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The pod's port.
    pub port: u16,
}

/// How far an endpoint can be used, and for whom it is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    local: bool,
    ready: bool,
    /// Serving while terminating: used when nothing is ready.
    draining: bool,
    /// Whether it is meant for this node; `None`: it does not say.
    for_node: Option<bool>,
    /// Whether it is meant for this node's zone; `None`: it does not say.
    for_zone: Option<bool>,
}

/// What identifies the endpoints of one port of a service: port name, protocol.
type PortKey = (String, Protocol);

/// The endpoints of one service by the port they serve.
#[derive(Debug, Default)]
pub struct Endpoints(BTreeMap<PortKey, BTreeMap<Target, Condition>>);

/// The targets of one service port, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// In the whole cluster, or those of it that are meant for this node.
    pub all: Vec<Target>,
    /// Whether there are any at all.
    pub anywhere: bool,
    /// On this node.
    pub local: Vec<Target>,
    /// On this node, in whatever condition: a hairpin can still come from there.
    pub here: Vec<Target>,
}

impl Endpoints {
    /// Collects the IPv4 endpoints of a service's `slices` as seen from the node that `config` describes. A target in
    /// several slices counts once.
    pub fn collect<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>, config: &Config) -> Endpoints {
        let mut endpoints = Endpoints::default();
        for slice in slices {
            endpoints.add(slice, config);
        }
        endpoints
    }

    /// The addresses on this node that are ready, whichever ports they serve. Those that only drain are not: a node that
    /// has no others shall get no new traffic (`getLocalReadyEndpointIPs`).
    pub fn local_addresses(&self) -> BTreeSet<Ipv4Addr> {
        let ready = self.0.values().flatten().filter(|(_, c)| c.local && c.ready);
        ready.map(|(target, _)| target.ip).collect()
    }

    /// The targets that serve `port`.
    pub fn targets(&self, port: &ServicePort) -> Targets {
        let key = (port.port_name.clone(), port.protocol);
        let Some(found) = self.0.get(&key) else { return Targets::default() };
        let local = || found.iter().filter(|(_, c)| c.local);
        let all = usable(found.iter().filter(near(found.values())));
        Targets { anywhere: !all.is_empty(), all, local: usable(local()), here: local().map(|(t, _)| *t).collect() }
    }

    fn add(&mut self, slice: &EndpointSlice, config: &Config) {
        if slice.address_type != "IPv4" {
            return;
        }
        for port in slice.ports.iter().flatten() {
            let number = port.port.and_then(port_number);
            let (Some(number), Some(protocol)) = (number, Protocol::parse(port.protocol.as_deref())) else { continue };
            let key = (port.name.clone().unwrap_or_default(), protocol);
            let found = self.0.entry(key).or_default();
            for endpoint in &slice.endpoints {
                // "Consumers must use the first address": the others mean nothing.
                let Some(ip) = endpoint.addresses.first().and_then(|a| a.parse().ok()) else { continue };
                let condition = condition(endpoint, config);
                let known = found.entry(Target { ip, port: number }).or_insert(condition);
                // While an endpoint moves between slices it is in both for a moment; the better word counts.
                if condition.ready {
                    *known = condition;
                }
            }
        }
    }
}

/// Namespace and name of the service a slice belongs to.
pub fn owner(slice: &EndpointSlice) -> Option<(&str, &str)> {
    let name = slice.metadata.labels.as_ref()?.get(LABEL_SERVICE_NAME)?;
    Some((slice.metadata.namespace.as_deref()?, name))
}

/// Which endpoints are meant for this node: if every ready one says for which nodes it is, and one is for ours, those; else
/// the same with zones; else all of them (`topologyModeFromHints` in `pkg/proxy/topology.go`).
fn near<'a>(all: impl Iterator<Item = &'a Condition>) -> impl Fn(&(&Target, &Condition)) -> bool {
    let ready: Vec<Condition> = all.filter(|c| c.ready).copied().collect();
    let decides = |hint: fn(&Condition) -> Option<bool>| {
        ready.iter().all(|c| hint(c).is_some()) && ready.iter().any(|c| hint(c) == Some(true))
    };
    let (by_node, by_zone) = (decides(|c| c.for_node), decides(|c| c.for_zone));
    move |(_, condition)| match (by_node, by_zone) {
        (true, _) => condition.for_node == Some(true),
        (false, true) => condition.for_zone == Some(true),
        (false, false) => true,
    }
}

/// The ready ones; where there are none, those that still serve while terminating (KEP-1669).
fn usable<'a>(found: impl Iterator<Item = (&'a Target, &'a Condition)>) -> Vec<Target> {
    let found: Vec<_> = found.collect();
    let which = |wanted: fn(&Condition) -> bool| found.iter().filter(|(_, c)| wanted(c)).map(|(t, _)| **t).collect();
    let ready: Vec<Target> = which(|c| c.ready);
    if ready.is_empty() { which(|c| c.draining) } else { ready }
}

/// Absent conditions mean ready, serving as ready, not terminating.
fn condition(endpoint: &SliceEndpoint, config: &Config) -> Condition {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    let hints = endpoint.hints.as_ref();
    let nodes = hints.and_then(|h| h.for_nodes.as_ref()).filter(|n| !n.is_empty());
    let zones = hints.and_then(|h| h.for_zones.as_ref()).filter(|z| !z.is_empty());
    Condition {
        local: endpoint.node_name.as_deref() == Some(&config.node_name),
        ready,
        draining: serving && terminating,
        for_node: nodes.map(|nodes| nodes.iter().any(|n| n.name == config.node_name)),
        for_zone: zones.map(|zones| zones.iter().any(|z| Some(&z.name) == config.zone.as_ref())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// The last bytes of the addresses that node `here` in zone `a` uses.
    fn used(endpoints: &Value) -> Vec<u8> {
        let slice = json!({
            "metadata": {"namespace": "default", "name": "web-1", "labels": {LABEL_SERVICE_NAME: "web"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": 80, "protocol": "TCP"}], "endpoints": endpoints,
        });
        let slice: EndpointSlice = serde_json::from_value(slice).unwrap();
        let service = json!({"metadata": {"namespace": "default", "name": "web"},
                             "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}});
        let ports = crate::services::service_ports(&serde_json::from_value(service).unwrap());
        let config = Config { zone: Some("a".to_owned()), ..Config::new("here", Ipv4Addr::LOCALHOST) };
        let targets = Endpoints::collect([&slice], &config).targets(&ports[0]);
        targets.all.iter().map(|t| t.ip.octets()[3]).collect()
    }

    #[test]
    fn hints_decide_where_all_have_them_and_one_is_for_us() {
        let end = |ip: u8, nodes: &[&str], zones: &[&str], ready: bool| {
            let names = |all: &[&str]| all.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
            json!({"addresses": [format!("10.244.0.{ip}")], "conditions": {"ready": ready},
                   "hints": {"forNodes": names(nodes), "forZones": names(zones)}})
        };
        let table = [
            ("no hints", vec![end(1, &[], &[], true), end(2, &[], &[], true)], vec![1, 2]),
            ("our zone", vec![end(1, &[], &["a"], true), end(2, &[], &["b"], true)], vec![1]),
            ("both zones", vec![end(1, &[], &["a", "b"], true), end(2, &[], &["b"], true)], vec![1]),
            ("no zone of ours", vec![end(1, &[], &["c"], true), end(2, &[], &["b"], true)], vec![1, 2]),
            ("one without a hint", vec![end(1, &[], &["a"], true), end(2, &[], &[], true)], vec![1, 2]),
            ("that one is not ready", vec![end(1, &[], &["a"], true), end(2, &[], &[], false)], vec![1]),
            ("our node", vec![end(1, &["here"], &["a"], true), end(2, &["there"], &["a"], true)], vec![1]),
            ("another's node, our zone", vec![end(1, &["x"], &["a"], true), end(2, &["y"], &["b"], true)], vec![1]),
        ];
        for (sentence, endpoints, expected) in table {
            assert_eq!(used(&json!(endpoints)), expected, "{sentence}");
        }
    }
}
