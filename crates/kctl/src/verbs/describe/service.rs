//! Services.

use serde_json::Value;

use super::text::Text;
use crate::object::{items, joined_pairs, text as at};

/// Endpoints shown on one line.
const ENDPOINTS_SHOWN: usize = 3;

/// `slices` are the service's endpoint slices.
pub(super) fn describe(text: &mut Text, service: &Value, slices: &[Value]) {
    let spec = &service["spec"];
    text.name(service);
    text.labels(0, &service["metadata"]);
    text.field(0, "Selector", joined_pairs(&spec["selector"]));
    text.field(0, "Type", at(spec, &["type"]));
    text.field_if(0, "IP Family Policy", at(spec, &["ipFamilyPolicy"]));
    text.field(0, "IP Families", or_none(joined(items(spec, &["ipFamilies"]))));
    text.field(0, "IP", at(spec, &["clusterIP"]));
    text.field(0, "IPs", or_none(joined(items(spec, &["clusterIPs"]))));
    text.field_if(0, "External IPs", &joined(items(spec, &["externalIPs"])));
    text.field_if(0, "External Name", at(spec, &["externalName"]));
    for port in items(spec, &["ports"]) {
        let name = Some(at(port, &["name"])).filter(|n| !n.is_empty()).unwrap_or("<unset>");
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        text.field(0, "Port", format!("{name}\t{}/{protocol}", port["port"]));
        let target = port["targetPort"].as_str().map_or_else(|| port["targetPort"].to_string(), str::to_owned);
        text.field(0, "TargetPort", format!("{target}/{protocol}"));
        if let Some(node_port) = port["nodePort"].as_i64() {
            text.field(0, "NodePort", format!("{name}\t{node_port}/{protocol}"));
        }
        text.field(0, "Endpoints", endpoints(slices, at(port, &["name"])));
    }
    text.field(0, "Session Affinity", at(spec, &["sessionAffinity"]));
    text.field_if(0, "External Traffic Policy", at(spec, &["externalTrafficPolicy"]));
    text.field_if(0, "Internal Traffic Policy", at(spec, &["internalTrafficPolicy"]));
}

/// `10.244.0.2:80,10.244.0.3:80 + 2 more...`: the ready ones.
fn endpoints(slices: &[Value], port_name: &str) -> String {
    let mut found = Vec::new();
    for slice in slices {
        let ports = items(slice, &["ports"]).iter().filter(|p| at(p, &["name"]) == port_name);
        for port in ports.filter_map(|p| p["port"].as_i64()) {
            let ready = items(slice, &["endpoints"]).iter().filter(|e| e["conditions"]["ready"] != false);
            let addresses = ready.flat_map(|e| items(e, &["addresses"])).filter_map(Value::as_str);
            found.extend(addresses.map(|address| format!("{address}:{port}")));
        }
    }
    let more = found.len().saturating_sub(ENDPOINTS_SHOWN);
    found.truncate(ENDPOINTS_SHOWN);
    let text = found.join(",");
    if more > 0 { format!("{text} + {more} more...") } else { text }
}

fn joined(values: &[Value]) -> String {
    values.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

fn or_none(text: String) -> String {
    if text.is_empty() { "<none>".to_owned() } else { text }
}
