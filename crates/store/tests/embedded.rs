//! What only the embedded backend promises: bounds, restarts, an end.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use store::embedded::{Embedded, Options};
use store::{Error, Expect, Store};
use support::{events, put, put_leased, set, told, value, within};

fn open(dir: &Path, options: Options) -> Embedded {
    Embedded::open(dir, options).unwrap()
}

#[tokio::test]
async fn a_slow_watcher_ends_with_lagged_and_watches_again_without_loss() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options { event_bytes: 10_000, ..Options::default() });
    let start = set(&store, "/slow/0", "x").await;
    let mut slow = store.watch("/slow/", start - 1).await.unwrap();
    let mut quiet = store.watch("/quiet/", start).await.unwrap();
    assert_eq!(events(&mut slow, 1).await.len(), 1);
    for n in 1..=200 {
        set(&store, &format!("/slow/{n}"), "x").await;
    }
    assert!(matches!(within(slow.next()).await, Some(Err(Error::Lagged))));
    assert!(within(slow.next()).await.is_none());
    let mut again = store.watch("/slow/", start).await.unwrap();
    assert_eq!(events(&mut again, 200).await.len(), 200);

    let revision = set(&store, "/quiet/a", "y").await;
    let told: Vec<_> = events(&mut quiet, 1).await.iter().map(told).collect();
    assert_eq!(told, [format!("{revision} /quiet/a=y")], "what passed by in other prefixes did not make it lag");
}

#[tokio::test]
async fn the_file_stays_bounded_when_keys_are_overwritten_for_ever() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options { history_max: 200, ..Options::default() });
    let large = "x".repeat(20_000);
    let size = || std::fs::metadata(dir.path().join("store.redb")).unwrap().len();
    let mut sizes = Vec::new();
    for round in 0..4 {
        for n in 0..200 {
            store.commit(vec![put(&format!("/k/{}", n % 10), &large, Expect::Any)]).await.unwrap();
        }
        sizes.push(size());
        assert_eq!(value(&store, "/k/0", None).await.unwrap().map(|value| value.len()), Some(20_000), "round {round}");
    }
    // 800 writes of 20 kB are 16 MB; 200 of them are 4.
    assert!(sizes[3] <= sizes[1].max(12 << 20), "{sizes:?}");
}

#[tokio::test]
async fn history_older_than_the_retention_is_forgotten_without_being_asked() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options { retention: Duration::from_millis(50), ..Options::default() });
    let first = set(&store, "/a", "1").await;
    let lease = store.grant_lease(1).await.unwrap();
    let last = store.commit(vec![put("/a", "2", Expect::Any), put_leased("/t", lease)]).await.unwrap();
    // The lease's end is later than two retentions, and is itself a change.
    let mut watch = store.watch("/t", last).await.unwrap();
    events(&mut watch, 1).await;
    assert!(matches!(value(&store, "/a", Some(first)).await, Err(Error::Compacted { .. })));
    assert_eq!(value(&store, "/a", None).await.unwrap().as_deref(), Some("2"));
}

#[tokio::test]
async fn leases_go_on_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options::default());
    let (short, long) = (store.grant_lease(1).await.unwrap(), store.grant_lease(3600).await.unwrap());
    let last = store.commit(vec![put_leased("/short", short), put_leased("/long", long)]).await.unwrap();
    drop(store);
    let store = open(dir.path(), Options::default());
    let mut watch = store.watch("/", last).await.unwrap();
    assert_eq!(told(&events(&mut watch, 1).await[0]), format!("{} /short gone", last + 1));
    store.revoke_lease(long).await.unwrap();
    assert_eq!(told(&events(&mut watch, 1).await[0]), format!("{} /long gone", last + 2));
    assert_ne!(store.grant_lease(1).await.unwrap(), long, "ids are not given out twice");
}

#[tokio::test]
async fn closing_ends_watches_refuses_writes_and_frees_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), Options::default());
    let revision = set(&store, "/a", "1").await;
    let mut watch = store.watch("/", revision).await.unwrap();
    store.close();
    assert!(matches!(within(watch.next()).await, Some(Err(Error::Unavailable(_)))));
    let late = within(store.commit(vec![put("/a", "2", Expect::Any)])).await;
    assert!(matches!(late, Err(Error::Unavailable(_))));
    assert!(matches!(within(store.watch("/", 0).await.unwrap().next()).await, Some(Err(Error::Unavailable(_)))));
    let again = open(dir.path(), Options::default());
    assert_eq!(value(&again, "/a", None).await.unwrap().as_deref(), Some("1"));
    assert_eq!(again.revision().await.unwrap(), revision);
}
