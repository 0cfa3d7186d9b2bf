//! Service addresses and node ports: one key each, created and deleted in the Service's own transaction. Two services
//! cannot have the same one, and none is lost, whatever happens in between.
//!
//! [`plan`] is a pure function: what the Service must look like, and which keys its transaction takes and gives back.

mod families;

use std::collections::{BTreeSet, HashSet};
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use api::Object;
use api::field::{self, ErrorList, Path};
use bytes::Bytes;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};
use store::{Action, Expect, ListRequest, Op, Store};

const RANGES: &str = "/registry/ranges/";
const IPS: &str = "/registry/ranges/serviceips/";
const PORTS: &str = "/registry/ranges/servicenodeports/";

/// How often chance is tried before every free value is looked at.
const RANDOM_TRIES: usize = 16;

/// Whether a store key is an allocation.
pub(crate) fn is_range_key(key: &str) -> bool {
    key.starts_with(RANGES)
}

/// What can be given out.
#[derive(Clone, Debug)]
pub(crate) struct Ranges {
    pub(crate) addresses: Ipv4Net,
    pub(crate) ports: RangeInclusive<u16>,
}

/// The keys others hold, as far as that is known: empty at first, read after the first collision.
#[derive(Debug, Default)]
pub(crate) struct Taken(HashSet<String>);

impl Taken {
    pub(crate) async fn read(store: &dyn Store) -> Result<Taken, store::Error> {
        let request = ListRequest { prefix: RANGES.to_owned(), ..ListRequest::default() };
        Ok(Taken(store.list(request).await?.items.into_iter().map(|i| i.key.to_string()).collect()))
    }

    #[cfg(test)]
    fn of(keys: &[&str]) -> Taken {
        Taken(keys.iter().map(|k| (*k).to_owned()).collect())
    }
}

fn ip_key(ip: Ipv4Addr) -> String {
    format!("{IPS}{ip}")
}

fn port_key(port: i32) -> String {
    format!("{PORTS}{port}")
}

/// The keys a Service holds.
fn held(service: &Service) -> BTreeSet<String> {
    let spec = service.spec.as_ref();
    let ips = spec.and_then(|s| s.cluster_ip.as_deref()).and_then(|ip| ip.parse().ok()).map(ip_key);
    let mut keys: BTreeSet<String> = ips.into_iter().collect();
    let ports = spec.and_then(|s| s.ports.as_ref()).into_iter().flatten();
    keys.extend(ports.filter_map(|p| p.node_port).filter(|p| *p != 0).map(port_key));
    keys.extend(spec.and_then(|s| s.health_check_node_port).filter(|p| *p != 0).map(port_key));
    keys
}

/// What an object's removal gives back.
pub(crate) fn release(object: &dyn Object) -> Vec<Op> {
    let service = object.as_any().downcast_ref::<Service>();
    service.map(|s| held(s).into_iter().map(give_back).collect()).unwrap_or_default()
}

fn give_back(key: String) -> Op {
    Op { key, expect: Expect::Any, action: Action::Delete }
}

