//! A store whose watch breaks: the cache compares with a new list, and watchers learn the truth. One that is ill: whoever
//! looks after the server learns it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures::StreamExt;
use serde_json::json;
use store::embedded::Embedded;
use store::{Error, KeyValue, LeaseId, ListRequest, ListResponse, Op, Revision, Store, WatchStream};
use tokio::sync::watch;

use crate::common::*;

/// A store whose watches are cut while `cut` is true, with the history they missed forgotten.
struct Breaking {
    inner: Embedded,
    cut: watch::Sender<bool>,
    ill: Mutex<Option<Ill>>,
}

/// What a store says of its health.
enum Ill {
    With(Error),
    /// Nothing, for ever.
    Silent,
}

impl Breaking {
    fn new() -> Arc<Breaking> {
        let (cut, ill) = (watch::Sender::new(false), Mutex::new(None));
        Arc::new(Breaking { inner: Embedded::in_memory().unwrap(), cut, ill })
    }
}

#[async_trait]
impl Store for Breaking {
    async fn get(&self, key: &str, revision: Option<Revision>) -> Result<(Option<KeyValue>, Revision), Error> {
        self.inner.get(key, revision).await
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Error> {
        let mut cut = self.cut.subscribe();
        cut.wait_for(|cut| !cut).await.unwrap();
        self.inner.list(request).await
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<Revision, Error> {
        self.inner.commit(ops).await
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, Error> {
        let mut cut = self.cut.subscribe();
        if *cut.borrow() {
            return Err(Error::Unavailable("cut".into()));
        }
        let ended = async move {
            let _ = cut.wait_for(|cut| *cut).await;
        };
        let end = futures::stream::once(async { Err(Error::Compacted { requested: 0, compacted: 0 }) });
        Ok(self.inner.watch(prefix, after).await?.take_until(ended).chain(end).boxed())
    }

    async fn health(&self) -> Result<(), Error> {
        let error = match &*self.ill.lock().unwrap() {
            None => return Ok(()),
            Some(Ill::With(error)) => Some(error.clone()),
            Some(Ill::Silent) => None,
        };
        match error {
            Some(error) => Err(error),
            None => std::future::pending().await,
        }
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.inner.request_progress().await
    }

    async fn revision(&self) -> Result<Revision, Error> {
        self.inner.revision().await
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.inner.compact(revision).await
    }

    async fn grant_lease(&self, ttl_seconds: i64) -> Result<LeaseId, Error> {
        self.inner.grant_lease(ttl_seconds).await
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), Error> {
        self.inner.revoke_lease(lease).await
    }
}

#[tokio::test]
async fn what_happened_while_the_watch_was_broken_is_told_afterwards() {
    let store = Breaking::new();
    let server = Server::start_on(store.clone(), |_| {}).await;
    for name in ["changed", "gone", "kept", "replaced"] {
        server.config_map(name).await;
    }
    let list = server.get(CONFIG_MAPS).await.json();
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", revision(&list))).await;
    store.cut.send_replace(true);
    server.patch(&format!("{CONFIG_MAPS}/changed"), &json!({"data": {"x": "y"}})).await;
    server.delete(&format!("{CONFIG_MAPS}/gone")).await;
    server.delete(&format!("{CONFIG_MAPS}/replaced")).await;
    let replaced = server.config_map("replaced").await;
    server.config_map("new").await;
    store.cut.send_replace(false);
    let mut told = Vec::new();
    while told.len() < 5 {
        let event = watch.next().await.unwrap();
        let name = event["object"]["metadata"]["name"].as_str().unwrap().to_owned();
        if (event["type"].as_str(), name.as_str()) == (Some("ADDED"), "replaced") {
            assert_eq!(event["object"]["metadata"]["uid"], replaced["metadata"]["uid"]);
        }
        told.push(format!("{} {name}", event["type"].as_str().unwrap()));
    }
    told.sort();
    assert_eq!(told, ["ADDED new", "ADDED replaced", "DELETED gone", "DELETED replaced", "MODIFIED changed"]);
    let after = server.config_map("after").await;
    assert_eq!(watch.told().await, "ADDED after");
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/after")).await.json(), after);
}

#[tokio::test]
async fn a_server_is_not_alive_over_a_store_that_fails_or_is_silent() {
    let store = Breaking::new();
    let server = Server::start_on(store.clone(), |_| {}).await;
    let failed = || Error::Unavailable("the disk fails".into());
    let cases = [
        ("a store that is well", None, [200, 200]),
        ("a full disk", Some(Ill::With(Error::NoSpace("full".into()))), [200, 500]),
        ("a disk that fails", Some(Ill::With(failed())), [500, 500]),
        ("a store that does not answer", Some(Ill::Silent), [500, 500]),
        ("a store that is well again", None, [200, 200]),
    ];
    for (sentence, ill, expected) in cases {
        *store.ill.lock().unwrap() = ill;
        let codes = futures::join!(server.get("/livez"), server.get("/readyz/etcd-readiness"));
        assert_eq!([codes.0.code, codes.1.code], expected, "{sentence}");
    }
}
