//! The DNS server of a node, asked with dig from network namespaces that these tests make and remove. Needs root, nft, dig.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

#[allow(dead_code)] // other tests need more of it
mod lab;
mod upstream;

use std::convert::Infallible;
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use client::{Informer, Tasks};
use http::{Request, Response};
use kube::Api;
use kube::client::Body;
use kube::runtime::watcher;
use lab::{Lab, NODE_IP, OUTSIDE_IP, run};
use proxy::dns::answer::Zone;
use proxy::dns::forward::Forwarder;
use proxy::dns::server::{Server, bind};
use proxy::dns::upstreams::Upstreams;
use proxy::dns::view::Caches;
use proxy::dns::{self, address};
use proxy::routes::Paths;
use proxy::{Config, NftSink, RuleSet, RuleSink};
use serde_json::{Value, json};
use upstream::{Upstream, relay};

const DNS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

fn config(resolv_conf: PathBuf) -> Config {
    let dns = dns::Config { address: DNS, domain: "cluster.local".to_owned(), resolv_conf: Some(resolv_conf) };
    Config { dns: Some(dns), ..Config::new("node", NODE_IP.parse().unwrap()) }
}

/// An API with a service, a large headless one and an alias, until it is away.
fn api(away: Arc<AtomicBool>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let watch = request.uri().query().is_some_and(|q| q.contains("watch=true"));
        let (path, away) = (request.uri().path().to_owned(), away.load(Ordering::SeqCst));
        async move {
            let status = if away { 503 } else { 200 };
            if watch && !away {
                std::future::pending::<()>().await;
            }
            let body = Body::from(list(&path).to_string().into_bytes());
            Ok::<_, Infallible>(Response::builder().status(status).body(body).unwrap())
        }
    });
    kube::Client::new(service, "default")
}

fn list(path: &str) -> Value {
    let object = |name: &str, spec: Value| json!({"metadata": {"name": name, "namespace": "shop", "resourceVersion": "1"}, "spec": spec});
    let services = [
        object("web", json!({"clusterIP": "10.96.0.7", "ports": [{"name": "http", "port": 80}]})),
        object("many", json!({"clusterIP": "None", "ports": [{"name": "sql", "port": 5432}]})),
        object("out", json!({"type": "ExternalName", "externalName": "www.example.org"})),
    ];
    let endpoint = |i: u8| json!({"addresses": [format!("10.244.1.{i}")], "hostname": format!("db-{i}")});
    let slice = json!({
        "metadata": {"name": "many-1", "namespace": "shop", "resourceVersion": "1",
                     "labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}],
        "endpoints": (1..=100u8).map(endpoint).collect::<Vec<_>>(),
    });
    let (api_version, kind, items) = match path.ends_with("services") {
        true => ("v1", "ServiceList", json!(services)),
        false => ("discovery.k8s.io/v1", "EndpointSliceList", json!([slice])),
    };
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"resourceVersion": "5"}, "items": items})
}

/// Runs `body` while the node serves DNS, asking the servers that `resolv_conf` names. `body` can send the master away.
fn serving(lab: &Lab, resolv_conf: &str, body: impl FnOnce(&AtomicBool) + Send) {
    serving_when(lab, resolv_conf, true, body);
}

/// The same, where the cluster may not be known yet.
fn serving_when(lab: &Lab, resolv_conf: &str, synced: bool, body: impl FnOnce(&AtomicBool) + Send) {
    let folder = std::env::temp_dir().join(lab.ns("dns"));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("resolv.conf");
    std::fs::write(&file, resolv_conf).unwrap();
    lab.inside("node", || {
        // Its threads are in the namespace as well.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let (tasks, away) = (Tasks::new(), Arc::new(AtomicBool::new(false)));
        runtime.block_on(async { start(config(file), api(away.clone()), synced, &tasks).await });
        body(&away);
        assert!(runtime.block_on(tasks.stop(Duration::from_secs(5))));
    });
    std::fs::remove_dir_all(&folder).unwrap();
}

async fn start(config: Config, client: kube::Client, synced: bool, tasks: &Tasks) {
    let mut services = Informer::new(Api::all(client.clone()), watcher::Config::default());
    let mut slices = Informer::new(Api::all(client), watcher::Config::default());
    let view = Arc::new(Caches::of(&mut services, &mut slices));
    services.run(tasks);
    slices.run(tasks);
    view.synced().await;
    let sink = NftSink::new(config.clone(), tasks);
    sink.apply_paths(&Paths::default()).await.unwrap();
    sink.apply(&RuleSet::empty(&config)).await.unwrap();
    address::claim(DNS).await.unwrap();
    let (udp, tcp) = bind(IpAddr::V4(DNS), dns::PORT).unwrap();
    let own = config.dns.unwrap();
    let zone = Zone { domain: "cluster.local.".parse().unwrap(), server: IpAddr::V4(DNS) };
    let (_, synced) = tokio::sync::watch::channel(synced);
    let forwarder = Forwarder::new(Upstreams::new(own.resolv_conf, IpAddr::V4(DNS)), tasks);
    Server::new(zone, view, synced, forwarder).run(udp, tcp, tasks);
}

