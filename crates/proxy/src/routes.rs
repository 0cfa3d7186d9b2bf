//! Routes: to the pods of other nodes by their node's address (one L2 segment) or through the overlay, and to the service
//! range on a box that has no default route. OUTPUT's DNAT happens after the first routing decision, so without any route a host-made
//! connection to a service would fail before a rule saw it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use serde_json::Value;

use crate::Config;
use crate::overlay::{self, Overlay};

/// The kernel remembers who made a route; this number is ours (see `/etc/iproute2/rt_protos` for those taken).
pub const PROTOCOL: &str = "119";
/// The same in netlink messages.
pub(crate) const PROTOCOL_NUMBER: u8 = 119;

/// All that leads to the pods of other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// The kernel's table.
    pub routes: BTreeSet<Route>,
    /// What carries packets between nodes that have no segment in common; `None` while this node has no podCIDR, or where
    /// no overlay is wanted.
    pub overlay: Option<Overlay>,
}

/// A route of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where to.
    pub destination: Ipv4Net,
    /// Which way.
    pub via: Via,
}

/// The way a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// Another node.
    Gateway(Ipv4Addr),
    /// Another node's end of the overlay.
    Overlay(Ipv4Addr),
    /// Nowhere yet: DNAT will say. Packets leave with this source address until then.
    Loopback(Ipv4Addr),
}

/// What must be done to the kernel's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteAction {
    /// Add the route or put it in the place of another to the same destination.
    Replace(Route),
    /// Delete the route.
    Delete(Route),
}

/// What this node needs to reach the pods of `nodes`. What lies outside the cluster CIDR is not believed.
pub fn paths<'a>(nodes: impl IntoIterator<Item = &'a Node>, config: &Config) -> Paths {
    // A network has one way, whoever else claims it: that of the lowest address.
    let mut ways: BTreeMap<Ipv4Net, Ipv4Addr> = BTreeMap::new();
    let mut own = None;
    for node in nodes {
        let spec = node.spec.as_ref();
        let cidrs = spec.into_iter().flat_map(|s| s.pod_cidrs.iter().flatten().chain(s.pod_cidr.iter()));
        let believable = |c: &Ipv4Net| config.cluster_cidr.contains(c) && *c != config.cluster_cidr;
        let mut cidrs = cidrs.filter_map(|c| c.parse::<Ipv4Net>().ok()).filter(believable).map(|c| c.trunc());
        if node.metadata.name.as_deref() == Some(&config.node_name) {
            own = cidrs.next();
            continue;
        }
        let address = api::nodes::internal_ip(node).and_then(|ip| ip.parse::<Ipv4Addr>().ok());
        let Some(address) = address.filter(|ip| *ip != config.node_ip) else { continue };
        for destination in cidrs {
            ways.entry(destination).and_modify(|way| *way = address.min(*way)).or_insert(address);
        }
    }
    if let Some(own) = own {
        ways.remove(&own);
    }
    match (config.overlay, own) {
        (false, _) => {
            let route = |(destination, node)| Route { destination, via: Via::Gateway(node) };
            Paths { routes: ways.into_iter().map(route).collect(), overlay: None }
        }
        (true, None) => Paths::default(),
        (true, Some(own)) => {
            let route =
                |destination: &Ipv4Net| Route { destination: *destination, via: Via::Overlay(destination.addr()) };
            let routes = ways.keys().map(route).collect();
            let peers = ways.into_iter().map(|(cidr, node)| overlay::Peer { end: cidr.addr(), node }).collect();
            Paths { routes, overlay: Some(Overlay { end: own.addr(), peers }) }
        }
    }
}

/// The route to the service range, where `matching` (`ip -j route show match ADDRESS`) has none but our own.
pub fn service_route(matching: &Value, config: &Config) -> Option<Route> {
    let mut others = matching.as_array().into_iter().flatten().filter(|r| r["protocol"] != PROTOCOL);
    let route = Route { destination: config.service_cidr.trunc(), via: Via::Loopback(config.node_ip) };
    others.next().is_none().then_some(route)
}

/// The steps from `present` to `wanted`. Planned again on the result: none.
pub fn plan(present: &BTreeSet<Route>, wanted: &BTreeSet<Route>) -> Vec<RouteAction> {
    let taken: BTreeSet<Ipv4Net> = wanted.iter().map(|r| r.destination).collect();
    let gone = present.iter().filter(|r| !taken.contains(&r.destination)).map(|r| RouteAction::Delete(*r));
    let new = wanted.difference(present).map(|r| RouteAction::Replace(*r));
    gone.chain(new).collect()
}

/// Reads our routes out of `ip -j -4 route show proto 119`.
pub fn parse(json: &Value) -> BTreeSet<Route> {
    let address = |route: &Value, key: &str| route[key].as_str().and_then(|ip| ip.parse::<Ipv4Addr>().ok());
    let parsed = json.as_array().into_iter().flatten().filter_map(|route| {
        let text = route["dst"].as_str()?;
        // A host route is printed without its length.
        let destination = text.parse::<Ipv4Net>().ok().or_else(|| Ipv4Net::new(text.parse().ok()?, 32).ok())?;
        let via = match address(route, "gateway") {
            Some(end) if route["dev"] == overlay::DEVICE => Via::Overlay(end),
            Some(gateway) => Via::Gateway(gateway),
            None => Via::Loopback(address(route, "prefsrc").unwrap_or(Ipv4Addr::UNSPECIFIED)),
        };
        Some(Route { destination, via })
    });
    parsed.collect()
}

