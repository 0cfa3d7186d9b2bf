//! What a name in a question stands for, by its shape alone (`parseRequest` and `object.go` of CoreDNS's kubernetes plugin).

use std::net::IpAddr;

use hickory_proto::rr::Name;

/// A place in the tree of names. Labels are lower case: the cluster's names are, and DNS compares without case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The cluster's domain itself.
    Apex,
    /// `dns-version`: which schema is served.
    Version,
    /// `ns.dns`: the server itself.
    Server,
    /// A name that exists only because others end in it: `svc`, `pod`, `dns`.
    Branch,
    /// `NAMESPACE.svc`.
    Namespace(String),
    /// `NAMESPACE.pod`.
    PodNamespace,
    /// `SERVICE.NAMESPACE.svc`.
    Service(ServiceName),
    /// `HOST.SERVICE.NAMESPACE.svc`: one endpoint.
    Host(ServiceName, String),
    /// `_PROTOCOL.SERVICE.NAMESPACE.svc`: above the ports of that protocol.
    Protocol(ServiceName, String),
    /// `_PORT._PROTOCOL.SERVICE.NAMESPACE.svc`.
    Port(ServiceName, String, String),
    /// `1-2-3-4.NAMESPACE.pod`: the address that the name spells.
    Pod(IpAddr),
    /// In the cluster's domain, and never anything.
    Nothing,
    /// A whole address below `in-addr.arpa` or `ip6.arpa`.
    Reverse(IpAddr),
    /// Someone else's name.
    Outside,
}

/// A service by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceName {
    /// Its namespace.
    pub namespace: String,
    /// Its own name.
    pub name: String,
}

/// Where `name` is, seen from the cluster's domain `zone`.
pub fn place(name: &Name, zone: &Name) -> Place {
    if !zone.zone_of(name) {
        return reverse(name).map_or(Place::Outside, Place::Reverse);
    }
    let depth = usize::from(name.num_labels()).saturating_sub(usize::from(zone.num_labels()));
    let labels: Option<Vec<String>> = name.iter().take(depth).map(label).collect();
    // No object has a name that is not text.
    let Some(labels) = labels else { return Place::Nothing };
    let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
    match labels.as_slice() {
        [] => Place::Apex,
        ["dns-version"] => Place::Version,
        ["ns", "dns"] => Place::Server,
        ["svc" | "pod" | "dns"] => Place::Branch,
        [namespace, "svc"] => Place::Namespace((*namespace).to_owned()),
        [_, "pod"] => Place::PodNamespace,
        [ip, _, "pod"] => pod_ip(ip).map_or(Place::Nothing, Place::Pod),
        [rest @ .., name, namespace, "svc"] => {
            below(rest, ServiceName { namespace: (*namespace).to_owned(), name: (*name).to_owned() })
        }
        _ => Place::Nothing,
    }
}

fn below(labels: &[&str], service: ServiceName) -> Place {
    match labels {
        [] => Place::Service(service),
        [label] => match label.strip_prefix('_') {
            Some(protocol) => Place::Protocol(service, protocol.to_owned()),
            None => Place::Host(service, (*label).to_owned()),
        },
        [port, protocol] => match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
            (Some(port), Some(protocol)) => Place::Port(service, port.to_owned(), protocol.to_owned()),
            _ => Place::Nothing,
        },
        _ => Place::Nothing,
    }
}

fn label(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_ascii_lowercase)
}

/// The address that a pod's name spells: with dashes for dots, or for the colons of IPv6.
fn pod_ip(label: &str) -> Option<IpAddr> {
    let dotted = label.matches('-').count() == 3 && !label.contains("--");
    label.replace('-', if dotted { "." } else { ":" }).parse().ok()
}

fn reverse(name: &Name) -> Option<IpAddr> {
    let network = name.parse_arpa_name().ok()?;
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_where_it_is() {
        let web = || ServiceName { namespace: "shop".to_owned(), name: "web".to_owned() };
        let text = str::to_owned;
        let table = [
            ("cluster.local.", Place::Apex),
            ("dns-version.cluster.local.", Place::Version),
            ("ns.dns.cluster.local.", Place::Server),
            ("svc.cluster.local.", Place::Branch),
            ("pod.cluster.local.", Place::Branch),
            ("shop.svc.cluster.local.", Place::Namespace(text("shop"))),
            ("shop.pod.cluster.local.", Place::PodNamespace),
            ("web.shop.svc.cluster.local.", Place::Service(web())),
            ("WEB.Shop.SVC.Cluster.Local.", Place::Service(web())),
            ("db-0.web.shop.svc.cluster.local.", Place::Host(web(), text("db-0"))),
            ("_tcp.web.shop.svc.cluster.local.", Place::Protocol(web(), text("tcp"))),
            ("_http._tcp.web.shop.svc.cluster.local.", Place::Port(web(), text("http"), text("tcp"))),
            ("http._tcp.web.shop.svc.cluster.local.", Place::Nothing),
            ("a.b.c.web.shop.svc.cluster.local.", Place::Nothing),
            ("10-244-0-7.shop.pod.cluster.local.", Place::Pod("10.244.0.7".parse().unwrap())),
            ("fd00--7.shop.pod.cluster.local.", Place::Pod("fd00::7".parse().unwrap())),
            ("10-244-0-700.shop.pod.cluster.local.", Place::Nothing),
            ("nothing.cluster.local.", Place::Nothing),
            ("cluster.local.example.org.", Place::Outside),
            ("xcluster.local.", Place::Outside),
            (".", Place::Outside),
            ("7.0.244.10.in-addr.arpa.", Place::Reverse("10.244.0.7".parse().unwrap())),
            ("0.244.10.in-addr.arpa.", Place::Outside),
        ];
        let zone = Name::from_ascii("cluster.local.").unwrap();
        for (name, expected) in table {
            assert_eq!(place(&Name::from_ascii(name).unwrap(), &zone), expected, "{name}");
        }
    }
}
