//! The variables by which a container finds services without DNS (`pkg/kubelet/envvars`): the plain ones and those that
//! Docker links once set.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// The service every namespace gets to see.
const MASTER_SERVICE: (&str, &str) = ("default", "kubernetes");

/// Which of `all` services a pod of `namespace` gets variables for: the API server's, and those beside it unless it
/// says `enableServiceLinks: false`.
pub fn visible(all: &[Arc<Service>], namespace: &str, links: bool) -> Vec<Arc<Service>> {
    let seen = |service: &&Arc<Service>| {
        let (of, name) = (crate::pod::namespace(&service.metadata), crate::pod::name(&service.metadata));
        (of, name) == MASTER_SERVICE || (links && of == namespace)
    };
    all.iter().filter(seen).cloned().collect()
}

/// The variables of `services`, those without an address left out.
pub fn variables(services: &[Arc<Service>]) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let spec = service.spec.as_ref();
        let Some(address) = spec.and_then(|s| s.cluster_ip.as_deref()).filter(|ip| !ip.is_empty() && *ip != "None")
        else {
            continue;
        };
        let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
        let name = variable_name(crate::pod::name(&service.metadata));
        plain(&mut variables, &name, address, ports);
        links(&mut variables, &name, address, ports);
    }
    variables
}

fn variable_name(text: &str) -> String {
    text.to_ascii_uppercase().replace('-', "_")
}

fn plain(variables: &mut BTreeMap<String, String>, name: &str, address: &str, ports: &[ServicePort]) {
    variables.insert(format!("{name}_SERVICE_HOST"), address.to_owned());
    if let Some(first) = ports.first() {
        variables.insert(format!("{name}_SERVICE_PORT"), first.port.to_string());
    }
    for port in ports {
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            variables.insert(format!("{name}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string());
        }
    }
}

fn links(variables: &mut BTreeMap<String, String>, name: &str, address: &str, ports: &[ServicePort]) {
    for (index, port) in ports.iter().enumerate() {
        let protocol = port.protocol.as_deref().filter(|p| !p.is_empty()).unwrap_or("TCP");
        let url = format!("{}://{}", protocol.to_ascii_lowercase(), host_port(address, port.port));
        let prefix = format!("{name}_PORT_{}_{}", port.port, protocol.to_ascii_uppercase());
        if index == 0 {
            variables.insert(format!("{name}_PORT"), url.clone());
        }
        variables.insert(prefix.clone(), url);
        variables.insert(format!("{prefix}_PROTO"), protocol.to_ascii_lowercase());
        variables.insert(format!("{prefix}_PORT"), port.port.to_string());
        variables.insert(format!("{prefix}_ADDR"), address.to_owned());
    }
}

fn host_port(address: &str, port: i32) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str, address: &str) -> Arc<Service> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"clusterIP": address, "ports": [
                    {"name": "http-x", "port": 80, "protocol": "TCP"}, {"name": "dns", "port": 53, "protocol": "UDP"}]}
            }))
            .unwrap(),
        )
    }

    #[test]
    fn variables_follow_the_form_of_docker_links() {
        let variables = variables(&[service("ns", "foo-bar", "1.2.3.4"), service("ns", "headless", "None")]);
        let expected = [
            ("FOO_BAR_SERVICE_HOST", "1.2.3.4"),
            ("FOO_BAR_SERVICE_PORT", "80"),
            ("FOO_BAR_SERVICE_PORT_HTTP_X", "80"),
            ("FOO_BAR_SERVICE_PORT_DNS", "53"),
            ("FOO_BAR_PORT", "tcp://1.2.3.4:80"),
            ("FOO_BAR_PORT_80_TCP", "tcp://1.2.3.4:80"),
            ("FOO_BAR_PORT_80_TCP_PROTO", "tcp"),
            ("FOO_BAR_PORT_80_TCP_PORT", "80"),
            ("FOO_BAR_PORT_80_TCP_ADDR", "1.2.3.4"),
            ("FOO_BAR_PORT_53_UDP", "udp://1.2.3.4:53"),
            ("FOO_BAR_PORT_53_UDP_PROTO", "udp"),
            ("FOO_BAR_PORT_53_UDP_PORT", "53"),
            ("FOO_BAR_PORT_53_UDP_ADDR", "1.2.3.4"),
        ];
        let expected: BTreeMap<String, String> = expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(variables, expected);
    }

    #[test]
    fn pods_see_their_namespace_and_the_api_server() {
        let all = [service("default", "kubernetes", "1"), service("ns", "a", "2"), service("other", "b", "3")];
        let names = |links| -> Vec<String> {
            visible(&all, "ns", links).iter().map(|s| crate::pod::name(&s.metadata).to_owned()).collect()
        };
        assert_eq!(names(true), ["kubernetes", "a"]);
        assert_eq!(names(false), ["kubernetes"]);
    }
}
