//! The newest changes in memory, shared by all watchers and by reads of what was just written.
//!
//! Invariant: the revisions in the ring are contiguous and end at the newest published one; what no longer fits the
//! byte bound leaves at the old end, and so does what is old, but for a little. A value is one [`Bytes`] however many
//! watchers tell it.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;

use super::index::Version;
use super::row::{Position, Row};
use crate::{Event, KeyValue, LeaseId, Revision};

/// What an event costs beside its key and value, with what the allocator rounds up.
const CHANGE_BYTES: usize = 384;
/// What stays however old it is.
const KEEP_BYTES: usize = 512 << 10;

/// One change of one key.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) key: Arc<str>,
    pub(crate) at: Position,
    /// 0 for a removal.
    pub(crate) created: Revision,
    pub(crate) lease: Option<LeaseId>,
    /// How often the key was written since it came to be; 0 for a removal.
    pub(crate) writes: u32,
    pub(crate) value: Bytes,
}

impl Change {
    pub(super) fn row(&self) -> Row<'_> {
        Row { created: self.created, lease: self.lease, writes: self.writes, key: &self.key, value: &self.value }
    }

    /// A row of the log.
    pub(crate) fn of_row(key: Arc<str>, at: Position, row: &Row<'_>) -> Change {
        let value = Bytes::copy_from_slice(row.value);
        Change { key, at, created: row.created, lease: row.lease, writes: row.writes, value }
    }

    /// What the index keeps of it.
    pub(super) fn version(&self) -> Version {
        Version { at: self.at, writes: self.writes, created: self.created }
    }

    /// The version this change made.
    pub(super) fn key_value(&self) -> KeyValue {
        KeyValue {
            key: self.key.clone(),
            value: self.value.clone(),
            create_revision: self.created,
            mod_revision: self.at.revision,
        }
    }

    /// The change as a watch tells it.
    pub(super) fn event(&self) -> Event {
        match self.created {
            0 => Event::Delete { key: self.key.clone(), revision: self.at.revision },
            _ => Event::Put { current: self.key_value() },
        }
    }

    fn bytes(&self) -> usize {
        CHANGE_BYTES + self.key.len() + self.value.len()
    }
}

/// The changes of one revision, in the order of their operations.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) revision: Revision,
    pub(super) changes: Vec<Change>,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.changes.iter().map(Change::bytes).sum()
    }
}

/// The ring.
#[derive(Debug)]
pub(super) struct Ring {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    limit_bytes: usize,
    /// The newest revision when the ring last aged.
    aged: Revision,
}

impl Ring {
    pub(super) fn new(limit_bytes: usize) -> Ring {
        Ring { entries: VecDeque::new(), bytes: 0, limit_bytes, aged: 0 }
    }

    /// Adds the next revision.
    pub(super) fn push(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
        while self.bytes > self.limit_bytes {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
        }
    }

    /// Whether there is more here than stays.
    pub(super) fn is_long(&self) -> bool {
        self.bytes > KEEP_BYTES
    }

    /// Gives up what was here already when this was last called, but for what stays.
    pub(super) fn age(&mut self) -> Vec<Arc<Entry>> {
        let mut old = Vec::new();
        while self.is_long() && self.entries.front().is_some_and(|oldest| oldest.revision <= self.aged) {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.bytes -= oldest.bytes();
            old.push(oldest);
        }
        self.aged = self.entries.back().map_or(self.aged, |newest| newest.revision);
        self.entries.shrink_to(2 * self.entries.len());
        old
    }

    /// Whether everything from `revision` up to the newest is here.
    pub(super) fn covers(&self, revision: Revision, newest: Revision) -> bool {
        revision > newest || self.entries.front().is_some_and(|oldest| oldest.revision <= revision)
    }

    /// The entries from `revision` on. Call only where [`Ring::covers`] holds.
    pub(super) fn from(&self, revision: Revision) -> impl Iterator<Item = &Arc<Entry>> {
        let skip = self.entries.front().map_or(0, |oldest| (revision - oldest.revision).max(0));
        self.entries.iter().skip(usize::try_from(skip).unwrap_or(usize::MAX))
    }

    /// A change that is still here.
    pub(super) fn change(&self, at: Position) -> Option<&Change> {
        let oldest = self.entries.front()?.revision;
        let place = usize::try_from(at.revision.checked_sub(oldest)?).ok()?;
        self.entries.get(place)?.changes.get(at.op as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(revision: Revision, size: usize) -> Arc<Entry> {
        let change = Change {
            key: "k".into(),
            at: Position { revision, op: 0 },
            created: 1,
            lease: None,
            writes: 1,
            value: Bytes::from(vec![0; size]),
        };
        Arc::new(Entry { revision, changes: vec![change] })
    }

    #[test]
    fn old_entries_leave_when_the_byte_bound_is_passed() {
        let mut ring = Ring::new(3 * (CHANGE_BYTES + 1 + 100));
        for revision in 2..=6 {
            ring.push(entry(revision, 100));
        }
        assert!(!ring.covers(3, 6) && ring.covers(4, 6) && ring.covers(7, 6));
        assert_eq!(ring.from(5).map(|entry| entry.revision).collect::<Vec<_>>(), [5, 6]);
        assert!(ring.change(Position { revision: 3, op: 0 }).is_none());
        assert!(ring.change(Position { revision: 4, op: 0 }).is_some());
        ring.push(entry(7, 10_000));
        assert!(!ring.covers(7, 7), "an entry larger than the ring does not stay");
    }

    #[test]
    fn what_is_old_leaves_but_for_a_little() {
        let mut ring = Ring::new(usize::MAX);
        let size = KEEP_BYTES / 4 - CHANGE_BYTES - 1;
        (2..=9).for_each(|revision| ring.push(entry(revision, size)));
        assert!(ring.age().is_empty() && ring.is_long(), "nothing is old yet");
        (10..=11).for_each(|revision| ring.push(entry(revision, size)));
        assert_eq!(ring.age().len(), 6);
        assert!(ring.covers(8, 11) && !ring.covers(7, 11) && !ring.is_long());
        (12..=20).for_each(|revision| ring.push(entry(revision, size)));
        assert_eq!(ring.age().len(), 4, "what came since stays once more");
        assert!(ring.covers(12, 20) && ring.change(Position { revision: 12, op: 0 }).is_some());
    }
}
