//! One kind's latest state and past, and cursors into it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use api::Kind;
use parking_lot::{Mutex, RwLock};
use store::Revision;

use super::bell::{Bell, Closed, Listener};
use super::entry::{Change, Entry};
use super::filter::Filter;
use super::ring::{CacheEvent, Ring};
use super::runs::{Runs, SharedChunk};
use super::wakes::{Urgency, Wakes};

/// The field whose watchers are woken only for their own value: every kubelet watches the pods of one node.
const INDEXED_FIELD: &str = "spec.nodeName";
/// How many bytes of the past stay however old they are, so that watchers of what seldom changes may come back late.
const KEEP_BYTES: usize = 512 * 1024;

/// The cache of one kind.
pub(crate) struct KindCache {
    pub(crate) kind: &'static Kind,
    /// Position of [`INDEXED_FIELD`] among the kind's selectable fields.
    indexed: Option<usize>,
    state: RwLock<State>,
    wakes: Arc<Wakes>,
    runs: Mutex<Runs>,
}

#[derive(Default)]
struct State {
    items: BTreeMap<Arc<str>, Arc<Entry>>,
    /// Keys by the value of the indexed field.
    by_value: HashMap<Box<str>, BTreeSet<Arc<str>>>,
    ring: Ring,
    /// Pasts of their own for values of the indexed field that someone watches.
    slots: HashMap<Box<str>, Slot>,
    /// Everything of this kind up to this revision is in.
    revision: Revision,
    /// The last revision that changed anything of this kind.
    last_change: Revision,
    /// Nothing will be told any more.
    is_closed: bool,
}

struct Slot {
    ring: Ring,
    next: Arc<Bell>,
    watchers: usize,
}

/// A change on its way into the cache.
pub(super) enum Update {
    /// A new version.
    Put(Arc<Entry>),
    /// The end of the object under this key.
    Delete(Arc<str>, Revision),
}

impl Update {
    pub(super) fn revision(&self) -> Revision {
        match self {
            Update::Put(entry) => entry.revision,
            Update::Delete(_, revision) => *revision,
        }
    }
}

/// A consistent view of a selection.
pub(crate) struct Snapshot {
    pub(crate) items: Vec<Arc<Entry>>,
    /// Keys of the selection's prefix that sort after the last item; known only without selectors.
    pub(crate) remaining: Option<usize>,
    /// Whether more may follow after the last item.
    pub(crate) more: bool,
    pub(crate) revision: Revision,
}

/// A watcher was slower than the ring is long.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FellBehind;

impl KindCache {
    pub(crate) fn new(kind: &'static Kind) -> KindCache {
        KindCache {
            kind,
            indexed: kind.info.selectable_fields.iter().position(|f| *f == INDEXED_FIELD),
            state: RwLock::default(),
            wakes: Arc::new(Wakes::new()),
            runs: Mutex::default(),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Arc<Entry>> {
        self.state.read().items.get(key).cloned()
    }

    /// Waits until there is an object under `key`, at most so long; whether there is one.
    pub(crate) async fn appears(&self, key: &str, wait: Duration) -> bool {
        let mut next = self.wakes.subscribe(Urgency::AtOnce);
        let there = async {
            while self.get(key).is_none() && next.news().await.is_ok() {
                next.mark_heard();
            }
        };
        tokio::time::timeout(wait, there).await.is_ok()
    }

    /// Changes whenever the state does.
    pub(crate) fn version(&self) -> u64 {
        self.state.read().ring.next()
    }

    /// Whether there is no object of the kind.
    pub(crate) fn is_empty(&self) -> bool {
        self.state.read().items.is_empty()
    }

    /// The objects whose keys start with `prefix`, in their order.
    pub(crate) fn with_prefix(&self, prefix: &str) -> Vec<Arc<Entry>> {
        let state = self.state.read();
        let rest = state.items.range::<str, _>((Bound::Included(prefix), Bound::Unbounded));
        rest.take_while(|(key, _)| key.starts_with(prefix)).map(|(_, entry)| entry.clone()).collect()
    }

    /// Every entry.
    pub(crate) fn entries(&self) -> BTreeMap<Arc<str>, Arc<Entry>> {
        self.state.read().items.clone()
    }

    /// How many objects and past events are held, and how many watchers wait.
    pub(crate) fn sizes(&self) -> (usize, usize, usize) {
        let state = self.state.read();
        let watchers = self.wakes.watchers() + state.slots.values().map(|s| s.watchers).sum::<usize>();
        (state.items.len(), state.ring.len(), watchers)
    }

    /// What `filter` selects after key `after`, at most `limit` of it. `known` is a revision the whole cache has.
    pub(crate) fn snapshot(&self, filter: &Filter, after: Option<&str>, limit: usize, known: Revision) -> Snapshot {
        let state = self.state.read();
        state.snapshot(self.indexed_value(filter), filter, after, limit, known)
    }

    /// The same, if nothing of this kind has changed since `revision`: the past is then the present.
    pub(crate) fn snapshot_at(
        &self,
        filter: &Filter,
        after: Option<&str>,
        limit: usize,
        revision: Revision,
    ) -> Option<Snapshot> {
        let state = self.state.read();
        let unchanged = state.last_change <= revision;
        unchanged.then(|| {
            let mut snapshot = state.snapshot(self.indexed_value(filter), filter, after, limit, 0);
            snapshot.revision = revision;
            snapshot
        })
    }

    /// The value of the indexed field that `filter` demands.
    fn indexed_value<'a>(&self, filter: &'a Filter) -> Option<&'a str> {
        self.indexed.and_then(|_| filter.exact(INDEXED_FIELD))
    }

