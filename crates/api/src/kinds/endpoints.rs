//! Endpoints: the addresses behind a service, in the old single-object form.

use std::net::{IpAddr, SocketAddr};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Endpoints;
use serde_json::{Value, json};

use super::printers::at_most;
use crate::Resource;
use crate::kinds::{AGE, KindInfo, NAME, Scope, column};
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
        subresources: &[],
        columns: &[NAME, column("Endpoints", "string", "Addresses and ports that are ready"), AGE],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), at_most(MAX_SHOWN, &ready(self)), crate::printing::age(&self.metadata, now)]
    }
}

/// Every ready address with every port.
fn ready(endpoints: &Endpoints) -> Vec<String> {
    let mut shown = Vec::new();
    for subset in endpoints.subsets.iter().flatten() {
        for address in subset.addresses.iter().flatten() {
            match subset.ports.as_deref().unwrap_or(&[]) {
                [] => shown.push(address.ip.clone()),
                ports => shown.extend(ports.iter().map(|p| host_port(&address.ip, p.port))),
            }
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
