//! Kills a writing process many times; what it was told is durable must be there when the store opens again.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::StreamExt;
use store::embedded::{Embedded, Options};
use store::{Action, Error, Event, Expect, Op, Revision, Store};

const ROUNDS: u64 = 20;
const WRITERS: usize = 8;

/// Names the store's folder to the process that is to be killed.
const DIR_VARIABLE: &str = "STORE_CRASH_TEST_DIR";
/// Tells it how many writers it has: one alone commits by himself.
const WRITERS_VARIABLE: &str = "STORE_CRASH_TEST_WRITERS";

/// Little history and a small journal, so that compaction runs and the journal begins anew while the process is killed.
fn options() -> Options {
    Options { history_max: 300, journal_bytes: 20_000, ..Options::default() }
}

/// What was acknowledged to a writer: its last number, and the revision of each.
type Acknowledged = BTreeMap<Revision, (usize, u64)>;

#[test]
fn every_acknowledged_write_survives_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut acknowledged = Acknowledged::new();
    let mut random = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64 | 1;
    println!("seed {random}");
    for round in 0..ROUNDS {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Now and then before it could write anything at all.
        let lines = if round % 5 == 0 { 0 } else { (random >> 33) as usize % 400 };
        acknowledged.extend(write_until_killed(dir.path(), if round % 3 == 1 { 1 } else { WRITERS }, lines));
        let store = Embedded::open(dir.path(), options()).unwrap();
        runtime.block_on(verify(&store, &acknowledged));
        store.close();
    }
    assert!(acknowledged.len() > 100, "the writers were given time to write");
}

/// Starts a writing process, reads that many of its acknowledgements, kills it, and reads what else it had said.
fn write_until_killed(dir: &Path, writers: usize, lines: usize) -> Acknowledged {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writes_until_it_is_killed", "--ignored", "--nocapture"])
        .env(DIR_VARIABLE, dir)
        .env(WRITERS_VARIABLE, writers.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok).filter_map(parse);
    let mut acknowledged: Acknowledged = said.by_ref().take(lines).collect();
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.extend(said);
    acknowledged
}

/// A whole line `ack <revision> <writer> <number> .`; one cut off by the kill has no dot.
fn parse(line: String) -> Option<(Revision, (usize, u64))> {
    let words: Vec<&str> = line.split(' ').collect();
    match words[..] {
        ["ack", revision, writer, number, "."] => {
            Some((revision.parse().unwrap(), (writer.parse().unwrap(), number.parse().unwrap())))
        }
        _ => None,
    }
}

/// Every transaction of a writer puts its number under two keys and under a third that only this number has.
fn pair(writer: usize, number: u64) -> Vec<Op> {
    let value = bytes::Bytes::from(number.to_string().repeat(50));
    let put = |key: String| Op { key, expect: Expect::Any, action: Action::Put(value.clone(), None) };
    vec![put(format!("/{writer}/a")), put(format!("/{writer}/b"))]
}

async fn verify(store: &Embedded, acknowledged: &Acknowledged) {
    let (history, compacted) = history(store).await;
    let newest = store.revision().await.unwrap();
    let held: Vec<Revision> = history.keys().copied().collect();
    let expected: Vec<Revision> = (compacted.max(1) + 1..=newest).collect();
    assert_eq!(held, expected, "revisions are contiguous");
    for (revision, (writer, number)) in acknowledged.range(compacted + 1..) {
        let value = number.to_string().repeat(50);
        let expected = ["a", "b"].map(|key| (format!("/{writer}/{key}"), value.clone()));
        assert_eq!(history.get(revision).map(Vec::as_slice), Some(&expected[..]), "revision {revision}");
    }
    for changes in history.values() {
        assert_eq!(changes.len(), 2, "no half transaction");
    }
    for writer in 0..WRITERS {
        let last = acknowledged.values().filter(|(by, _)| *by == writer).map(|(_, number)| *number).max();
        let (a, b) = (stored(store, writer, "a").await, stored(store, writer, "b").await);
        assert_eq!(a, b);
        assert!(a >= last, "writer {writer}: {a:?} is older than {last:?}");
    }
}

/// All the changes the store still has, by revision, and the revision it was compacted at.
async fn history(store: &Embedded) -> (BTreeMap<Revision, Vec<(String, String)>>, Revision) {
    let compacted = match store.watch("", 0).await {
        Err(Error::Compacted { compacted, .. }) => compacted,
        Err(error) => panic!("{error}"),
        Ok(_) => 0,
    };
    let mut watch = store.watch("", compacted).await.unwrap();
    store.request_progress().await.unwrap();
    let newest = store.revision().await.unwrap();
    let mut history = BTreeMap::<_, Vec<_>>::new();
    loop {
        let next = tokio::time::timeout(Duration::from_secs(30), watch.next());
        let batch = next.await.expect("the watch answers").unwrap().unwrap();
        for event in batch.events {
            let Event::Put { current } = event else { panic!("nothing is deleted here") };
            let value = String::from_utf8(current.value.to_vec()).unwrap();
            history.entry(current.mod_revision).or_default().push((current.key.to_string(), value));
        }
        if batch.revision >= newest {
            return (history, compacted);
        }
    }
}

/// The number a writer's key holds.
async fn stored(store: &Embedded, writer: usize, key: &str) -> Option<u64> {
    let found = store.get(&format!("/{writer}/{key}"), None).await.unwrap().0?;
    let text = std::str::from_utf8(&found.value).unwrap();
    Some(text[..text.len() / 50].parse().unwrap())
}

/// The process that is killed: not a test of its own.
#[test]
#[ignore = "run by every_acknowledged_write_survives_kill_9"]
fn writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIR_VARIABLE) else { return };
    let store = Arc::new(Embedded::open(Path::new(&dir), options()).unwrap());
    let writers: usize = std::env::var(WRITERS_VARIABLE).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let writers: Vec<_> = (0..writers).map(|writer| tokio::spawn(write(store.clone(), writer))).collect();
        for writer in writers {
            writer.await.unwrap();
        }
    });
}

async fn write(store: Arc<Embedded>, writer: usize) {
    let mut number = stored(&store, writer, "a").await.unwrap_or(0);
    loop {
        number += 1;
        let revision = store.commit(pair(writer, number)).await.unwrap();
        let line = format!("ack {revision} {writer} {number} .\n");
        if std::io::stdout().write_all(line.as_bytes()).is_err() {
            return;
        }
    }
}

#[test]
fn a_second_process_is_told_that_the_store_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let store = Embedded::open(dir.path(), options()).unwrap();
    let second = Embedded::open(dir.path(), options()).err().unwrap();
    assert!(second.to_string().contains("in use by another process"), "{second}");
    store.close();
    Embedded::open(dir.path(), options()).unwrap();
}
