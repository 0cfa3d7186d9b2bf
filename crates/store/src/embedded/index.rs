//! The key index: for every key, which revisions wrote it. Values stay in the log.
//!
//! Invariants:
//! - A key's versions are in revision order, and the newest is kept inline (most keys have just one).
//! - A version whose key is in here has its row in the log; the row goes after the version was pruned.
//! - `superseded` counts the versions that a compaction at the newest revision could drop.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use super::row::Position;
use super::scope::Scope;
use crate::Revision;

/// One version of a key, without its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version {
    /// Where its row is.
    pub(super) at: Position,
    /// How often the key was written since it came to be; 0 for a removal.
    pub(super) writes: u32,
    /// The revision at which the key came to be; 0 marks a removal.
    pub(super) created: Revision,
}

impl Version {
    pub(super) fn is_live(&self) -> bool {
        self.created != 0
    }
}

#[derive(Debug)]
struct History {
    newest: Version,
    older: Vec<Version>,
}

impl History {
    /// The newest version at `revision`, a removal included.
    fn at(&self, revision: Revision) -> Option<Version> {
        if self.newest.at.revision <= revision {
            return Some(self.newest);
        }
        let count = self.older.partition_point(|version| version.at.revision <= revision);
        count.checked_sub(1).map(|last| self.older[last])
    }

    fn superseded(&self) -> usize {
        self.older.len() + usize::from(!self.newest.is_live())
    }

    /// Takes out what nobody reading at `revision` or later can see. A removal made at `revision` itself stays: a watch
    /// that starts there must still tell it. Returns whether nothing is left.
    fn prune(&mut self, revision: Revision, removed: &mut Vec<Position>) -> bool {
        let gone = |version: &Version| !version.is_live() && version.at.revision < revision;
        if self.newest.at.revision <= revision {
            removed.extend(self.older.drain(..).map(|version| version.at));
            self.older.shrink_to_fit();
            if gone(&self.newest) {
                removed.push(self.newest.at);
                return true;
            }
            return false;
        }
        let seen = self.older.partition_point(|version| version.at.revision <= revision);
        let keep = usize::from(seen > 0 && !gone(&self.older[seen - 1]));
        removed.extend(self.older.drain(..seen - keep).map(|version| version.at));
        self.older.shrink_to_fit();
        false
    }
}

/// All keys, in order.
#[derive(Debug, Default)]
pub(super) struct Index {
    keys: BTreeMap<Arc<str>, History>,
    superseded: usize,
}

/// What one bounded pruning step did.
pub(super) struct Pruned {
    /// Rows that may now be removed from the log.
    pub(super) removed: Vec<Position>,
    /// Where to go on; `None` at the end.
    pub(super) next: Option<Arc<str>>,
}

impl Index {
    /// The newest version of a key, a removal included.
    pub(super) fn newest(&self, key: &str) -> Option<Version> {
        self.keys.get(key).map(|history| history.newest)
    }

    /// The version of a key that is alive at `revision`.
    pub(super) fn at(&self, key: &str, revision: Revision) -> Option<Version> {
        self.keys.get(key)?.at(revision).filter(Version::is_live)
    }

    /// The key as the index holds it, so that its text is in memory once.
    pub(super) fn shared_key(&self, key: &str) -> Option<Arc<str>> {
        self.keys.get_key_value(key).map(|(key, _)| key.clone())
    }

    /// Adds the newest version of a key. Versions come in revision order.
    pub(super) fn record(&mut self, key: &Arc<str>, version: Version) {
        self.superseded += usize::from(!version.is_live());
        match self.keys.get_mut(key) {
            None => {
                self.keys.insert(key.clone(), History { newest: version, older: Vec::new() });
            }
            Some(history) => {
                // A removal was counted when it was recorded; a live version counts once something follows it.
                self.superseded += usize::from(history.newest.is_live());
                let older = std::mem::replace(&mut history.newest, version);
                history.older.push(older);
            }
        }
    }

