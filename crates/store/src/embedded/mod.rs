//! The embedded backend: a multi-version store in one folder, for one process.
//!
//! ```text
//!  commit ──▶ queue ──▶ committer ──▶ log (journal with one fsync per batch, redb behind it)
//!                            │ publish, under one short lock
//!                            ▼
//!            State { index, ring of newest changes, revision, compacted }
//!                 ▲                     ▲
//!   get, list: index, then        watch: log for the past,
//!   ring or a log snapshot        ring for what is live
//! ```
//!
//! In reading order: [`row`] (what is written), [`journal`], [`log`] and [`tables`] (the files), [`overlay`] (looked at only),
//! [`index`] (keys in memory), [`ring`] (newest changes), [`queue`] and [`commit`] (writes), [`tidy`], [`room`] (on the disk),
//! [`scope`], [`read`], [`watch`], [`lease`], [`compact`], [`beyond`] and [`whole`] (more than the contract asks for).
//!
//! Invariants:
//! - What is visible is durable: memory changes only after the fsync, in one step, so every reader sees whole
//!   transactions.
//! - A log snapshot taken while the state is locked holds every row the index names at that moment.
//! - Locks are taken in the order committer, state, watchers, signal; but for the committer's none is held over an fsync.

mod beyond;
mod commit;
mod compact;
mod index;
mod journal;
mod lease;
mod log;
mod medium;
mod overlay;
mod queue;
mod read;
mod reader;
mod ring;
mod room;
mod row;
mod scope;
mod tables;
mod tidy;
mod watch;
mod whole;

pub(crate) use self::beyond::Still;
pub(crate) use self::lease::MAX_TTL_SECONDS;
pub(crate) use self::read::{Range, Ranged};
pub(crate) use self::ring::Change;
pub(crate) use self::row::{Position, Row};
pub(crate) use self::scope::Scope;
pub(crate) use self::watch::{Asker, Told};
pub(crate) use self::whole::{Loader, Whole};

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};

use self::commit::Committer;
use self::index::{Index, Version};
use self::lease::Leases;
use self::log::Log;
use self::queue::{Outcome, Queue, Work};
use self::ring::Ring;
use self::watch::Watchers;
use crate::{Error, KeyValue, LeaseId, ListRequest, ListResponse, Op, Revision, Store, WatchStream, limits};

/// The revision of a store nothing was written to, as etcd's. (0 as a resource version means "any" in Kubernetes.)
const FIRST_REVISION: Revision = 1;

/// How an embedded store behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Memory for pages of the file. Objects are read from the watch cache and recent changes from the ring: what is
    /// left is the edge of the log that is being written, and the few versions before those that are told.
    pub cache_bytes: usize,
    /// How much the journal holds before the log itself is made durable: what an open after a crash replays at most.
    /// Disk, not memory.
    pub journal_bytes: usize,
    /// Memory for the newest changes, from which live watches are fed.
    pub event_bytes: usize,
    /// How long superseded versions are kept at least, as kube-apiserver's compaction interval.
    pub retention: Duration,
    /// How many superseded versions are kept at most, roughly.
    pub history_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cache_bytes: 4 << 20,
            journal_bytes: 16 << 20,
            event_bytes: 8 << 20,
            retention: Duration::from_secs(300),
            history_max: 100_000,
        }
    }
}

/// The embedded store. Dropping it closes it.
pub struct Embedded {
    shared: Arc<Shared>,
    committer: Arc<Mutex<Committer>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// What the commit thread, readers and watches share.
struct Shared {
    state: RwLock<State>,
    log: Log,
    queue: Queue,
    watchers: Watchers,
    /// Why the last write failed, if it did.
    failure: tokio::sync::watch::Sender<Option<Error>>,
}

/// What is visible.
#[derive(Debug)]
struct State {
    index: Index,
    ring: Ring,
    revision: Revision,
    compacted: Revision,
}

impl State {
    fn new(event_bytes: usize) -> State {
        State { index: Index::default(), ring: Ring::new(event_bytes), revision: FIRST_REVISION, compacted: 0 }
    }

