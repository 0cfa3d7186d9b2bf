//! EndpointSlice: some of the addresses behind a service.

use std::net::{Ipv4Addr, Ipv6Addr};

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use serde_json::{Value, json};

use super::pod::defaults::or_text;
use super::printers::at_most;
use super::rules::{self, Unique};
use crate::Resource;
use crate::field::{ErrorList, Path, invalid, required, too_many};
use crate::kinds::{AGE, KindInfo, NAME, Scope, Verb, column};
use crate::names::NameRule;

/// How many ports or addresses a cell shows.
const MAX_SHOWN: usize = 3;
/// Bounds of one slice.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

impl Resource for EndpointSlice {
    const INFO: KindInfo = KindInfo {
        group: "discovery.k8s.io",
        version: "v1",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[],
        columns: &[
            NAME,
            column("AddressType", "string", "IPv4, IPv6 or FQDN"),
            column("Ports", "string", "Ports of every address"),
            column("Endpoints", "string", "Addresses"),
            AGE,
        ],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    const HAS_GENERATION: bool = true;

    fn generation_changed(&self, old: &Self) -> bool {
        self.address_type != old.address_type
            || self.endpoints != old.endpoints
            || self.ports != old.ports
            || self.metadata.labels != old.metadata.labels
    }

    fn set_defaults(&mut self) {
        for port in self.ports.iter_mut().flatten() {
            port.name.get_or_insert_default();
            or_text(&mut port.protocol, "TCP");
        }
    }

    fn validate(&self, errors: &mut ErrorList) {
        rules::one_of(Some(&self.address_type), &["FQDN", "IPv4", "IPv6"], &Path::new("addressType"), errors);
        let path = Path::new("endpoints");
        if self.endpoints.len() > MAX_ENDPOINTS {
            errors.push(too_many(&path, self.endpoints.len(), MAX_ENDPOINTS));
        } else {
            for (index, endpoint) in self.endpoints.iter().enumerate() {
                self::endpoint(endpoint, &self.address_type, &path.index(index), errors);
            }
        }
        ports(self.ports.as_deref().unwrap_or(&[]), &Path::new("ports"), errors);
    }

    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        let warning = "addressType: FQDN endpoints are deprecated";
        (self.address_type == "FQDN").then(|| warning.to_owned()).into_iter().collect()
    }

    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        crate::metadata::immutable(&Path::new("addressType"), &self.address_type, &old.address_type, errors);
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let ports: Vec<String> = self.ports.iter().flatten().map(port).collect();
        let addresses: Vec<String> = self.endpoints.iter().flat_map(|e| e.addresses.iter().cloned()).collect();
        let or_unset = |cell: Value| if cell == json!("<none>") { json!("<unset>") } else { cell };
        vec![
            json!(self.metadata.name),
            json!(self.address_type),
            or_unset(at_most(MAX_SHOWN, &ports)),
            or_unset(at_most(MAX_SHOWN, &addresses)),
            crate::printing::age(&self.metadata, now),
        ]
    }
}

/// A port's number, `*` for any, or its name where it has only that.
fn port(port: &EndpointPort) -> String {
    match (port.port, port.name.as_deref()) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) if !name.is_empty() => name.to_owned(),
        (None, _) => "*".to_owned(),
    }
}

fn endpoint(endpoint: &Endpoint, address_type: &str, path: &Path, errors: &mut ErrorList) {
    let addresses = path.child("addresses");
    match endpoint.addresses.len() {
        0 => errors.push(required(&addresses, "must contain at least 1 endpoint")),
        1..=MAX_ADDRESSES => {}
        many => errors.push(too_many(&addresses, many, MAX_ADDRESSES)),
    }
    for (index, address) in endpoint.addresses.iter().enumerate() {
        self::address(address, address_type, &addresses.index(index), errors);
    }
    if let Some(node) = endpoint.node_name.as_deref() {
        rules::dns_subdomain(node, &path.child("nodeName"), errors);
    }
    if let Some(hostname) = endpoint.hostname.as_deref() {
        rules::dns_label(hostname, &path.child("hostname"), errors);
    }
}

fn address(address: &str, address_type: &str, path: &Path, errors: &mut ErrorList) {
    match address_type {
        "IPv4" if address.parse::<Ipv4Addr>().is_err() => {
            errors.push(invalid(path, address, "must be a valid IPv4 address"));
        }
        "IPv6" if address.parse::<Ipv6Addr>().is_err() => {
            errors.push(invalid(path, address, "must be a valid IPv6 address"));
        }
        "IPv4" | "IPv6" => rules::sendable_ip(address, path, errors),
        _ => rules::dns_subdomain(address, path, errors),
    }
}

fn ports(ports: &[EndpointPort], path: &Path, errors: &mut ErrorList) {
    if ports.len() > MAX_PORTS {
        errors.push(too_many(path, ports.len(), MAX_PORTS));
        return;
    }
    let mut names = Unique::new();
    for (index, port) in ports.iter().enumerate() {
        let path = path.index(index);
        let name = port.name.as_deref().unwrap_or("");
        if !name.is_empty() {
            rules::dns_label(name, &path.child("name"), errors);
        }
        names.add(name, &path.child("name"), errors);
        rules::one_of(port.protocol.as_deref(), rules::PROTOCOLS, &path.child("protocol"), errors);
        if let Some(number) = port.port {
            rules::port_number(number, &path.child("port"), errors);
        }
        if let Some(protocol) = port.app_protocol.as_deref() {
            rules::label_key(protocol, &path.child("appProtocol"), errors);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn with(address_type: &str, addresses: &[&str]) -> EndpointSlice {
        let addresses = addresses.iter().map(|a| (*a).to_owned()).collect();
        let mut slice = EndpointSlice {
            address_type: address_type.into(),
            endpoints: vec![Endpoint { addresses, ..Endpoint::default() }],
            ports: Some(vec![EndpointPort { port: Some(80), ..EndpointPort::default() }]),
            ..EndpointSlice::default()
        };
        Object::set_defaults(&mut slice);
        slice
    }

    #[test]
    fn addresses_are_of_the_slices_type() {
        let table: [(&str, EndpointSlice, &[&str]); 4] = [
            ("fine", with("IPv4", &["10.0.0.1"]), &[]),
            (
                "another family",
                with("IPv6", &["10.0.0.1"]),
                &[r#"endpoints[0].addresses[0]: Invalid value: "10.0.0.1": must be a valid IPv6 address"#],
            ),
            ("none", with("IPv4", &[]), &["endpoints[0].addresses: Required value: must contain at least 1 endpoint"]),
            (
                "no such type",
                with("IPv5", &["a.b"]),
                &[r#"addressType: Unsupported value: "IPv5": supported values: "FQDN", "IPv4", "IPv6""#],
            ),
        ];
        for (sentence, slice, expected) in table {
            let errors: Vec<String> = Object::validate(&slice).iter().map(ToString::to_string).collect();
            assert_eq!(errors, expected, "{sentence}");
        }
    }

    #[test]
    fn address_type_never_changes() {
        let errors = Object::validate_update(&with("IPv6", &["fd00::1"]), &with("IPv4", &["10.0.0.1"]));
        assert_eq!(errors[0].to_string(), r#"addressType: Invalid value: "IPv6": field is immutable"#);
    }

    #[test]
    fn cell_shows_ports_by_number() {
        assert_eq!(Object::cells(&with("IPv4", &["10.0.0.1"]), Timestamp::UNIX_EPOCH)[2], json!("80"));
    }
}
