//! What a container may learn about its pod: `fieldRef` and `resourceFieldRef`, in variables and in files.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceFieldSelector};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::{EnvError, NodeResources};

/// The value of `path` in `pod`.
pub fn field(pod: &Pod, pod_ip: Option<IpAddr>, node: &NodeResources, path: &str) -> Result<String, EnvError> {
    let metadata = &pod.metadata;
    let spec = pod.spec.as_ref();
    if let Some((map, key)) = subscript(path) {
        let map = match map {
            "metadata.labels" => &metadata.labels,
            "metadata.annotations" => &metadata.annotations,
            _ => return Err(unsupported(path)),
        };
        return Ok(map.as_ref().and_then(|m| m.get(key)).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => crate::pod::name(metadata).to_owned(),
        "metadata.namespace" => crate::pod::namespace(metadata).to_owned(),
        "metadata.uid" => crate::pod::uid(pod).to_owned(),
        "metadata.labels" => lines(metadata.labels.as_ref()),
        "metadata.annotations" => lines(metadata.annotations.as_ref()),
        "spec.nodeName" => spec.and_then(|s| s.node_name.clone()).unwrap_or_default(),
        "spec.serviceAccountName" => spec.and_then(|s| s.service_account_name.clone()).unwrap_or_default(),
        "status.hostIP" | "status.hostIPs" => node.ip.to_string(),
        "status.podIP" | "status.podIPs" => pod_ip.map(|ip| ip.to_string()).unwrap_or_default(),
        _ => return Err(unsupported(path)),
    })
}

fn unsupported(path: &str) -> EnvError {
    EnvError(format!("unsupported fieldPath: {path}"))
}

/// `metadata.labels['a/b']` as map and key.
fn subscript(path: &str) -> Option<(&str, &str)> {
    let (map, key) = path.strip_suffix("']")?.split_once("['")?;
    Some((map, key))
}

/// `key="value"` lines, as files of the downward API hold maps (`FormatMap` in `pkg/fieldpath`).
fn lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={value:?}"));
    lines.collect::<Vec<_>>().join("\n")
}

/// The value of a resource of `container`, or of the one the selector names; without a limit, what the node has.
pub fn resource(
    pod: &Pod,
    container: &Container,
    node: &NodeResources,
    selector: &ResourceFieldSelector,
) -> Result<String, EnvError> {
    let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
    let container = match named {
        Some(name) => pod.spec.as_ref().and_then(|s| crate::pod::container(s, name)).map(|(_, c)| c),
        None => Some(std::borrow::Cow::Borrowed(container)),
    };
    let container = container.ok_or_else(|| EnvError(format!("container {} not found", named.unwrap_or_default())))?;
    let (list, name) = selector.resource.split_once('.').unwrap_or_default();
    let resources = container.resources.as_ref();
    let limit = resources.and_then(|r| r.limits.as_ref()?.get(name));
    let request = resources.and_then(|r| r.requests.as_ref()?.get(name));
    let value = match list {
        "limits" => limit,
        "requests" => request.or(limit),
        _ => return Err(EnvError(format!("unsupported container resource: {}", selector.resource))),
    };
    let fallback = if list == "limits" { capacity(node, name) } else { Some(0) };
    let milli = value.map(milli).or(fallback);
    let milli = milli.ok_or_else(|| EnvError(format!("unsupported container resource: {}", selector.resource)))?;
    let divisor = selector.divisor.as_ref().map(self::milli).filter(|d| *d > 0).unwrap_or(1000);
    Ok(((milli + divisor - 1) / divisor).to_string())
}

fn capacity(node: &NodeResources, resource: &str) -> Option<i128> {
    match resource {
        "cpu" => Some(node.milli_cpu.into()),
        "memory" => Some(i128::from(node.memory) * 1000),
        "ephemeral-storage" => Some(i128::from(node.ephemeral_storage) * 1000),
        name if name.starts_with("hugepages-") => Some(0),
        _ => None,
    }
}

/// Thousandths, wide enough for what `Quantity` holds in whole units.
fn milli(quantity: &Quantity) -> i128 {
    let quantity = api::quantity::of(quantity);
    let units = i128::from(quantity.units()) * 1000;
    // Large amounts are whole; small ones may be fractions.
    if units.abs() > i128::from(u32::MAX) { units } else { i128::from(quantity.milli()) }
}
