//! The pods that wait for a node, as a pure state machine: time comes in as an argument.
//!
//! ```text
//!           add                 pop                      bound, gone
//!  pod ───────────▶ active ───────────▶ deciding ───────────────────▶ (forgotten)
//!                   ▲  ▲                  │    │
//!      due, or      │  │ spec changed     │    │ binding failed
//!      active empty │  │                  │    ▼
//!                 back-off ◀──────────────┼── back-off
//!                   ▲   a node changed    │
//!                   │   that would fit    ▼ refused
//!                   └──────────────── unschedulable
//! ```
//!
//! As upstream (`pkg/scheduler/backend/queue`): highest priority first, then first come first served; a pod that failed
//! waits 1 s, doubling to 10 s; a pod that was *refused* and could now fit need not wait out its back-off while nothing
//! else is active (`SchedulerPopFromBackoffQ`), one whose binding *failed* must.
//!
//! A refused pod sleeps until a node changes in a way that lets that node take it. Filters look at one node and the
//! pod, so nothing else can help, and no event is missed by looking only at nodes that changed.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::node::NodeName;
use crate::pod::{PodInfo, Uid};

/// How long a pod waits after its first failure (`DefaultPodInitialBackoffDuration`).
pub const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// How long it waits at most (`DefaultPodMaxBackoffDuration`).
pub const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// After this time a refused pod is tried again in any case, which also brings its message up to date
/// (`DefaultPodMaxInUnschedulablePodsDuration`).
pub const UNSCHEDULABLE_MAX: Duration = Duration::from_secs(5 * 60);

/// Every waiting pod, each in exactly one place.
#[derive(Debug, Default)]
pub struct Queue {
    entries: HashMap<Uid, Entry>,
    active: BTreeSet<(Reverse<i32>, u64, Uid)>,
    /// Refused pods for which there is hope again: by the end of their back-off.
    hopeful: BTreeSet<(Instant, Uid)>,
    /// Pods whose binding failed: by the end of their back-off.
    failed: BTreeSet<(Instant, Uid)>,
    /// Refused pods that nothing has helped yet: by the time at which they are tried anyway.
    unschedulable: BTreeSet<(Instant, Uid)>,
    /// Those of the active and hopeful pods whose hope is on one node.
    hoping: HashSet<Uid>,
    arrivals: u64,
}

#[derive(Debug)]
struct Entry {
    pod: Arc<PodInfo>,
    attempts: u32,
    last_attempt: Option<Instant>,
    place: Place,
    hope: Hope,
    refusal: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Active(u64),
    Hopeful(Instant),
    Failed(Instant),
    Unschedulable(Instant),
    Deciding,
}

/// Where a pod could fit by what has happened since it was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hope {
    /// Any node must be asked.
    Anywhere,
    /// Only this one has changed; if it does not fit after all, no other does.
    On(NodeName),
}

impl Queue {
    /// A pod wants a node: it is new or was changed. A change of what it demands gives a refused pod another try at
    /// once; any other change only replaces what is known of it.
    pub fn add(&mut self, pod: impl Into<Arc<PodInfo>>) {
        let pod = pod.into();
        let uid = pod.uid.clone();
        let Some(entry) = self.entries.get_mut(&uid) else {
            let hope = Hope::Anywhere;
            let entry = Entry { pod, attempts: 0, last_attempt: None, place: Place::Deciding, hope, refusal: None };
            self.entries.insert(uid.clone(), entry);
            return self.activate(&uid);
        };
        let changed = entry.pod.demand != pod.demand;
        let refused = matches!(entry.place, Place::Hopeful(_) | Place::Unschedulable(_));
        let reordered = matches!(entry.place, Place::Active(_)) && entry.pod.demand.priority != pod.demand.priority;
        if reordered || (changed && refused) {
            self.take_out(&uid);
        }
        let Some(entry) = self.entries.get_mut(&uid) else { return };
        entry.pod = pod;
        if reordered || (changed && refused) {
            entry.hope = Hope::Anywhere;
            self.activate(&uid);
        }
    }

    /// The pod has a node, or wants none any more.
    pub fn remove(&mut self, uid: &str) {
        self.take_out(uid);
        self.entries.remove(uid);
    }

    /// The next pod to decide about; [`Queue::refused`], [`Queue::failed`] or [`Queue::remove`] must follow.
    pub fn pop(&mut self, now: Instant) -> Option<(Arc<PodInfo>, Hope)> {
        self.wake_due(now);
        let uid = match self.active.first() {
            Some((_, _, uid)) => uid.clone(),
            None => self.hopeful.first()?.1.clone(),
        };
        self.take_out(&uid);
        let entry = self.entries.get_mut(&uid)?;
        let hope = std::mem::replace(&mut entry.hope, Hope::Anywhere);
        Some((entry.pod.clone(), hope))
    }

    /// The pod fits nowhere now, and that is what to tell of it.
    pub fn refused(&mut self, uid: &str, why: Arc<str>, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last_attempt = Some(now);
        entry.refusal = Some(why);
        self.put(uid, Place::Unschedulable(now + UNSCHEDULABLE_MAX));
    }

    /// The node that gave hope does not fit after all: the pod sleeps on, as if it had not been woken.
    pub fn disappointed(&mut self, uid: &str, now: Instant) {
        self.put(uid, Place::Unschedulable(now + UNSCHEDULABLE_MAX));
    }

