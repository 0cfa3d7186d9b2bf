//! The rules in a real kernel: traffic between network namespaces that these tests make and remove. Needs root and nft.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod lab;
mod sctp;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use client::Tasks;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use lab::{Lab, NODE_IP, OUTSIDE_IP, PORT, ask_udp, run};
use proxy::nf_tables::Tables;
use proxy::overlay::{Overlay, Peer};
use proxy::routes::{Paths, Route, Via};
use proxy::{Config, NftSink, Part, RuleSet, RuleSink, dns, render, ruleset};
use serde_json::{Value, json};

const POD1: &str = "10.244.0.11";
const POD2: &str = "10.244.0.12";

fn config() -> Config {
    Config::new("node", NODE_IP.parse().unwrap())
}

/// Rules for the service `10.96.0.1:80` (NodePort 30080) in TCP and UDP, with `extra` in its spec.
fn rules(endpoints: &[&str], extra: Value) -> RuleSet {
    rules_at(PORT, endpoints, extra, json!({}))
}

/// The same with endpoints at a port of their own, and a status.
fn rules_at(target: u16, endpoints: &[&str], extra: Value, status: Value) -> RuleSet {
    rules_on("node", target, endpoints, extra, status)
}

/// The same with endpoints on a node.
fn rules_on(node: &str, target: u16, endpoints: &[&str], extra: Value, status: Value) -> RuleSet {
    let port = |name: &str, protocol: &str| json!({"name": name, "port": 80, "nodePort": 30080, "protocol": protocol});
    let mut spec = json!({"clusterIP": "10.96.0.1", "ports": [port("t", "TCP"), port("u", "UDP")]});
    spec.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    let service = json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec, "status": status});
    let endpoint = |ip: &&str| json!({"addresses": [ip], "nodeName": node});
    let slice = json!({
        "metadata": {"namespace": "default", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "t", "port": target, "protocol": "TCP"}, {"name": "u", "port": target, "protocol": "UDP"}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    });
    let (service, slice): (Service, EndpointSlice) =
        (serde_json::from_value(service).unwrap(), serde_json::from_value(slice).unwrap());
    ruleset([&service], [&slice], &config())
}

/// Runs `body` with a sink in the node's namespace.
fn on_node<F: Future<Output = ()>>(lab: &Lab, body: impl FnOnce(NftSink) -> F + Send) {
    lab.inside("node", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tasks = Tasks::new();
            body(NftSink::new(config(), &tasks)).await;
            assert!(tasks.stop(Duration::from_secs(5)).await);
        });
    });
}