    /// Whether changes from `revision` on are still held.
    fn check_from(&self, revision: Revision) -> Result<(), Error> {
        match self.compacted {
            compacted if revision < compacted => Err(Error::Compacted { requested: revision, compacted }),
            _ => Ok(()),
        }
    }
}

impl Embedded {
    /// Opens or makes the store in `dir`. Only one process at a time can have it open.
    pub fn open(dir: &Path, options: Options) -> Result<Embedded, Error> {
        let log = Log::open(dir, &options)?;
        Embedded::start(log, &options)
    }

    /// A store in memory, gone when dropped: for tests.
    pub fn in_memory() -> Result<Embedded, Error> {
        let options = Options::default();
        Embedded::start(Log::in_memory(options.cache_bytes)?, &options)
    }

    fn start(log: Log, options: &Options) -> Result<Embedded, Error> {
        let (state, leases) = recover(&log, options)?;
        // Nobody waits for anything yet: the best time to give back what is not used.
        if log.waste_bytes() > 0
            && let Err(error) = log.shrink()
        {
            tracing::warn!(%error, "the store's file cannot be made smaller");
        }
        let state = RwLock::new(state);
        let (queue, watchers, failure) = (Queue::new(), Watchers::default(), Default::default());
        let shared = Arc::new(Shared { state, log, queue, watchers, failure });
        let committer = Arc::new(Mutex::new(Committer::new(shared.clone(), leases, options)));
        let (work, of) = (shared.clone(), committer.clone());
        let thread = std::thread::Builder::new()
            .name("store-commit".to_owned())
            .spawn(move || commit::run(&work, &of))
            .map_err(|error| Error::Unavailable(format!("cannot start the commit thread: {error}")))?;
        Ok(Embedded { shared, committer, thread: Mutex::new(Some(thread)) })
    }

