//! A bounded past: events in revision order, the oldest forgotten first, and what is old, but for a little.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use store::Revision;

use super::entry::{Change, Entry, Selectable};
use super::filter::Filter;

/// The most events one ring holds.
pub(crate) const MAX_EVENTS: usize = 16_384;
/// The most bytes of events one ring holds.
pub(crate) const MAX_BYTES: usize = 8 * 1024 * 1024;
/// What an event takes beside the encoded object: itself, its entry, its place, and what the allocator rounds up.
const EVENT_BYTES: usize = 512;

/// A change of one object.
#[derive(Debug)]
pub(crate) struct CacheEvent {
    pub(crate) change: Change,
    /// The new version; for a deletion the last one, with the deletion's revision.
    pub(crate) entry: Arc<Entry>,
    /// What selectors saw before.
    pub(crate) previous: Option<Arc<Selectable>>,
    /// The version before with this one's revision, where selectors see another: what those are told whose selection it leaves.
    pub(crate) left: Option<Arc<Entry>>,
}

impl CacheEvent {
    /// What the event means to someone who sees only what `filter` selects: an object that stops matching is deleted,
    /// one that starts matching is added.
    pub(crate) fn seen_through(&self, filter: &Filter) -> Option<Change> {
        let now = filter.matches(&self.entry.key, &self.entry.select);
        let before = self.previous.as_ref().is_some_and(|p| filter.matches(&self.entry.key, p));
        match (self.change, before, now) {
            (Change::Deleted, true, _) | (Change::Modified, true, false) => Some(Change::Deleted),
            (Change::Modified, true, true) => Some(Change::Modified),
            (Change::Added | Change::Modified, false, true) => Some(Change::Added),
            (Change::Added, true, true) => Some(Change::Modified),
            _ => None,
        }
    }

    /// The version that tells `change`: the one that was selected, when the new one is not (`convertToWatchEvent`).
    pub(crate) fn shown(&self, change: Change) -> &Arc<Entry> {
        match (change, &self.left) {
            (Change::Deleted, Some(left)) => left,
            _ => &self.entry,
        }
    }

    /// The event as `change`, encoded.
    pub(crate) fn frame(&self, change: Change) -> Bytes {
        self.shown(change).frame(change)
    }
}

/// Events by sequence number; a cursor is a number.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    events: VecDeque<Arc<CacheEvent>>,
    /// The number of the oldest event held.
    first: u64,
    bytes: usize,
    /// The number the next event had when the ring last aged.
    aged: u64,
    /// Every event after this revision is held.
    complete_after: Revision,
}

impl Ring {
    /// An empty past that starts after `revision`, and whose numbers start at `first`.
    pub(crate) fn starting(revision: Revision, first: u64) -> Ring {
        Ring { first, complete_after: revision, ..Ring::default() }
    }

    pub(crate) fn push(&mut self, event: Arc<CacheEvent>) {
        self.bytes += bytes(&event);
        self.events.push_back(event);
        while self.events.len() > MAX_EVENTS || (self.bytes > MAX_BYTES && self.events.len() > 1) {
            if self.forget_oldest().is_none() {
                break;
            }
        }
    }

    fn forget_oldest(&mut self) -> Option<Arc<CacheEvent>> {
        let oldest = self.events.pop_front()?;
        self.first += 1;
        self.bytes -= bytes(&oldest);
        self.complete_after = oldest.entry.revision;
        Some(oldest)
    }

    /// How many bytes of events there are.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Gives up what was here already when this was last called, but for the newest `keep` bytes.
    pub(crate) fn age(&mut self, keep: usize) -> Vec<Arc<CacheEvent>> {
        let mut old = Vec::new();
        while self.bytes > keep && self.first < self.aged {
            old.extend(self.forget_oldest());
        }
        self.aged = self.next();
        self.events.shrink_to(2 * self.events.len());
        old
    }

    /// The number the next event will get.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.events.len() as u64
    }

    /// The number of the first event after `revision`; `None` when some of those are forgotten.
    pub(crate) fn after(&self, revision: Revision) -> Option<u64> {
        if revision < self.complete_after {
            return None;
        }
        Some(self.first + self.events.partition_point(|e| e.entry.revision <= revision) as u64)
    }

    /// Events from number `from` on; `None` when that one is forgotten.
    pub(crate) fn from(&self, from: u64) -> Option<impl Iterator<Item = &Arc<CacheEvent>>> {
        let skip = usize::try_from(from.checked_sub(self.first)?).ok()?;
        Some(self.events.iter().skip(skip))
    }

    /// Every event after this revision is held.
    pub(crate) fn complete_after(&self) -> Revision {
        self.complete_after
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }
}

fn bytes(event: &CacheEvent) -> usize {
    EVENT_BYTES + event.entry.size() + event.left.as_ref().map_or(0, |left| left.size())
}