/// A lab whose node serves the service with these endpoints.
fn serving(endpoints: &[&str], extra: Value) -> Option<Lab> {
    let lab = Lab::new()?;
    let rules = rules(endpoints, extra);
    on_node(&lab, async |sink| {
        sink.apply_paths(&Paths::default()).await.unwrap();
        sink.apply(&rules).await.unwrap();
    });
    Some(lab)
}

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
fn a_restart_of_the_proxy_interrupts_nobody() {
    let Some(lab) = Lab::new() else { return };
    let echo = 9090;
    let listener = lab.inside("pod1", || TcpListener::bind(("0.0.0.0", echo)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    let say = |stream: &mut TcpStream, word: &[u8; 4]| {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(word).unwrap();
        let mut heard = [0; 4];
        stream.read_exact(&mut heard).unwrap();
        assert_eq!(heard, *word);
    };
    let rules = rules_at(echo, &[POD1], json!({}), json!({}));
    on_node(&lab, async |first| {
        first.apply_paths(&Paths::default()).await.unwrap();
        first.apply(&rules).await.unwrap();
        let connect = || TcpStream::connect_timeout(&"10.96.0.1:80".parse().unwrap(), Duration::from_secs(5));
        let mut old = lab.inside("pod2", || connect().unwrap());
        say(&mut old, b"old1");
        let over = AtomicBool::new(false);
        let made = std::thread::scope(|scope| {
            let others = scope.spawn(|| {
                lab.inside("pod2", || {
                    let mut made = 0;
                    while !over.load(Ordering::SeqCst) {
                        say(&mut connect().expect("a gap"), b"new.");
                        made += 1;
                    }
                    made
                })
            });
            // Each start knows nothing of the one before, and replaces the whole table.
            std::thread::scope(|starts| {
                starts.spawn(|| {
                    for _ in 0..5 {
                        on_node(&lab, async |next| next.apply(&rules).await.unwrap());
                        say(&mut old, b"old2");
                    }
                });
            });
            over.store(true, Ordering::SeqCst);
            others.join().unwrap()
        });
        assert!(made > 5, "{made} connections were made meanwhile");
    });
}

/// nft is the judge: it lists what we put there as what it would have put there itself.
#[test]
fn nft_reads_our_messages_as_the_script_they_were_made_of() {
    let Some(lab) = Lab::new() else { return };
    let sticky = json!({"sessionAffinity": "ClientIP", "externalIPs": ["203.0.113.8"], "externalTrafficPolicy": "Local",
                        "internalTrafficPolicy": "Local", "type": "LoadBalancer",
                        "loadBalancerSourceRanges": ["192.0.2.0/25", "198.51.100.7/32"]});
    let status = json!({"loadBalancer": {"ingress": [{"ip": NODE_IP, "ipMode": "VIP"}]}});
    let mut all = rules_at(PORT, &[POD1, POD2, "10.244.0.13"], sticky, status);
    let another = |shift| {
        let (service, slice) = one_of_many(1, shift);
        ruleset([&service], [&slice], &config()).services
    };
    all.services.extend(another(0));
    let dns =
        dns::Config { address: "10.96.0.10".parse().unwrap(), domain: "cluster.local".to_owned(), resolv_conf: None };
    let addresses = vec!["192.0.2.0/24".parse().unwrap(), "198.51.100.0/22".parse().unwrap()];
    all.config = Config { dns: Some(dns), overlay: true, node_port_addresses: addresses, ..config() };
    let mut changed = all.clone();
    changed.services.extend(another(7));
    changed.services.extend(rules(&[POD2, POD1], json!({"sessionAffinity": "ClientIP"})).services);
    let listed = || run("nft -s list table ip coracle");
    for script in [render::full(&all, 7), render::difference(&all, &changed, 8).unwrap(), render::full(&all, 9)] {
        let theirs = lab.inside("pod1", || {
            let file = std::env::temp_dir().join(lab.ns("script"));
            std::fs::write(&file, &script).unwrap();
            run(&format!("nft -f {0} && rm {0}", file.display()));
            listed()
        });
        let ours = lab.inside("pod2", || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async { Tables::open().unwrap().run(script).await }).unwrap();
            listed()
        });
        assert_eq!(ours, theirs);
    }
}

/// The kernel answers each line it refuses with that line, and drops what does not fit into the socket's buffer.
#[test]
fn more_refusals_than_are_heard_are_told_and_spoil_nothing_that_follows() {
    let Some(lab) = Lab::new() else { return };
    lab.inside("pod1", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tables = Tables::open().unwrap();
            let table = "add table ip coracle\nadd chain ip coracle c\n";
            let wrong = "add rule ip coracle c goto nowhere\n".repeat(3000);
            for _ in 0..2 {
                let error = tables.run(format!("{table}{wrong}")).await.unwrap_err().to_string();
                assert!(error.contains("No such file or directory") && error.contains("goto nowhere"), "{error}");
                tables.run(table.to_owned()).await.expect("what was refused before is over");
                tables.run("delete table ip coracle".to_owned()).await.unwrap();
            }
        });
    });
}

/// A service with four endpoints; `shift` moves them.
fn one_of_many(i: u32, shift: u32) -> (Service, EndpointSlice) {
    let ip = |base: [u8; 4], i: u32| std::net::Ipv4Addr::from(u32::from(std::net::Ipv4Addr::from(base)) + i);
    let spec = json!({"clusterIP": ip([10, 100, 0, 1], i), "ports": [{"name": "http", "port": 80}]});
    let name = json!({"namespace": "default", "name": format!("many-{i}")});
    let endpoint = |j: u32| json!({"addresses": [ip([10, 244, 0, 1], i * 4 + j + shift)]});
    let slice = json!({
        "metadata": {"namespace": "default", "name": format!("many-{i}"),
                     "labels": {"kubernetes.io/service-name": format!("many-{i}")}},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..4).map(endpoint).collect::<Vec<_>>(),
    });
    let service = json!({"metadata": name, "spec": spec});
    (serde_json::from_value(service).unwrap(), serde_json::from_value(slice).unwrap())
}

