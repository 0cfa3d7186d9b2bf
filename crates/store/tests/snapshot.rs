//! Snapshots: taken by etcdctl, restored by it, and the other way; damage found; space given back.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use store::embedded::{Embedded, Options};
use store::etcd::snapshot::{Attached, Snapshot, keys_of_files, save, save_files};
use store::etcd::{Etcd, server::Etcd3};
use store::{Error, Expect, Revision, Store};
use support::{EtcdServer, Face, delete, etcdctl, events, prefix, put, put_leased, set, told};

/// Keys that come and go, large ones, leases, and a history whose beginning is compacted.
async fn fill(store: &dyn Store) -> Revision {
    for n in 0..300 {
        set(store, &format!("/registry/pods/p{n:03}"), &format!("{n}").repeat(n)).await;
    }
    set(store, "/registry/large", &"x".repeat(1_200_000)).await;
    for n in (0..300).step_by(3) {
        store.commit(vec![delete(&format!("/registry/pods/p{n:03}"), Expect::Any)]).await.unwrap();
    }
    let lease = store.grant_lease(3600).await.unwrap();
    store.commit(vec![put_leased("/registry/events/e", lease), put_leased("/registry/events/f", lease)]).await.unwrap();
    for _ in 0..5 {
        set(store, "/registry/pods/p001", "again").await;
    }
    store.revision().await.unwrap()
}

/// What a store holds, in words.
async fn content(store: &dyn Store) -> Vec<String> {
    let list = store.list(prefix("/registry/")).await.unwrap();
    let of = |item: &store::KeyValue| {
        format!("{} {} {} {:?}", item.key, item.create_revision, item.mod_revision, item.value)
    };
    list.items.iter().map(of).collect()
}

