//! One suite, run on both backends: what the contract promises, whoever keeps it.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::StreamExt;
use store::embedded::Embedded;
use store::etcd::{Etcd, Options};
use store::{Error, Event, Expect, ListRequest, MAX_TXN_OPS, MAX_VALUE_BYTES, Revision, Store, WatchStream};
use support::{EtcdServer, Face, check, delete, events, prefix, put, put_leased, set, told, value, within};

/// Makes of each case one test per backend.
macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let dir = tempfile::tempdir().unwrap();
                let store = super::Embedded::open(dir.path(), store::embedded::Options::default()).unwrap();
                super::$case(std::sync::Arc::new(store)).await;
            })*
        }
        /// The embedded store again, as the etcd backend sees it through the embedded store's etcd face.
        mod face {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let face = super::Face::of_a_new_store().await;
                let endpoints = [face.url.clone()];
                let store = super::Etcd::connect(&endpoints, super::Options::default()).await.unwrap();
                super::$case(std::sync::Arc::new(store)).await;
            })*
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(server) = super::EtcdServer::start() else { return };
                let endpoints = [server.url.clone()];
                let store = super::Etcd::connect(&endpoints, super::Options::default()).await.unwrap();
                super::$case(std::sync::Arc::new(store)).await;
            })*
        }
    };
}

suite![
    a_key_is_created_updated_and_deleted_only_as_expected,
    a_transaction_is_all_or_nothing,
    a_transaction_that_changes_nothing_makes_no_revision,
    what_the_store_does_not_take_is_refused,
    reads_in_the_past_see_the_past,
    a_list_is_paged_at_one_revision_while_others_write,
    a_watch_tells_the_past_and_then_goes_on_live,
    a_watch_dropped_and_resumed_misses_and_repeats_nothing,
    a_watch_tells_how_far_it_is_when_asked,
    compacted_revisions_are_refused_and_the_newest_versions_stay,
    the_keys_of_a_revoked_lease_go_in_one_transaction,
    a_lease_ends_by_itself,
    writers_that_compare_and_swap_lose_no_update,
];

type Shared = Arc<dyn Store>;

async fn a_key_is_created_updated_and_deleted_only_as_expected(store: Shared) {
    let start = store.revision().await.unwrap();
    assert!(start > 0, "a revision of 0 would mean any");
    let created = store.commit(vec![put("/r/a", "1", Expect::Absent)]).await.unwrap();
    assert_eq!(created, start + 1);
    let again = store.commit(vec![put("/r/a", "2", Expect::Absent)]).await.unwrap_err();
    let Error::Conflict { key, current: Some(current) } = again else { panic!("{again:?}") };
    assert_eq!((key.as_str(), &current.value[..], current.mod_revision), ("/r/a", &b"1"[..], created));

    let updated = store.commit(vec![put("/r/a", "2", Expect::Unchanged(created))]).await.unwrap();
    let stale = store.commit(vec![put("/r/a", "3", Expect::Unchanged(created))]).await;
    assert!(matches!(stale, Err(Error::Conflict { current: Some(current), .. }) if current.mod_revision == updated));
    let (found, revision) = store.get("/r/a", None).await.unwrap();
    let found = found.unwrap();
    assert_eq!((found.create_revision, found.mod_revision, revision), (created, updated, updated));

    let stale = store.commit(vec![delete("/r/a", Expect::Unchanged(created))]).await;
    assert!(matches!(stale, Err(Error::Conflict { .. })));
    store.commit(vec![delete("/r/a", Expect::Unchanged(updated))]).await.unwrap();
    assert_eq!(store.get("/r/a", None).await.unwrap(), (None, updated + 1));
    for never in [updated, 0, -1] {
        let gone = store.commit(vec![put("/r/a", "4", Expect::Unchanged(never))]).await;
        assert!(matches!(gone, Err(Error::Conflict { current: None, .. })), "unchanged since {never}");
    }
    let recreated = store.commit(vec![put("/r/a", "5", Expect::Absent)]).await.unwrap();
    assert_eq!(store.get("/r/a", None).await.unwrap().0.unwrap().create_revision, recreated);
}