    /// Does what was asked for before, ends all watches and lets go of the file. Whatever comes later is refused.
    pub fn close(&self) {
        self.shared.queue.close();
        // Whoever asks whether it runs does not wait for its end.
        let thread = self.thread.lock().take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the commit thread panicked");
        }
        self.shared.watchers.close();
        drop(self.shared.log.close());
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

/// Rebuilds what is in memory from the log.
fn recover(log: &Log, options: &Options) -> Result<(State, Leases), Error> {
    let mut state = State::new(options.event_bytes);
    let mut bound = std::collections::HashMap::new();
    let recovered = log.recover(|at, row| {
        let key = state.index.shared_key(row.key).unwrap_or_else(|| row.key.into());
        match row.lease {
            Some(lease) => drop(bound.insert(key.clone(), lease)),
            None => drop(bound.remove(&key)),
        }
        let writes = writes(row, state.index.newest(&key));
        state.index.record(&key, Version { at, writes, created: row.created });
        state.revision = state.revision.max(at.revision);
    })?;
    state.compacted = recovered.compacted;
    let now = (Instant::now(), SystemTime::now());
    let mut leases = Leases::recover(recovered.last_lease, &recovered.leases, now);
    bound.iter().for_each(|(key, lease)| leases.bind(key, Some(*lease)));
    Ok((state, leases))
}

/// How often a row's key had been written; counted here where nobody counted when it was.
fn writes(row: &row::Row<'_>, before: Option<Version>) -> u32 {
    match (row.created, row.writes) {
        (0, _) => 0,
        (_, 0) => before.filter(|before| before.created == row.created).map_or(1, |before| before.writes + 1),
        (_, counted) => counted,
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &str, revision: Option<Revision>) -> Result<(Option<KeyValue>, Revision), Error> {
        read::get(&self.shared, key, revision)
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Error> {
        read::list(&self.shared, request).await
    }

    async fn commit(&self, ops: Vec<Op>) -> Result<Revision, Error> {
        limits::check(&ops)?;
        let outcome = match commit::commit_alone(&self.shared, &self.committer, ops) {
            Ok(outcome) => outcome,
            Err(ops) => self.shared.queue.ask(|reply| Work::Commit(ops, reply)).await?,
        };
        match outcome {
            Outcome::Committed(revision) => Ok(revision),
            Outcome::Failed(error) => Err(error),
            Outcome::Conflict { key, current } => {
                let current = current.map(|version| read::version(&self.shared, &key, version)).transpose()?.flatten();
                Err(Error::Conflict { key, current })
            }
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, Error> {
        watch::watch(&self.shared, prefix, after)
    }

    async fn health(&self) -> Result<(), Error> {
        if self.thread.lock().as_ref().is_none_or(JoinHandle::is_finished) {
            return Err(Error::Unavailable("the commit thread has ended".to_owned()));
        }
        self.shared.failure.borrow().clone().map_or(Ok(()), Err)
    }

    async fn request_progress(&self) -> Result<(), Error> {
        self.shared.watchers.request_progress();
        Ok(())
    }

    async fn revision(&self) -> Result<Revision, Error> {
        Ok(self.shared.state.read().revision)
    }

    async fn compact(&self, revision: Revision) -> Result<(), Error> {
        self.shared.queue.ask(|reply| Work::Compact(revision, false, reply)).await?
    }

    async fn grant_lease(&self, ttl_seconds: i64) -> Result<LeaseId, Error> {
        Ok(self.shared.queue.ask(|reply| Work::Grant(None, ttl_seconds, reply)).await??.id)
    }

    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), Error> {
        self.shared.queue.ask(|reply| Work::Revoke(lease, reply)).await?
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt;

    use super::*;
    use crate::{Action, Expect};

    fn put(key: &str) -> Vec<Op> {
        vec![Op { key: key.into(), expect: Expect::Any, action: Action::Put("x".into(), None) }]
    }

    #[tokio::test]
    async fn a_failed_commit_is_unavailable_and_nothing_of_it_is_seen() {
        let (log, disk) = log::on_a_disk();
        let store = Embedded::start(log, &Options::default()).unwrap();
        let revision = store.commit(put("/a")).await.unwrap();
        let mut watch = store.watch("/", revision).await.unwrap();
        disk.broken.store(true, std::sync::atomic::Ordering::Relaxed);
        let (b, c) = tokio::join!(store.commit(put("/b")), store.commit(put("/c")));
        for failed in [b, c] {
            assert!(matches!(failed, Err(Error::Unavailable(_))), "{failed:?}");
        }
        assert!(store.health().await.unwrap_err().to_string().contains("the disk is broken"));
        assert_eq!(store.revision().await.unwrap(), revision);
        assert_eq!(store.get("/b", None).await.unwrap(), (None, revision));
        assert!(store.get("/a", None).await.unwrap().0.is_some());
        store.request_progress().await.unwrap();
        let batch = watch.next().await.unwrap().unwrap();
        assert_eq!((batch.events, batch.revision), (vec![], revision));

        // Nobody has to write for it to be found out that the disk is well again.
        disk.broken.store(false, std::sync::atomic::Ordering::Relaxed);
        let mut failure = store.shared.failure.subscribe();
        let well = failure.wait_for(Option::is_none);
        tokio::time::timeout(Duration::from_secs(30), well).await.unwrap().unwrap();
        assert_eq!(store.commit(put("/b")).await.unwrap(), revision + 1);
        store.health().await.unwrap();
        store.close();
        assert!(store.health().await.unwrap_err().to_string().contains("the commit thread has ended"));
    }

    #[tokio::test]
    async fn writers_that_come_together_share_an_fsync() {
        let (log, disk) = log::on_a_disk();
        let store = Embedded::start(log, &Options::default()).unwrap();
        let gate = disk.gate.lock();
        let keys: Vec<_> = (0..50).map(|n| format!("/{n}")).collect();
        // All have asked before the disk takes the first of them.
        let writers = futures::future::join_all(keys.iter().map(|key| store.commit(put(key))));
        let (revisions, ()) = tokio::join!(writers, async { drop(gate) });
        let revisions: std::collections::BTreeSet<_> = revisions.into_iter().map(Result::unwrap).collect();
        assert_eq!(revisions.len(), 50, "each has a revision of its own");
        assert!(disk.writes.load(std::sync::atomic::Ordering::Relaxed) <= 2, "who came first, and all others");
    }
}