async fn hash(url: &str) -> String {
    let (succeeded, said) = etcdctl(url, &["endpoint", "hashkv"], "").await.unwrap();
    assert!(succeeded, "{said}");
    said.trim().rsplit(", ").next().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_etcd_made_of_our_snapshot_is_the_same_to_the_last_byte() {
    let face = Face::of_a_new_store().await;
    let newest = fill(&*face.store).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("snapshot.db");
    let path = file.to_str().unwrap();
    for compacted in [None, Some(newest - 150)] {
        if let Some(compacted) = compacted {
            let (succeeded, said) = face.etcdctl(&["compact", "--physical", &compacted.to_string()]).await.unwrap();
            assert!(succeeded, "{said}");
        }
        let Some((succeeded, said)) = face.etcdctl(&["snapshot", "save", path]).await else { return };
        assert!(succeeded, "{said}");
        let (succeeded, status) = face.etcdctl(&["snapshot", "status", path, "-w", "json"]).await.unwrap();
        assert!(succeeded && status.contains(&format!("\"revision\":{newest}")), "{status}");
        let server = EtcdServer::restored(&file);
        let etcd = Etcd::connect(std::slice::from_ref(&server.url), Default::default()).await.unwrap();
        assert_eq!(etcd.revision().await.unwrap(), newest);
        assert_eq!(content(&etcd).await, content(&*face.store).await);
        assert_eq!(hash(&server.url).await, hash(&face.url).await, "compacted at {compacted:?}");
        let (_, leases) = etcdctl(&server.url, &["lease", "list"], "").await.unwrap();
        assert!(leases.contains("found 1 leases"), "{leases}");
        let after = compacted.unwrap_or(1);
        let count = usize::try_from(newest - after + 1).unwrap();
        let mut past = (face.store.watch("/", after).await.unwrap(), etcd.watch("/", after).await.unwrap());
        let ours: Vec<_> = events(&mut past.0, count).await.iter().map(told).collect();
        assert_eq!(ours, events(&mut past.1, count).await.iter().map(told).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_made_of_etcds_snapshot_goes_on_beyond_every_revision_that_was_seen() {
    let Some(server) = EtcdServer::start() else { return };
    let etcd = Etcd::connect(std::slice::from_ref(&server.url), Default::default()).await.unwrap();
    let newest = fill(&etcd).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("snapshot.db");
    etcd.snapshot(&mut std::fs::File::create(&file).unwrap()).await.unwrap();
    let snapshot = Snapshot::open(&file).unwrap();
    assert_eq!((snapshot.revision(), snapshot.keys()), (newest, 203));
    let restored = snapshot.restore(&dir.path().join("store"), 1_000_000_000).unwrap();
    assert_eq!((restored.keys, restored.leases, restored.revision), (203, 1, newest + 1_000_000_000));
    let store = Embedded::open(&dir.path().join("store"), Options::default()).unwrap();
    assert_eq!(content(&store).await, content(&etcd).await);
    assert_eq!(store.revision().await.unwrap(), newest + 1_000_000_000);
    for seen in [newest, newest + 7] {
        assert!(matches!(store.watch("/", seen).await, Err(Error::Compacted { .. })), "who saw {seen} lists again");
    }
    let next = set(&store, "/registry/new", "1").await;
    assert_eq!(next, newest + 1_000_000_001);
    let face = Face::of(Arc::new(store)).await;
    let (_, leases) = face.etcdctl(&["lease", "list"]).await.unwrap();
    assert!(leases.contains("found 1 leases"), "{leases}");
    assert!(matches!(snapshot.restore(&dir.path().join("again"), 0), Ok(restored) if restored.revision == newest + 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_or_foreign_file_is_refused_with_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(&dir.path().join("store"), Options::default()).unwrap();
    fill(&store).await;
    let file = dir.path().join("backup.db");
    let ca = Attached { name: "pki/ca.crt".into(), content: b"certificate".to_vec() };
    save(&store, std::slice::from_ref(&ca), &mut std::fs::File::create(&file).unwrap(), &file).unwrap();
    assert_eq!(Snapshot::open(&file).unwrap().files().unwrap(), [ca]);
    let whole = std::fs::read(&file).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 1;
    let redb = std::fs::read(dir.path().join("store/store.redb")).unwrap();
    for (what, bytes, reason) in [
        ("one bit flipped", &flipped[..], "it is damaged"),
        ("cut short", &whole[..whole.len() - 4096], "it is damaged"),
        ("without its checksum", &whole[..whole.len() - 32], "ends with its checksum"),
        ("a text", b"hello", "ends with its checksum"),
        ("the store's own file", &redb[..], "ends with its checksum"),
        ("nothing", b"", "ends with its checksum"),
    ] {
        let path = dir.path().join("wrong.db");
        std::fs::write(&path, bytes).unwrap();
        let refused = Snapshot::open(&path).err().unwrap().to_string();
        assert!(refused.contains(reason) && refused.contains("nothing was changed"), "{what}: {refused}");
    }
}

/// The files in a folder and what is in them.
fn files(dir: &Path) -> BTreeMap<std::ffi::OsString, Vec<u8>> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_a_stopped_or_killed_store_is_the_running_ones_and_leaves_its_files_alone() {
    let dir = tempfile::tempdir().unwrap();
    let place = |name: &str| dir.path().join(name);
    let store = Embedded::open(&place("stopped"), Options::default()).unwrap();
    let newest = fill(&store).await;
    store.compact(newest - 200).await.unwrap();
    set(&store, "/registry/last", "in the journal only").await;
    let of_running = place("running.db");
    save(&store, &[], &mut std::fs::File::create(&of_running).unwrap(), &of_running).unwrap();
    let of_files = |name: &str| {
        let file = place("files.db");
        save_files(&place(name), &mut std::fs::File::create(&file).unwrap(), &file).map(|()| file)
    };
    let refused = of_files("stopped").unwrap_err().to_string();
    assert!(refused.contains("in use by another process"), "{refused}");
    // What a kill leaves: the files as they are now.
    std::fs::create_dir(place("killed")).unwrap();
    for (name, content) in files(&place("stopped")) {
        std::fs::write(place("killed").join(name), content).unwrap();
    }
    store.close();
    drop(store);
    for name in ["killed", "stopped"] {
        let before = files(&place(name));
        let file = of_files(name).unwrap();
        let found = keys_of_files(&place(name)).unwrap();
        assert_eq!(found.len(), 204, "{name}");
        assert!(found.contains("/registry/last") && !found.contains("/registry/pods/p000"), "{name}: as they are now");
        assert!(files(&place(name)) == before, "{name}: its files are as they were");
        assert_eq!(Snapshot::open(&file).unwrap().keys(), 204, "{name}");
        let keys = |file: &Path| {
            let store = place("restored");
            drop(std::fs::remove_dir_all(&store));
            Snapshot::open(file).unwrap().restore(&store, 1).unwrap();
            Embedded::open(&store, Options::default()).unwrap()
        };
        let (ours, theirs) = (content(&keys(&file)).await, content(&keys(&of_running)).await);
        assert_eq!(ours, theirs, "{name}");
        drop(Embedded::open(&place(name), Options::default()).unwrap());
    }
    let nothing = of_files("nothing").unwrap_err().to_string();
    assert!(nothing.contains("cannot read the store"), "{nothing}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_taken_while_others_write_is_of_one_revision() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::open(&dir.path().join("store"), Options::default()).unwrap());
    let (stop, of) = (Arc::new(std::sync::atomic::AtomicBool::new(false)), store.clone());
    let stopped = stop.clone();
    let writer = tokio::spawn(async move {
        for n in 0.. {
            let pair = ["/pair/a", "/pair/b"].map(|key| put(key, &n.to_string(), Expect::Any));
            of.commit(pair.into()).await.unwrap();
            if stopped.load(std::sync::atomic::Ordering::Relaxed) {
                return;
            }
        }
    });
    events(&mut store.watch("/pair/", 1).await.unwrap(), 2).await;
    for n in 0..5 {
        let (file, restored) = (dir.path().join("snapshot.db"), dir.path().join(format!("restored-{n}")));
        save(&store, &[], &mut std::fs::File::create(&file).unwrap(), &file).unwrap();
        let from = Snapshot::open(&file).unwrap().restore(&restored, 1).unwrap().from;
        let restored = Embedded::open(&restored, Options::default()).unwrap();
        let pair = restored.list(prefix("/pair/")).await.unwrap().items;
        assert_eq!(pair.len(), 2);
        assert_eq!(pair[0].value, pair[1].value);
        assert_eq!((pair[0].mod_revision, pair[1].mod_revision), (from, from));
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    writer.await.unwrap();
}

fn size(dir: &Path) -> u64 {
    std::fs::metadata(dir.join("store.redb")).unwrap().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_file_shrinks_after_large_deletions() {
    let dir = tempfile::tempdir().unwrap();
    let fill_and_empty = async |store: &Embedded| {
        for n in 0..60 {
            set(store, &format!("/k/{n}"), &"x".repeat(1_000_000)).await;
        }
        for n in 0..60 {
            store.commit(vec![delete(&format!("/k/{n}"), Expect::Any)]).await.unwrap();
        }
        store.revision().await.unwrap()
    };
    let store = Arc::new(Embedded::open(dir.path(), Options::default()).unwrap());
    let last = fill_and_empty(&store).await;
    let face = Face::of(store.clone()).await;
    let large = size(dir.path());
    assert!(large > 60_000_000, "{large}");
    let Some((succeeded, said)) = face.etcdctl(&["compact", "--physical", &last.to_string()]).await else { return };
    assert!(succeeded, "{said}");
    let (succeeded, said) = face.etcdctl(&["defrag"]).await.unwrap();
    assert!(succeeded && size(dir.path()) < 10_000_000, "{said} {}", size(dir.path()));

    // Without being asked: when nothing happens, or at the next start.
    let last = fill_and_empty(&store).await;
    // Physically: until it is done, so that there is something to give back.
    let (succeeded, said) = face.etcdctl(&["compact", "--physical", &last.to_string()]).await.unwrap();
    assert!(succeeded, "{said}");
    store.close();
    drop(Embedded::open(dir.path(), Options::default()).unwrap());
    assert!(size(dir.path()) < 10_000_000, "{}", size(dir.path()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_reached_by_a_socket_in_the_file_system() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(Embedded::in_memory().unwrap());
    let listener = tokio::net::UnixListener::bind(dir.path().join("etcd.sock")).unwrap();
    let incoming = futures::stream::unfold(listener, |listener| async move {
        Some((listener.accept().await.map(|(stream, _)| stream), listener))
    });
    tokio::spawn(Etcd3::new(store.clone(), Vec::new()).serve(incoming, std::future::pending()));
    let url = format!("unix://{}", dir.path().join("etcd.sock").display());
    let etcd = Etcd::connect(&[url], Default::default()).await.unwrap();
    let revision = set(&etcd, "/a", "1").await;
    assert_eq!(store.revision().await.unwrap(), revision);
    let mut command = support::etcdctl_command("unix://etcd.sock", &["get", "/a"]);
    let Ok(output) = command.current_dir(dir.path()).output().await else { return };
    println!("{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "/a\n1\n");
    store.commit(vec![put("/a", "2", Expect::Any)]).await.unwrap();
}