async fn a_transaction_is_all_or_nothing(store: Shared) {
    let first = store.commit(vec![put("/a", "1", Expect::Any), put("/b", "1", Expect::Absent)]).await.unwrap();
    let ops = vec![
        put("/a", "2", Expect::Unchanged(first)),
        delete("/b", Expect::Any),
        put("/c", "2", Expect::Any),
        check("/b", Expect::Absent),
    ];
    assert!(matches!(store.commit(ops).await, Err(Error::TooLarge(_))), "a key twice");
    let ops = vec![put("/a", "2", Expect::Unchanged(first)), put("/c", "2", Expect::Any), check("/b", Expect::Absent)];
    assert!(matches!(store.commit(ops).await, Err(Error::Conflict { key, .. }) if key == "/b"));
    assert_eq!(value(&*store, "/a", None).await.unwrap().as_deref(), Some("1"));
    assert_eq!(value(&*store, "/c", None).await.unwrap(), None);

    let ops = vec![
        put("/a", "2", Expect::Unchanged(first)),
        delete("/b", Expect::Unchanged(first)),
        put("/c", "2", Expect::Absent),
        check("/d", Expect::Absent),
    ];
    let second = store.commit(ops).await.unwrap();
    assert_eq!(second, first + 1);
    let list = store.list(prefix("/")).await.unwrap();
    let seen: Vec<_> = list.items.iter().map(|item| (&*item.key, item.mod_revision)).collect();
    assert_eq!((seen, list.revision, list.remaining), (vec![("/a", second), ("/c", second)], second, 0));
}

async fn a_transaction_that_changes_nothing_makes_no_revision(store: Shared) {
    let revision = set(&*store, "/a", "1").await;
    for (what, ops) in [
        ("nothing at all", vec![]),
        ("removing an absent key", vec![delete("/b", Expect::Any)]),
        ("only a check", vec![check("/a", Expect::Unchanged(revision))]),
    ] {
        assert_eq!(store.commit(ops).await.unwrap(), revision, "{what}");
    }
    assert_eq!(store.revision().await.unwrap(), revision);
    assert_eq!(set(&*store, "/a", "1").await, revision + 1, "the same value again is a write");
}

async fn what_the_store_does_not_take_is_refused(store: Shared) {
    let large = "x".repeat(MAX_VALUE_BYTES + 1);
    let many = (0..=MAX_TXN_OPS).map(|n| put(&format!("/{n}"), "", Expect::Any)).collect();
    for ops in [vec![put("/a", &large, Expect::Any)], many] {
        assert!(matches!(store.commit(ops).await, Err(Error::TooLarge(_))));
    }
    let largest_here = "x".repeat(1_400_000);
    let revision = set(&*store, "/a", &largest_here).await;
    assert_eq!(store.list(prefix("/")).await.unwrap().items[0].value.len(), largest_here.len());
    let most = (0..MAX_TXN_OPS).map(|n| put(&format!("/{n}"), "", Expect::Any)).collect();
    assert_eq!(store.commit(most).await.unwrap(), revision + 1);
}

async fn reads_in_the_past_see_the_past(store: Shared) {
    let first = set(&*store, "/a", "1").await;
    let second = set(&*store, "/a", "2").await;
    store.commit(vec![delete("/a", Expect::Any)]).await.unwrap();
    let fourth = set(&*store, "/a", "4").await;
    for (revision, expected) in
        [(first - 1, None), (first, Some("1")), (second, Some("2")), (second + 1, None), (fourth, Some("4"))]
    {
        assert_eq!(value(&*store, "/a", Some(revision)).await.unwrap().as_deref(), expected, "at {revision}");
        let list = store.list(ListRequest { revision: Some(revision), ..prefix("/") }).await.unwrap();
        assert_eq!((list.items.len(), list.revision), (usize::from(expected.is_some()), revision));
    }
    let future = store.get("/a", Some(fourth + 1)).await;
    assert!(
        matches!(future, Err(Error::Future { requested, current }) if (requested, current) == (fourth + 1, fourth))
    );
    let future = store.list(ListRequest { revision: Some(fourth + 1), ..prefix("/") }).await;
    assert!(matches!(future, Err(Error::Future { .. })));
}

