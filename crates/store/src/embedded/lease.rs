//! Leases: which keys vanish when.
//!
//! Owned by the commit thread alone. Deadlines are wall-clock time on disk (they go on while the store is down) and
//! monotonic time in memory. Which keys a lease holds is not written: each row of the log names its lease.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::log::Granted;
use super::row::LeaseChange;
use crate::LeaseId;

/// The longest a lease may last, as etcd's.
pub(crate) const MAX_TTL_SECONDS: i64 = 9_000_000_000;

#[derive(Debug)]
struct Lease {
    deadline: Instant,
    ttl_seconds: i64,
    keys: HashSet<Arc<str>>,
}

/// A lease that is about to be granted or renewed: counts once [`Grant::change`] is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grant {
    pub(super) id: LeaseId,
    deadline: Instant,
    written: Granted,
}

impl Grant {
    fn new(id: LeaseId, ttl_seconds: i64, now: (Instant, SystemTime)) -> Grant {
        let ttl_seconds = ttl_seconds.clamp(1, MAX_TTL_SECONDS);
        let deadline_millis = unix_millis(now.1).saturating_add(ttl_seconds * 1000);
        let deadline = now.0 + Duration::from_secs(ttl_seconds.unsigned_abs());
        Grant { id, deadline, written: Granted { id, deadline_millis, ttl_seconds } }
    }

    /// What to write.
    pub(super) fn change(&self) -> LeaseChange {
        let Granted { id, deadline_millis, ttl_seconds } = self.written;
        LeaseChange::Granted { id, deadline_millis, ttl_seconds }
    }

    pub(super) fn ttl_seconds(&self) -> i64 {
        self.written.ttl_seconds
    }
}

/// A lease as somebody who asks is told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LeaseState {
    /// What it was granted for.
    pub(crate) ttl_seconds: i64,
    /// What is left of that.
    pub(crate) left: Duration,
    /// Its keys, in order.
    pub(crate) keys: Vec<Arc<str>>,
}

/// All leases.
#[derive(Debug, Default)]
pub(super) struct Leases {
    leases: HashMap<LeaseId, Lease>,
    of_key: HashMap<Arc<str>, LeaseId>,
    deadlines: BTreeSet<(Instant, LeaseId)>,
    last_id: i64,
}

impl Leases {
    /// Leases as the disk has them.
    pub(super) fn recover(last_id: i64, leases: &[Granted], now: (Instant, SystemTime)) -> Leases {
        let mut recovered = Leases { last_id, ..Leases::default() };
        for &written in leases {
            let left = u64::try_from(written.deadline_millis.saturating_sub(unix_millis(now.1))).unwrap_or(0);
            let deadline = now.0 + Duration::from_millis(left);
            let ttl_seconds = match written.ttl_seconds {
                0 => i64::try_from(left / 1000).unwrap_or(MAX_TTL_SECONDS).max(1),
                asked_for => asked_for,
            };
            recovered.granted(Grant { id: written.id, deadline, written: Granted { ttl_seconds, ..written } });
        }
        recovered
    }

    /// The next lease, under an id of its own or the one that is wanted; `None` if that is taken.
    pub(super) fn next(&self, wanted: Option<LeaseId>, ttl: i64, now: (Instant, SystemTime)) -> Option<Grant> {
        let id = wanted.unwrap_or_else(|| {
            let mut id = self.last_id;
            loop {
                // Where somebody took the last id there is, they begin again.
                id = id.checked_add(1).unwrap_or(1);
                if !self.contains(LeaseId(id)) {
                    break LeaseId(id);
                }
            }
        });
        (!self.contains(id)).then(|| Grant::new(id, ttl, now))
    }

    /// A lease from now on for as long as it was granted for; `None` if there is no such lease.
    pub(super) fn renewal(&self, id: LeaseId, now: (Instant, SystemTime)) -> Option<Grant> {
        Some(Grant::new(id, self.leases.get(&id)?.ttl_seconds, now))
    }