    /// Objects whose indexed field has this value.
    pub(crate) fn with_indexed_value(&self, value: &str) -> Vec<Arc<Entry>> {
        let state = self.state.read();
        let keys = state.by_value.get(value).into_iter().flatten();
        keys.filter_map(|key| state.items.get(key).cloned()).collect()
    }

    /// The present state of a selection, and a cursor for what comes after it.
    pub(crate) fn follow_from_now(
        self: &Arc<Self>,
        filter: &Filter,
        known: Revision,
        urgency: Urgency,
    ) -> (Snapshot, Cursor) {
        let mut state = self.state.write();
        let snapshot = state.snapshot(self.indexed_value(filter), filter, None, usize::MAX, known);
        let cursor = self.cursor(&mut state, filter, urgency);
        (snapshot, cursor)
    }

    /// What happened to a selection after `revision`, and a cursor for what comes later.
    pub(crate) fn follow_after(
        self: &Arc<Self>,
        filter: &Filter,
        revision: Revision,
        urgency: Urgency,
    ) -> Result<(Vec<Arc<CacheEvent>>, Cursor), FellBehind> {
        let mut state = self.state.write();
        let from = state.ring.after(revision).ok_or(FellBehind)?;
        let past: Vec<_> = state.ring.from(from).ok_or(FellBehind)?.cloned().collect();
        let past = past.into_iter().filter(|e| e.seen_through(filter).is_some()).collect();
        let cursor = self.cursor(&mut state, filter, urgency);
        Ok((past, cursor))
    }

    /// The revision after which the past is held.
    pub(crate) fn complete_after(&self) -> Revision {
        self.state.read().ring.complete_after()
    }

    fn cursor(self: &Arc<Self>, state: &mut State, filter: &Filter, urgency: Urgency) -> Cursor {
        let slot: Option<Box<str>> = self.indexed_value(filter).map(Into::into);
        let (next, news) = match &slot {
            None => (state.ring.next(), self.wakes.subscribe(urgency)),
            Some(value) => {
                let slot = state.slots.entry(value.clone()).or_insert_with(|| Slot::new(state.is_closed));
                slot.watchers += 1;
                (slot.ring.next(), slot.next.listen())
            }
        };
        Cursor { cache: self.clone(), slot, next, news }
    }