async fn a_list_is_paged_at_one_revision_while_others_write(store: Shared) {
    const KEYS: usize = 250;
    for n in 0..KEYS {
        set(&*store, &format!("/l/{n:03}"), "old").await;
    }
    set(&*store, "/k", "before").await;
    set(&*store, "/m", "after").await;
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..KEYS {
                set(&*store, &format!("/l/{n:03}"), "new").await;
                store.commit(vec![delete(&format!("/l/{:03}", KEYS - n), Expect::Any)]).await.unwrap();
                set(&*store, &format!("/l/{n:03}x"), "new").await;
            }
        }
    });
    let (mut after, mut revision, mut keys) = (None, None, Vec::new());
    loop {
        let request = ListRequest { prefix: "/l/".into(), after, limit: Some(7), revision };
        let page = within(store.list(request)).await.unwrap();
        assert_eq!(page.revision, revision.unwrap_or(page.revision));
        revision = Some(page.revision);
        keys.extend(page.items.iter().map(|item| item.key.to_string()));
        after = keys.last().cloned();
        let whole = store.list(ListRequest { revision, ..prefix("/l/") }).await.unwrap();
        assert_eq!((whole.items.len(), whole.remaining), (keys.len() + page.remaining, 0));
        if page.remaining == 0 {
            assert_eq!(keys, whole.items.iter().map(|item| item.key.to_string()).collect::<Vec<_>>());
            break;
        }
    }
    within(writer).await.unwrap();
    let none = store.list(ListRequest { limit: Some(0), ..prefix("/k") }).await.unwrap();
    assert_eq!((none.items.len(), none.remaining), (0, 1));
    let beyond = store.list(ListRequest { after: Some("/z".into()), ..prefix("/k") }).await.unwrap();
    assert_eq!((beyond.items.len(), beyond.remaining), (0, 0));
}

async fn a_watch_tells_the_past_and_then_goes_on_live(store: Shared) {
    let first = set(&*store, "/w/a", "1").await;
    set(&*store, "/v", "other prefix").await;
    set(&*store, "/w/a", "2").await;
    let mut watch = store.watch("/w/", first - 1).await.unwrap();
    let mut later = store.watch("/w/", first).await.unwrap();
    let past: Vec<_> = events(&mut watch, 2).await.iter().map(told).collect();
    assert_eq!(past, [format!("{first} /w/a=1"), format!("{} /w/a=2", first + 2)]);
    store.commit(vec![delete("/w/a", Expect::Any), put("/w/b", "3", Expect::Any)]).await.unwrap();
    set(&*store, "/x", "other prefix").await;
    set(&*store, "/w/b", "4").await;
    let live: Vec<_> = events(&mut watch, 3).await.iter().map(told).collect();
    let expected =
        [format!("{} /w/a gone", first + 3), format!("{} /w/b=3", first + 3), format!("{} /w/b=4", first + 5)];
    assert_eq!(live, expected);
    assert_eq!(events(&mut later, 4).await.iter().skip(1).map(told).collect::<Vec<_>>(), expected);
    let mut all = store.watch("", first - 1).await.unwrap();
    assert_eq!(events(&mut all, 7).await.len(), 7);
}