impl RouteAction {
    /// The line of `ip -batch` that does it.
    pub fn line(&self) -> String {
        let (verb, route) = match self {
            RouteAction::Replace(route) => ("replace", route),
            RouteAction::Delete(route) => ("del", route),
        };
        let way = match route.via {
            Via::Gateway(gateway) => format!("via {gateway}"),
            // Its end has an address of no network that is here.
            Via::Overlay(end) => format!("via {end} dev {} onlink", overlay::DEVICE),
            Via::Loopback(source) if verb == "replace" => format!("dev lo src {source}"),
            Via::Loopback(_) => "dev lo".to_owned(),
        };
        format!("route {verb} {} {way} proto {PROTOCOL}\n", route.destination)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn node(name: &str, ip: &str, cidr: &str) -> Node {
        let object = json!({
            "metadata": {"name": name},
            "spec": {"podCIDR": cidr, "podCIDRs": [cidr]},
            "status": {"addresses": [{"type": "InternalIP", "address": ip}]},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn only_other_nodes_in_the_cluster_cidr_get_a_route() {
        let config = Config::new("a", "192.0.2.1".parse().unwrap());
        let table = [
            ("another node", node("b", "192.0.2.2", "10.244.1.0/24"), Some("10.244.1.0/24")),
            ("ourselves", node("a", "192.0.2.1", "10.244.0.0/24"), None),
            ("our address under another name", node("b", "192.0.2.1", "10.244.1.0/24"), None),
            ("no address", node("b", "", "10.244.1.0/24"), None),
            ("no range yet", node("b", "192.0.2.2", ""), None),
            ("the whole world", node("b", "192.0.2.2", "0.0.0.0/0"), None),
            ("the whole cluster", node("b", "192.0.2.2", "10.244.0.0/16"), None),
        ];
        for (sentence, node, expected) in table {
            let found = paths([&node], &config).routes;
            let found: Vec<String> = found.iter().map(|r| r.destination.to_string()).collect();
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{sentence}");
        }
    }

    #[test]
    fn a_network_that_two_claim_has_one_way_and_our_own_none() {
        let config = Config::new("a", "192.0.2.1".parse().unwrap());
        let nodes = [
            node("c", "192.0.2.3", "10.244.1.0/24"),
            node("b", "192.0.2.2", "10.244.1.0/24"),
            node("thief", "192.0.2.4", "10.244.0.0/24"),
            node("a", "192.0.2.1", "10.244.0.0/24"),
        ];
        let route =
            Route { destination: "10.244.1.0/24".parse().unwrap(), via: Via::Gateway("192.0.2.2".parse().unwrap()) };
        assert_eq!(paths(&nodes, &config).routes, BTreeSet::from([route]));
    }

    #[test]
    fn through_the_overlay_packets_go_to_the_ends_of_the_nodes() {
        let config = Config { overlay: true, ..Config::new("a", "192.0.2.1".parse().unwrap()) };
        let other = node("b", "198.51.100.2", "10.244.1.0/24");
        assert_eq!(paths([&other], &config), Paths::default(), "nothing before we have a podCIDR ourselves");
        let found = paths([&other, &node("a", "192.0.2.1", "10.244.0.0/24")], &config);
        let end: Ipv4Addr = "10.244.1.0".parse().unwrap();
        let route = Route { destination: "10.244.1.0/24".parse().unwrap(), via: Via::Overlay(end) };
        assert_eq!(found.routes, BTreeSet::from([route]));
        let peers = BTreeSet::from([overlay::Peer { end, node: "198.51.100.2".parse().unwrap() }]);
        assert_eq!(found.overlay, Some(Overlay { end: "10.244.0.0".parse().unwrap(), peers }));
        let line = RouteAction::Replace(route).line();
        assert_eq!(line, "route replace 10.244.1.0/24 via 10.244.1.0 dev coracle-vxlan onlink proto 119\n");
        let told =
            json!([{"dst": "10.244.1.0/24", "gateway": "10.244.1.0", "dev": "coracle-vxlan", "flags": ["onlink"]}]);
        assert_eq!(parse(&told), BTreeSet::from([route]));
    }

    #[test]
    fn the_service_range_needs_a_route_only_where_none_matches() {
        let config = Config::new("a", "192.0.2.1".parse().unwrap());
        assert!(service_route(&json!([]), &config).is_some());
        assert!(service_route(&json!([{"dst": "10.96.0.0/12", "protocol": "119"}]), &config).is_some());
        assert!(service_route(&json!([{"dst": "default", "gateway": "192.0.2.254"}]), &config).is_none());
    }

    fn any_routes() -> impl Strategy<Value = BTreeSet<Route>> {
        // One route for each destination, as in the kernel.
        proptest::collection::btree_map(0u8..8, 1u8..4, 0..8).prop_map(|map| {
            let route = |(net, gateway): (u8, u8)| Route {
                destination: Ipv4Net::new(Ipv4Addr::new(10, 244, net, 0), 24).unwrap(),
                via: Via::Gateway(Ipv4Addr::new(192, 0, 2, gateway)),
            };
            map.into_iter().map(route).collect()
        })
    }

    proptest! {
        #[test]
        fn applying_the_plan_leaves_nothing_to_plan(present in any_routes(), wanted in any_routes()) {
            let mut kernel = present.clone();
            for action in plan(&present, &wanted) {
                match action {
                    RouteAction::Delete(route) => { kernel.remove(&route); }
                    RouteAction::Replace(route) => {
                        kernel.retain(|r| r.destination != route.destination);
                        kernel.insert(route);
                    }
                }
            }
            prop_assert_eq!(&kernel, &wanted);
            prop_assert!(plan(&kernel, &wanted).is_empty());
        }
    }
}
