//! What many writers and interrupted watchers may rely on, on both stores.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::common::*;
use crate::support::EtcdServer;
use serde_json::{Value, json};
use store::Store;
use store::embedded::{Embedded, Options};
use store::etcd::{self, Etcd};

const WRITERS: usize = 64;
const ROUNDS: usize = 3;

/// A store that outlives the servers on it.
enum Backend {
    Embedded(tempfile::TempDir),
    Etcd(EtcdServer),
}

impl Backend {
    fn embedded() -> Backend {
        Backend::Embedded(tempfile::tempdir().unwrap())
    }

    fn etcd() -> Option<Backend> {
        EtcdServer::start().map(Backend::Etcd)
    }

    async fn store(&self) -> Arc<dyn Store> {
        match self {
            Backend::Embedded(directory) => Arc::new(open(directory.path())),
            Backend::Etcd(server) => {
                Arc::new(Etcd::connect(std::slice::from_ref(&server.url), etcd::Options::default()).await.unwrap())
            }
        }
    }

    async fn start(&self) -> Server {
        Server::start_on(self.store().await, |_| {}).await
    }
}

fn open(directory: &Path) -> Embedded {
    Embedded::open(directory, Options::default()).unwrap()
}

/// Ends a server, and returns when nothing of it holds the store any more.
async fn stop(server: Server) {
    let store = Arc::downgrade(&server.store);
    server.stop.cancel();
    drop(server);
    let released = async {
        while store.strong_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, released).await.expect("the server lets go of its store");
}

async fn no_update_is_lost(backend: Backend) {
    let server = Arc::new(backend.start().await);
    server.create(CONFIG_MAPS, &json!({"metadata": {"name": "counter"}, "data": {"n": "0"}})).await;
    let path = format!("{CONFIG_MAPS}/counter");
    let writers = (0..WRITERS).map(|_| {
        let (server, path) = (server.clone(), path.clone());
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                while !increment(&server, &path).await {}
            }
        })
    });
    futures::future::join_all(writers.collect::<Vec<_>>()).await.into_iter().for_each(Result::unwrap);
    let counter = server.get(&path).await.json();
    assert_eq!(counter["data"]["n"], (WRITERS * ROUNDS).to_string());
}

/// Reads, adds one, writes; false when somebody else was faster.
async fn increment(server: &Server, path: &str) -> bool {
    let mut object = server.get(path).await.json();
    let n: usize = object["data"]["n"].as_str().unwrap().parse().unwrap();
    object["data"]["n"] = json!((n + 1).to_string());
    let answer = server.put(path, &object).await;
    assert!(matches!(answer.code, 200 | 409), "{}", answer.text);
    answer.code == 200
}

async fn a_restart_is_not_noticed(backend: Backend) {
    let server = backend.start().await;
    let start = revision(&server.config_map("first").await);
    let mut expected = Vec::new();
    for n in 0..10 {
        churn(&server, n, &mut expected).await;
    }
    let (mut told, mut last) = (Vec::new(), start);
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={last}")).await;
    while told.len() < 13 {
        note(&watch.next().await.unwrap(), &mut told, &mut last);
    }
    drop(watch);
    stop(server).await;
    let server = backend.start().await;
    churn(&server, 10, &mut expected).await;
    // It also comes back after every single event.
    while told.len() < expected.len() {
        let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={last}")).await;
        note(&watch.next().await.unwrap(), &mut told, &mut last);
    }
    assert_eq!(told, expected);
}

async fn churn(server: &Server, n: usize, expected: &mut Vec<String>) {
    let path = format!("{CONFIG_MAPS}/c{n}");
    server.config_map(&format!("c{n}")).await;
    server.patch(&path, &json!({"data": {"x": "y"}})).await;
    server.delete(&path).await;
    expected.extend(["ADDED", "MODIFIED", "DELETED"].map(|change| format!("{change} c{n}")));
}

fn note(event: &Value, told: &mut Vec<String>, last: &mut i64) {
    let (change, object) = (event["type"].as_str().unwrap(), &event["object"]);
    told.push(format!("{change} {}", object["metadata"]["name"].as_str().unwrap_or("-")));
    assert!(revision(object) > *last, "{event}");
    *last = revision(object);
}

/// An Event ends with its time, and whoever watches is told; what is no Event stays.
async fn events_end(backend: Backend) {
    let server = Server::start_on(backend.store().await, |c| c.event_ttl = Duration::from_secs(1)).await;
    let events = "/api/v1/namespaces/default/events";
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "reason": "r"});
    let created = server.create(events, &event).await;
    server.config_map("stays").await;
    let mut watch = server.watch(&format!("{events}?watch=1&resourceVersion={}", revision(&created))).await;
    assert_eq!(watch.told().await, "DELETED e");
    assert_eq!(server.get(&format!("{events}/e")).await.code, 404);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/stays")).await.code, 200);
}

#[tokio::test]
async fn events_end_with_their_time_on_the_embedded_store() {
    events_end(Backend::embedded()).await;
}

#[tokio::test]
async fn events_end_with_their_time_on_etcd() {
    if let Some(backend) = Backend::etcd() {
        events_end(backend).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_lose_no_update_on_the_embedded_store() {
    no_update_is_lost(Backend::embedded()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_writers_lose_no_update_on_etcd() {
    if let Some(backend) = Backend::etcd() {
        no_update_is_lost(backend).await;
    }
}

#[tokio::test]
async fn watchers_see_everything_once_across_a_restart_on_the_embedded_store() {
    a_restart_is_not_noticed(Backend::embedded()).await;
}

#[tokio::test]
async fn watchers_see_everything_once_across_a_restart_on_etcd() {
    if let Some(backend) = Backend::etcd() {
        a_restart_is_not_noticed(backend).await;
    }
}