/// Watches with interruptions while writers write; what arrives is what the log says happened, in order, once.
async fn a_watch_dropped_and_resumed_misses_and_repeats_nothing(store: Shared) {
    const WRITERS: usize = 4;
    const WRITES: usize = 60;
    let start = store.revision().await.unwrap();
    let writers: Vec<_> = (0..WRITERS).map(|writer| tokio::spawn(write_pairs(store.clone(), writer, WRITES))).collect();
    let (mut seen, mut cursor, mut watch, mut batches) = (Vec::<Event>::new(), start, None::<WatchStream>, 0);
    while seen.len() < WRITERS * WRITES * 2 {
        let stream = match &mut watch {
            Some(stream) => stream,
            None => watch.insert(store.watch("/p/", cursor).await.unwrap()),
        };
        let batch = within(stream.next()).await.expect("the watch goes on").unwrap();
        assert!(batch.revision >= cursor);
        assert!(batch.events.iter().all(|event| event.revision() > cursor && event.revision() <= batch.revision));
        cursor = batch.revision;
        seen.extend(batch.events);
        batches += 1;
        if batches % 3 == 0 {
            watch = None;
        }
    }
    for writer in writers {
        within(writer).await.unwrap();
    }
    let revisions: Vec<Revision> = seen.iter().map(Event::revision).collect();
    let expected: Vec<Revision> = (0..WRITERS * WRITES).flat_map(|n| [start + 1 + n as Revision; 2]).collect();
    assert_eq!(revisions, expected);
    let mut again = store.watch("/p/", start).await.unwrap();
    assert_eq!(events(&mut again, seen.len()).await, seen);
}

async fn write_pairs(store: Shared, writer: usize, writes: usize) {
    for n in 0..writes {
        let (a, b) = (format!("/p/{writer}/a{}", n % 7), format!("/p/{writer}/b{}", n % 5));
        store.commit(vec![put(&a, "x", Expect::Any), put(&b, "y", Expect::Any)]).await.unwrap();
    }
}

async fn a_watch_tells_how_far_it_is_when_asked(store: Shared) {
    let start = set(&*store, "/quiet/a", "1").await;
    let mut quiet = store.watch("/quiet/", start).await.unwrap();
    let mut busy = store.watch("/busy/", start).await.unwrap();
    for round in 0..3 {
        for n in 0..20 {
            set(&*store, &format!("/busy/{n}"), "x").await;
        }
        store.commit(vec![delete(&format!("/busy/{round}"), Expect::Any)]).await.unwrap();
        let now = store.revision().await.unwrap();
        store.request_progress().await.unwrap();
        for (watch, expected) in [(&mut quiet, 0), (&mut busy, 21)] {
            let mut seen = 0;
            loop {
                let batch = within(watch.next()).await.unwrap().unwrap();
                seen += batch.events.len();
                if batch.revision >= now {
                    break;
                }
            }
            assert_eq!(seen, expected, "everything up to the progress was told before it");
        }
    }
    let now = set(&*store, "/quiet/a", "2").await;
    assert_eq!(told(&events(&mut quiet, 1).await[0]), format!("{now} /quiet/a=2"));
}

async fn compacted_revisions_are_refused_and_the_newest_versions_stay(store: Shared) {
    let first = set(&*store, "/c/a", "1").await;
    set(&*store, "/c/b", "2").await;
    set(&*store, "/c/a", "3").await;
    store.commit(vec![delete("/c/b", Expect::Any)]).await.unwrap();
    let newest = set(&*store, "/c/a", "5").await;
    let at = newest - 1;
    store.compact(at).await.unwrap();

    let refused = |result: Result<(), Error>| {
        let Err(Error::Compacted { compacted, .. }) = result else { panic!("{result:?}") };
        assert_eq!(compacted, at);
    };
    refused(store.get("/c/a", Some(first)).await.map(drop));
    refused(store.list(ListRequest { revision: Some(at - 1), ..prefix("/c/") }).await.map(drop));
    refused(store.watch("/c/", first - 1).await.map(drop));
    refused(store.watch("/c/", 0).await.map(drop));
    refused(store.compact(at).await);
    assert!(matches!(store.compact(newest + 1).await, Err(Error::Future { .. })));

    assert_eq!(value(&*store, "/c/a", Some(at)).await.unwrap().as_deref(), Some("3"));
    assert_eq!(value(&*store, "/c/a", None).await.unwrap().as_deref(), Some("5"));
    assert_eq!(value(&*store, "/c/b", None).await.unwrap(), None);
    let mut watch = store.watch("/c/", at).await.unwrap();
    assert_eq!(told(&events(&mut watch, 1).await[0]), format!("{newest} /c/a=5"));
    store.compact(newest).await.unwrap();
    let next = store.commit(vec![put("/c/b", "6", Expect::Absent)]).await.unwrap();
    assert_eq!(told(&events(&mut watch, 1).await[0]), format!("{next} /c/b=6"));
}