    /// Takes in changes in revision order. Afterwards everything of this kind up to `revision` is in.
    pub(super) fn apply(self: &Arc<Self>, updates: Vec<Update>, revision: Revision) {
        let mut touched: BTreeSet<Box<str>> = BTreeSet::new();
        let mut state = self.state.write();
        for update in updates {
            let Some(event) = state.apply_one(self.kind, update) else { continue };
            state.last_change = event.entry.revision;
            self.index(&mut state, &event, &mut touched);
            state.ring.push(event);
        }
        state.revision = revision;
        for value in touched {
            if let Some(slot) = state.slots.get(&value) {
                slot.next.tell(slot.ring.next());
            }
        }
        let next = state.ring.next();
        drop(state);
        self.wakes.tell(next);
    }

    fn index(&self, state: &mut State, event: &Arc<CacheEvent>, touched: &mut BTreeSet<Box<str>>) {
        let Some(field) = self.indexed else { return };
        let before = event.previous.as_ref().and_then(|p| p.fields.get(field)).cloned();
        let gone = event.change == Change::Deleted;
        let now = event.entry.select.fields.get(field).filter(|_| !gone).cloned();
        if before != now {
            if let Some(keys) = before.as_ref().and_then(|v| state.by_value.get_mut(v)) {
                keys.remove(&event.entry.key);
            }
            if before.as_ref().is_some_and(|v| state.by_value.get(v).is_some_and(BTreeSet::is_empty)) {
                before.as_ref().and_then(|v| state.by_value.remove(v));
            }
            if let Some(value) = &now {
                state.by_value.entry(value.clone()).or_default().insert(event.entry.key.clone());
            }
        }
        let both = before.iter().chain(now.iter().filter(|n| before.as_ref() != Some(*n)));
        for value in both {
            if let Some(slot) = state.slots.get_mut(value) {
                slot.ring.push(event.clone());
                touched.insert(value.clone());
            }
        }
    }

    /// Forgets what was past already when this was last called, but for a little; whether there is more than that.
    pub(super) fn age(&self) -> bool {
        let mut state = self.state.write();
        let mut old = state.ring.age(KEEP_BYTES);
        let mut is_long = state.ring.bytes() > KEEP_BYTES;
        for slot in state.slots.values_mut() {
            // Nobody comes back to a slot's past: the kind's own is for that.
            old.extend(slot.ring.age(0));
            is_long |= slot.ring.bytes() > 0;
        }
        drop(state);
        drop(old);
        self.runs.lock().forget();
        is_long
    }

    /// Nothing will be told any more.
    pub(super) fn close(&self) {
        let mut state = self.state.write();
        state.is_closed = true;
        state.slots.values().for_each(|slot| slot.next.close());
        drop(state);
        self.wakes.close();
    }

    /// Forgets everything: the store has another history now. Watchers fall off.
    pub(super) fn reset(&self, items: Vec<Arc<Entry>>, revision: Revision) {
        let mut state = self.state.write();
        let first = state.ring.next() + 1;
        state.items.clear();
        state.by_value.clear();
        for entry in items {
            if let Some(value) = self.indexed.and_then(|i| entry.select.fields.get(i)) {
                state.by_value.entry(value.clone()).or_default().insert(entry.key.clone());
            }
            state.items.insert(entry.key.clone(), entry);
        }
        state.ring = Ring::starting(revision, first);
        for slot in state.slots.values_mut() {
            slot.ring = Ring::starting(revision, slot.ring.next() + 1);
            slot.next.tell(slot.ring.next());
        }
        state.revision = revision;
        state.last_change = revision;
        drop(state);
        self.wakes.tell(first);
    }
}

impl State {
    /// Takes in one change and says what it was; `None` for what is already known.
    fn apply_one(&mut self, kind: &'static Kind, update: Update) -> Option<Arc<CacheEvent>> {
        let entry = match update {
            Update::Put(entry) => entry,
            Update::Delete(key, revision) => {
                let last = self.items.remove(&key)?;
                let entry = Arc::new(last.deleted(kind, revision));
                let previous = Some(last.select.clone());
                return Some(Arc::new(CacheEvent { change: Change::Deleted, entry, previous, left: None }));
            }
        };
        let previous = self.items.insert(entry.key.clone(), entry.clone());
        let change = if previous.is_some() { Change::Modified } else { Change::Added };
        let changed = previous.as_ref().filter(|previous| previous.select != entry.select);
        let left = changed.map(|previous| Arc::new(previous.deleted(kind, entry.revision)));
        Some(Arc::new(CacheEvent { change, entry, previous: previous.map(|p| p.select.clone()), left }))
    }