/// What dig prints.
fn dig(lab: &Lab, from: &str, arguments: &str) -> String {
    lab.inside(from, || run(&format!("dig @{DNS} +tries=1 +time=6 {arguments}")).trim().to_owned())
}

#[test]
fn pods_and_the_node_are_answered_and_nobody_else() {
    let Some(lab) = Lab::new() else { return };
    serving(&lab, "", |_| {
        for from in ["pod1", "pod2", "node"] {
            for transport in ["", "+tcp"] {
                let asked = format!("+short {transport} web.shop.svc.cluster.local");
                assert_eq!(dig(&lab, from, &asked), "10.96.0.7", "{from} {transport}");
            }
        }
        assert_eq!(dig(&lab, "pod1", "+short dns-version.cluster.local TXT"), "\"1.1.0\"");
        assert_eq!(dig(&lab, "pod1", "+short -x 10.96.0.7"), "web.shop.svc.cluster.local.");
        let srv = dig(&lab, "pod1", "_sql._tcp.many.shop.svc.cluster.local SRV");
        assert!(srv.contains("1 5432 db-7.many.shop.svc.cluster.local.") && srv.contains("10.244.1.7"), "{srv}");
        let missing = dig(&lab, "pod1", "missing.shop.svc.cluster.local");
        assert!(missing.contains("NXDOMAIN") && missing.contains("SOA\tns.dns.cluster.local."), "{missing}");
        let nothing = dig(&lab, "pod1", "web.shop.svc.cluster.local AAAA");
        assert!(nothing.contains("NOERROR") && nothing.contains("SOA\tns.dns.cluster.local."), "{nothing}");

        run(&format!("ip -n {} route add 10.96.0.0/12 via {NODE_IP}", lab.ns("out")));
        let stranger = lab.inside("out", || {
            std::process::Command::new("dig").args(["@10.96.0.10", "+tries=1", "+time=1", "cluster.local"]).output()
        });
        assert!(!stranger.unwrap().status.success(), "a stranger was answered");
        let other = lab.tcp("pod1", "10.96.0.10:80").unwrap_err();
        assert_eq!(other.kind(), ErrorKind::ConnectionRefused, "nothing else is at the address");
        let tracked = run("conntrack -L -p udp --dport 53 2>/dev/null");
        assert_eq!(tracked, "", "questions are not tracked");
    });
}

#[test]
fn large_answers_come_whole_over_tcp_and_in_part_without() {
    let Some(lab) = Lab::new() else { return };
    serving(&lab, "", |_| {
        let name = "many.shop.svc.cluster.local";
        assert_eq!(dig(&lab, "pod1", &format!("+short {name}")).lines().count(), 100);
        for (edns, most) in [("+noedns", 30), ("+bufsize=4096", 75)] {
            let part = dig(&lab, "pod1", &format!("+ignore {edns} {name}"));
            let flags = part.lines().find(|l| l.starts_with(";; flags")).unwrap();
            let addresses = part.lines().filter(|l| l.starts_with(name)).count();
            assert!(flags.contains(" tc ") && (most - 15..=most).contains(&addresses), "{edns}: {addresses}");
        }
    });
}

#[test]
fn other_names_are_asked_of_the_machines_servers_once() {
    let Some(lab) = Lab::new() else { return };
    let upstream = lab.inside("out", Upstream::start);
    // The first of these is nobody's address.
    serving(&lab, &format!("nameserver 192.0.2.77\nnameserver {OUTSIDE_IP}\n"), |_| {
        for _ in 0..3 {
            assert_eq!(dig(&lab, "pod1", "+short www.example.org"), "192.0.2.80");
        }
        assert_eq!(upstream.asked("www.example.org."), 1, "kept");
        assert_eq!(dig(&lab, "pod1", "+short out.shop.svc.cluster.local"), "www.example.org.\n192.0.2.80");
        assert_eq!(dig(&lab, "pod1", "+short big.example.org").lines().count(), 60, "over TCP on both sides");
        for _ in 0..2 {
            let missing = dig(&lab, "pod1", "missing.example.org");
            assert!(missing.contains("NXDOMAIN") && missing.contains("SOA"), "{missing}");
        }
        assert_eq!(upstream.asked("missing.example.org."), 1, "also kept");
        assert_eq!(dig(&lab, "pod1", "+short old.example.org"), "192.0.2.81", "a server that knows no EDNS");
        let failing = dig(&lab, "pod1", "failing.example.org");
        assert!(failing.contains("SERVFAIL"), "{failing}");
    });
}