/// Completes `service` with addresses and ports, and says which keys the transaction must take and give back so that
/// the store agrees. `old` is the version before, `None` for a new one.
pub(crate) fn plan(
    ranges: &Ranges,
    old: Option<&Service>,
    service: &mut Service,
    taken: &Taken,
) -> Result<Vec<Op>, ErrorList> {
    if let Some(old) = old {
        keep_allocated(old, service);
    }
    let before = old.map(held).unwrap_or_default();
    let mut errors = ErrorList::new();
    if let Some(spec) = service.spec.as_mut() {
        families::settle(spec, old.and_then(|old| old.spec.as_ref()), &mut errors);
        allocate_address(ranges, spec, &before, taken, &mut errors);
        allocate_ports(ranges, spec, &before, taken, &mut errors);
        allocate_health_port(ranges, spec, &before, taken, &mut errors);
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let after = held(service);
    let owner = format!(
        "/registry/services/{}/{}",
        service.metadata.namespace.as_deref().unwrap_or(""),
        service.metadata.name.as_deref().unwrap_or("")
    );
    let take = after.difference(&before).map(|key| Op {
        key: key.clone(),
        expect: Expect::Absent,
        action: Action::Put(Bytes::from(owner.clone()), None),
    });
    Ok(take.chain(before.difference(&after).cloned().map(give_back)).collect())
}

/// A client that updates without repeating what was allocated keeps it (`patchAllocatedValues`).
fn keep_allocated(old: &Service, service: &mut Service) {
    let (Some(old), Some(new)) = (old.spec.as_ref(), service.spec.as_mut()) else { return };
    if has_address(old) && has_address(new) && new.cluster_ip.as_deref().unwrap_or("").is_empty() {
        new.cluster_ip.clone_from(&old.cluster_ip);
        new.cluster_ips.clone_from(&old.cluster_ips);
    }
    if needs_health_port(old) && needs_health_port(new) && new.health_check_node_port.unwrap_or(0) == 0 {
        new.health_check_node_port = old.health_check_node_port;
    }
    if !has_node_ports(old) || !has_node_ports(new) {
        return;
    }
    let known = old.ports.clone().unwrap_or_default();
    let mut used: HashSet<i32> = new.ports.iter().flatten().filter_map(|p| p.node_port).collect();
    for port in new.ports.iter_mut().flatten().filter(|p| p.node_port.is_none_or(|n| n == 0)) {
        let same = known.iter().find(|k| k.port == port.port && k.protocol == port.protocol);
        if let Some(node_port) = same.and_then(|k| k.node_port).filter(|n| used.insert(*n)) {
            port.node_port = Some(node_port);
        }
    }
}

fn service_type(spec: &ServiceSpec) -> &str {
    spec.type_.as_deref().unwrap_or("ClusterIP")
}

fn has_address(spec: &ServiceSpec) -> bool {
    service_type(spec) != "ExternalName"
}

fn has_node_ports(spec: &ServiceSpec) -> bool {
    match service_type(spec) {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

/// Whether load balancers ask each node for the service's health (`NeedsHealthCheck` upstream).
fn needs_health_port(spec: &ServiceSpec) -> bool {
    service_type(spec) == "LoadBalancer" && spec.external_traffic_policy.as_deref() == Some("Local")
}

fn allocate_address(
    ranges: &Ranges,
    spec: &mut ServiceSpec,
    before: &BTreeSet<String>,
    taken: &Taken,
    errors: &mut ErrorList,
) {
    if !has_address(spec) {
        spec.cluster_ip = None;
        spec.cluster_ips = None;
        return;
    }
    if !errors.is_empty() {
        return;
    }
    let asked = spec.cluster_ip.clone().filter(|ip| !ip.is_empty());
    let asked = asked.or_else(|| spec.cluster_ips.as_ref().and_then(|ips| ips.first().cloned()));
    let address = match asked.as_deref() {
        Some("None") => "None".to_owned(),
        Some(text) => match requested_address(ranges, text, before, taken) {
            Ok(ip) => ip,
            Err(reason) => {
                let detail = format!("failed to allocate IP {text}: {reason}");
                let value = serde_json::Value::from(vec![text.to_owned()]);
                errors.push(field::invalid(&Path::new("spec").child("clusterIPs"), value, &detail));
                return;
            }
        },
        None => match free_address(ranges, taken) {
            Some(ip) => ip.to_string(),
            None => {
                let path = Path::new("spec").child("clusterIPs");
                errors.push(field::invalid(
                    &path,
                    Vec::<String>::new(),
                    "failed to allocate a serviceIP: range is full",
                ));
                return;
            }
        },
    };
    // What else was said stays, for validation to compare.
    if spec.cluster_ip.as_deref().unwrap_or("").is_empty() || spec.cluster_ips.as_ref().is_none_or(Vec::is_empty) {
        spec.cluster_ips = Some(vec![address.clone()]);
    }
    spec.cluster_ip = Some(address);
}

fn requested_address(
    ranges: &Ranges,
    text: &str,
    before: &BTreeSet<String>,
    taken: &Taken,
) -> Result<String, &'static str> {
    // What is no address at all is for validation to name.
    let Ok(ip) = text.parse::<Ipv4Addr>() else { return Ok(text.to_owned()) };
    let key = ip_key(ip);
    if before.contains(&key) {
        return Ok(text.to_owned());
    }
    let net = ranges.addresses;
    if !net.contains(&ip) || ip == net.network() || ip == net.broadcast() {
        return Err("the provided IP is not in the valid range");
    }
    if taken.0.contains(&key) { Err("provided IP is already allocated") } else { Ok(text.to_owned()) }
}

fn free_address(ranges: &Ranges, taken: &Taken) -> Option<Ipv4Addr> {
    // The first address belongs to the `kubernetes` service, network and broadcast address to nobody.
    let first = u32::from(ranges.addresses.network()).checked_add(2)?;
    let last = u32::from(ranges.addresses.broadcast()).checked_sub(1)?;
    if first > last {
        return None;
    }
    let is_free = |n: &u32| !taken.0.contains(&ip_key(Ipv4Addr::from(*n)));
    let random = (0..RANDOM_TRIES).map(|_| rand::random_range(first..=last)).find(is_free);
    random.or_else(|| (first..=last).find(is_free)).map(Ipv4Addr::from)
}

fn allocate_ports(
    ranges: &Ranges,
    spec: &mut ServiceSpec,
    before: &BTreeSet<String>,
    taken: &Taken,
    errors: &mut ErrorList,
) {
    let wanted = has_node_ports(spec);
    let explicit: HashSet<i32> = spec.ports.iter().flatten().filter_map(|p| p.node_port).collect();
    let mut ours: HashSet<i32> = explicit;
    for (index, port) in spec.ports.iter_mut().flatten().enumerate() {
        let path = Path::new("spec").child("ports").index(index).child("nodePort");
        match port.node_port.filter(|p| *p != 0) {
            None if wanted => match free_port(ranges, &ours, taken) {
                Some(free) => {
                    ours.insert(free);
                    port.node_port = Some(free);
                }
                None => errors.push(field::invalid(&path, 0, "failed to allocate a nodePort: range is full")),
            },
            None => port.node_port = None,
            Some(asked) if wanted => {
                if let Some(reason) = refused_port(ranges, asked, before, taken) {
                    errors.push(field::invalid(&path, asked, &reason));
                }
            }
            // A Service that no longer has node ports gives those it had back; one that never had any may not ask.
            Some(had) if before.contains(&port_key(had)) => port.node_port = None,
            Some(_) => {}
        }
    }
}

fn allocate_health_port(
    ranges: &Ranges,
    spec: &mut ServiceSpec,
    before: &BTreeSet<String>,
    taken: &Taken,
    errors: &mut ErrorList,
) {
    let path = Path::new("spec").child("healthCheckNodePort");
    let ours: HashSet<i32> = spec.ports.iter().flatten().filter_map(|p| p.node_port).collect();
    match spec.health_check_node_port.filter(|p| *p != 0) {
        None if needs_health_port(spec) => match free_port(ranges, &ours, taken) {
            Some(free) => spec.health_check_node_port = Some(free),
            None => errors.push(field::invalid(&path, 0, "failed to allocate a nodePort: range is full")),
        },
        None => spec.health_check_node_port = None,
        Some(asked) if needs_health_port(spec) => {
            let twice = || "provided port is already allocated".to_owned();
            let reason = ours.contains(&asked).then(twice).or_else(|| refused_port(ranges, asked, before, taken));
            errors.extend(reason.map(|reason| field::invalid(&path, asked, &reason)));
        }
        // Who never had one may not ask, as validation says.
        Some(had) if before.contains(&port_key(had)) => spec.health_check_node_port = None,
        Some(_) => {}
    }
}

fn refused_port(ranges: &Ranges, port: i32, before: &BTreeSet<String>, taken: &Taken) -> Option<String> {
    let key = port_key(port);
    if before.contains(&key) {
        return None;
    }
    let inside = u16::try_from(port).is_ok_and(|p| ranges.ports.contains(&p));
    if !inside {
        let (from, to) = (ranges.ports.start(), ranges.ports.end());
        return Some(format!("provided port is not in the valid range. The range of valid ports is {from}-{to}"));
    }
    taken.0.contains(&key).then(|| "provided port is already allocated".to_owned())
}

fn free_port(ranges: &Ranges, ours: &HashSet<i32>, taken: &Taken) -> Option<i32> {
    let is_free = |port: &i32| !ours.contains(port) && !taken.0.contains(&port_key(*port));
    let random = (0..RANDOM_TRIES).map(|_| i32::from(rand::random_range(ranges.ports.clone()))).find(is_free);
    random.or_else(|| ranges.ports.clone().map(i32::from).find(is_free))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ServicePort;

    use super::*;

    fn ranges() -> Ranges {
        Ranges { addresses: "10.0.0.0/29".parse().unwrap(), ports: 30000..=30001 }
    }

    fn service(type_: &str, node_ports: &[i32]) -> Service {
        let port = |(i, p): (usize, &i32)| ServicePort {
            port: 80 + i32::try_from(i).unwrap(),
            node_port: Some(*p).filter(|p| *p != 0),
            ..Default::default()
        };
        let ports = Some(node_ports.iter().enumerate().map(port).collect());
        let spec = ServiceSpec { type_: Some(type_.into()), ports, ..Default::default() };
        let metadata = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta {
            name: Some("web".into()),
            namespace: Some("default".into()),
            ..Default::default()
        };
        Service { metadata, spec: Some(spec), status: None }
    }

    fn errors(result: Result<Vec<Op>, ErrorList>) -> Vec<String> {
        result.err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_plan_applied_needs_nothing_more() {
        let mut planned = service("NodePort", &[0, 0]);
        let ops = plan(&ranges(), None, &mut planned, &Taken::default()).unwrap();
        assert_eq!(ops.len(), 3, "an address and two ports: {ops:?}");
        let mut again = planned.clone();
        assert_eq!(plan(&ranges(), Some(&planned), &mut again, &Taken::default()).unwrap(), []);
        assert_eq!(again, planned);
    }

    #[test]
    fn a_balanced_service_that_stays_on_its_nodes_has_a_port_for_its_health() {
        let local = |mut service: Service, policy: &str| {
            service.spec.as_mut().unwrap().external_traffic_policy = Some(policy.to_owned());
            service
        };
        let mut made = local(service("LoadBalancer", &[0]), "Local");
        let ops = plan(&ranges(), None, &mut made, &Taken::default()).unwrap();
        assert_eq!(ops.len(), 3, "an address, a port and one for health: {ops:?}");
        let port = made.spec.as_ref().unwrap().health_check_node_port.unwrap();
        assert_ne!(made.spec.as_ref().unwrap().ports.as_ref().unwrap()[0].node_port, Some(port));

        let mut unsaid = made.clone();
        unsaid.spec.as_mut().unwrap().health_check_node_port = None;
        assert_eq!(plan(&ranges(), Some(&made), &mut unsaid, &Taken::default()).unwrap(), []);
        assert_eq!(unsaid, made, "who does not repeat it keeps it");

        let mut elsewhere = local(made.clone(), "Cluster");
        assert_eq!(plan(&ranges(), Some(&made), &mut elsewhere, &Taken::default()).unwrap().len(), 1, "given back");
        assert_eq!(elsewhere.spec.unwrap().health_check_node_port, None);

        let mut outside = local(service("LoadBalancer", &[0]), "Local");
        outside.spec.as_mut().unwrap().health_check_node_port = Some(29_999);
        let refused = errors(plan(&ranges(), None, &mut outside, &Taken::default()));
        assert!(refused[0].starts_with("spec.healthCheckNodePort: Invalid value: 29999:"), "{refused:?}");
    }

    #[test]
    fn a_full_range_leaves_exactly_the_free_ones() {
        let keys = ["10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6"].map(|ip| format!("{IPS}{ip}"));
        let taken = Taken::of(&keys.iter().map(String::as_str).collect::<Vec<_>>());
        let mut planned = service("ClusterIP", &[0]);
        plan(&ranges(), None, &mut planned, &taken).unwrap();
        assert_eq!(planned.spec.unwrap().cluster_ip.as_deref(), Some("10.0.0.4"));
    }

    #[test]
    fn what_cannot_be_had_is_said_in_upstream_words() {
        let taken = Taken::of(&["/registry/ranges/serviceips/10.0.0.2", "/registry/ranges/servicenodeports/30000"]);
        let mut asked = service("NodePort", &[30000, 29999]);
        asked.spec.as_mut().unwrap().cluster_ip = Some("10.0.0.2".into());
        assert_eq!(
            errors(plan(&ranges(), None, &mut asked, &taken)),
            [
                r#"spec.clusterIPs: Invalid value: ["10.0.0.2"]: failed to allocate IP 10.0.0.2: provided IP is already allocated"#,
                "spec.ports[0].nodePort: Invalid value: 30000: provided port is already allocated",
                "spec.ports[1].nodePort: Invalid value: 29999: provided port is not in the valid range. The range of valid ports is 30000-30001",
            ]
        );
    }

    #[test]
    fn a_service_that_stops_having_node_ports_gives_them_back() {
        let mut old = service("NodePort", &[0]);
        plan(&ranges(), None, &mut old, &Taken::default()).unwrap();
        let mut new = old.clone();
        new.spec.as_mut().unwrap().type_ = Some("ClusterIP".into());
        let ops = plan(&ranges(), Some(&old), &mut new, &Taken::default()).unwrap();
        assert_eq!(ops.len(), 1);
        assert_eq!(ops[0].action, Action::Delete);
        assert_eq!(new.spec.unwrap().ports.unwrap()[0].node_port, None);
    }

    #[test]
    fn headless_and_external_services_take_no_address() {
        let mut headless = service("ClusterIP", &[0]);
        headless.spec.as_mut().unwrap().cluster_ip = Some("None".into());
        assert_eq!(plan(&ranges(), None, &mut headless, &Taken::default()).unwrap(), []);
        let mut external = service("ExternalName", &[]);
        assert_eq!(plan(&ranges(), None, &mut external, &Taken::default()).unwrap(), []);
        assert_eq!(external.spec.unwrap().cluster_ip, None);
    }
}
