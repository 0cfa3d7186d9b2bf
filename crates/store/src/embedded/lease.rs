//! Leases: which keys vanish when.
//!
//! Owned by the commit thread alone. Deadlines are wall-clock time on disk (they go on while the store is down) and
//! monotonic time in memory. Which keys a lease holds is not written: each row of the log names its lease.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::row::LeaseChange;
use crate::LeaseId;

/// The longest a lease may last, as etcd's.
const MAX_TTL_SECONDS: i64 = 9_000_000_000;

#[derive(Debug)]
struct Lease {
    deadline: Instant,
    keys: HashSet<Arc<str>>,
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
    pub(super) fn recover(last_id: i64, leases: &[(LeaseId, i64)], now: (Instant, SystemTime)) -> Leases {
        let mut recovered = Leases { last_id, ..Leases::default() };
        for &(id, deadline_millis) in leases {
            let left = u64::try_from(deadline_millis.saturating_sub(unix_millis(now.1))).unwrap_or(0);
            recovered.granted(id, now.0 + Duration::from_millis(left));
        }
        recovered
    }

    /// The next lease: what to write, and the deadline for [`Leases::granted`] once it is written.
    pub(super) fn next(&self, ttl_seconds: i64, now: (Instant, SystemTime)) -> (LeaseId, Instant, LeaseChange) {
        let ttl = ttl_seconds.clamp(1, MAX_TTL_SECONDS);
        let id = LeaseId(self.last_id + 1);
        let deadline_millis = unix_millis(now.1).saturating_add(ttl * 1000);
        (id, now.0 + Duration::from_secs(ttl.unsigned_abs()), LeaseChange::Granted { id, deadline_millis })
    }

    pub(super) fn granted(&mut self, id: LeaseId, deadline: Instant) {
        self.last_id = self.last_id.max(id.0);
        self.deadlines.insert((deadline, id));
        self.leases.insert(id, Lease { deadline, keys: HashSet::new() });
    }

    pub(super) fn contains(&self, id: LeaseId) -> bool {
        self.leases.contains_key(&id)
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

    #[test]
    fn a_key_belongs_to_the_lease_of_its_newest_version() {
        let now = (Instant::now(), SystemTime::now());
        let mut leases = Leases::recover(7, &[(LeaseId(3), unix_millis(now.1) + 5000)], now);
        let (id, deadline, _) = leases.next(0, now);
        assert_eq!((id, deadline), (LeaseId(8), now.0 + Duration::from_secs(1)));
        leases.granted(id, deadline);
        assert_eq!(leases.next_deadline(), Some((deadline, id)));
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
        let leases = Leases::recover(1, &[(LeaseId(1), unix_millis(now.1) - 5)], now);
        assert_eq!(leases.next_deadline(), Some((now.0, LeaseId(1))));
    }
}
