//! What only the etcd backend promises: it outlives a restart of etcd.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::time::Duration;

use futures::StreamExt;
use store::etcd::{Etcd, Options};
use store::{Error, Expect, ListRequest, Store};
use support::{EtcdServer, events, prefix, put, set, told, within};

#[tokio::test]
async fn a_restart_of_etcd_ends_watches_and_heals_by_itself() {
    let Some(mut server) = EtcdServer::start() else { return };
    let options = Options { timeout: Duration::from_secs(2), ..Options::default() };
    let store = Etcd::connect(&[server.url.clone()], options).await.unwrap();
    let revision = set(&store, "/a", "1").await;
    let mut watch = store.watch("/", revision).await.unwrap();
    server.stop();
    assert!(matches!(within(watch.next()).await, Some(Err(Error::Unavailable(_)))));
    assert!(within(watch.next()).await.is_none());
    let refused = within(store.commit(vec![put("/a", "2", Expect::Any)])).await;
    assert!(matches!(refused, Err(Error::Unavailable(_))), "{refused:?}");

    server.restart();
    let mut watch = within(async {
        loop {
            // Each attempt waits for the channel, so this is no busy loop.
            match store.watch("/", revision).await {
                Ok(watch) => break watch,
                Err(Error::Unavailable(_)) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    })
    .await;
    let next = set(&store, "/a", "2").await;
    assert_eq!(told(&events(&mut watch, 1).await[0]), format!("{next} /a=2"));
}

#[tokio::test]
async fn a_list_larger_than_one_message_is_read_whole() {
    let Some(server) = EtcdServer::start() else { return };
    let store = Etcd::connect(std::slice::from_ref(&server.url), Options::default()).await.unwrap();
    let large = "x".repeat(1_000_000);
    for n in 0..6 {
        set(&store, &format!("/l/{n}"), &large).await;
    }
    for n in 0..2100 {
        set(&store, &format!("/m/{n}"), "x").await;
    }
    assert_eq!(store.list(prefix("/l/")).await.unwrap().items.len(), 6);
    let all = store.list(prefix("/")).await.unwrap();
    assert_eq!((all.items.len(), all.remaining), (2106, 0));
    let most = store.list(ListRequest { limit: Some(1500), ..prefix("/m/") }).await.unwrap();
    assert_eq!((most.items.len(), most.remaining), (1500, 600));
}

#[tokio::test]
async fn nobody_there_is_told_in_time() {
    let options = Options { timeout: Duration::from_millis(500), ..Options::default() };
    let nobody = within(Etcd::connect(&["http://127.0.0.1:1".to_owned()], options)).await;
    assert!(matches!(nobody.err(), Some(Error::Unavailable(_))));
}

#[tokio::test]
async fn a_certificate_without_its_key_is_refused() {
    let options = Options { cert: Some(b"x".to_vec()), ..Options::default() };
    let refused = Etcd::connect(&["https://127.0.0.1:1".to_owned()], options).await;
    assert!(matches!(refused.err(), Some(Error::Unavailable(message)) if message.contains("key")));
}
