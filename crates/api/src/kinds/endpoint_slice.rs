//! EndpointSlice: some of the addresses behind a service.

use jiff::Timestamp;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use super::printers::at_most;
use crate::Resource;
use crate::kinds::{AGE, KindInfo, NAME, Scope, column};
use crate::names::NameRule;

/// How many ports or addresses a cell shows.
const MAX_SHOWN: usize = 3;

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
fn port(port: &k8s_openapi::api::discovery::v1::EndpointPort) -> String {
    match (port.port, port.name.as_deref()) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) if !name.is_empty() => name.to_owned(),
        (None, _) => "*".to_owned(),
    }
}
