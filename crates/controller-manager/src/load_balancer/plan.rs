//! Which services get which addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use api::well_known::LABEL_SERVICE_NAME;
use k8s_openapi::api::core::v1::{LoadBalancerIngress, LoadBalancerStatus, Node, PortStatus, Service, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::context::Key;

/// Nodes with this label are no balancers.
const LABEL_EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A node that takes part, and its address.
pub(super) type Balancer = (String, Ipv4Addr);

/// What the plan is made from beside the services.
pub(super) struct View<'a> {
    pub(super) nodes: BTreeSet<Balancer>,
    pub(super) slices: &'a [Arc<EndpointSlice>],
    pub(super) reserved: BTreeSet<i32>,
    /// Ports of the nodes that lead to services already.
    pub(super) node_ports: RangeInclusive<u16>,
}

/// What is to be done about one service.
#[derive(Debug, PartialEq)]
pub(super) struct Plan<'a> {
    pub(super) key: Key,
    pub(super) service: &'a Service,
    /// What its status must become, if it is not that.
    pub(super) status: Option<LoadBalancerStatus>,
    /// Why it gets no address.
    pub(super) refusal: Option<String>,
}

/// What must happen so that every balanced service has the nodes' addresses, none of them two services at one port. Who was
/// there first keeps it.
pub(super) fn plan<'a>(services: &'a [Arc<Service>], view: &View<'_>) -> Vec<Plan<'a>> {
    let mut ordered: Vec<&Arc<Service>> = services.iter().filter(|service| concerns(service)).collect();
    ordered.sort_by_key(|s| (s.metadata.creation_timestamp.clone().map(|Time(at)| at), Key::of(&s.metadata)));
    let mut taken: BTreeMap<(i32, String), Key> = BTreeMap::new();
    let mut plans = Vec::new();
    for service in ordered {
        let key = Key::of(&service.metadata);
        let refusal = if is_balanced(service) { claim(service, &key, &mut taken, view) } else { None };
        let ingress = match is_balanced(service) && refusal.is_none() {
            true => ingress(service, view),
            false => Vec::new(),
        };
        let wanted = LoadBalancerStatus { ingress: Some(ingress).filter(|i| !i.is_empty()) };
        let present = service.status.as_ref().and_then(|s| s.load_balancer.clone()).unwrap_or_default();
        let status = (normal(&present) != normal(&wanted)).then_some(wanted);
        plans.push(Plan { key, service, status, refusal });
    }
    plans
}

/// Takes the service's ports, or says why that cannot be.
fn claim(service: &Service, key: &Key, taken: &mut BTreeMap<(i32, String), Key>, view: &View<'_>) -> Option<String> {
    if let Some(ip) = asked_for(service)
        && !view.nodes.iter().any(|(_, node)| node.to_string() == ip)
    {
        return Some(format!("no node has the address {ip}"));
    }
    let ports: Vec<(i32, String)> = ports(service).map(|(port, protocol)| (port, protocol.to_owned())).collect();
    for (port, protocol) in &ports {
        let leads_elsewhere = u16::try_from(*port).is_ok_and(|port| view.node_ports.contains(&port));
        if view.reserved.contains(port) || leads_elsewhere {
            return Some(format!("port {port}/{protocol} of the nodes is reserved"));
        }
        if let Some(other) = taken.get(&(*port, protocol.clone())) {
            return Some(format!(
                "port {port}/{protocol} of the nodes belongs to service {}/{}",
                other.namespace, other.name
            ));
        }
    }
    taken.extend(ports.into_iter().map(|port| (port, key.clone())));
    None
}

/// The addresses of the nodes, or of those that have an endpoint where traffic stays on the node.
fn ingress(service: &Service, view: &View<'_>) -> Vec<LoadBalancerIngress> {
    let with_endpoint = is_local(service).then(|| nodes_with_endpoint(service, view.slices));
    let asked: Option<Ipv4Addr> = asked_for(service).and_then(|ip| ip.parse().ok());
    let chosen = view.nodes.iter().filter(|(node, ip)| {
        with_endpoint.as_ref().is_none_or(|nodes| nodes.contains(node)) && asked.is_none_or(|asked| asked == *ip)
    });
    let ips: BTreeSet<Ipv4Addr> = chosen.map(|(_, ip)| *ip).collect();
    let entry = |ip: Ipv4Addr| LoadBalancerIngress {
        ip: Some(ip.to_string()),
        ip_mode: Some("VIP".to_owned()),
        ..LoadBalancerIngress::default()
    };
    ips.into_iter().map(entry).collect()
}

/// The address a service wants and no other.
fn asked_for(service: &Service) -> Option<&str> {
    spec(service).and_then(|s| s.load_balancer_ip.as_deref()).filter(|ip| !ip.is_empty())
}

