use std::sync::Arc;

use serde_json::{Value, json};

use super::super::view::tests::Fixed;
use super::*;

fn zone() -> Zone {
    Zone { domain: Name::from_ascii("cluster.local.").unwrap(), server: "10.96.0.10".parse().unwrap() }
}

fn service(name: &str, spec: Value) -> Arc<Service> {
    let object = json!({"metadata": {"namespace": "shop", "name": name}, "spec": spec});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn slice(name: &str, service: &str, endpoints: Value) -> Arc<EndpointSlice> {
    let object = json!({
        "metadata": {"namespace": "shop", "name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}], "endpoints": endpoints,
    });
    Arc::new(serde_json::from_value(object).unwrap())
}

fn cluster() -> Fixed {
    let ports = json!([{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]);
    let db = json!([
        {"addresses": ["10.244.0.2"], "hostname": "db-0", "conditions": {"ready": true}},
        {"addresses": ["10.244.0.3"]},
        {"addresses": ["10.244.0.4"], "hostname": "db-2", "conditions": {"ready": false}},
    ]);
    Fixed {
        services: vec![
            service("web", json!({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"], "ports": ports})),
            service(
                "db",
                json!({"clusterIP": "None", "clusterIPs": ["None"], "ports": [{"name": "sql", "port": 5432}]}),
            ),
            service("nobody", json!({"clusterIP": "None", "ports": [{"port": 80}]})),
            service("out", json!({"type": "ExternalName", "externalName": "www.example.org"})),
            service("number", json!({"type": "ExternalName", "externalName": "192.0.2.7"})),
        ],
        slices: vec![slice("db-1", "db", db), slice("web-1", "web", json!([{"addresses": ["10.244.0.9"]}]))],
    }
}

/// What is answered, as a resolver would print it.
fn ask(name: &str, wanted: RecordType) -> String {
    let name = Name::from_ascii(name).unwrap();
    let Some(answer) = answer(&name, wanted, &zone(), &cluster()) else { return "not ours".to_owned() };
    let mut text: Vec<String> = answer.records.iter().map(|r| r.data.to_string()).collect();
    text.extend(answer.chase.iter().map(|name| format!("chase {name}")));
    match (answer.code, text.is_empty()) {
        (ResponseCode::NoError, true) => "no data".to_owned(),
        (ResponseCode::NoError, false) => text.join(", "),
        (code, _) => format!("{code:?}"),
    }
}

#[test]
fn the_schema_is_served() {
    use RecordType::*;
    let table = [
        ("dns-version.cluster.local.", TXT, "1.1.0"),
        ("web.shop.svc.cluster.local.", A, "10.96.0.7"),
        ("WEB.shop.svc.cluster.local.", AAAA, "fd00::7"),
        ("web.shop.svc.cluster.local.", MX, "no data"),
        ("missing.shop.svc.cluster.local.", A, "NXDomain"),
        ("_http._tcp.web.shop.svc.cluster.local.", SRV, "0 100 80 web.shop.svc.cluster.local."),
        ("_http._tcp.web.shop.svc.cluster.local.", A, "no data"),
        ("_http._udp.web.shop.svc.cluster.local.", SRV, "NXDomain"),
        ("_tcp.web.shop.svc.cluster.local.", SRV, "no data"),
        ("_sctp.web.shop.svc.cluster.local.", SRV, "NXDomain"),
        (
            "web.shop.svc.cluster.local.",
            SRV,
            "0 50 53 web.shop.svc.cluster.local., 0 50 80 web.shop.svc.cluster.local.",
        ),
        ("db.shop.svc.cluster.local.", A, "10.244.0.3, 10.244.0.2"),
        ("db.shop.svc.cluster.local.", AAAA, "no data"),
        ("nobody.shop.svc.cluster.local.", A, "NXDomain"),
        ("db-0.db.shop.svc.cluster.local.", A, "10.244.0.2"),
        ("10-244-0-3.db.shop.svc.cluster.local.", A, "10.244.0.3"),
        ("db-2.db.shop.svc.cluster.local.", A, "NXDomain"),
        ("10-244-0-9.web.shop.svc.cluster.local.", A, "10.244.0.9"),
        (
            "_sql._tcp.db.shop.svc.cluster.local.",
            SRV,
            "0 50 5432 10-244-0-3.db.shop.svc.cluster.local., 0 50 5432 db-0.db.shop.svc.cluster.local.",
        ),
        ("out.shop.svc.cluster.local.", A, "www.example.org., chase www.example.org."),
        ("out.shop.svc.cluster.local.", CNAME, "www.example.org."),
        ("number.shop.svc.cluster.local.", A, "192.0.2.7"),
        ("10-244-7-7.shop.pod.cluster.local.", A, "10.244.7.7"),
        ("shop.svc.cluster.local.", A, "no data"),
        ("empty.svc.cluster.local.", A, "NXDomain"),
        ("svc.cluster.local.", A, "no data"),
        ("web.svc.cluster.local.", A, "NXDomain"),
        ("www.google.com.shop.svc.cluster.local.", A, "NXDomain"),
        ("ns.dns.cluster.local.", A, "10.96.0.10"),
        ("cluster.local.", NS, "ns.dns.cluster.local."),
        ("web.shop.svc.cluster.local.", ANY, "RFC8482 "),
        ("7.0.96.10.in-addr.arpa.", PTR, "web.shop.svc.cluster.local."),
        ("2.0.244.10.in-addr.arpa.", PTR, "db-0.db.shop.svc.cluster.local."),
        ("4.0.244.10.in-addr.arpa.", PTR, "not ours"),
        ("8.8.8.8.in-addr.arpa.", PTR, "not ours"),
        ("www.example.org.", A, "not ours"),
    ];
    for (name, wanted, expected) in table {
        assert_eq!(ask(name, wanted), expected, "{name} {wanted}");
    }
}

#[test]
fn srv_answers_bring_the_addresses_along() {
    let additionals = |name: &str| {
        let name = Name::from_ascii(name).unwrap();
        let answer = answer(&name, RecordType::SRV, &zone(), &cluster()).unwrap();
        answer.additionals.iter().map(|r| format!("{} {}", r.name, r.data)).collect::<Vec<_>>()
    };
    assert_eq!(
        additionals("_http._tcp.web.shop.svc.cluster.local."),
        ["web.shop.svc.cluster.local. 10.96.0.7", "web.shop.svc.cluster.local. fd00::7"]
    );
    assert_eq!(additionals("_sql._tcp.db.shop.svc.cluster.local.").len(), 2);
}
