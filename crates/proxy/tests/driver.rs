//! The driver between an API and the twin in memory: what is in the API comes into force and stays there.
#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Tasks;
use futures::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use kube::client::Body;
use proxy::routes::Paths;
use proxy::ruleset::SERVICE_IPS;
use proxy::{Config, MemorySink, RuleSet};
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// An API with a service, an endpoint and two nodes; `news` are the slices' later events.
fn api(news: broadcast::Sender<String>) -> kube::Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let path = request.uri().path().to_owned();
        let watch = request.uri().query().is_some_and(|q| q.contains("watch=true"));
        let events = news.subscribe();
        async move {
            let first = if watch { String::new() } else { list(&path).to_string() };
            let slices = path.ends_with("endpointslices");
            // A watch stays open for what comes; a list ends.
            let later = futures::stream::unfold(events, move |mut events| async move {
                if !slices {
                    std::future::pending::<()>().await;
                }
                events.recv().await.ok().map(|event| (event, events))
            });
            let pieces = futures::stream::iter([first]).chain(later.take(if watch { usize::MAX } else { 0 }));
            let frames = pieces.map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
            Ok::<_, Infallible>(Response::new(StreamBody::new(frames.boxed())))
        }
    });
    kube::Client::new(service, "default")
}

fn list(path: &str) -> Value {
    let (api_version, kind, items) = match path.rsplit('/').next().unwrap() {
        "services" => (
            "v1",
            "ServiceList",
            json!([{"metadata": {"name": "web", "namespace": "default", "resourceVersion": "1"},
            "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80, "protocol": "TCP"}]}}]),
        ),
        "nodes" => ("v1", "NodeList", json!([node("here", "192.0.2.1", 0), node("there", "192.0.2.2", 1)])),
        _ => ("discovery.k8s.io/v1", "EndpointSliceList", json!([slice("10.244.0.2", "5")])),
    };
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"resourceVersion": "5"}, "items": items})
}

fn node(name: &str, ip: &str, net: u8) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": "1"}, "spec": {"podCIDR": format!("10.244.{net}.0/24")},
           "status": {"addresses": [{"type": "InternalIP", "address": ip}]}})
}

fn slice(ip: &str, version: &str) -> Value {
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
           "metadata": {"name": "web-1", "namespace": "default", "resourceVersion": version,
                        "labels": {"kubernetes.io/service-name": "web"}},
           "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "TCP"}], "endpoints": [{"addresses": [ip]}]})
}

/// Whether the service leads to the endpoint.
fn leads_to(rules: &RuleSet, ip: &str) -> bool {
    let whole = rules.whole();
    whole.elements.contains_key(SERVICE_IPS) && whole.chains.values().flatten().any(|rule| rule.contains(ip))
}

/// Waits until the rules in force are so.
async fn wait_for(sink: &MemorySink, what: &str, mut check: impl FnMut(&RuleSet) -> bool) {
    let mut rules = sink.rules();
    let so = rules.wait_for(|rules| rules.as_ref().is_some_and(&mut check));
    tokio::time::timeout(Duration::from_secs(10), so).await.expect(what).unwrap();
}

#[tokio::test]
async fn what_is_in_the_api_comes_into_force_and_stays() {
    let (tasks, sink) = (Tasks::new(), Arc::new(MemorySink::new()));
    let news = broadcast::Sender::new(8);
    proxy::start(api(news.clone()), Config::new("here", "192.0.2.1".parse().unwrap()), sink.clone(), &tasks);
    wait_for(&sink, "the first rules", |rules| leads_to(rules, "10.244.0.2:8080")).await;
    let mut paths = sink.paths();
    let there = |paths: &Paths| paths.routes.iter().any(|route| route.destination.to_string() == "10.244.1.0/24");
    tokio::time::timeout(Duration::from_secs(10), paths.wait_for(there)).await.expect("a route").unwrap();

    sink.flush();
    wait_for(&sink, "rules after a flush", |rules| leads_to(rules, "10.244.0.2:8080")).await;

    sink.fail_next(1);
    sink.flush();
    wait_for(&sink, "rules after a failure", |rules| leads_to(rules, "10.244.0.2:8080")).await;

    let event = json!({"type": "MODIFIED", "object": slice("10.244.0.9", "6")});
    news.send(format!("{event}\n")).unwrap();
    wait_for(&sink, "the new endpoint", |rules| leads_to(rules, "10.244.0.9:8080")).await;
    assert!(tasks.stop(Duration::from_secs(5)).await);
}
