//! What was asked of the API and has not been seen in the cache yet.
//!
//! While the cache has not shown the pods we created or deleted, counting pods in it would make us do it again. So
//! nothing is planned for an owner until all that was asked for its sake has been seen, or a long time has passed.
//! Compare `UIDTrackingControllerExpectations` in `pkg/controller/controller_utils.go`.

use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// After this time expectations count as met: an event was lost, or never came to be.
const TIMEOUT: Duration = Duration::from_secs(5 * 60);

struct Expected {
    creations: usize,
    /// UIDs of pods asked to be deleted.
    deletions: HashSet<Box<str>>,
    since: Instant,
}

/// Expectations per owner.
pub(super) struct Expectations<K>(Mutex<HashMap<K, Expected>>);

impl<K: Clone + Eq + Hash> Expectations<K> {
    /// None.
    pub(super) fn new() -> Expectations<K> {
        Expectations(Mutex::new(HashMap::new()))
    }

    /// Sets what is expected for `key`, before asking for it: `creations` new pods and the end of `deletions`.
    pub(super) fn expect(&self, key: &K, creations: usize, deletions: HashSet<Box<str>>, now: Instant) {
        self.0.lock().insert(key.clone(), Expected { creations, deletions, since: now });
    }

    /// A pod of `key` has appeared, or will not because its creation failed.
    pub(super) fn creation_observed(&self, key: &K) {
        self.creations_cancelled(key, 1);
    }

    /// `count` creations will not happen.
    pub(super) fn creations_cancelled(&self, key: &K, count: usize) {
        if let Some(expected) = self.0.lock().get_mut(key) {
            expected.creations = expected.creations.saturating_sub(count);
        }
    }

    /// The pod `uid` of `key` is going, or will not because its deletion failed.
    pub(super) fn deletion_observed(&self, key: &K, uid: &str) {
        if let Some(expected) = self.0.lock().get_mut(key) {
            expected.deletions.remove(uid);
        }
    }

    /// How long to wait at most for what is still expected; `None` if there is nothing to wait for.
    pub(super) fn unmet(&self, key: &K, now: Instant) -> Option<Duration> {
        let expected = self.0.lock();
        let expected = expected.get(key)?;
        if expected.creations == 0 && expected.deletions.is_empty() {
            return None;
        }
        (expected.since + TIMEOUT).checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// Forgets everything about `key`.
    pub(super) fn forget(&self, key: &K) {
        self.0.lock().remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creations_are_expected_until_all_are_observed() {
        let (expectations, now) = (Expectations::new(), Instant::now());
        assert_eq!(expectations.unmet(&"rc", now), None);
        expectations.expect(&"rc", 2, HashSet::new(), now);
        expectations.creation_observed(&"rc");
        assert!(expectations.unmet(&"rc", now).is_some());
        expectations.creation_observed(&"rc");
        assert_eq!(expectations.unmet(&"rc", now), None);
        expectations.creation_observed(&"rc");
        assert_eq!(expectations.unmet(&"rc", now), None, "a pod nobody asked for is no debt");
    }

    #[test]
    fn a_deletion_is_observed_once_however_often_it_is_told() {
        let (expectations, now) = (Expectations::new(), Instant::now());
        expectations.expect(&"rc", 0, ["a", "b"].map(Box::from).into(), now);
        expectations.deletion_observed(&"rc", "a");
        expectations.deletion_observed(&"rc", "a");
        assert!(expectations.unmet(&"rc", now).is_some());
        expectations.deletion_observed(&"rc", "b");
        assert_eq!(expectations.unmet(&"rc", now), None);
    }

    #[test]
    fn expectations_do_not_hold_forever() {
        let (expectations, now) = (Expectations::new(), Instant::now());
        expectations.expect(&"rc", 1, HashSet::new(), now);
        assert_eq!(expectations.unmet(&"rc", now), Some(TIMEOUT));
        assert_eq!(expectations.unmet(&"rc", now + TIMEOUT), None);
    }
}
