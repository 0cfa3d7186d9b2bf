//! The pure half: golden text for a table of services, and properties of the rule set and of differences.
#![allow(clippy::unwrap_used, missing_docs)]

mod model;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use proxy::compile::compile;
use proxy::{Config, RuleSet, render, ruleset};
use serde_json::{Value, json};

/// The signature of all scripts here.
const SIGNATURE: u32 = 0xc0;

fn config() -> Config {
    Config::new("here", "192.0.2.1".parse().unwrap())
}

fn service(name: &str, spec: Value) -> Service {
    serde_json::from_value(json!({"metadata": {"namespace": "default", "name": name}, "spec": spec})).unwrap()
}

/// A slice of `service` whose endpoints are (last byte of the address, node, ready, serving, terminating).
fn slice(service: &str, protocol: &str, endpoints: &[(u8, &str, bool, bool, bool)]) -> EndpointSlice {
    let endpoint = |(ip, node, ready, serving, terminating): &(u8, &str, bool, bool, bool)| {
        json!({"addresses": [format!("10.244.0.{ip}")], "nodeName": node,
               "conditions": {"ready": ready, "serving": serving, "terminating": terminating}})
    };
    let object = json!({
        "metadata": {"namespace": "default", "name": service, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": protocol}],
        "endpoints": endpoints.iter().map(endpoint).collect::<Vec<_>>(),
    });
    serde_json::from_value(object).unwrap()
}

fn ready(ip: u8, node: &str) -> (u8, &str, bool, bool, bool) {
    (ip, node, true, true, false)
}

/// One service of each sort, with endpoints 1 here and 2 there.
fn zoo() -> (Vec<Service>, Vec<EndpointSlice>) {
    let port = json!([{"port": 80, "protocol": "TCP"}]);
    let both = [ready(1, "here"), ready(2, "there")];
    let cluster_ip = |i: u8| format!("10.96.0.{i}");
    let node_port = |number: i32| json!([{"port": 80, "nodePort": number}]);
    let services = vec![
        service("plain", json!({"clusterIP": cluster_ip(1), "ports": port})),
        service("dns", json!({"clusterIP": cluster_ip(2), "ports": [{"port": 53, "protocol": "UDP"}]})),
        service("empty", json!({"clusterIP": cluster_ip(3), "ports": node_port(30003)})),
        service("node-port", json!({"clusterIP": cluster_ip(4), "ports": node_port(30004)})),
        service(
            "local",
            json!({"clusterIP": cluster_ip(5), "ports": node_port(30005), "externalTrafficPolicy": "Local"}),
        ),
        service(
            "far",
            json!({"clusterIP": cluster_ip(6), "ports": node_port(30006), "externalTrafficPolicy": "Local",
                              "internalTrafficPolicy": "Local"}),
        ),
        service("sticky", json!({"clusterIP": cluster_ip(7), "ports": port, "sessionAffinity": "ClientIP"})),
        service("external", json!({"clusterIP": cluster_ip(8), "ports": port, "externalIPs": ["203.0.113.8"]})),
        service("headless", json!({"clusterIP": "None", "ports": port})),
        service(
            "signal",
            json!({"clusterIP": cluster_ip(9), "externalIPs": ["10.96.0.9", "203.0.113.9"],
                   "ports": [{"port": 2905, "protocol": "SCTP", "nodePort": 30009}]}),
        ),
    ];
    let slices = vec![
        slice("plain", "TCP", &both),
        slice("dns", "UDP", &[ready(1, "here")]),
        slice("empty", "TCP", &[(1, "here", false, false, false)]),
        slice("node-port", "TCP", &[(1, "here", false, true, true), (2, "there", false, false, true)]),
        slice("local", "TCP", &both),
        slice("far", "TCP", &[ready(2, "there")]),
        slice("sticky", "TCP", &both),
        slice("external", "TCP", &both),
        slice("headless", "TCP", &both),
        slice("signal", "SCTP", &both),
    ];
    (services, slices)
}

/// Compares with a file below `testdata`; `UPDATE_GOLDEN=1` writes it.
fn golden(name: &str, text: &str) {
    let path = format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(text == expected, "{path} differs; review with UPDATE_GOLDEN=1 and git diff. Now:\n{text}");
}

#[test]
fn each_sort_of_service_has_its_rules() {
    let (services, slices) = zoo();
    golden("zoo.nft", &render::full(&ruleset(&services, &slices, &config()), SIGNATURE));
}

#[test]
fn a_changed_endpoint_costs_a_few_lines() {
    let (services, mut slices) = zoo();
    let before = ruleset(&services, &slices, &config());
    slices[0] = slice("plain", "TCP", &[ready(1, "here"), ready(3, "there")]);
    slices[1] = slice("dns", "UDP", &[]);
    slices[6] = slice("sticky", "TCP", &[ready(1, "here")]);
    let after = ruleset(&services, &slices, &config());
    golden("change.nft", &render::difference(&before, &after, SIGNATURE).unwrap());
}

#[test]
fn equal_rules_need_no_script() {
    let (services, slices) = zoo();
    let rules = ruleset(&services, &slices, &config());
    assert_eq!(render::difference(&rules, &rules.clone(), SIGNATURE), None);
}

#[test]
fn a_name_nobody_should_have_stays_inside_its_word() {
    let long = "a".repeat(300);
    for name in ["x y; flush ruleset", "\n}", "\"", long.as_str(), ""] {
        let spec = json!({"clusterIP": "10.96.0.1", "ports": [{"port": 80, "name": name}]});
        let rules = ruleset(&[service(name, spec)], &[], &config());
        model::Table::default().run(&render::full(&rules, SIGNATURE));
        let chains = rules.whole().chains;
        let words = chains.keys().all(|c| c.len() < 128 && !c.contains(|c: char| c.is_whitespace() || c == ';'));
        assert!(words, "{chains:?}");
    }
}

/// A service and its slice, in all the variety that matters.
fn any_pair(i: u8) -> impl Strategy<Value = (Service, EndpointSlice)> {
    let endpoint = (1u8..6, prop::bool::ANY, prop::bool::ANY, prop::bool::ANY, prop::bool::ANY);
    let flags = prop::array::uniform4(prop::bool::ANY);
    // One that several want, their own cluster IP, or another's.
    let external = prop::sample::select(vec![vec![], vec!["203.0.113.9"], vec!["10.96.0.1"], vec!["10.96.0.2"]]);
    let protocol = prop::sample::select(vec!["TCP", "UDP", "SCTP"]);
    (flags, external, protocol, proptest::collection::vec(endpoint, 0..4)).prop_map(
        move |([node_port, local, inner, sticky], external, protocol, endpoints)| {
            let mut port = json!({"port": 80, "protocol": protocol});
            if node_port {
                port["nodePort"] = json!(30000 + i32::from(i));
            }
            let policy = |local: bool| if local { "Local" } else { "Cluster" };
            let spec = json!({
                "clusterIP": format!("10.96.0.{i}"), "ports": [port], "externalTrafficPolicy": policy(local),
                "externalIPs": external,
                "internalTrafficPolicy": policy(inner), "sessionAffinity": if sticky { "ClientIP" } else { "None" },
            });
            let endpoints: Vec<_> = endpoints
                .iter()
                .map(|(ip, here, ready, serving, ending)| {
                    (*ip, if *here { "here" } else { "there" }, *ready, *serving, *ending)
                })
                .collect();
            let name = format!("s{i}");
            (service(&name, spec), slice(&name, protocol, &endpoints))
        },
    )
}

fn any_cluster() -> impl Strategy<Value = Vec<(Service, EndpointSlice)>> {
    let pairs: Vec<_> = (1..6).map(|i| proptest::option::of(any_pair(i)).boxed()).collect();
    pairs.prop_map(|pairs| pairs.into_iter().flatten().collect())
}

fn rules_of(cluster: &[(Service, EndpointSlice)]) -> RuleSet {
    ruleset(cluster.iter().map(|p| &p.0), cluster.iter().map(|p| &p.1), &config())
}

proptest! {
    #[test]
    fn the_order_of_the_input_does_not_matter(cluster in any_cluster(), seed in 0usize..120) {
        let mut shuffled = cluster.clone();
        shuffled.reverse();
        let steps = seed % cluster.len().max(1);
        shuffled.rotate_left(steps);
        prop_assert_eq!(rules_of(&cluster), rules_of(&shuffled));
    }

    #[test]
    fn a_cluster_ip_leads_to_its_own_service_whoever_wants_it(cluster in any_cluster()) {
        let whole = rules_of(&cluster).whole();
        for pair in &cluster {
            let alone = rules_of(std::slice::from_ref(pair));
            let ip = pair.0.spec.as_ref().unwrap().cluster_ip.clone().unwrap();
            for (set, elements) in &alone.whole().elements {
                let own = elements.iter().filter(|(key, _)| key.starts_with(&format!("{ip} . ")));
                for (key, value) in own {
                    prop_assert_eq!(whole.elements.get(set).and_then(|all| all.get(key)), Some(value), "{} {}", set, key);
                }
            }
        }
    }

    #[test]
    fn all_that_is_written_can_be_said_to_the_kernel(old in any_cluster(), new in any_cluster()) {
        let (old, new) = (rules_of(&old), rules_of(&new));
        let change = render::difference(&old, &new, SIGNATURE).unwrap_or_default();
        for script in [render::full(&old, SIGNATURE), change] {
            prop_assert_eq!(compile(&script).err(), None);
        }
    }

    #[test]
    fn a_difference_leads_where_the_whole_leads(old in any_cluster(), new in any_cluster()) {
        let (old, new) = (rules_of(&old), rules_of(&new));
        let mut table = model::Table::default();
        table.run(&render::full(&old, SIGNATURE));
        if let Some(script) = render::difference(&old, &new, SIGNATURE) {
            table.run(&script);
        }
        let mut fresh = model::Table::default();
        fresh.run(&render::full(&new, SIGNATURE));
        prop_assert_eq!(table, fresh);
    }
}