    pub(super) fn granted(&mut self, grant: Grant) {
        let Grant { id, deadline, written } = grant;
        self.last_id = self.last_id.max(id.0);
        let lease = Lease { deadline, ttl_seconds: written.ttl_seconds, keys: HashSet::new() };
        let lease = self.leases.entry(id).or_insert(lease);
        self.deadlines.remove(&(lease.deadline, id));
        lease.deadline = deadline;
        self.deadlines.insert((deadline, id));
    }

    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
    }

    /// All ids, in order.
    pub(super) fn ids(&self) -> Vec<LeaseId> {
        let mut ids: Vec<LeaseId> = self.leases.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    pub(super) fn state(&self, id: LeaseId, now: Instant) -> Option<LeaseState> {
        let lease = self.leases.get(&id)?;
        let left = lease.deadline.saturating_duration_since(now);
        Some(LeaseState { ttl_seconds: lease.ttl_seconds, left, keys: self.keys(id)? })
    }

    /// The keys a lease holds, in order; `None` if there is no such lease.
    pub(super) fn keys(&self, id: LeaseId) -> Option<Vec<Arc<str>>> {
        let mut keys: Vec<Arc<str>> = self.leases.get(&id)?.keys.iter().cloned().collect();
        keys.sort_unstable();
        Some(keys)
    }

    /// The newest version of a key is bound to `lease`, or to none (also when the key was removed).
    pub(super) fn bind(&mut self, key: &Arc<str>, lease: Option<LeaseId>) {
        let before = match lease {
            Some(id) => self.of_key.insert(key.clone(), id),
            None => self.of_key.remove(key),
        };
        if let Some(lease) = before.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.remove(key);
        }
        if let Some(lease) = lease.and_then(|id| self.leases.get_mut(&id)) {
            lease.keys.insert(key.clone());
        }
    }

    pub(super) fn ended(&mut self, id: LeaseId) {
        if let Some(lease) = self.leases.remove(&id) {
            self.deadlines.remove(&(lease.deadline, id));
            for key in &lease.keys {
                self.of_key.remove(key);
            }
        }
    }

    /// The next deadline and whose it is.
    pub(super) fn next_deadline(&self) -> Option<(Instant, LeaseId)> {
        self.deadlines.first().copied()
    }
}

fn unix_millis(now: SystemTime) -> i64 {
    now.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(id: i64, deadline_millis: i64) -> Granted {
        Granted { id: LeaseId(id), deadline_millis, ttl_seconds: 0 }
    }

    #[test]
    fn a_renewed_lease_lasts_as_long_again_and_a_taken_id_is_not_given_out() {
        let now = (Instant::now(), SystemTime::now());
        let mut leases = Leases::recover(0, &[], now);
        let wanted = Some(LeaseId(i64::MAX));
        leases.granted(leases.next(wanted, 10, now).unwrap());
        assert!(leases.next(wanted, 10, now).is_none());
        assert_eq!(leases.next(None, 10, now).unwrap().id, LeaseId(1), "after the last id comes the first");
        let later = (now.0 + Duration::from_secs(7), now.1 + Duration::from_secs(7));
        assert_eq!(leases.state(LeaseId(i64::MAX), later.0).unwrap().left, Duration::from_secs(3));
        leases.granted(leases.renewal(LeaseId(i64::MAX), later).unwrap());
        assert_eq!(leases.state(LeaseId(i64::MAX), later.0).unwrap().left, Duration::from_secs(10));
        assert_eq!(leases.deadlines.len(), 1);
        assert!(leases.renewal(LeaseId(5), now).is_none());
    }

    #[test]
    fn a_key_belongs_to_the_lease_of_its_newest_version() {
        let now = (Instant::now(), SystemTime::now());
        let mut leases = Leases::recover(7, &[written(3, unix_millis(now.1) + 5000)], now);
        let grant = leases.next(None, 0, now).unwrap();
        let id = grant.id;
        assert_eq!((id, grant.deadline), (LeaseId(8), now.0 + Duration::from_secs(1)));
        leases.granted(grant);
        assert_eq!(leases.next_deadline(), Some((grant.deadline, id)));
        let key: Arc<str> = "k".into();
        leases.bind(&key, Some(LeaseId(3)));
        leases.bind(&key, Some(id));
        assert_eq!(leases.keys(LeaseId(3)), Some(vec![]));
        assert_eq!(leases.keys(id), Some(vec![key.clone()]));
        leases.bind(&key, None);
        assert_eq!(leases.keys(id), Some(vec![]));
        leases.ended(id);
        assert_eq!(leases.keys(id), None);
    }

    #[test]
    fn a_lease_whose_time_passed_while_the_store_was_down_is_due_at_once() {
        let now = (Instant::now(), SystemTime::now());
        let leases = Leases::recover(1, &[written(1, unix_millis(now.1) - 5)], now);
        assert_eq!(leases.next_deadline(), Some((now.0, LeaseId(1))));
    }
}