/// The bounds are those of an unoptimised build on a busy machine; `make bench` measures.
#[test]
fn five_thousand_services_are_programmed_at_once_and_one_change_among_them_too() {
    let Some(lab) = Lab::new() else { return };
    let (services, slices): (Vec<_>, Vec<_>) = (0..5000).map(|i| one_of_many(i, 0)).unzip();
    let all = ruleset(&services, &slices, &config());
    // As the driver does it: what did not change is the same.
    let (service, mut slice) = one_of_many(4999, 7);
    let with = |slice: &EndpointSlice| {
        let mut changed = all.clone();
        changed.services.extend(ruleset([&service], [slice], &config()).services);
        changed
    };
    let moved = with(&slice);
    slice.endpoints.clear();
    let none = with(&slice);
    on_node(&lab, async |sink| {
        // The monitor starts meanwhile.
        sink.apply(&RuleSet::empty(&config())).await.unwrap();
        let begun = Instant::now();
        sink.apply(&all).await.unwrap();
        let whole = begun.elapsed();
        let mut taken = BTreeMap::<&str, Vec<Duration>>::new();
        for _ in 0..5 {
            for (what, rules) in [("moved", &moved), ("back", &all), ("none", &none), ("first", &all)] {
                let begun = Instant::now();
                sink.apply(rules).await.unwrap();
                taken.entry(what).or_default().push(begun.elapsed());
            }
        }
        sink.apply(&moved).await.unwrap();
        println!("5,000 services: {whole:?}, endpoints of one of them: {taken:?}");
        let one = taken.values().flatten().min().unwrap();
        assert!(whole < Duration::from_secs(10) && *one < Duration::from_millis(500), "{whole:?}, {taken:?}");
        let listed = run("nft list map ip coracle endpoint_ips | grep -o '10.100.19.136 . tcp . 80 . 1:[0-3]' | wc -l");
        assert_eq!(listed.trim(), "4", "the last service has its endpoints");
    });
}

#[test]
fn client_ip_affinity_holds_over_unrelated_changes() {
    let sticky = json!({"sessionAffinity": "ClientIP"});
    let Some(lab) = serving(&[POD1], json!({})) else { return };
    on_node(&lab, async |sink| {
        sink.apply(&rules(&[POD1, POD2], sticky.clone())).await.unwrap();
        let first = lab.tcp("out", "192.0.2.1:30080").unwrap();
        for _ in 0..15 {
            assert_eq!(lab.tcp("out", "192.0.2.1:30080").unwrap(), first);
        }
        sink.apply(&rules(&[POD1, POD2, "10.244.0.13"], sticky.clone())).await.unwrap();
        for _ in 0..15 {
            assert_eq!(lab.tcp("out", "192.0.2.1:30080").unwrap(), first);
        }
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

/// A service `10.96.0.3:2905` in SCTP whose endpoint is pod 1 at port 2906.
fn signal() -> RuleSet {
    let service = json!({"metadata": {"namespace": "default", "name": "signal"},
        "spec": {"clusterIP": "10.96.0.3", "ports": [{"port": 2905, "protocol": "SCTP"}]}});
    let slice = json!({
        "metadata": {"namespace": "default", "name": "signal-1", "labels": {"kubernetes.io/service-name": "signal"}},
        "addressType": "IPv4", "ports": [{"name": "", "port": 2906, "protocol": "SCTP"}],
        "endpoints": [{"addresses": [POD1], "nodeName": "node"}],
    });
    let (service, slice) = (serde_json::from_value(service).unwrap(), serde_json::from_value(slice).unwrap());
    ruleset([&service], [&slice], &config())
}

#[test]
fn sctp_is_led_to_its_endpoint_and_back() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        sink.apply_paths(&Paths::default()).await.unwrap();
        sink.apply(&signal()).await.unwrap();
        match lab.inside("pod1", || sctp::listen(2906)) {
            Ok(listener) => {
                let answer = std::thread::spawn(move || sctp::accept_and_say(&listener, b"here"));
                assert_eq!(lab.inside("pod2", || sctp::connect_and_hear("10.96.0.3:2905")), b"here");
                answer.join().unwrap();
            }
            Err(error) => {
                println!("no SCTP sockets in this kernel ({error}): its packets are made by hand");
                let (server, client) = (lab.inside("pod1", sctp::raw), lab.inside("pod2", sctp::raw));
                sctp::send_init(&client, "10.96.0.3", 40_000, 2905);
                assert_eq!(sctp::hear(&server), (POD2.to_owned(), 40_000, 2906), "translated");
                sctp::send_init_ack(&server, POD2, 2906, 40_000);
                assert_eq!(sctp::hear(&client), ("10.96.0.3".to_owned(), 2905, 40_000), "translated back");
            }
        }
    });
}

