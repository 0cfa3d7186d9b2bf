//! The embedded store's etcd face, judged by Debian's `etcdctl`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use futures::StreamExt;
use store::{Expect, Store};
use support::{Face, etcdctl, etcdctl_command, events, put, set, told, value, within};
use tokio::io::{AsyncBufReadExt, BufReader};

/// What `etcdctl` says when all goes well.
macro_rules! ctl {
    ($face:expr, $($argument:expr),+) => {
        match $face.etcdctl(&[$($argument),+]).await {
            None => return,
            Some((succeeded, said)) => {
                assert!(succeeded, "{said}");
                said
            }
        }
    };
}

/// What it says when it does not.
macro_rules! refused {
    ($face:expr, $($argument:expr),+) => {
        match $face.etcdctl(&[$($argument),+]).await {
            None => return,
            Some((succeeded, said)) => {
                assert!(!succeeded, "{said}");
                said
            }
        }
    };
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_put_got_and_deleted() {
    let face = Face::of_a_new_store().await;
    let mut watch = face.store.watch("/a/", 1).await.unwrap();
    assert_eq!(ctl!(face, "put", "/a/1", "one"), "OK\n");
    assert_eq!(told(&events(&mut watch, 1).await[0]), "2 /a/1=one", "who watches the store sees it");
    set(&*face.store, "/a/2", "two").await;
    set(&*face.store, "/b", "three").await;
    assert_eq!(ctl!(face, "get", "/a/2"), "/a/2\ntwo\n", "what the store wrote is seen");
    assert_eq!(ctl!(face, "get", "--prefix", "/a/", "--keys-only"), "/a/1\n\n/a/2\n\n");
    assert_eq!(ctl!(face, "get", "--from-key", "/a/2", "--print-value-only"), "two\nthree\n");
    assert_eq!(ctl!(face, "get", "/a", "/b", "--order", "DESCEND", "--limit", "1"), "/a/2\ntwo\n");
    assert_eq!(ctl!(face, "get", "--prefix", "", "--sort-by", "MODIFY", "--print-value-only"), "one\ntwo\nthree\n");
    assert_eq!(ctl!(face, "put", "/a/1", "uno", "--prev-kv"), "OK\n/a/1\none\n");
    assert_eq!(ctl!(face, "get", "/a/1", "--rev", "2"), "/a/1\none\n");
    let json = ctl!(face, "get", "/a/1", "-w", "json");
    for field in [r#""create_revision":2"#, r#""mod_revision":5"#, r#""version":2"#, r#""revision":5"#, r#""count":1"#]
    {
        assert!(json.contains(field), "{field}: {json}");
    }
    assert_eq!(ctl!(face, "put", "/a/2", "--ignore-value"), "OK\n");
    assert!(refused!(face, "put", "/none", "--ignore-value").contains("etcdserver: key not found"));
    assert_eq!(ctl!(face, "del", "--prefix", "/a/", "--prev-kv"), "2\n/a/1\nuno\n/a/2\ntwo\n");
    assert_eq!(ctl!(face, "del", "/a/1"), "0\n");
    assert_eq!(value(&*face.store, "/a/2", None).await.unwrap(), None);
    assert_eq!(face.store.revision().await.unwrap(), 7, "removing nothing makes no revision");
    assert!(refused!(face, "get", "/a/1", "--rev", "99").contains("required revision is a future revision"));
    assert_eq!(ctl!(face, "compact", "7", "--physical"), "compacted revision 7\n");
    assert!(refused!(face, "get", "/a/1", "--rev", "6").contains("required revision has been compacted"));
    assert!(refused!(face, "compact", "7").contains("required revision has been compacted"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_compares_and_takes_one_way() {
    let face = Face::of_a_new_store().await;
    let run = async |script: &str| etcdctl(&face.url, &["txn"], script).await;
    let swap = "value(\"/t/a\") = \"1\"\nver(\"/t/a\") = \"1\"\nlease(\"/t/a\") = \"0\"\n\nput /t/a 2\nget /t/a\ndel /t/b\n\nput /t/c never\nget --prefix /t/\n\n";
    let Some((true, said)) = run(swap).await else { return };
    assert_eq!(said, "FAILURE\n\nOK\n\n/t/c\nnever\n", "a step sees what the one before it wrote");
    let revision = face.store.commit(vec![put("/t/a", "1", Expect::Any), put("/t/b", "1", Expect::Any)]).await.unwrap();
    assert_eq!(run(swap).await.unwrap().1, "SUCCESS\n\nOK\n\n/t/a\n2\n\n1\n");
    let after = revision + 1;
    assert_eq!(face.store.revision().await.unwrap(), after, "all of it is one revision");
    let created =
        format!("create(\"/t/a\") = \"{revision}\"\nmod(\"/t/a\") = \"{after}\"\nmod(\"/none\") = \"0\"\n\n\n\n");
    assert_eq!(run(&created).await.unwrap().1, "SUCCESS\n");
    assert_eq!(face.store.revision().await.unwrap(), after, "comparing alone makes no revision");
    let none = "value(\"/none\") = \"\"\n\n\n\n";
    assert_eq!(run(none).await.unwrap().1, "FAILURE\n", "what is not there has no value");
    for twice in ["\nput /t/x 1\nput /t/x 2\n\n\n", "\nput /t/x 1\ndel --prefix /t/\n\n\n"] {
        let (succeeded, said) = run(twice).await.unwrap();
        assert!(!succeeded && said.contains("etcdserver: duplicate key given in txn request"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_tells_past_and_present_with_what_was_before() {
    let face = Face::of_a_new_store().await;
    set(&*face.store, "/w/a", "1").await;
    let mut child = etcdctl_command(&face.url, &["watch", "--prefix", "/w/", "--rev", "2", "--prev-kv"]);
    let Ok(mut child) = child.spawn() else { return assert!(std::env::var("CI").as_deref() != Ok("true")) };
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async |count: usize| {
        let mut said = Vec::new();
        while said.len() < count {
            said.push(within(lines.next_line()).await.unwrap().unwrap());
        }
        said
    };
    assert_eq!(next(3).await, ["PUT", "/w/a", "1"]);
    set(&*face.store, "/w/a", "2").await;
    assert_eq!(next(5).await, ["PUT", "/w/a", "1", "/w/a", "2"]);
    face.store.commit(vec![support::delete("/w/a", Expect::Any)]).await.unwrap();
    assert_eq!(next(5).await, ["DELETE", "/w/a", "2", "/w/a", ""]);
    face.store.compact(4).await.unwrap();
    let (succeeded, said) = face.etcdctl(&["watch", "/w/a", "--rev", "2"]).await.unwrap();
    assert!(!succeeded && said.contains("required revision has been compacted"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_are_granted_kept_alive_looked_at_and_revoked() {
    let face = Face::of_a_new_store().await;
    let granted = ctl!(face, "lease", "grant", "100");
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert!(granted.contains("granted with TTL(100s)"), "{granted}");
    ctl!(face, "put", "/l/a", "1", "--lease", &id);
    ctl!(face, "put", "/l/b", "1", "--lease", &id);
    assert!(ctl!(face, "lease", "list").contains(&id));
    let left = ctl!(face, "lease", "timetolive", &id, "--keys");
    assert!(left.contains("granted with TTL(100s)") && left.contains("attached keys([/l/a /l/b])"), "{left}");
    let kept = ctl!(face, "lease", "keep-alive", "--once", &id);
    assert!(kept.contains("keepalived with TTL(100)"), "{kept}");
    let mut watch = face.store.watch("/l/", face.store.revision().await.unwrap()).await.unwrap();
    assert!(ctl!(face, "lease", "revoke", &id).contains("revoked"));
    assert_eq!(events(&mut watch, 2).await.len(), 2);
    assert!(refused!(face, "put", "/l/a", "1", "--lease", &id).contains("etcdserver: requested lease not found"));
    assert!(ctl!(face, "lease", "timetolive", &id).contains("already expired"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_tells_how_it_goes_and_refuses_by_name_what_it_does_not_serve() {
    let face = Face::of_a_new_store().await;
    set(&*face.store, "/a", "1").await;
    let status = ctl!(face, "endpoint", "status", "-w", "json");
    for field in [r#""version":"3.5.21""#, r#""revision":2"#, r#""leader":"#] {
        assert!(status.contains(field), "{field}: {status}");
    }
    assert!(ctl!(face, "endpoint", "health").contains("is healthy"));
    assert!(ctl!(face, "member", "list").contains(&face.url));
    assert_eq!(ctl!(face, "alarm", "list"), "");
    assert!(ctl!(face, "lock", "/lock", "true").is_empty(), "made by the client of leases, transactions and watches");
    for (arguments, name) in [
        (&["user", "list"][..], "etcdserverpb.Auth/UserList"),
        (&["auth", "enable"], "etcdserverpb.Auth/"),
        (&["member", "add", "x", "--peer-urls", "http://127.0.0.1:1"], "Cluster/MemberAdd"),
        (&["move-leader", "1"], "Maintenance/MoveLeader"),
    ] {
        let (succeeded, said) = face.etcdctl(arguments).await.unwrap();
        assert!(!succeeded && said.contains(name) && said.contains("is not served"), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_late_misses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let options = store::embedded::Options { event_bytes: 20_000, ..Default::default() };
    let store = std::sync::Arc::new(store::embedded::Embedded::open(dir.path(), options).unwrap());
    let face = Face::of(store.clone()).await;
    let etcd =
        store::etcd::Etcd::connect(std::slice::from_ref(&face.url), store::etcd::Options::default()).await.unwrap();
    let start = set(&*store, "/k", "x").await;
    let mut watch = etcd.watch("/k", start).await.unwrap();
    let large = "x".repeat(10_000);
    for _ in 0..3000 {
        set(&*store, "/k", &large).await;
    }
    let mut seen = start;
    while seen < start + 3000 {
        let batch = within(watch.next()).await.unwrap().unwrap();
        for event in batch.events {
            seen += 1;
            assert_eq!(event.revision(), seen);
        }
    }
}
