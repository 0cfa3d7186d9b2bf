//! What the kernel is told: as nft would have told it, refused line by line, and fast.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proxy::nf_tables::Tables;
use proxy::{Config, RuleSet, RuleSink, dns, render, ruleset};
use serde_json::json;

use super::lab::{Lab, NODE_IP, PORT, run};
use super::{POD1, POD2, config, on_node, rules, rules_at};

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
