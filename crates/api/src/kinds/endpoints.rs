//! Endpoints: the addresses behind a service, in the old single-object form.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints};
use serde_json::{Value, json};

use super::pod::defaults::or_text;
use super::printers::at_most;
use super::rules;
use crate::Resource;
use crate::field::{ErrorList, Path, required};
use crate::kinds::{AGE, KindInfo, NAME, Scope, Verb, column};
use crate::names::NameRule;

/// How many addresses a cell shows.
const MAX_SHOWN: usize = 3;

impl Resource for Endpoints {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Endpoints",
        plural: "endpoints",
        singular: "endpoints",
        short_names: &["ep"],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[],
        columns: &[NAME, column("Endpoints", "string", "Addresses and ports that are ready"), AGE],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn set_defaults(&mut self) {
        for port in self.subsets.iter_mut().flatten().flat_map(|s| s.ports.iter_mut().flatten()) {
            or_text(&mut port.protocol, "TCP");
        }
    }

    fn validate(&self, errors: &mut ErrorList) {
        for (index, subset) in self.subsets.iter().flatten().enumerate() {
            self::subset(subset, &Path::new("subsets").index(index), errors);
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), at_most(MAX_SHOWN, &ready(self)), crate::printing::age(&self.metadata, now)]
    }
}

/// Every port with every ready address (`formatEndpoints` in `pkg/printers/internalversion`).
fn ready(endpoints: &Endpoints) -> Vec<String> {
    let mut shown = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        let addresses = || subset.addresses.iter().flatten();
        match subset.ports.as_deref().unwrap_or(&[]) {
            [] => shown.extend(addresses().map(|address| address.ip.clone())),
            ports => shown.extend(ports.iter().flat_map(|p| addresses().map(|a| host_port(&a.ip, p.port)))),
        }
    }
    shown
}

fn host_port(ip: &str, port: i32) -> String {
    match (ip.parse::<IpAddr>(), u16::try_from(port)) {
        (Ok(ip), Ok(port)) => SocketAddr::new(ip, port).to_string(),
        _ => format!("{ip}:{port}"),
    }
}

fn subset(subset: &EndpointSubset, path: &Path, errors: &mut ErrorList) {
    let ready = subset.addresses.as_deref().unwrap_or(&[]);
    let not_ready = subset.not_ready_addresses.as_deref().unwrap_or(&[]);
    if ready.is_empty() && not_ready.is_empty() {
        errors.push(required(path, "must specify `addresses` or `notReadyAddresses`"));
    }
    for (addresses, field) in [(ready, "addresses"), (not_ready, "notReadyAddresses")] {
        for (index, address) in addresses.iter().enumerate() {
            self::address(address, &path.child(field).index(index), errors);
        }
    }
    let ports = subset.ports.as_deref().unwrap_or(&[]);
    for (index, port) in ports.iter().enumerate() {
        self::port(port, ports.len() > 1, &path.child("ports").index(index), errors);
    }
}

fn address(address: &EndpointAddress, path: &Path, errors: &mut ErrorList) {
    rules::sendable_ip(&address.ip, &path.child("ip"), errors);
    if let Some(hostname) = address.hostname.as_deref().filter(|h| !h.is_empty()) {
        rules::dns_label(hostname, &path.child("hostname"), errors);
    }
    if let Some(node) = address.node_name.as_deref() {
        rules::dns_subdomain(node, &path.child("nodeName"), errors);
    }
}

fn port(port: &EndpointPort, needs_name: bool, path: &Path, errors: &mut ErrorList) {
    let name = port.name.as_deref().unwrap_or("");
    if needs_name || !name.is_empty() {
        rules::dns_label(name, &path.child("name"), errors);
    }
    rules::port_number(port.port, &path.child("port"), errors);
    rules::one_of(port.protocol.as_deref(), rules::PROTOCOLS, &path.child("protocol"), errors);
    if let Some(protocol) = port.app_protocol.as_deref() {
        rules::label_key(protocol, &path.child("appProtocol"), errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn with(ip: &str, ports: &[(&str, i32)]) -> Endpoints {
        let address = EndpointAddress { ip: ip.into(), ..EndpointAddress::default() };
        let ports = ports.iter().map(|(name, port)| EndpointPort {
            name: Some((*name).to_owned()),
            port: *port,
            ..EndpointPort::default()
        });
        let subset = EndpointSubset {
            addresses: Some(vec![address]),
            ports: Some(ports.collect()),
            ..EndpointSubset::default()
        };
        let mut endpoints = Endpoints { subsets: Some(vec![subset]), ..Endpoints::default() };
        Object::set_defaults(&mut endpoints);
        endpoints
    }

    #[test]
    fn addresses_can_be_sent_to_and_ports_told_apart() {
        let table: [(&str, Endpoints, &[&str]); 4] = [
            ("one unnamed port", with("10.0.0.1", &[("", 80)]), &[]),
            (
                "two ports need names",
                with("10.0.0.1", &[("", 80), ("b", 81)]),
                &["subsets[0].ports[0].name: Required value"],
            ),
            (
                "loopback is somewhere else for everyone",
                with("127.0.0.1", &[]),
                &[
                    r#"subsets[0].addresses[0].ip: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)"#,
                ],
            ),
            (
                "a port has a number",
                with("10.0.0.1", &[("", 0)]),
                &["subsets[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive"],
            ),
        ];
        for (sentence, endpoints, expected) in table {
            let errors: Vec<String> = Object::validate(&endpoints).iter().map(ToString::to_string).collect();
            assert_eq!(errors, expected, "{sentence}");
        }
    }

    #[test]
    fn cell_shows_three_addresses() {
        let shown = ready(&with("10.0.0.1", &[("a", 1), ("b", 2), ("c", 3), ("d", 4)]));
        assert_eq!(at_most(MAX_SHOWN, &shown), json!("10.0.0.1:1,10.0.0.1:2,10.0.0.1:3 + 1 more..."));
        let mut two = with("10.0.0.1", &[("a", 1), ("b", 2)]);
        let another = EndpointAddress { ip: "10.0.0.2".into(), ..EndpointAddress::default() };
        two.subsets.as_mut().unwrap()[0].addresses.as_mut().unwrap().push(another);
        assert_eq!(at_most(MAX_SHOWN, &ready(&two)), json!("10.0.0.1:1,10.0.0.2:1,10.0.0.1:2 + 1 more..."));
    }
}
