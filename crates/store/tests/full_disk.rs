//! A disk without room is an error to whoever writes, and nothing else: what was acknowledged stays, and writing goes on
//! when there is room again.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod support;

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use store::embedded::{Embedded, Options};
use store::{Error, Expect, Store};
use support::{Face, delete, put, set, value};

/// Room for the journal and a few MiB.
const DISK: &str = "size=28m";

/// A small file system of its own, gone when dropped.
struct Disk(tempfile::TempDir);

impl Disk {
    /// `None` where this machine does not let us mount; in CI that is a failure.
    fn mount() -> Option<Disk> {
        let dir = tempfile::tempdir().unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(dir.path()).output().unwrap();
        if !mounted.status.success() {
            let reason = String::from_utf8_lossy(&mounted.stderr).into_owned();
            assert!(std::env::var("CI").as_deref() != Ok("true"), "cannot mount a small disk: {reason}");
            println!("skipped: cannot mount a small disk: {reason}");
            return None;
        }
        Some(Disk(dir))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.path().join("filler")).unwrap();
        while std::io::Write::write_all(&mut filler, &[1; 4096]).is_ok() {}
    }

    /// Gives some of it back.
    fn make_a_little_room(&self, bytes: u64) {
        let filler = std::fs::OpenOptions::new().write(true).open(self.path().join("filler")).unwrap();
        filler.set_len(filler.metadata().unwrap().len() - bytes).unwrap();
    }

    fn make_room(&self) {
        std::fs::remove_file(self.path().join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        assert!(Command::new("umount").arg(self.path()).status().unwrap().success());
    }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_loses_none_that_it_took() {
    let Some(disk) = Disk::mount() else { return };
    let store = Embedded::open(disk.path(), Options { cache_bytes: 1 << 20, ..Options::default() }).unwrap();
    let large = "x".repeat(100_000);
    let mut taken = Vec::new();
    disk.fill();
    let refused = loop {
        let key = format!("/k/{}", taken.len());
        match store.commit(vec![put(&key, &large, Expect::Absent)]).await {
            Ok(_) => taken.push(key),
            Err(error) => break error,
        }
        assert!(taken.len() < 1000, "100 MB do not fit on this disk");
    };
    assert!(matches!(refused, Error::NoSpace(_)), "{refused:?}");
    assert!(matches!(store.health().await, Err(Error::NoSpace(_))));
    let next = format!("/k/{}", taken.len());
    assert!(store.get(&next, None).await.unwrap().0.is_none(), "what was refused is not there");
    for key in &taken {
        assert_eq!(value(&store, key, None).await.unwrap().map(|value| value.len()), Some(large.len()), "{key}");
    }

    disk.make_room();
    store.commit(vec![put(&next, "small", Expect::Absent)]).await.unwrap();
    store.close();
    drop(store);
    let store = Embedded::open(disk.path(), Options::default()).unwrap();
    for key in &taken {
        assert_eq!(value(&store, key, None).await.unwrap().map(|value| value.len()), Some(large.len()), "{key}");
    }
    assert_eq!(value(&store, &next, None).await.unwrap().as_deref(), Some("small"));
    store.close();
    drop(store);
}

#[tokio::test]
async fn a_little_room_is_not_enough_for_a_store_that_was_full() {
    let Some(disk) = Disk::mount() else { return };
    let options = Options { cache_bytes: 1 << 20, ..Options::default() };
    let store = Arc::new(Embedded::open(disk.path(), options).unwrap());
    set(&*store, "/small", "1").await;
    disk.fill();
    let large = "x".repeat(100_000);
    while store.commit(vec![put("/large", &large, Expect::Any)]).await.is_ok() {}
    // Less than the twentieth part of the disk that it waits for, and more than a small write takes.
    disk.make_a_little_room(600 << 10);
    for n in 0..20 {
        let refused = store.commit(vec![put(&format!("/small/{n}"), "1", Expect::Any)]).await.unwrap_err();
        let reason = refused.to_string();
        assert!(matches!(refused, Error::NoSpace(_)) && reason.contains("writing goes on with"), "{reason}");
        assert!(matches!(store.health().await, Err(Error::NoSpace(_))), "it does not count as well for a moment");
    }
    // What makes room is tried, and whether it succeeds or not says nothing of other writes.
    drop(store.commit(vec![delete("/large", Expect::Any)]).await);
    assert_eq!(value(&*store, "/small", None).await.unwrap().as_deref(), Some("1"), "reads go on");
    assert!(matches!(store.health().await, Err(Error::NoSpace(_))));
    assert!(matches!(store.grant_lease(60).await, Err(Error::NoSpace(_))));
    let face = Face::of(store.clone()).await;
    if let Some((_, said)) = face.etcdctl(&["alarm", "list"]).await {
        assert!(said.contains("alarm:NOSPACE"), "{said}");
        let (_, said) = face.etcdctl(&["endpoint", "status", "-w", "json"]).await.unwrap();
        assert!(said.contains("database space exceeded"), "{said}");
    }

    disk.make_room();
    set(&*store, "/small", "2").await;
    store.health().await.unwrap();
    if let Some((succeeded, said)) = face.etcdctl(&["alarm", "list"]).await {
        assert!(succeeded && said.is_empty(), "{said}");
    }
    assert_eq!(value(&*store, "/small", None).await.unwrap().as_deref(), Some("2"));
    store.close();
    drop((store, face));
}
