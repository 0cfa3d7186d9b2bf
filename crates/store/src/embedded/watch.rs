//! Watches: past changes from the log, then live ones from the ring.
//!
//! ```text
//!  commit thread ── publish ──▶ ring ──▶ notify watchers whose scope matches
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

use super::reader::Snapshot;
use super::ring::{Change, Entry};
use super::scope::Scope;
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
    scope: Scope,
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
            let matters = |change: &Change| watcher.scope.contains(&change.key);
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

    fn register(&self, scope: Scope, from: Revision) -> (u64, Arc<Watcher>) {
        let mut open = self.open.lock();
        let signal = Mutex::new(Signal { from: Some(from), progress: false, closed: open.closed });
        let watcher = Arc::new(Watcher { scope, signal, wake: Notify::new() });
        open.next_id += 1;
        let id = open.next_id;
        open.watchers.insert(id, watcher.clone());
        (id, watcher)
    }
}

/// Starts a watch of what happens after `after`.
pub(super) fn watch(shared: &Arc<Shared>, prefix: &str, after: Revision) -> Result<WatchStream, Error> {
    let feed = feed(shared, Scope::Prefix(prefix.into()), after)?;
    let batches = futures::stream::unfold(feed, |mut feed| async move {
        let told = feed.next().await?;
        Some((told.map(Told::into_batch), feed))
    });
    Ok(batches.boxed())
}

/// The same, of any scope and in our own words.
pub(super) fn feed(shared: &Arc<Shared>, scope: Scope, after: Revision) -> Result<Feed, Error> {
    // Registered first: whatever is published from here on finds the watcher.
    let from = after.saturating_add(1);
    let (id, watcher) = shared.watchers.register(scope, from);
    let feed = Feed { shared: shared.clone(), id, watcher, cursor: after, live: false, ended: false };
    shared.state.read().check_from(from)?;
    Ok(feed)
}

/// What a watch tells at once: as [`WatchBatch`], but with all that is known of a change.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) changes: Vec<Change>,
    pub(crate) revision: Revision,
}

impl Told {
    fn into_batch(self) -> WatchBatch {
        WatchBatch { events: self.changes.iter().map(Change::event).collect(), revision: self.revision }
    }
}

/// Asks one watch to tell how far it is.
#[derive(Clone, Debug)]
pub(crate) struct Asker(Arc<Watcher>);

impl Asker {
    pub(crate) fn request_progress(&self) {
        self.0.tell(|signal| signal.progress = true);
    }
}

/// One watch.
pub(crate) struct Feed {
    shared: Arc<Shared>,
    id: u64,
    watcher: Arc<Watcher>,
    cursor: Revision,
    live: bool,
    ended: bool,
}

/// What one look at the ring brought.
enum Look {
    Told(Told),
    Nothing,
    /// The ring no longer holds what comes next.
    NotInRing,
}

impl Feed {
    pub(crate) fn asker(&self) -> Asker {
        Asker(self.watcher.clone())
    }

    /// The next changes; nothing after an error.
    pub(crate) async fn next(&mut self) -> Option<Result<Told, Error>> {
        if self.ended {
            return None;
        }
        let step = self.step().await;
        self.ended = step.is_err();
        Some(step)
    }

    async fn step(&mut self) -> Result<Told, Error> {
        loop {
            match self.look()? {
                Look::Told(told) => return Ok(told),
                Look::Nothing => self.watcher.wake.notified().await,
                Look::NotInRing if self.live => return Err(Error::Lagged),
                Look::NotInRing => {
                    let told = self.catch_up().await?;
                    self.cursor = told.revision;
                    self.watcher.look_from(self.cursor + 1);
                    if !told.changes.is_empty() {
                        return Ok(told);
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
        let (changes, revision) = collect(&state, &self.watcher.scope, from);
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
        Ok(Look::Told(Told { changes, revision }))
    }

    /// Reads the next chunk of the past from the log.
    async fn catch_up(&self) -> Result<Told, Error> {
        let (shared, scope, from) = (self.shared.clone(), self.watcher.scope.clone(), self.cursor + 1);
        let read = move || {
            let (snapshot, newest) = {
                let state = shared.state.read();
                state.check_from(from)?;
                (shared.log.snapshot()?, state.revision)
            };
            past(&snapshot, &scope, from, newest)
        };
        tokio::task::spawn_blocking(read).await.map_err(|error| Error::Unavailable(error.to_string()))?
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.watchers.open.lock().watchers.remove(&self.id);
    }
}

/// The ring's changes of a scope from `from` on, whole revisions, and the revision up to which they are complete.
fn collect(state: &State, scope: &Scope, from: Revision) -> (Vec<Change>, Revision) {
    let mut changes = Vec::new();
    for entry in state.ring.from(from) {
        changes.extend(entry.changes.iter().filter(|change| scope.contains(&change.key)).cloned());
        if changes.len() >= BATCH_EVENTS {
            return (changes, entry.revision);
        }
    }
    (changes, state.revision)
}

/// Changes of a scope in the log from `from` to `newest`, cut after a whole revision when there are many.
fn past(snapshot: &Snapshot, scope: &Scope, from: Revision, newest: Revision) -> Result<Told, Error> {
    let mut changes: Vec<Change> = Vec::new();
    let (mut bytes, mut complete) = (0, newest);
    snapshot.scan(from, newest, |at, row| {
        let is_full = changes.len() >= BATCH_EVENTS || bytes >= PAST_BATCH_BYTES;
        if is_full && changes.last().is_some_and(|last| last.at.revision < at.revision) {
            complete = at.revision - 1;
            return false;
        }
        if scope.contains(row.key) {
            bytes += row.value.len();
            changes.push(Change::of_row(row.key.into(), at, row));
        }
        true
    })?;
    Ok(Told { changes, revision: complete })
}