#[test]
fn pods_leave_the_cluster_with_the_node_address() {
    let Some(lab) = serving(&[], json!({})) else { return };
    assert_eq!(lab.tcp("pod1", "192.0.2.9:8080").unwrap(), format!("out {NODE_IP}"));
    assert_eq!(lab.tcp("pod1", "10.244.0.12:8080").unwrap(), format!("pod2 {POD1}"));
}

#[test]
fn a_udp_flow_follows_when_its_endpoint_goes() {
    let Some(lab) = serving(&[POD1], json!({})) else { return };
    on_node(&lab, async |sink| {
        sink.apply(&rules(&[POD1], json!({}))).await.unwrap();
        let socket = lab.inside("pod2", || UdpSocket::bind("0.0.0.0:0").unwrap());
        assert!(ask_udp(&socket, "10.96.0.1:80").unwrap().starts_with("pod1"));
        sink.apply(&rules(&[POD2], json!({}))).await.unwrap();
        assert!(ask_udp(&socket, "10.96.0.1:80").unwrap().starts_with("pod2"));
        // It goes while no proxy runs: the next one knows nothing of the change.
        on_node(&lab, async |next| next.apply(&rules(&[POD1], json!({}))).await.unwrap());
        assert!(ask_udp(&socket, "10.96.0.1:80").unwrap().starts_with("pod1"), "after a restart");
    });
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

#[test]
fn connections_live_on_when_their_endpoint_drains() {
    let Some(lab) = Lab::new() else { return };
    let echo = 9091;
    let listener = lab.inside("pod1", || TcpListener::bind(("0.0.0.0", echo)).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
    on_node(&lab, async |sink| {
        sink.apply_paths(&Paths::default()).await.unwrap();
        sink.apply(&rules_at(echo, &[POD1], json!({}), json!({}))).await.unwrap();
        let mut old = lab.inside("pod2", || TcpStream::connect("10.96.0.1:80").unwrap());
        for endpoints in [&[POD2][..], &[]] {
            sink.apply(&rules_at(PORT, endpoints, json!({}), json!({}))).await.unwrap();
            old.write_all(b"word").unwrap();
            old.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            old.read_exact(&mut [0; 4]).expect("the connection ended");
        }
        assert_eq!(lab.tcp("pod2", "10.96.0.1:80").unwrap_err().kind(), ErrorKind::ConnectionRefused, "a new one");
    });
}

#[test]
fn flushed_rules_come_back() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        let rules = rules(&[POD1], json!({}));
        sink.apply_paths(&Paths::default()).await.unwrap();
        for harm in ["nft flush ruleset", "nft delete element ip coracle service_ips '{ 10.96.0.1 . tcp . 80 }'"] {
            sink.apply(&rules).await.unwrap();
            run(harm);
            let there = "nft list map ip coracle service_ips 2>/dev/null | grep -c '10.96.0.1 . tcp . 80' || true";
            repaired(&sink, &rules, || run(there).trim() == "1").await;
            assert!(lab.tcp("node", "10.96.0.1:80").unwrap().starts_with("pod1"), "after {harm}");
        }
    });
}

