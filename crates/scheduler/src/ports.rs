//! Ports that pods take on their node's own addresses.

use k8s_openapi::api::core::v1::{Container, ContainerPort, PodSpec};

/// Every address of the node.
const ANY_ADDRESS: &str = "0.0.0.0";

/// One port on one address (or all) of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    address: String,
    protocol: String,
    port: i32,
}

impl HostPort {
    /// Whether both cannot be on one node: same protocol and port, and one address or one of them on all
    /// (`HostPortInfo.CheckConflict`).
    pub fn conflicts_with(&self, other: &HostPort) -> bool {
        let both_reach = self.address == other.address || self.address == ANY_ADDRESS || other.address == ANY_ADDRESS;
        self.port == other.port && self.protocol == other.protocol && both_reach
    }
}

/// The host ports of a pod: of its containers and of the init containers that keep running beside them.
pub fn of(spec: &PodSpec) -> Vec<HostPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always"));
    let on_host = spec.host_network == Some(true);
    let ports_of = |container: &Container| -> Vec<HostPort> {
        container.ports.iter().flatten().filter_map(|port| host_port(port, on_host)).collect()
    };
    sidecars.chain(&spec.containers).flat_map(ports_of).collect()
}

/// With `hostNetwork` every container port is a port of the host, as defaulting writes it.
fn host_port(port: &ContainerPort, on_host: bool) -> Option<HostPort> {
    let own = if on_host { Some(port.container_port) } else { None };
    let number = port.host_port.filter(|number| *number > 0).or(own)?;
    let given = |text: &Option<String>, default: &str| match text.as_deref() {
        None | Some("") => default.to_owned(),
        Some(text) => text.to_owned(),
    };
    Some(HostPort { address: given(&port.host_ip, ANY_ADDRESS), protocol: given(&port.protocol, "TCP"), port: number })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ports(list: serde_json::Value) -> Vec<HostPort> {
        let spec = json!({"containers": [{"name": "c", "ports": list}]});
        of(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn ports_conflict_per_address_and_protocol() {
        let table = [
            ("the same", json!({"containerPort": 1, "hostPort": 80}), true),
            ("another port", json!({"containerPort": 1, "hostPort": 81}), false),
            ("another protocol", json!({"containerPort": 1, "hostPort": 80, "protocol": "UDP"}), false),
            ("one address against all", json!({"containerPort": 1, "hostPort": 80, "hostIP": "127.0.0.1"}), true),
        ];
        let taken = ports(json!([{"containerPort": 9, "hostPort": 80}])).remove(0);
        for (sentence, port, expected) in table {
            let wanted = ports(json!([port])).remove(0);
            assert_eq!(wanted.conflicts_with(&taken), expected, "{sentence}");
            assert_eq!(taken.conflicts_with(&wanted), expected, "{sentence}, the other way round");
        }
        let here = ports(json!([{"containerPort": 1, "hostPort": 80, "hostIP": "127.0.0.1"}])).remove(0);
        let there = ports(json!([{"containerPort": 1, "hostPort": 80, "hostIP": "127.0.0.2"}])).remove(0);
        assert!(!here.conflicts_with(&there));
    }

    #[test]
    fn container_ports_without_host_port_take_nothing() {
        assert!(ports(json!([{"containerPort": 80}])).is_empty());
    }

    #[test]
    fn on_the_host_network_every_port_is_a_host_port() {
        let spec = json!({"hostNetwork": true, "containers": [{"name": "c", "ports": [{"containerPort": 80}]}]});
        assert_eq!(of(&serde_json::from_value(spec).unwrap()).len(), 1);
    }
}
