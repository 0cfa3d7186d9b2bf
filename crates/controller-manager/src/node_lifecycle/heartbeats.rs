//! When each node was last heard of, by our own clock: nodes' clocks may be wrong.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use parking_lot::Mutex;

#[derive(Default)]
struct Heard {
    lease: Option<Timestamp>,
    status: Option<Timestamp>,
    at: Option<Instant>,
}

/// The last signs of life, by node. A sign is a *change* of what the node wrote, whatever time it names.
#[derive(Default)]
pub(super) struct Heartbeats(Mutex<HashMap<String, Heard>>);

impl Heartbeats {
    /// The node's lease says it was renewed then.
    pub(super) fn lease(&self, node: &str, renewed: Option<Timestamp>, now: Instant) {
        self.note(node, now, |heard| std::mem::replace(&mut heard.lease, renewed) != renewed);
    }

    /// The node's status says it was posted then.
    pub(super) fn status(&self, node: &str, posted: Option<Timestamp>, now: Instant) {
        self.note(node, now, |heard| std::mem::replace(&mut heard.status, posted) != posted);
    }

    fn note(&self, node: &str, now: Instant, changed: impl FnOnce(&mut Heard) -> bool) {
        let mut nodes = self.0.lock();
        let heard = nodes.entry(node.to_owned()).or_default();
        // The first sight of a node counts: it gets a full grace after a restart of ours.
        if changed(heard) || heard.at.is_none() {
            heard.at = Some(now);
        }
    }

    /// How much of `grace` is left to the node; `None` once it is used up.
    pub(super) fn left(&self, node: &str, grace: Duration, now: Instant) -> Option<Duration> {
        let at = *self.0.lock().entry(node.to_owned()).or_default().at.get_or_insert(now);
        (at + grace).checked_duration_since(now).filter(|left| !left.is_zero())
    }

    /// The node is gone.
    pub(super) fn forget(&self, node: &str) {
        self.0.lock().remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(40);

    #[test]
    fn a_node_is_silent_once_neither_lease_nor_status_change() {
        let (heartbeats, start) = (Heartbeats::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let time = |seconds| Some(Timestamp::from_second(seconds).unwrap());
        heartbeats.lease("n", time(1), at(0));
        assert_eq!(heartbeats.left("n", GRACE, at(30)), Some(Duration::from_secs(10)));
        heartbeats.lease("n", time(1), at(30));
        assert_eq!(heartbeats.left("n", GRACE, at(40)), None, "the same lease again is no sign of life");
        heartbeats.lease("n", time(2), at(41));
        assert_eq!(heartbeats.left("n", GRACE, at(41)), Some(GRACE));
        heartbeats.status("n", time(9), at(60));
        assert_eq!(heartbeats.left("n", GRACE, at(81)), Some(Duration::from_secs(19)));
    }

    #[test]
    fn a_node_never_heard_of_has_the_grace_from_first_sight() {
        let (heartbeats, start) = (Heartbeats::default(), Instant::now());
        assert_eq!(heartbeats.left("n", GRACE, start), Some(GRACE));
        assert_eq!(heartbeats.left("n", GRACE, start + GRACE), None);
    }
}