fn nodes_with_endpoint(service: &Service, slices: &[Arc<EndpointSlice>]) -> BTreeSet<String> {
    let of_service = slices.iter().filter(|slice| {
        let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_SERVICE_NAME));
        name == service.metadata.name.as_ref() && slice.metadata.namespace == service.metadata.namespace
    });
    let endpoints = of_service.flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|e| e.conditions.as_ref().and_then(|c| c.ready).unwrap_or(true));
    ready.filter_map(|endpoint| endpoint.node_name.clone()).collect()
}

/// The node as a balancer: ready, not excluded, not leaving, with an address; the external one where it has one.
pub(super) fn balancer(node: &Node) -> Option<Balancer> {
    let excluded = node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(LABEL_EXCLUDE));
    if excluded || node.metadata.deletion_timestamp.is_some() || !api::nodes::is_ready(node) {
        return None;
    }
    let addresses = || node.status.iter().flat_map(|s| s.addresses.iter().flatten());
    let of_type = |kind: &str| addresses().filter(|a| a.type_ == kind).find_map(|a| a.address.parse().ok());
    Some((node.metadata.name.clone()?, of_type("ExternalIP").or_else(|| of_type("InternalIP"))?))
}

/// Whether the service is or was a matter of this controller.
pub(super) fn concerns(service: &Service) -> bool {
    let has_ingress =
        service.status.as_ref().and_then(|s| s.load_balancer.as_ref()).is_some_and(|b| b.ingress.is_some());
    let classless = spec(service).is_some_and(|spec| spec.load_balancer_class.is_none());
    is_balanced(service) || (has_ingress && classless)
}

pub(super) fn is_balanced(service: &Service) -> bool {
    let ours = |s: &ServiceSpec| s.type_.as_deref() == Some("LoadBalancer") && s.load_balancer_class.is_none();
    service.metadata.deletion_timestamp.is_none() && spec(service).is_some_and(ours)
}

pub(super) fn is_local(service: &Service) -> bool {
    spec(service).is_some_and(|spec| spec.external_traffic_policy.as_deref() == Some("Local"))
}

fn ports(service: &Service) -> impl Iterator<Item = (i32, &str)> {
    let ports = spec(service).into_iter().flat_map(|spec| spec.ports.iter().flatten());
    ports.map(|port| (port.port, port.protocol.as_deref().unwrap_or("TCP")))
}

fn spec(service: &Service) -> Option<&ServiceSpec> {
    service.spec.as_ref()
}

/// Address, name, mode and ports of an ingress.
type Ingress<'a> = (Option<&'a str>, Option<&'a str>, &'a str, &'a [PortStatus]);

