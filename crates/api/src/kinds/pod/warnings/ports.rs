//! Ports that get into each other's way.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerPort};

use crate::field::Path;

/// The most that is said of ports: as many ports of one number as a body holds meet in the square of that many pairs.
const MAX_SAID: usize = 64;

/// The same port more than once in the pod.
pub(super) fn warnings(containers: &[(Container, Path)]) -> Vec<String> {
    let mut said = Vec::new();
    let mut seen = Seen::default();
    for (container, path) in containers {
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let path = path.child("ports").index(index);
            if !host_ip(port).is_empty() && host_port(port) == 0 {
                said.push(format!("{path}: hostIP set without hostPort: {}", printed(port)));
            }
            for (other, place) in seen.that_meet(port, MAX_SAID.saturating_sub(said.len())) {
                said.push(format!("{path}: {} port definition with {place}", how_they_meet(port, other)));
            }
            if said.len() >= MAX_SAID {
                said.truncate(MAX_SAID);
                return said;
            }
            seen.push(port, path);
        }
    }
    said
}

/// Ports, by what others may meet them with: none is looked at that is not met.
#[derive(Default)]
struct Seen<'a> {
    ports: Vec<(&'a ContainerPort, Path)>,
    places: BTreeMap<(i32, Option<&'a str>, Host<'a>), Vec<usize>>,
}

/// What of a port's host side is asked for.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Host<'a> {
    Any,
    Port(i32),
    Address(i32, &'a str),
}

impl<'a> Seen<'a> {
    fn push(&mut self, port: &'a ContainerPort, path: Path) {
        let (number, ip) = (host_port(port), host_ip(port));
        for host in [Host::Any, Host::Port(number), Host::Address(number, ip)] {
            let key = (port.container_port, port.protocol.as_deref(), host);
            self.places.entry(key).or_default().push(self.ports.len());
        }
        self.ports.push((port, path));
    }

    /// The first of those that `port` meets.
    fn that_meet(&self, port: &'a ContainerPort, at_most: usize) -> impl Iterator<Item = &(&'a ContainerPort, Path)> {
        let hosts = match (host_port(port), host_ip(port)) {
            (0, _) => vec![Host::Any],
            (number, "") => vec![Host::Port(0), Host::Port(number)],
            (number, ip) => vec![Host::Port(0), Host::Address(number, ip), Host::Address(number, "")],
        };
        let of = |host| self.places.get(&(port.container_port, port.protocol.as_deref(), host));
        let mut places: Vec<usize> =
            hosts.into_iter().filter_map(of).flat_map(|places| places.iter().take(at_most).copied()).collect();
        places.sort_unstable();
        places.into_iter().take(at_most).filter_map(|place| self.ports.get(place))
    }
}

fn host_ip(port: &ContainerPort) -> &str {
    port.host_ip.as_deref().unwrap_or("")
}

fn host_port(port: &ContainerPort) -> i32 {
    port.host_port.unwrap_or(0)
}

fn how_they_meet(one: &ContainerPort, other: &ContainerPort) -> &'static str {
    if host_port(one) == host_port(other) && host_ip(one) == host_ip(other) {
        "duplicate"
    } else if host_port(one) == 0 || host_port(other) == 0 {
        "overlapping"
    } else {
        "dangerously ambiguous"
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
