//! Watches: past changes from the log, then live ones from the ring.
//!
//! ```text
//!  commit thread ── publish ──▶ ring ──▶ notify watchers whose prefix matches
//!                                          │
//!  watcher: catching up (log, in chunks) ──┴──▶ live (ring)      cursor: everything up to here has been told
//! ```
//!
//! Invariants:
//! - Nothing is queued per watcher: it holds a cursor, and pulls from the ring when it is polled. The commit thread
//!   only sets a flag.
//! - `Signal::from` is at most the first revision after the cursor that matters to the watcher, if there is one; so a
//!   watcher of a quiet prefix never falls behind, however many other changes pass through the ring.
//! - Once live, a watcher whose next change has left the ring ends with [`Error::Lagged`].

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::log::Snapshot;
use super::ring::{Change, Entry};
use super::{Shared, State};
use crate::{Error, Revision, WatchBatch, WatchStream};

/// A batch ends after the revision that brought it to this many events.
const BATCH_EVENTS: usize = 1000;

/// A batch read from the log ends after the revision that brought it to this many bytes.
const PAST_BATCH_BYTES: usize = 4 << 20;

/// What the commit thread has to say to one watcher.
#[derive(Debug, Default)]
struct Signal {
    /// Look at the ring from this revision on.
    from: Option<Revision>,
    /// Somebody asked how far it is.
    progress: bool,
    /// The store went away.
    closed: bool,
}

#[derive(Debug)]
struct Watcher {
    prefix: Box<str>,
    signal: Mutex<Signal>,
    wake: Notify,
}

impl Watcher {
    fn tell(&self, change: impl FnOnce(&mut Signal)) {
        change(&mut self.signal.lock());
        self.wake.notify_one();
    }

    fn look_from(&self, revision: Revision) {
        self.tell(|signal| signal.from = Some(signal.from.map_or(revision, |from| from.min(revision))));
    }
}

/// The open watches.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    next_id: u64,
    watchers: HashMap<u64, Arc<Watcher>>,
    closed: bool,
}

impl Watchers {
    /// Wakes the watchers these entries matter to. Called while the state they were published in is still locked.
    pub(super) fn published(&self, entries: &[Arc<Entry>]) {
        for watcher in self.open.lock().watchers.values() {
            let matters = |change: &Change| change.key.starts_with(&*watcher.prefix);
            if let Some(first) = entries.iter().find(|entry| entry.changes.iter().any(matters)) {
                watcher.look_from(first.revision);
            }
        }
    }

    /// Asks every watcher to tell how far it is.
    pub(super) fn request_progress(&self) {
        self.open.lock().watchers.values().for_each(|watcher| watcher.tell(|signal| signal.progress = true));
    }

    /// Ends every watch, now and later.
    pub(super) fn close(&self) {
        let mut open = self.open.lock();
        open.closed = true;
        open.watchers.values().for_each(|watcher| watcher.tell(|signal| signal.closed = true));
    }

    fn register(&self, prefix: &str, from: Revision) -> (u64, Arc<Watcher>) {
        let mut open = self.open.lock();
        let signal = Mutex::new(Signal { from: Some(from), progress: false, closed: open.closed });
        let watcher = Arc::new(Watcher { prefix: prefix.into(), signal, wake: Notify::new() });
        open.next_id += 1;
        let id = open.next_id;
        open.watchers.insert(id, watcher.clone());
        (id, watcher)
    }
}

/// Starts a watch of what happens after `after`.
pub(super) fn watch(shared: &Arc<Shared>, prefix: &str, after: Revision) -> Result<WatchStream, Error> {
    // Registered first: whatever is published from here on finds the watcher.
    let from = after.saturating_add(1);
    let (id, watcher) = shared.watchers.register(prefix, from);
    let feed = Feed { shared: shared.clone(), id, watcher, cursor: after, live: false, ended: false };
    shared.state.read().check_from(from)?;
    Ok(futures::stream::unfold(feed, |mut feed| async move { Some((feed.next().await?, feed)) }).boxed())
}

/// One watch.
struct Feed {
    shared: Arc<Shared>,
    id: u64,
    watcher: Arc<Watcher>,
    cursor: Revision,
    live: bool,
    ended: bool,
}

/// What one look at the ring brought.
enum Look {
    Batch(WatchBatch),
    Nothing,
    /// The ring no longer holds what comes next.
    NotInRing,
}