#[test]
fn our_own_changes_disturb_nobody() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        for endpoints in [&[POD1][..], &[POD1, POD2], &[]] {
            sink.apply(&rules(endpoints, json!({}))).await.unwrap();
        }
        let quiet = tokio::time::timeout(Duration::from_millis(300), sink.disturbed()).await;
        assert!(quiet.is_err(), "own transactions were taken for someone else's");
    });
}

#[test]
fn forwarding_is_accepted_where_docker_drops_it_and_again_after_docker_flushed() {
    let Some(lab) = Lab::new() else { return };
    let docker =
        "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; };
                  add chain ip filter DOCKER-USER; add rule ip filter FORWARD jump DOCKER-USER'";
    on_node(&lab, async |sink| {
        run(docker);
        let rules = rules(&[POD1], json!({}));
        sink.apply(&rules).await.unwrap();
        assert_eq!(accepted(), "3");
        assert!(lab.tcp("out", "192.0.2.1:30080").unwrap().starts_with("pod1"));
        assert!(lab.tcp("pod1", "192.0.2.9:8080").unwrap().starts_with("out"));
        run("nft flush chain ip filter DOCKER-USER");
        repaired(&sink, &rules, || accepted() == "3").await;
        if std::process::Command::new("iptables").arg("--version").output().is_ok() {
            run("iptables -S DOCKER-USER");
        }
    });
}

#[test]
fn a_repair_of_forwarding_is_not_forgotten_when_the_rules_are_refused() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        run("nft 'add table ip filter; add chain ip filter DOCKER-USER'");
        sink.apply_paths(&Paths::default()).await.unwrap();
        sink.apply(&rules(&[POD1], json!({}))).await.unwrap();
        run("nft flush chain ip filter DOCKER-USER");
        let mut wrong = rules(&[POD1, POD2], json!({}));
        let part = Part { chains: [("x".to_owned(), vec!["goto nowhere".to_owned()])].into(), ..Part::default() };
        wrong.services.insert(("default".to_owned(), "wrong".to_owned()), Arc::new(part));
        repaired(&sink, &wrong, || accepted() == "3").await;
        let error = sink.apply(&wrong).await.unwrap_err().to_string();
        assert!(error.contains("No such file or directory") && error.contains("goto nowhere"), "{error}");
        assert!(lab.tcp("node", "10.96.0.1:80").unwrap().starts_with("pod1"), "what was in force is");
    });
}

#[test]
fn docker_starting_later_is_noticed() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        let rules = rules(&[POD1], json!({}));
        sink.apply(&rules).await.unwrap();
        run(
            "nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }'",
        );
        repaired(&sink, &rules, || run("nft list chain ip filter FORWARD").contains("coracle: ")).await;
        assert!(lab.tcp("out", "192.0.2.1:30080").unwrap().starts_with("pod1"));
    });
}

#[test]
fn cleanup_leaves_what_was_there_before() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        run("nft 'add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; };
             add rule ip filter FORWARD ip saddr 198.51.100.0/24 accept'");
        let state = || (run("nft list ruleset"), run("ip route"));
        let before = state();
        sink.apply_paths(&to_another_node()).await.unwrap();
        sink.apply(&rules(&[POD1], json!({"sessionAffinity": "ClientIP"}))).await.unwrap();
        let during = state();
        assert!(
            during.1.contains("10.244.7.0/24 via 192.0.2.9") && during.1.contains("10.96.0.0/12 dev lo"),
            "{}",
            during.1
        );
        proxy::cleanup().await.unwrap();
        assert_eq!(state(), before);
        proxy::cleanup().await.unwrap();
    });
}

/// A node at the client's place.
fn to_another_node() -> Paths {
    let via = Via::Gateway(OUTSIDE_IP.parse().unwrap());
    Paths { routes: BTreeSet::from([Route { destination: "10.244.7.0/24".parse().unwrap(), via }]), overlay: None }
}