/// What of a status can differ: the server fills in what is left out.
fn normal(status: &LoadBalancerStatus) -> Vec<Ingress<'_>> {
    let entries = status.ingress.iter().flatten();
    entries
        .map(|i| {
            let mode = i.ip_mode.as_deref().unwrap_or("VIP");
            (i.ip.as_deref(), i.hostname.as_deref(), mode, i.ports.as_deref().unwrap_or(&[]))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(name: &str, age: u32, spec: Value, ingress: &[&str]) -> Arc<Service> {
        let mut whole = json!({"type": "LoadBalancer", "ports": [{"port": 80, "protocol": "TCP"}]});
        whole.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let ingress: Vec<Value> = ingress.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
        let object = json!({
            "metadata": {"namespace": "shop", "name": name, "creationTimestamp": format!("2026-01-{age:02}T00:00:00Z")},
            "spec": whole,
            "status": if ingress.is_empty() { json!({}) } else { json!({"loadBalancer": {"ingress": ingress}}) },
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    fn slice(service: &str, nodes: &[(&str, bool)]) -> Arc<EndpointSlice> {
        let endpoint = |(node, ready): &(&str, bool)| json!({"addresses": ["10.244.0.1"], "nodeName": node, "conditions": {"ready": ready}});
        let object = json!({
            "metadata": {"namespace": "shop", "name": service, "labels": {LABEL_SERVICE_NAME: service}},
            "addressType": "IPv4", "endpoints": nodes.iter().map(endpoint).collect::<Vec<_>>(),
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    /// What becomes of each service: its addresses, or why it has none; nothing where all is well.
    fn outcome_of(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Vec<String> {
        let ip = |text: &str| text.parse().unwrap();
        let nodes = BTreeSet::from([("a".to_owned(), ip("192.0.2.1")), ("b".to_owned(), ip("192.0.2.2"))]);
        let view = View { nodes, slices, reserved: BTreeSet::from([22, 6443]), node_ports: 20_000..=20_100 };
        let plans = plan(services, &view);
        let said = plans.iter().map(|plan| match (&plan.refusal, &plan.status) {
            (Some(refusal), _) => refusal.clone(),
            (None, None) => "as it is".to_owned(),
            (None, Some(status)) => {
                status.ingress.iter().flatten().filter_map(|i| i.ip.clone()).collect::<Vec<_>>().join(" ")
            }
        });
        said.collect()
    }

    #[test]
    fn nodes_are_the_balancer() {
        let both = "192.0.2.1 192.0.2.2";
        let port = |port: u32, protocol: &str| json!({"ports": [{"port": port, "protocol": protocol}]});
        let none = json!({});
        type Case<'a> = (&'a str, Vec<Arc<Service>>, Vec<&'a str>);
        let cases: Vec<Case<'_>> = vec![
            ("a new one", vec![service("web", 1, none.clone(), &[])], vec![both]),
            ("as it is", vec![service("web", 1, none.clone(), &["192.0.2.1", "192.0.2.2"])], vec!["as it is"]),
            ("a node came", vec![service("web", 1, none.clone(), &["192.0.2.1"])], vec![both]),
            ("another's class", vec![service("web", 1, json!({"loadBalancerClass": "x/y"}), &["9.9.9.9"])], vec![]),
            ("no longer one", vec![service("web", 1, json!({"type": "ClusterIP"}), &["192.0.2.1"])], vec![""]),
            ("one address", vec![service("web", 1, json!({"loadBalancerIP": "192.0.2.2"}), &[])], vec!["192.0.2.2"]),
            (
                "the same port twice",
                vec![service("young", 2, none.clone(), &[]), service("old", 1, none.clone(), &[])],
                vec![both, "port 80/TCP of the nodes belongs to service shop/old"],
            ),
            (
                "the same number, another protocol",
                vec![service("a", 1, none.clone(), &[]), service("b", 2, port(80, "UDP"), &[])],
                vec![both, both],
            ),
            ("SSH", vec![service("a", 1, port(22, "TCP"), &[])], vec!["port 22/TCP of the nodes is reserved"]),
            (
                "a node port",
                vec![service("a", 1, port(20_100, "TCP"), &[])],
                vec!["port 20100/TCP of the nodes is reserved"],
            ),
            ("a node port of other clusters", vec![service("a", 1, port(30_080, "TCP"), &[])], vec![both]),
        ];
        for (sentence, services, expected) in cases {
            assert_eq!(outcome_of(&services, &[]), expected, "{sentence}");
        }
    }

    #[test]
    fn traffic_that_stays_on_a_node_needs_an_endpoint_there() {
        let local = || [service("web", 1, json!({"externalTrafficPolicy": "Local"}), &[])];
        assert_eq!(outcome_of(&local(), &[slice("web", &[("b", true), ("a", false)])]), ["192.0.2.2"]);
        assert_eq!(outcome_of(&local(), &[slice("other", &[("b", true)])]), ["as it is"]);
    }

    #[test]
    fn a_plan_carried_out_needs_nothing_more() {
        let services = [service("web", 1, json!({}), &[]), service("late", 2, json!({}), &["192.0.2.1"])];
        let view = View {
            nodes: BTreeSet::from([("a".to_owned(), Ipv4Addr::new(192, 0, 2, 1))]),
            slices: &[],
            reserved: BTreeSet::new(),
            node_ports: 30_000..=32_767,
        };
        let done: Vec<Arc<Service>> = plan(&services, &view)
            .into_iter()
            .map(|plan| {
                let mut service = plan.service.clone();
                if let Some(status) = plan.status {
                    service.status.get_or_insert_default().load_balancer = Some(status);
                }
                Arc::new(service)
            })
            .collect();
        assert!(plan(&done, &view).iter().all(|plan| plan.status.is_none()));
    }

    #[test]
    fn only_ready_nodes_take_part() {
        let node = |labels: Value, ready: &str, addresses: Value| -> Node {
            let object = json!({
                "metadata": {"name": "a", "labels": labels},
                "status": {"conditions": [{"type": "Ready", "status": ready}], "addresses": addresses},
            });
            serde_json::from_value(object).unwrap()
        };
        let internal = json!([{"type": "InternalIP", "address": "192.0.2.1"}]);
        let both =
            json!([{"type": "InternalIP", "address": "192.0.2.1"}, {"type": "ExternalIP", "address": "198.51.100.1"}]);
        let ip = |node: Node| balancer(&node).map(|(_, ip)| ip.to_string());
        assert_eq!(ip(node(json!({}), "True", internal.clone())).as_deref(), Some("192.0.2.1"));
        assert_eq!(ip(node(json!({}), "True", both)).as_deref(), Some("198.51.100.1"));
        assert_eq!(ip(node(json!({}), "Unknown", internal.clone())), None);
        assert_eq!(ip(node(json!({LABEL_EXCLUDE: ""}), "True", internal)), None);
    }
}