    fn snapshot(
        &self,
        indexed: Option<&str>,
        filter: &Filter,
        after: Option<&str>,
        limit: usize,
        known: Revision,
    ) -> Snapshot {
        let revision = known.max(self.revision);
        if let Some(value) = indexed {
            return self.snapshot_indexed(value, filter, after, limit, revision);
        }
        let start = match after {
            Some(after) => Bound::Excluded(after),
            None => Bound::Included(filter.prefix.as_str()),
        };
        let mut rest =
            self.items.range::<str, _>((start, Bound::Unbounded)).take_while(|(k, _)| k.starts_with(&filter.prefix));
        let selected = rest.by_ref().filter(|(key, entry)| filter.matches(key, &entry.select));
        let items: Vec<_> = selected.take(limit).map(|(_, entry)| entry.clone()).collect();
        let left = if items.len() < limit { 0 } else { rest.count() };
        Snapshot { items, more: left > 0, remaining: filter.is_everything().then_some(left), revision }
    }

    fn snapshot_indexed(
        &self,
        value: &str,
        filter: &Filter,
        after: Option<&str>,
        limit: usize,
        revision: Revision,
    ) -> Snapshot {
        let keys = self.by_value.get(value).into_iter().flatten().filter(|k| after.is_none_or(|a| &***k > a));
        let mut entries = keys.filter_map(|k| self.items.get(k)).filter(|e| filter.matches(&e.key, &e.select));
        let items: Vec<_> = entries.by_ref().take(limit).cloned().collect();
        Snapshot { items, more: entries.next().is_some(), remaining: None, revision }
    }
}

impl Slot {
    fn new(is_closed: bool) -> Slot {
        let next = Arc::new(Bell::default());
        if is_closed {
            next.close();
        }
        Slot { ring: Ring::default(), next, watchers: 0 }
    }
}

/// A watcher's place in the past of a kind. Holds no events.
pub(crate) struct Cursor {
    cache: Arc<KindCache>,
    slot: Option<Box<str>>,
    next: u64,
    news: Listener,
}

impl Cursor {
    /// Shows every event since the last call to `visit`, until that returns false.
    pub(crate) fn read(&mut self, mut visit: impl FnMut(&Arc<CacheEvent>) -> bool) -> Result<(), FellBehind> {
        self.news.mark_heard();
        let state = self.cache.state.read();
        let ring = match &self.slot {
            None => &state.ring,
            Some(value) => &state.slots.get(value).ok_or(FellBehind)?.ring,
        };
        for event in ring.from(self.next).ok_or(FellBehind)? {
            self.next += 1;
            if !visit(event) {
                self.news.mark_unheard();
                break;
            }
        }
        Ok(())
    }

    /// The next chunk of what `filter` selects, which looks at nothing but keys, with the revision of its last event.
    pub(crate) fn read_joined(&mut self, filter: &Filter) -> Result<Option<(Arc<SharedChunk>, Revision)>, FellBehind> {
        self.news.mark_heard();
        let state = self.cache.state.read();
        if state.ring.from(self.next).is_none() {
            return Err(FellBehind);
        }
        if self.next == state.ring.next() {
            return Ok(None);
        }
        let (chunk, next) = self.cache.runs.lock().next(filter, self.next, &state.ring);
        self.next = next;
        if next < state.ring.next() {
            self.news.mark_unheard();
        }
        Ok(chunk)
    }

    /// Waits until there may be more to read.
    pub(crate) async fn news(&mut self) -> Result<(), Closed> {
        self.news.news().await
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        let Some(value) = self.slot.take() else { return };
        let mut state = self.cache.state.write();
        if let Some(slot) = state.slots.get_mut(&value) {
            slot.watchers -= 1;
            if slot.watchers == 0 {
                state.slots.remove(&value);
            }
        }
    }
}