async fn the_keys_of_a_revoked_lease_go_in_one_transaction(store: Shared) {
    let lease = store.grant_lease(3600).await.unwrap();
    let other = store.grant_lease(3600).await.unwrap();
    assert_ne!(lease, other);
    store.commit(vec![put_leased("/e/a", lease), put_leased("/e/b", lease), put_leased("/e/c", lease)]).await.unwrap();
    store.commit(vec![put_leased("/e/b", other)]).await.unwrap();
    let last = store.commit(vec![put("/e/c", "kept", Expect::Any), put_leased("/e/d", lease)]).await.unwrap();
    let mut watch = store.watch("/e/", last).await.unwrap();
    store.revoke_lease(lease).await.unwrap();
    let mut gone: Vec<_> = events(&mut watch, 2).await.iter().map(told).collect();
    gone.sort();
    assert_eq!(gone, ["/e/a", "/e/d"].map(|key| format!("{} {key} gone", last + 1)));
    let left = store.list(prefix("/e/")).await.unwrap();
    assert_eq!(left.items.iter().map(|item| &*item.key).collect::<Vec<_>>(), ["/e/b", "/e/c"]);

    assert!(matches!(store.revoke_lease(lease).await, Err(Error::LeaseNotFound(id)) if id == lease));
    let late = store.commit(vec![put_leased("/e/a", lease)]).await;
    assert!(matches!(late, Err(Error::LeaseNotFound(id)) if id == lease), "{late:?}");
    store.revoke_lease(other).await.unwrap();
}

async fn a_lease_ends_by_itself(store: Shared) {
    let lease = store.grant_lease(1).await.unwrap();
    let put_at = store.commit(vec![put_leased("/t/a", lease)]).await.unwrap();
    let mut watch = store.watch("/t/", put_at).await.unwrap();
    assert_eq!(told(&events(&mut watch, 1).await[0]), format!("{} /t/a gone", put_at + 1));
    assert!(matches!(store.revoke_lease(lease).await, Err(Error::LeaseNotFound(_))));
}

async fn writers_that_compare_and_swap_lose_no_update(store: Shared) {
    const WRITERS: usize = 16;
    const INCREMENTS: usize = 20;
    let writers: Vec<_> = (0..WRITERS).map(|_| tokio::spawn(count_up(store.clone(), INCREMENTS))).collect();
    let mut revisions = BTreeSet::new();
    for writer in writers {
        revisions.extend(within(writer).await.unwrap());
    }
    assert_eq!(value(&*store, "/n", None).await.unwrap(), Some((WRITERS * INCREMENTS).to_string()));
    assert_eq!(revisions.len(), WRITERS * INCREMENTS, "every success has a revision of its own");
}

/// Increments a counter, taking what a conflict says is there.
async fn count_up(store: Shared, times: usize) -> Vec<Revision> {
    let mut revisions = Vec::new();
    let mut current = store.get("/n", None).await.unwrap().0;
    while revisions.len() < times {
        let (count, expect) = match &current {
            Some(found) => {
                (std::str::from_utf8(&found.value).unwrap().parse().unwrap(), Expect::Unchanged(found.mod_revision))
            }
            None => (0, Expect::Absent),
        };
        match within(store.commit(vec![put("/n", &(count + 1usize).to_string(), expect)])).await {
            Ok(revision) => {
                revisions.push(revision);
                current = store.get("/n", None).await.unwrap().0;
            }
            Err(Error::Conflict { current: newer, .. }) => current = newer,
            Err(error) => panic!("{error}"),
        }
    }
    revisions
}
