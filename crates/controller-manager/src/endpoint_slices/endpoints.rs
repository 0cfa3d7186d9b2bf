//! What a service's pods look like in its slices.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};

use crate::pod::PodInfo;
use crate::service_pods as backing;

/// What all endpoints of a slice have in common: address type and ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group {
    /// `IPv4` or `IPv6`.
    pub(super) address_type: String,
    /// The ports, in a fixed order.
    ports: Vec<Port>,
}

/// Name, protocol, number, application protocol.
type Port = (String, String, Option<i32>, Option<String>);

impl Group {
    /// The group an existing slice is of.
    pub(super) fn of(slice: &EndpointSlice) -> Group {
        let port = |p: &EndpointPort| {
            (
                p.name.clone().unwrap_or_default(),
                p.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                p.port,
                p.app_protocol.clone(),
            )
        };
        let mut ports: Vec<_> = slice.ports.iter().flatten().map(port).collect();
        ports.sort();
        Group { address_type: slice.address_type.clone(), ports }
    }

    /// The ports as a slice carries them.
    pub(super) fn ports(&self) -> Vec<EndpointPort> {
        let port = |(name, protocol, port, app_protocol): &Port| EndpointPort {
            name: Some(name.clone()),
            protocol: Some(protocol.clone()),
            port: *port,
            app_protocol: app_protocol.clone(),
        };
        self.ports.iter().map(port).collect()
    }

    fn in_pod(service: &Service, pod: &PodInfo, family: &str) -> Group {
        let ports = backing::ports(service).iter().filter_map(|port| {
            let number = backing::target_port(pod, port)?;
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
            Some((port.name.clone().unwrap_or_default(), protocol, Some(number), port.app_protocol.clone()))
        });
        let mut ports: Vec<_> = ports.collect();
        ports.sort();
        Group { address_type: family.to_owned(), ports }
    }
}

/// The endpoints a service should have, by group. Each of its address types has at least one group, so that a
/// service without pods has an empty slice and its readers know that this is on purpose.
pub(super) fn wanted(
    service: &Service,
    pods: &[Arc<PodInfo>],
    zone: impl Fn(&str) -> Option<String>,
) -> BTreeMap<Group, Vec<Endpoint>> {
    let mut groups: BTreeMap<Group, Vec<Endpoint>> = BTreeMap::new();
    for family in backing::families(service) {
        let backed = pods.iter().filter_map(|pod| Some((pod, endpoint(service, pod, family, &zone)?)));
        let before = groups.len();
        for (pod, endpoint) in backed {
            groups.entry(Group::in_pod(service, pod, family)).or_default().push(endpoint);
        }
        if groups.len() == before {
            groups.insert(Group { address_type: family.to_owned(), ports: Vec::new() }, Vec::new());
        }
    }
    groups
}

fn endpoint(service: &Service, pod: &PodInfo, family: &str, zone: impl Fn(&str) -> Option<String>) -> Option<Endpoint> {
    if pod.is_terminal() {
        return None;
    }
    let address = backing::address(pod, family)?;
    let (serving, terminating) = (pod.ready, pod.is_terminating());
    let node = pod.node.as_deref();
    let ready = backing::publishes_not_ready(service) || (serving && !terminating);
    let zone = node.and_then(zone);
    Some(Endpoint {
        addresses: vec![address.to_owned()],
        conditions: Some(EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        }),
        hostname: backing::hostname(pod, service),
        node_name: node.map(str::to_owned),
        target_ref: Some(backing::target_ref(pod)),
        hints: if ready { hints(service, node, zone.as_deref()) } else { None },
        zone,
        ..Endpoint::default()
    })
}

/// Whose traffic an endpoint is meant for: that of its own zone, or node (`trafficdist/trafficdist.go` upstream).
fn hints(service: &Service, node: Option<&str>, zone: Option<&str>) -> Option<EndpointHints> {
    let (by_zone, by_node) = match service.spec.as_ref()?.traffic_distribution.as_deref()? {
        "PreferClose" | "PreferSameZone" => (true, false),
        "PreferSameNode" => (true, true),
        _ => return None,
    };
    let for_zones = zone.filter(|_| by_zone).map(|zone| vec![ForZone { name: zone.to_owned() }]);
    let for_nodes = node.filter(|_| by_node).map(|node| vec![ForNode { name: node.to_owned() }]);
    (for_zones.is_some() || for_nodes.is_some()).then_some(EndpointHints { for_nodes, for_zones })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn endpoints_are_meant_for_those_that_are_near() {
        let hinted = |distribution: Value, node: Option<&str>, zone: Option<&str>| {
            let service = json!({"metadata": {"name": "web"}, "spec": {"trafficDistribution": distribution}});
            let service: Service = serde_json::from_value(service).unwrap();
            serde_json::to_value(hints(&service, node, zone)).unwrap()
        };
        let (node, zone) = (Some("a"), Some("z"));
        let by_zone = json!({"forZones": [{"name": "z"}]});
        assert_eq!(hinted(Value::Null, node, zone), Value::Null);
        assert_eq!(hinted(json!("PreferClose"), node, zone), by_zone);
        assert_eq!(hinted(json!("PreferSameZone"), node, zone), by_zone);
        assert_eq!(hinted(json!("PreferSameZone"), node, None), Value::Null);
        let by_both = json!({"forNodes": [{"name": "a"}], "forZones": [{"name": "z"}]});
        assert_eq!(hinted(json!("PreferSameNode"), node, zone), by_both);
        assert_eq!(hinted(json!("PreferSameNode"), node, None), json!({"forNodes": [{"name": "a"}]}));
        assert_eq!(hinted(json!("PreferSameNode"), None, None), Value::Null);
    }
}