#[test]
fn a_server_that_asks_us_in_turn_is_found_out() {
    let Some(lab) = Lab::new() else { return };
    let relay = lab.inside("node", || relay(NODE_IP, DNS));
    serving(&lab, &format!("nameserver {DNS}\nnameserver {NODE_IP}\n"), |_| {
        let answer = dig(&lab, "pod1", "www.example.org");
        assert!(answer.contains("SERVFAIL"), "{answer}");
        let before = relay.asked();
        assert!(dig(&lab, "pod1", "other.example.org").contains("SERVFAIL"));
        assert_eq!(relay.asked(), before, "it is asked no more");
    });
}

#[test]
fn the_clusters_names_are_answered_while_the_master_is_away() {
    let Some(lab) = Lab::new() else { return };
    serving(&lab, "", |away| {
        away.store(true, Ordering::SeqCst);
        assert_eq!(dig(&lab, "pod1", "+short web.shop.svc.cluster.local"), "10.96.0.7");
        assert!(dig(&lab, "pod1", "missing.shop.svc.cluster.local").contains("NXDOMAIN"));
    });
}

#[test]
fn before_the_cluster_is_known_nobody_is_told_that_an_address_has_no_name() {
    let Some(lab) = Lab::new() else { return };
    let upstream = lab.inside("out", Upstream::start);
    serving_when(&lab, &format!("nameserver {OUTSIDE_IP}\n"), false, |_| {
        let unknown = dig(&lab, "pod1", "-x 10.96.0.77");
        assert!(unknown.contains("SERVFAIL"), "{unknown}");
        assert_eq!(upstream.asked("77.0.96.10.in-addr.arpa."), 0, "others do not know it");
        assert_eq!(dig(&lab, "pod1", "+short www.example.org"), "192.0.2.80");
    });
}

#[test]
fn questions_pass_a_firewall_that_drops_what_comes_in() {
    let Some(lab) = Lab::new() else { return };
    lab.inside("node", || {
        run("nft 'add table ip filter; add chain ip filter INPUT { type filter hook input priority 0; policy drop; }'");
    });
    serving(&lab, "", |_| {
        assert_eq!(dig(&lab, "pod1", "+short web.shop.svc.cluster.local"), "10.96.0.7");
    });
}

#[test]
fn the_address_comes_back_and_goes_at_the_end() {
    let Some(lab) = Lab::new() else { return };
    lab.inside("node", || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut monitor = std::process::Command::new("stdbuf")
            .args(["-oL", "ip", "-4", "-o", "monitor", "address"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(monitor.stdout.take().unwrap()).lines().map_while(Result::ok);
        // It listens when it says so about an address of our own.
        let heard = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !heard.load(Ordering::SeqCst) {
                    run("ip addr replace 198.51.100.1/32 dev lo; ip addr del 198.51.100.1/32 dev lo");
                }
            });
            let found = lines.any(|line| line.contains("198.51.100.1"));
            heard.store(true, Ordering::SeqCst);
            assert!(found);
        });
        let (tasks, config) = (Tasks::new(), config("/nonexistent".into()).dns.unwrap());
        runtime.block_on(async {
            let client = api(Arc::default());
            let mut services = Informer::new(Api::all(client.clone()), watcher::Config::default());
            let mut slices = Informer::new(Api::all(client), watcher::Config::default());
            dns::start(config, Caches::of(&mut services, &mut slices), &tasks);
        });
        let mut comes = |what| {
            let here = |line: &String| line.contains("10.96.0.10/32") && !line.starts_with("Deleted");
            assert!(lines.any(|line| here(&line)), "{what}");
        };
        comes("at the start");
        run("ip addr del 10.96.0.10/32 dev lo");
        comes("after someone took it");
        monitor.kill().unwrap();
        monitor.wait().unwrap();
        assert!(runtime.block_on(tasks.stop(Duration::from_secs(5))));
        assert!(run("ip addr show dev lo").contains("10.96.0.10/32"), "it stays while the minion restarts");
        // The next life answers elsewhere, and the one after it not at all.
        for (dns, left) in [(Some(Ipv4Addr::new(10, 96, 0, 11)), true), (None, false)] {
            run("ip addr replace 10.96.0.11/32 dev lo label lo:coracle");
            let tasks = Tasks::new();
            runtime.block_on(async {
                let mut config = self::config("/nonexistent".into());
                config.dns = config.dns.and_then(|own| Some(dns::Config { address: dns?, ..own }));
                NftSink::new(config.clone(), &tasks).apply(&RuleSet::empty(&config)).await.unwrap();
            });
            let shown = run("ip addr show dev lo");
            assert!(!shown.contains("10.96.0.10/32") && shown.contains("10.96.0.11/32") == left, "{shown}");
            assert!(runtime.block_on(tasks.stop(Duration::from_secs(5))));
        }
        run("ip addr add 10.96.0.10/32 dev lo label lo:coracle");
        runtime.block_on(proxy::cleanup()).unwrap();
        assert!(!run("ip addr show dev lo").contains("10.96.0.10"));
    });
}