    /// The pod's binding failed: it tries again after its back-off.
    pub fn failed(&mut self, uid: &str, now: Instant) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.attempts = entry.attempts.saturating_add(1);
        entry.last_attempt = Some(now);
        let until = now + backoff(entry.attempts);
        self.put(uid, Place::Failed(until));
    }

    /// `node` has changed: wakes the refused pods that it takes now.
    pub fn node_changed(&mut self, node: &NodeName, now: Instant, takes: impl FnMut(&PodInfo) -> bool) {
        self.widen_hope(node);
        let mut takes = takes;
        let helped = |(_, uid): &&(Instant, Uid)| self.entries.get(uid).is_some_and(|entry| takes(&entry.pod));
        let woken: Vec<Uid> = self.unschedulable.iter().filter(helped).map(|(_, uid)| uid.clone()).collect();
        for uid in woken {
            self.wake(&uid, Hope::On(node.clone()), now);
        }
    }

    /// When something becomes due by the passing of time alone. Hopeful pods are not waited for: they are popped as
    /// soon as nothing is active.
    pub fn next_deadline(&self) -> Option<Instant> {
        let first = |set: &BTreeSet<(Instant, Uid)>| set.first().map(|(at, _)| *at);
        [first(&self.failed), first(&self.unschedulable)].into_iter().flatten().min()
    }

    /// The pod and why it was refused last, if it still waits.
    pub fn refusal(&self, uid: &str) -> Option<(Arc<PodInfo>, Arc<str>)> {
        let entry = self.entries.get(uid)?;
        Some((entry.pod.clone(), entry.refusal.clone()?))
    }

    /// Whether the pod waits, or is being decided about or bound.
    pub fn holds(&self, uid: &str) -> bool {
        self.entries.contains_key(uid)
    }

    /// How many pods wait.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Pods that wait for one node to be asked must ask all of them once a second one has changed.
    fn widen_hope(&mut self, node: &NodeName) {
        let Queue { entries, hoping, .. } = self;
        hoping.retain(|uid| {
            let Some(entry) = entries.get_mut(uid) else { return false };
            let same = matches!(&entry.hope, Hope::On(hoped) if hoped == node);
            if !same {
                entry.hope = Hope::Anywhere;
            }
            same
        });
    }

    fn wake_due(&mut self, now: Instant) {
        for uid in due(&self.unschedulable, now) {
            self.wake(&uid, Hope::Anywhere, now);
        }
        for uid in due(&self.hopeful, now).into_iter().chain(due(&self.failed, now)) {
            self.take_out(&uid);
            self.activate(&uid);
        }
    }

    /// A refused pod gets another try: now, or when its back-off is over.
    fn wake(&mut self, uid: &Uid, hope: Hope, now: Instant) {
        self.take_out(uid);
        let Some(entry) = self.entries.get_mut(uid) else { return };
        entry.hope = hope;
        let until = entry.last_attempt.map_or(now, |at| at + backoff(entry.attempts));
        if until <= now { self.activate(uid) } else { self.put(uid, Place::Hopeful(until)) }
    }

    fn activate(&mut self, uid: &Uid) {
        self.arrivals += 1;
        self.put(uid, Place::Active(self.arrivals));
    }

    /// Moves a pod that is in no queue into one.
    fn put(&mut self, uid: &str, place: Place) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let (uid, priority) = (entry.pod.uid.clone(), Reverse(entry.pod.demand.priority));
        entry.place = place;
        if matches!(entry.hope, Hope::On(_)) {
            self.hoping.insert(uid.clone());
        }
        match place {
            Place::Active(arrival) => drop(self.active.insert((priority, arrival, uid))),
            Place::Hopeful(until) => drop(self.hopeful.insert((until, uid))),
            Place::Failed(until) => drop(self.failed.insert((until, uid))),
            Place::Unschedulable(until) => drop(self.unschedulable.insert((until, uid))),
            Place::Deciding => {}
        }
    }

    /// Takes a pod out of whichever queue it is in; it is being decided about until it is put somewhere.
    fn take_out(&mut self, uid: &str) {
        let Some(entry) = self.entries.get_mut(uid) else { return };
        let (uid, priority) = (entry.pod.uid.clone(), Reverse(entry.pod.demand.priority));
        self.hoping.remove(&uid);
        match std::mem::replace(&mut entry.place, Place::Deciding) {
            Place::Active(arrival) => self.active.remove(&(priority, arrival, uid)),
            Place::Hopeful(until) => self.hopeful.remove(&(until, uid)),
            Place::Failed(until) => self.failed.remove(&(until, uid)),
            Place::Unschedulable(until) => self.unschedulable.remove(&(until, uid)),
            Place::Deciding => false,
        };
    }
}

fn due(set: &BTreeSet<(Instant, Uid)>, now: Instant) -> Vec<Uid> {
    set.iter().take_while(|(at, _)| *at <= now).map(|(_, uid)| uid.clone()).collect()
}

/// 1 s, 2 s, 4 s, 8 s, 10 s, 10 s, ...
fn backoff(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    (BACKOFF_MIN * 2u32.pow(doublings)).min(BACKOFF_MAX)
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
