//! Ports that get into each other's way.

use k8s_openapi::api::core::v1::{Container, ContainerPort};

use crate::field::Path;

/// The same port more than once in the pod.
pub(super) fn warnings(containers: &[(Container, Path)]) -> Vec<String> {
    let mut said = Vec::new();
    let mut seen: Vec<(&ContainerPort, Path)> = Vec::new();
    for (container, path) in containers {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let path = path.child("ports").index(index);
            if !host_ip(port).is_empty() && host_port(port) == 0 {
                said.push(format!("{path}: hostIP set without hostPort: {}", printed(port)));
            }
            let same =
                |other: &ContainerPort| other.container_port == port.container_port && other.protocol == port.protocol;
            for (other, place) in seen.iter().filter(|(other, _)| same(other)) {
                said.extend(
                    how_they_meet(port, other).map(|how| format!("{path}: {how} port definition with {place}")),
                );
            }
            seen.push((port, path));
        }
    }
    said
}

fn host_ip(port: &ContainerPort) -> &str {
    port.host_ip.as_deref().unwrap_or("")
}

fn host_port(port: &ContainerPort) -> i32 {
    port.host_port.unwrap_or(0)
}

fn how_they_meet(one: &ContainerPort, other: &ContainerPort) -> Option<&'static str> {
    let same_host_port = host_port(one) == host_port(other);
    if same_host_port && host_ip(one) == host_ip(other) {
        Some("duplicate")
    } else if host_port(one) == 0 || host_port(other) == 0 {
        Some("overlapping")
    } else if same_host_port && host_ip(one).is_empty() != host_ip(other).is_empty() {
        Some("dangerously ambiguous")
    } else {
        None
    }
}

/// As Go prints a structure.
fn printed(port: &ContainerPort) -> String {
    let (name, protocol) = (port.name.as_deref().unwrap_or(""), port.protocol.as_deref().unwrap_or(""));
    let (host_port, host_ip) = (host_port(port), host_ip(port));
    format!(
        "{{Name:{name} HostPort:{host_port} ContainerPort:{} Protocol:{protocol} HostIP:{host_ip}}}",
        port.container_port
    )
}
