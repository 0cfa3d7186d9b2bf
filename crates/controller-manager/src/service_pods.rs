//! What endpoints and endpoint slices have in common: which pods back a service, at which ports and addresses.

use std::collections::BTreeSet;
use std::sync::Arc;

use client::{Change, Lister};
use k8s_openapi::api::core::v1::{ObjectReference, Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::context::Key;
use crate::informers::{BY_LABEL, BY_SELECTOR, label_keys, selector_key, selects};
use crate::pod::PodInfo;

/// The services to look at again after a change of a pod: those that select it now or did before.
pub(crate) fn services_of(services: &Lister<Service>, change: &Change<PodInfo>) -> BTreeSet<Key> {
    let pods: &[&Arc<PodInfo>] = match change {
        Change::Added(pod) | Change::Deleted(pod) => &[pod],
        Change::Updated { old, new } if !matters(old, new) => &[],
        Change::Updated { old, new } => &[old, new],
    };
    pods.iter().flat_map(|pod| selecting(services, pod)).collect()
}

fn selecting(services: &Lister<Service>, pod: &PodInfo) -> Vec<Key> {
    let filed = label_keys(pod).flat_map(|label| services.by_index(BY_SELECTOR, &label));
    let selecting = filed.filter(|service| {
        let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
        selector.is_some_and(|selector| selects(selector, pod.labels()))
    });
    selecting.map(|service| Key::of(&service.metadata)).collect()
}

/// Whether a change of a pod can change a service's endpoints.
fn matters(old: &PodInfo, new: &PodInfo) -> bool {
    let status = |pod: &PodInfo| (pod.ready, pod.is_terminal(), pod.is_terminating());
    old.uid != new.uid
        || old.common != new.common
        || old.node != new.node
        || old.ips != new.ips
        || status(old) != status(new)
}

/// The pods that `service` selects, by name.
pub(crate) fn pods_of(service: &Service, pods: &Lister<PodInfo>) -> Vec<Arc<PodInfo>> {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
    let (Some(selector), Some(label)) = (selector, selector_key(&service.metadata, selector)) else {
        return Vec::new();
    };
    let mut selected = pods.by_index(BY_LABEL, &label);
    selected.retain(|pod| selects(selector, pod.labels()));
    selected.sort_by(|a, b| a.name.cmp(&b.name));
    selected
}

/// Whether the endpoints of `service` are made here: it has a selector and is not a mere name for another.
pub(crate) fn is_managed(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| {
        spec.selector.as_ref().is_some_and(|selector| !selector.is_empty())
            && spec.type_.as_deref() != Some("ExternalName")
    })
}

/// Whether the service has no address of its own, so that names lead to its pods.
pub(crate) fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.cluster_ip.as_deref() == Some("None"))
}

/// Whether the service wants its pods known before they are ready.
pub(crate) fn publishes_not_ready(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.publish_not_ready_addresses == Some(true))
}

/// The service's ports.
pub(crate) fn ports(service: &Service) -> &[ServicePort] {
    service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or(&[])
}

/// The IP families of the service, `IPv4` where it does not say.
pub(crate) fn families(service: &Service) -> Vec<&str> {
    let families = service.spec.as_ref().and_then(|spec| spec.ip_families.as_ref());
    let families: Vec<_> = families.into_iter().flatten().map(String::as_str).collect();
    if families.is_empty() { vec!["IPv4"] } else { families }
}

/// The pod's address of a family.
pub(crate) fn address<'a>(pod: &'a PodInfo, family: &str) -> Option<&'a str> {
    let is_v6 = family == "IPv6";
    pod.ips.iter().map(|ip| &**ip).find(|ip| ip.contains(':') == is_v6)
}

/// The number that a service's port means in `pod`: the target port, or the container port it names.
pub(crate) fn target_port(pod: &PodInfo, port: &ServicePort) -> Option<i32> {
    let name = match &port.target_port {
        None | Some(IntOrString::Int(0)) => return Some(port.port),
        Some(IntOrString::Int(number)) => return Some(*number),
        Some(IntOrString::String(name)) => name,
    };
    let protocol = port.protocol.as_deref().unwrap_or("TCP");
    pod.common.ports.iter().find(|p| p.name == *name && p.protocol == protocol).map(|p| p.port)
}