#[test]
fn flushed_paths_come_back_and_our_own_disturb_nobody() {
    let Some(lab) = Lab::new() else { return };
    on_node(&lab, async |sink| {
        let paths = to_another_node();
        let shown = "ip route show 10.244.7.0/24";
        for harm in ["true", "ip route flush proto 119", "ip link set out down; ip link set out up"] {
            run(harm);
            if harm != "true" {
                let told = tokio::time::timeout(Duration::from_secs(5), sink.paths_disturbed()).await;
                told.unwrap_or_else(|_| panic!("{harm} was not noticed"));
            }
            sink.apply_paths(&paths).await.unwrap();
            assert!(run(shown).contains("via 192.0.2.9"), "after {harm}");
        }
        // What was told of until now may still be on its way.
        while tokio::time::timeout(Duration::from_millis(300), sink.paths_disturbed()).await.is_ok() {}
        sink.apply_paths(&paths).await.unwrap();
        sink.apply_paths(&Paths::default()).await.unwrap();
        sink.apply_paths(&paths).await.unwrap();
        let _ = tokio::time::timeout(Duration::from_millis(300), sink.paths_disturbed()).await;
        sink.apply_paths(&paths).await.unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(300), sink.paths_disturbed()).await;
        assert!(quiet.is_err(), "own routes were taken for someone else's");
    });
}

#[test]
fn the_overlay_is_laid_repaired_and_taken_away() {
    let Some(lab) = Lab::new() else { return };
    lab.inside("node", || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let tasks = Tasks::new();
            let config = Config { overlay: true, ..config() };
            let sink = NftSink::new(config, &tasks);
            let (end, node) = ("10.244.7.0".parse().unwrap(), OUTSIDE_IP.parse().unwrap());
            let route = Route { destination: "10.244.7.0/24".parse().unwrap(), via: Via::Overlay(end) };
            let overlay = Overlay { end: "10.244.0.0".parse().unwrap(), peers: BTreeSet::from([Peer { end, node }]) };
            let paths = Paths { routes: BTreeSet::from([route]), overlay: Some(overlay) };
            let state = "ip route show 10.244.7.0/24; ip neigh show dev coracle-vxlan nud permanent; \
                         bridge fdb show dev coracle-vxlan | grep dst; ip -o link show coracle-vxlan | grep -o 'mtu [0-9]*'";
            sink.apply_paths(&paths).await.unwrap();
            let laid = run(state);
            for part in ["dev coracle-vxlan", "0a:c0:c0:00:02:09 dst 192.0.2.9", "mtu 1450"] {
                assert!(laid.contains(part), "{part}: {laid}");
            }
            for harm in ["ip link del coracle-vxlan", "ip neigh flush dev coracle-vxlan nud permanent",
                         "bridge fdb del 0a:c0:c0:00:02:09 dev coracle-vxlan dst 192.0.2.9 self"] {
                while tokio::time::timeout(Duration::from_millis(300), sink.paths_disturbed()).await.is_ok() {}
                run(harm);
                let told = tokio::time::timeout(Duration::from_secs(5), sink.paths_disturbed()).await;
                told.unwrap_or_else(|_| panic!("{harm} was not noticed"));
                sink.apply_paths(&paths).await.unwrap();
                assert_eq!(run(state), laid, "after {harm}");
            }
            proxy::cleanup().await.unwrap();
            assert_eq!(run("ip link show type vxlan; ip route show proto 119"), "");
            assert!(tasks.stop(Duration::from_secs(5)).await);
        });
    });
}

/// How many accept rules of ours are in Docker's chain.
fn accepted() -> String {
    run("nft list chain ip filter DOCKER-USER | grep -c 'coracle: ' || true").trim().to_owned()
}

/// Puts `rules` into force whenever the sink notices that someone was there, as the driver does, until it is `so`. What it
/// notices first may be something older.
async fn repaired(sink: &NftSink, rules: &RuleSet, so: impl Fn() -> bool) {
    loop {
        tokio::time::timeout(Duration::from_secs(5), sink.disturbed()).await.expect("the change was not noticed");
        // Some are refused on purpose.
        let _ = sink.apply(rules).await;
        if so() {
            return;
        }
    }
}
