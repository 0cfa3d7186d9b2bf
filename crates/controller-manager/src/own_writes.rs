//! What we wrote and the cache has not shown yet.
//!
//! A controller that plans on a cache older than its own last write does its work twice. So a sync records its writes
//! here, and the next one of the same key waits until the cache has caught up; the watch event that brings the write
//! wakes the key. Compare `StaleInformerCache` in upstream's endpointslice controller.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// After this time a write that never showed up is given up: its object was deleted before the cache saw it.
const GIVE_UP: Duration = Duration::from_secs(10);

struct Write {
    object: String,
    /// The version written; `None` for a deletion.
    version: Option<u64>,
    uid: String,
    at: Instant,
}

/// Writes per key of a controller.
pub(crate) struct OwnWrites<K>(Mutex<HashMap<K, Vec<Write>>>);

impl<K: Clone + Eq + Hash> OwnWrites<K> {
    /// None.
    pub(crate) fn new() -> OwnWrites<K> {
        OwnWrites(Mutex::new(HashMap::new()))
    }

    /// Records that `object` was written at `version`.
    pub(crate) fn wrote(&self, key: &K, object: &str, uid: &str, version: &str, now: Instant) {
        // A server whose versions are no numbers cannot be waited for.
        if let Ok(version) = version.parse() {
            self.record(key, object, uid, Some(version), now);
        }
    }

    /// Records that `object` was deleted.
    pub(crate) fn deleted(&self, key: &K, object: &str, uid: &str, now: Instant) {
        self.record(key, object, uid, None, now);
    }

    fn record(&self, key: &K, object: &str, uid: &str, version: Option<u64>, at: Instant) {
        let write = Write { object: object.to_owned(), version, uid: uid.to_owned(), at };
        let mut writes = self.0.lock();
        let of_key = writes.entry(key.clone()).or_default();
        of_key.retain(|w| w.object != object);
        of_key.push(write);
    }

    /// How long to wait at most until `key` may be planned again; `None` if the cache shows all its writes. `cached`
    /// gives the UID and resource version of an object in the cache.
    pub(crate) fn unseen(
        &self,
        key: &K,
        now: Instant,
        cached: impl Fn(&str) -> Option<(String, String)>,
    ) -> Option<Duration> {
        let mut writes = self.0.lock();
        let of_key = writes.get_mut(key)?;
        of_key.retain(|write| now < write.at + GIVE_UP && !shown(write, cached(&write.object)));
        let wait = of_key.iter().map(|write| write.at + GIVE_UP - now).max();
        if wait.is_none() {
            writes.remove(key);
        }
        wait
    }
}

/// Whether the cached state of the object is at least as new as the write.
fn shown(write: &Write, cached: Option<(String, String)>) -> bool {
    match (write.version, cached) {
        (None, cached) => cached.is_none_or(|(uid, _)| uid != write.uid),
        (Some(_), None) => false,
        (Some(written), Some((_, version))) => version.parse().is_ok_and(|version: u64| version >= written),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cached(uid: &str, version: &str) -> Option<(String, String)> {
        Some((uid.to_owned(), version.to_owned()))
    }

    #[test]
    fn a_write_is_unseen_until_the_cache_is_as_new() {
        let (writes, now) = (OwnWrites::new(), Instant::now());
        writes.wrote(&"k", "o", "u", "10", now);
        assert!(writes.unseen(&"k", now, |_| None).is_some());
        assert!(writes.unseen(&"k", now, |_| cached("u", "9")).is_some());
        assert!(writes.unseen(&"other", now, |_| None).is_none());
        assert!(writes.unseen(&"k", now, |_| cached("u", "10")).is_none());
        assert!(writes.unseen(&"k", now, |_| None).is_none(), "seen once is enough");
    }

    #[test]
    fn a_deletion_is_unseen_while_the_cache_has_the_object() {
        let (writes, now) = (OwnWrites::new(), Instant::now());
        writes.deleted(&"k", "o", "u", now);
        assert!(writes.unseen(&"k", now, |_| cached("u", "9")).is_some());
        assert!(writes.unseen(&"k", now, |_| cached("successor", "11")).is_none());
    }

    #[test]
    fn a_write_that_never_shows_up_is_given_up() {
        let (writes, now) = (OwnWrites::new(), Instant::now());
        writes.wrote(&"k", "o", "u", "10", now);
        assert_eq!(writes.unseen(&"k", now, |_| None), Some(GIVE_UP));
        assert_eq!(writes.unseen(&"k", now + GIVE_UP, |_| None), None);
    }
}