    /// Keys of a scope that sort after `after`, with the versions alive at `revision`. Visits at most `steps` keys and
    /// calls `visit` for the live ones; returns the last key visited if there may be more.
    pub(super) fn walk(
        &self,
        scope: &Scope,
        after: Option<&str>,
        revision: Revision,
        steps: usize,
        mut visit: impl FnMut(&Arc<str>, Version),
    ) -> Option<Arc<str>> {
        let start = match after {
            Some(after) if after >= scope.first() => Bound::Excluded(after),
            _ => Bound::Included(scope.first()),
        };
        let mut keys = self.keys.range::<str, _>((start, Bound::Unbounded)).take_while(|(key, _)| !scope.is_past(key));
        let mut last = None;
        for (key, history) in keys.by_ref().take(steps) {
            last = Some(key);
            let live = history.at(revision).filter(Version::is_live);
            if let Some(version) = live.filter(|_| scope.contains(key)) {
                visit(key, version);
            }
        }
        let last = last.cloned();
        keys.next().and(last)
    }

    /// Forgets versions nobody reading at `revision` or later can see, over at most `steps` keys from `from` on.
    pub(super) fn prune(&mut self, from: Option<&str>, revision: Revision, steps: usize) -> Pruned {
        let start = from.map_or(Bound::Unbounded, Bound::Included);
        let mut removed = Vec::new();
        let mut empty = Vec::new();
        let mut keys = self.keys.range_mut::<str, _>((start, Bound::Unbounded));
        for (key, history) in keys.by_ref().take(steps) {
            let before = history.superseded();
            if before == 0 {
                continue;
            }
            let gone = history.prune(revision, &mut removed);
            let after = if gone { 0 } else { history.superseded() };
            self.superseded -= before - after;
            if gone {
                empty.push(key.clone());
            }
        }
        let next = keys.next().map(|(key, _)| key.clone());
        for key in empty {
            self.keys.remove(&key);
        }
        Pruned { removed, next }
    }

    /// How many versions a compaction at the newest revision could drop.
    pub(super) fn superseded(&self) -> usize {
        self.superseded
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn version(revision: Revision, live: bool) -> Version {
        let at = Position { revision, op: 0 };
        Version { at, writes: u32::from(live), created: Revision::from(live) * revision }
    }

    fn recount(index: &Index) -> usize {
        index.keys.values().map(History::superseded).sum()
    }

    proptest! {
        #[test]
        fn pruning_keeps_every_later_view_and_a_second_time_finds_nothing(
            writes in prop::collection::vec((0..4u8, any::<bool>()), 1..40), at in 1..45i64, steps in 1..5usize,
        ) {
            let mut index = Index::default();
            for (n, (key, live)) in writes.iter().enumerate() {
                index.record(&Arc::from(format!("k{key}")), version(n as i64 + 1, *live));
            }
            prop_assert_eq!(index.superseded(), recount(&index));
            let at = at.min(writes.len() as i64);
            let view = |index: &Index| (at..=writes.len() as i64)
                .map(|revision| (0..4).map(|key| index.at(&format!("k{key}"), revision)).collect::<Vec<_>>())
                .collect::<Vec<_>>();
            let before = view(&index);
            let all = |index: &mut Index| {
                let (mut from, mut removed) = (None::<Arc<str>>, Vec::new());
                loop {
                    let pruned = index.prune(from.as_deref(), at, steps);
                    removed.extend(pruned.removed);
                    from = pruned.next;
                    if from.is_none() { return removed; }
                }
            };
            all(&mut index);
            prop_assert_eq!(view(&index), before);
            prop_assert_eq!(index.superseded(), recount(&index));
            prop_assert!(all(&mut index).is_empty());
        }
    }

    #[test]
    fn a_walk_in_small_steps_visits_every_live_key_once() {
        let mut index = Index::default();
        for (n, key) in ["a/1", "b/1", "b/2", "b/3", "c/1"].iter().enumerate() {
            index.record(&Arc::from(*key), version(n as i64 + 1, *key != "b/2"));
        }
        for steps in 1..6 {
            let (mut after, mut seen) = (None, Vec::new());
            loop {
                after = index
                    .walk(&Scope::Prefix("b/".into()), after.as_deref(), 9, steps, |key, _| seen.push(key.to_string()));
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(seen, ["b/1", "b/3"], "in steps of {steps}");
        }
    }
}