impl Feed {
    async fn next(&mut self) -> Option<Result<WatchBatch, Error>> {
        if self.ended {
            return None;
        }
        let step = self.step().await;
        self.ended = step.is_err();
        Some(step)
    }

    async fn step(&mut self) -> Result<WatchBatch, Error> {
        loop {
            match self.look()? {
                Look::Batch(batch) => return Ok(batch),
                Look::Nothing => self.watcher.wake.notified().await,
                Look::NotInRing if self.live => return Err(Error::Lagged),
                Look::NotInRing => {
                    let batch = self.catch_up().await?;
                    self.cursor = batch.revision;
                    self.watcher.look_from(self.cursor + 1);
                    if !batch.events.is_empty() {
                        return Ok(batch);
                    }
                }
            }
        }
    }

    /// Takes what the ring has beyond the cursor.
    fn look(&mut self) -> Result<Look, Error> {
        // The state first: publishing changes both under its lock, so what the signal says is all there is to see.
        let state = self.shared.state.read();
        let signal = std::mem::take(&mut *self.watcher.signal.lock());
        if signal.closed {
            return Err(Error::Unavailable("the store is closed".to_owned()));
        }
        if signal.from.is_none() && !signal.progress {
            return Ok(Look::Nothing);
        }
        let from = signal.from.map_or(state.revision + 1, |from| from.max(self.cursor.saturating_add(1)));
        if !state.ring.covers(from, state.revision) {
            self.watcher.tell(|now| now.progress |= signal.progress);
            return Ok(Look::NotInRing);
        }
        self.live = true;
        let (changes, revision) = collect(&state, &self.watcher.prefix, from);
        if revision < state.revision {
            self.watcher.look_from(revision + 1);
        }
        drop(state);
        // Nothing is told about a future revision the watch was opened at.
        let nothing_new = changes.is_empty() && (!signal.progress || revision < self.cursor);
        self.cursor = self.cursor.max(revision);
        if nothing_new {
            return Ok(Look::Nothing);
        }
        Ok(Look::Batch(WatchBatch { events: changes.iter().map(Change::event).collect(), revision }))
    }

    /// Reads the next chunk of the past from the log.
    async fn catch_up(&self) -> Result<WatchBatch, Error> {
        let (shared, prefix, from) = (self.shared.clone(), self.watcher.prefix.clone(), self.cursor + 1);
        let read = move || {
            let (snapshot, newest) = {
                let state = shared.state.read();
                state.check_from(from)?;
                (shared.log.snapshot()?, state.revision)
            };
            past(&snapshot, &prefix, from, newest)
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| Error::Unavailable(error.to_string()))?
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.watchers.open.lock().watchers.remove(&self.id);
    }
}

/// The ring's changes to a prefix from `from` on, whole revisions, and the revision up to which they are complete.
fn collect(state: &State, prefix: &str, from: Revision) -> (Vec<Change>, Revision) {
    let mut changes = Vec::new();
    for entry in state.ring.from(from) {
        changes.extend(entry.changes.iter().filter(|change| change.key.starts_with(prefix)).cloned());
        if changes.len() >= BATCH_EVENTS {
            return (changes, entry.revision);
        }
    }
    (changes, state.revision)
}

/// Changes to a prefix in the log from `from` to `newest`, cut after a whole revision when there are many.
fn past(snapshot: &Snapshot, prefix: &str, from: Revision, newest: Revision) -> Result<WatchBatch, Error> {
    let mut changes: Vec<Change> = Vec::new();
    let (mut bytes, mut complete) = (0, newest);
    snapshot.scan(from, newest, |at, row| {
        let is_full = changes.len() >= BATCH_EVENTS || bytes >= PAST_BATCH_BYTES;
        if is_full && changes.last().is_some_and(|last| last.at.revision < at.revision) {
            complete = at.revision - 1;
            return false;
        }
        if row.key.starts_with(prefix) {
            bytes += row.value.len();
            changes.push(Change {
                key: row.key.into(),
                at,
                created: row.created,
                lease: row.lease,
                value: bytes::Bytes::copy_from_slice(row.value),
            });
        }
        true
    })?;
    Ok(WatchBatch { events: changes.iter().map(Change::event).collect(), revision: complete })
}
