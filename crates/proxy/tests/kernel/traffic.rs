//! Who is led where, and who is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use proxy::RuleSink;
use serde_json::json;

use super::lab::{Lab, NODE_IP, OUTSIDE_IP, PORT, run};
use super::{POD1, POD2, on_node, rules, rules_at, rules_on, serving};

#[test]
fn a_cluster_ip_is_reached_from_the_node_and_from_pods_also_from_the_endpoint_itself() {
    let Some(lab) = serving(&[POD1], json!({})) else { return };
    for from in ["node", "pod2", "pod1"] {
        for (protocol, answer) in [("tcp", lab.tcp(from, "10.96.0.1:80")), ("udp", lab.udp(from, "10.96.0.1:80"))] {
            let answer = answer.unwrap_or_else(|error| panic!("{protocol} from {from}: {error}"));
            assert!(answer.starts_with("pod1 "), "{protocol} from {from}: {answer}");
        }
    }
    assert_eq!(lab.tcp("pod2", "10.96.0.1:80").unwrap(), "pod1 10.244.0.12", "pods keep their address");
}

#[test]
fn a_node_port_is_reached_from_outside_and_from_the_node() {
    let Some(lab) = serving(&[POD1], json!({})) else { return };
    assert_eq!(lab.tcp("out", "192.0.2.1:30080").unwrap(), "pod1 10.244.0.1", "masqueraded");
    assert!(lab.udp("out", "192.0.2.1:30080").unwrap().starts_with("pod1"));
    assert!(lab.tcp("node", "192.0.2.1:30080").unwrap().starts_with("pod1"));
    assert!(lab.tcp("pod2", "192.0.2.1:30080").unwrap().starts_with("pod1"));
    let loopback = lab.tcp("node", "127.0.0.1:30080").unwrap_err();
    assert_eq!(loopback.kind(), ErrorKind::ConnectionRefused, "loopback is left alone");
}

#[test]
fn external_traffic_policy_local_keeps_the_client_address() {
    let Some(lab) = serving(&[POD1], json!({"externalTrafficPolicy": "Local"})) else { return };
    assert_eq!(lab.tcp("out", "192.0.2.1:30080").unwrap(), format!("pod1 {OUTSIDE_IP}"));
    assert!(lab.tcp("node", "192.0.2.1:30080").unwrap().starts_with("pod1"));
}

#[test]
fn internal_traffic_policy_local_keeps_traffic_on_the_node_or_drops_it() {
    let local = json!({"internalTrafficPolicy": "Local"});
    let Some(lab) = serving(&[POD1], local.clone()) else { return };
    assert!(lab.tcp("pod2", "10.96.0.1:80").unwrap().starts_with("pod1"));
    on_node(&lab, async |sink| sink.apply(&rules_on("other", PORT, &[POD1], local, json!({}))).await.unwrap());
    assert_eq!(lab.tcp("pod2", "10.96.0.1:80").unwrap_err().kind(), ErrorKind::TimedOut, "dropped");
    assert!(lab.tcp("pod2", "192.0.2.1:30080").unwrap().starts_with("pod1"), "from outside it goes anywhere");
}

#[test]
fn requests_are_spread_over_endpoints() {
    let Some(lab) = serving(&[POD1, POD2], json!({})) else { return };
    let mut counts = BTreeMap::<String, u32>::new();
    for _ in 0..60 {
        *counts.entry(lab.tcp("node", "10.96.0.1:80").unwrap()[..4].to_owned()).or_default() += 1;
    }
    // One in a billion runs would see fewer than eight of sixty.
    assert!(counts.len() == 2 && counts.values().all(|n| *n >= 8), "{counts:?}");
}

