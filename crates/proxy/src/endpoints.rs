//! The part of EndpointSlices that rules are made of.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use api::well_known::LABEL_SERVICE_NAME;
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointSlice};

use crate::services::{Protocol, ServicePort, port_number};

/// Where one connection can go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The pod's address.
    pub ip: Ipv4Addr,
    /// The pod's port.
    pub port: u16,
}

/// How far an endpoint can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Condition {
    local: bool,
    ready: bool,
    /// Serving while terminating: used when nothing is ready.
    draining: bool,
}

/// What identifies the endpoints of one service port: namespace, service, port name, protocol.
type PortKey = (String, String, String, Protocol);

/// Every endpoint by the service port it serves.
#[derive(Debug, Default)]
pub struct Endpoints(BTreeMap<PortKey, BTreeMap<Target, Condition>>);

/// The targets of one service port, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets {
    /// In the whole cluster.
    pub all: Vec<Target>,
    /// On this node.
    pub local: Vec<Target>,
    /// On this node, in whatever condition: a hairpin can still come from there.
    pub here: Vec<Target>,
}

impl Endpoints {
    /// Collects the IPv4 endpoints of `slices` as seen from node `node_name`. A target in several slices counts once.
    pub fn collect<'a>(slices: impl IntoIterator<Item = &'a EndpointSlice>, node_name: &str) -> Endpoints {
        let mut endpoints = Endpoints::default();
        for slice in slices {
            endpoints.add(slice, node_name);
        }
        endpoints
    }

    /// The targets that serve `port`.
    pub fn targets(&self, port: &ServicePort) -> Targets {
        let key = (port.namespace.clone(), port.name.clone(), port.port_name.clone(), port.protocol);
        let Some(found) = self.0.get(&key) else { return Targets::default() };
        let local = || found.iter().filter(|(_, c)| c.local);
        Targets { all: usable(found.iter()), local: usable(local()), here: local().map(|(t, _)| *t).collect() }
    }

    fn add(&mut self, slice: &EndpointSlice, node_name: &str) {
        let service = slice.metadata.labels.as_ref().and_then(|l| l.get(LABEL_SERVICE_NAME));
        let (Some(service), Some(namespace), "IPv4") =
            (service, slice.metadata.namespace.as_ref(), slice.address_type.as_str())
        else {
            return;
        };
        for port in slice.ports.iter().flatten() {
            let number = port.port.and_then(port_number);
            let (Some(number), Some(protocol)) = (number, Protocol::parse(port.protocol.as_deref())) else { continue };
            let key = (namespace.clone(), service.clone(), port.name.clone().unwrap_or_default(), protocol);
            let found = self.0.entry(key).or_default();
            for endpoint in &slice.endpoints {
                // "Consumers must use the first address": the others mean nothing.
                let Some(ip) = endpoint.addresses.first().and_then(|a| a.parse().ok()) else { continue };
                let condition = condition(endpoint, node_name);
                let known = found.entry(Target { ip, port: number }).or_insert(condition);
                // While an endpoint moves between slices it is in both for a moment; the better word counts.
                if condition.ready {
                    *known = condition;
                }
            }
        }
    }
}

/// The ready ones; where there are none, those that still serve while terminating (KEP-1669).
fn usable<'a>(found: impl Iterator<Item = (&'a Target, &'a Condition)> + Clone) -> Vec<Target> {
    let ready: Vec<Target> = found.clone().filter(|(_, c)| c.ready).map(|(t, _)| *t).collect();
    if ready.is_empty() { found.filter(|(_, c)| c.draining).map(|(t, _)| *t).collect() } else { ready }
}

/// Absent conditions mean ready, serving as ready, not terminating.
fn condition(endpoint: &SliceEndpoint, node_name: &str) -> Condition {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let serving = conditions.and_then(|c| c.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|c| c.terminating).unwrap_or(false);
    Condition { local: endpoint.node_name.as_deref() == Some(node_name), ready, draining: serving && terminating }
}