/// The name the pod has below the service's, if it asked for one.
pub(crate) fn hostname(pod: &PodInfo, service: &Service) -> Option<String> {
    let common = &pod.common;
    let ours = common.subdomain.is_some() && common.subdomain == service.metadata.name;
    let here = service.metadata.namespace.as_deref() == Some(&*pod.namespace);
    common.hostname.clone().filter(|name| ours && here && !name.is_empty())
}

/// The pod as an endpoint's target.
pub(crate) fn target_ref(pod: &PodInfo) -> ObjectReference {
    ObjectReference { api_version: None, resource_version: None, ..pod.reference() }
}

/// Services and pods for the tests of both controllers.
#[cfg(test)]
pub(crate) mod testing {
    use k8s_openapi::api::core::v1::ServiceSpec;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;
    use crate::pod::{Common, NamedPort, Phase};

    fn metadata(name: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(format!("uid-{name}")),
            ..ObjectMeta::default()
        }
    }

    /// A service with port 80 that leads to the container port called `http`.
    pub(crate) fn service() -> Service {
        let port = ServicePort {
            port: 80,
            protocol: Some("TCP".to_owned()),
            target_port: Some(IntOrString::String("http".to_owned())),
            ..ServicePort::default()
        };
        let spec = ServiceSpec {
            selector: Some([("app".to_owned(), "web".to_owned())].into()),
            ports: Some(vec![port]),
            cluster_ip: Some("10.96.0.10".to_owned()),
            ..ServiceSpec::default()
        };
        Service { metadata: metadata("web"), spec: Some(spec), status: None }
    }

    /// A ready pod at `10.244.x.y` that serves `http` at 8080.
    pub(crate) fn pod(n: usize) -> PodInfo {
        PodInfo {
            namespace: "default".into(),
            name: format!("web-{n:04}").into(),
            uid: format!("uid-web-{n:04}").into(),
            node: Some("box1".into()),
            ips: vec![format!("10.244.{}.{}", n / 250, n % 250 + 1).into_boxed_str()].into(),
            phase: Phase::Running,
            ready: true,
            ..serving(8080)
        }
    }

    /// A pod without identity that serves `http` at `port`.
    pub(crate) fn serving(port: i32) -> PodInfo {
        let http = NamedPort { name: "http".to_owned(), protocol: "TCP".to_owned(), port };
        PodInfo { common: Common { ports: vec![http], ..Common::default() }.into(), ..PodInfo::default() }
    }

    /// A pod that is not ready.
    pub(crate) fn unready(n: usize) -> PodInfo {
        PodInfo { ready: false, ..pod(n) }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{pod, service};
    use super::*;

    #[test]
    fn a_target_port_is_a_number_or_a_container_ports_name() {
        let cases = [
            ("a name is looked up", Some(IntOrString::String("http".into())), Some(8080)),
            ("an unknown name is no port", Some(IntOrString::String("grpc".into())), None),
            ("a number stands for itself", Some(IntOrString::Int(9090)), Some(9090)),
            ("nothing means the port itself", None, Some(80)),
        ];
        for (sentence, target_port_, expected) in cases {
            let port = ServicePort { target_port: target_port_, ..ports(&service())[0].clone() };
            assert_eq!(target_port(&pod(0), &port), expected, "{sentence}");
        }
    }

    #[test]
    fn a_name_counts_only_with_the_same_protocol() {
        let port = ServicePort { protocol: Some("UDP".into()), ..ports(&service())[0].clone() };
        assert_eq!(target_port(&pod(0), &port), None);
    }

    #[test]
    fn only_what_endpoints_show_matters() {
        let (old, mut new) = (pod(0), pod(0));
        new.restarts = 1;
        assert!(!matters(&old, &new));
        new.ready = false;
        assert!(matters(&old, &new), "readiness");
    }
}