#[test]
fn a_node_port_leads_to_all_endpoints_or_to_those_here() {
    let Some(lab) = serving(&[POD1, POD2], json!({})) else { return };
    let answers = |from: &str, udp: bool| -> BTreeSet<String> {
        let ask = || if udp { lab.udp(from, "192.0.2.1:30080") } else { lab.tcp(from, "192.0.2.1:30080") };
        (0..30).map(|_| ask().unwrap()[..4].to_owned()).collect()
    };
    for (from, udp) in [("out", false), ("out", true), ("node", false), ("pod2", false)] {
        assert_eq!(answers(from, udp).len(), 2, "{from} {udp}");
    }
    on_node(&lab, async |sink| {
        sink.apply(&rules(&[POD1, POD2, "10.244.0.13"], json!({"externalTrafficPolicy": "Local"}))).await.unwrap();
        sink.apply(&rules(&[POD1, POD2], json!({"externalTrafficPolicy": "Local"}))).await.unwrap();
        assert_eq!(answers("out", false).len(), 2);
        assert_eq!(answers("pod2", false).len(), 2);
    });
}

#[test]
fn a_balancers_address_is_for_those_it_names() {
    let Some(lab) = Lab::new() else { return };
    let balanced = |range: &str| {
        let spec = json!({"type": "LoadBalancer", "loadBalancerSourceRanges": [range]});
        rules_at(PORT, &[POD1], spec, json!({"loadBalancer": {"ingress": [{"ip": NODE_IP, "ipMode": "VIP"}]}}))
    };
    on_node(&lab, async |sink| {
        sink.apply(&balanced("192.0.2.0/24")).await.unwrap();
        assert!(lab.tcp("out", "192.0.2.1:80").unwrap().starts_with("pod1"));
        sink.apply(&balanced("198.51.100.0/24")).await.unwrap();
        assert_eq!(lab.tcp("out", "192.0.2.1:80").unwrap_err().kind(), ErrorKind::TimedOut, "dropped");
        assert!(lab.tcp("out", "192.0.2.1:30080").unwrap().starts_with("pod1"), "node ports are for everyone");
    });
}

#[test]
fn what_nobody_serves_is_refused_at_once() {
    let Some(lab) = serving(&[], json!({})) else { return };
    for (from, address) in [
        ("node", "10.96.0.1:80"),
        ("pod1", "10.96.0.1:80"),
        ("node", "10.96.0.1:81"),
        ("pod1", "10.96.0.1:81"),
        ("out", "192.0.2.1:30080"),
    ] {
        assert_eq!(
            lab.tcp(from, address).unwrap_err().kind(),
            ErrorKind::ConnectionRefused,
            "tcp from {from} to {address}"
        );
        // What a rule refuses in OUTPUT fails in `send` itself, with EPERM.
        let kind = lab.udp(from, address).unwrap_err().kind();
        let refused = matches!(kind, ErrorKind::ConnectionRefused | ErrorKind::PermissionDenied);
        assert!(refused, "udp from {from} to {address}: {kind}");
    }
}

#[test]
fn pods_leave_the_cluster_with_the_node_address() {
    let Some(lab) = serving(&[], json!({})) else { return };
    assert_eq!(lab.tcp("pod1", "192.0.2.9:8080").unwrap(), format!("out {NODE_IP}"));
    assert_eq!(lab.tcp("pod1", "10.244.0.12:8080").unwrap(), format!("pod2 {POD1}"));
}

#[test]
fn an_external_address_leads_to_the_service() {
    let external = json!({"externalIPs": ["203.0.113.8", "10.96.0.1"]});
    let Some(lab) = serving(&[POD1], external.clone()) else { return };
    run(&format!("ip -n {} route add 203.0.113.8 via {NODE_IP}", lab.ns("out")));
    run(&format!("ip -n {} route add 203.0.113.8 dev lo", lab.ns("node")));
    for (from, address) in
        [("out", "203.0.113.8:80"), ("node", "203.0.113.8:80"), ("pod2", "203.0.113.8:80"), ("pod2", "10.96.0.1:80")]
    {
        for answer in [lab.tcp(from, address), lab.udp(from, address)] {
            assert!(answer.unwrap().starts_with("pod1"), "{from} {address}");
        }
    }
    on_node(&lab, async |sink| sink.apply(&rules(&[], external)).await.unwrap());
    assert_eq!(lab.tcp("out", "203.0.113.8:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
