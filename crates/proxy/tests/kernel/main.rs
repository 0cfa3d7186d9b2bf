//! The rules in a real kernel: traffic between network namespaces that these tests make and remove. Needs root and nft.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod affinity;
mod flows;
#[path = "../lab/mod.rs"]
mod lab;
mod messages;
mod paths;
mod repairs;
mod sctp;
mod traffic;

use std::time::Duration;

use client::Tasks;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use lab::{Lab, NODE_IP, PORT};
use proxy::routes::Paths;
use proxy::{Config, NftSink, RuleSet, RuleSink, ruleset};
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
