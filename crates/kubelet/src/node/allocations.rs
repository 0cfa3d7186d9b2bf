//! What of the node is set aside for its pods, and which resizes it can bear: upstream's allocation manager
//! (`pkg/kubelet/allocation`) without its checkpoint, as every worker knows what is set aside for its own pod.
//!
//! Whoever comes is judged first (`admission`); who is not admitted has no claim.
//!
//! A worker says what its pod holds, and asks when the pod wants more. Whoever cannot have it now is woken when others hold
//! less. All that wait are judged together and in order ([`decide`]), so it does not matter who asks first.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::pods::Requests;
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::pod::resize::Pending;

mod admission;
pub(crate) use admission::{Admission, Preemption};

/// What pods may have of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Together, what must stay free taken off.
    pub allocatable: Requests,
    /// One of them at the very most.
    pub capacity: Requests,
    /// How many pods.
    pub pods: i64,
}

/// What a pod that is being resized wants, and how much that matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// What it wants to hold.
    pub wanted: Requests,
    /// The pod's priority.
    pub priority: i32,
    /// Whether it is a pod whose requests are its limits.
    pub guaranteed: bool,
    /// Since when it waits.
    pub since: Option<Timestamp>,
}

/// What a pod has of the node, and what it would like to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    /// What it holds.
    pub held: Requests,
    /// What it wants instead.
    pub wish: Option<Wish>,
}

/// What the node says to a wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Granted,
    /// It may not.
    Refused(Pending),
    /// Not all pods are known yet.
    Unknown,
}

/// What the node says to every wish. Those that take no more come first, then those of higher priority, then guaranteed
/// ones, then those that wait longest (`sortPendingResizes`); who comes later has what the earlier ones leave. A claim
/// that becomes what it was granted changes nothing of what the others are told.
pub fn decide<'a>(claims: &'a BTreeMap<String, Claim>, room: &Room) -> BTreeMap<&'a str, Verdict> {
    let mut wishes: Vec<(&str, Requests, Wish)> =
        claims.iter().filter_map(|(uid, claim)| Some((uid.as_str(), claim.held, claim.wish?))).collect();
    wishes.sort_by_key(|(uid, held, wish)| {
        let since = wish.since.unwrap_or(Timestamp::MAX);
        (grows(*held, wish.wanted), std::cmp::Reverse(wish.priority), !wish.guaranteed, since, *uid)
    });
    let mut used = claims.values().fold(Requests::default(), |sum, claim| sum.plus(claim.held));
    let mut verdicts = BTreeMap::new();
    loop {
        let before = wishes.len();
        wishes.retain(|(uid, held, Wish { wanted, .. })| {
            let others = used.minus(*held);
            let refusal = infeasible(*wanted, room).or_else(|| deferred(*held, *wanted, others, room));
            let granted = refusal.is_none();
            if granted {
                used = others.plus(*wanted);
            }
            verdicts.insert(*uid, refusal.map_or(Verdict::Granted, Verdict::Refused));
            !granted
        });
        // Who gave back of one resource for more of another may have made room for those before it.
        if wishes.len() == before {
            return verdicts;
        }
    }
}

fn grows(held: Requests, wanted: Requests) -> bool {
    wanted.milli_cpu > held.milli_cpu || wanted.memory > held.memory
}

fn infeasible(wanted: Requests, room: &Room) -> Option<Pending> {
    let capacity = room.capacity;
    let what = if wanted.memory > capacity.memory {
        format!("memory, requested: {}, capacity: {}", wanted.memory, capacity.memory)
    } else if wanted.milli_cpu > capacity.milli_cpu {
        format!("cpu, requested: {}, capacity: {}", wanted.milli_cpu, capacity.milli_cpu)
    } else {
        return None;
    };
    Some(Pending { reason: "Infeasible", message: format!("Node didn't have enough capacity: {what}") })
}

/// Only what grows is weighed: what a pod has already nobody takes from it.
fn deferred(held: Requests, wanted: Requests, used: Requests, room: &Room) -> Option<Pending> {
    let of = |pick: fn(&Requests) -> i64| (pick(&held), pick(&wanted), pick(&used), pick(&room.allocatable));
    let resources = [("cpu", of(|r| r.milli_cpu)), ("memory", of(|r| r.memory))];
    let short = resources
        .into_iter()
        .find(|(_, (held, wanted, used, allocatable))| wanted > held && *wanted > allocatable.saturating_sub(*used));
    let (name, (_, wanted, used, capacity)) = short?;
    let message =
        format!("Node didn't have enough resource: {name}, requested: {wanted}, used: {used}, capacity: {capacity}");
    Some(Pending { reason: "Deferred", message })
}

/// The claims of all pods of the node, and who may claim anything.
pub(crate) struct Allocations {
    room: Room,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    complete: bool,
    claims: BTreeMap<String, Claim>,
    wakes: BTreeMap<String, Arc<Notify>>,
    guests: BTreeMap<String, admission::Guest>,
}

impl Table {
    /// Wakes those who wait for what another holds no longer.
    fn wake(&self, but: &str) {
        let waits = |uid: &String| uid != but && self.claims.get(uid).is_some_and(|claim| claim.wish.is_some());
        self.wakes.iter().filter(|(uid, _)| waits(uid)).for_each(|(_, wake)| wake.notify_one());
    }
}

impl Allocations {
    pub(crate) fn new(room: Room) -> Allocations {
        Allocations { room, table: Mutex::default() }
    }

    /// The pod `uid` holds so much, and wants nothing else.
    pub(crate) fn hold(&self, uid: &str, held: Requests, wake: &Arc<Notify>) {
        let mut table = self.table.lock();
        if !table.may_claim(uid) {
            return;
        }
        let old = table.claims.insert(uid.to_owned(), Claim { held, wish: None });
        table.wakes.entry(uid.to_owned()).or_insert_with(|| wake.clone());
        if old.is_some_and(|old| old.wish.is_some() || grows(held, old.held)) {
            table.wake(uid);
        }
    }

    /// The pod `uid`, holding so much, would like something else: may it? If so it holds that from now on.
    pub(crate) fn ask(&self, uid: &str, held: Requests, wish: Wish, wake: &Arc<Notify>) -> Verdict {
        let mut table = self.table.lock();
        if !table.may_claim(uid) {
            return Verdict::Unknown;
        }
        table.wakes.entry(uid.to_owned()).or_insert_with(|| wake.clone());
        let old = table.claims.insert(uid.to_owned(), Claim { held, wish: Some(wish) });
        let other = |old: Claim| {
            old.wish.is_some_and(|old| old.wanted != wish.wanted || old.priority != wish.priority)
                || grows(held, old.held)
        };
        if old.is_some_and(other) {
            table.wake(uid);
        }
        if !table.complete {
            return Verdict::Unknown;
        }
        let verdict = decide(&table.claims, &self.room).remove(uid).unwrap_or(Verdict::Unknown);
        if verdict == Verdict::Granted {
            // Until it is in force the greater of the two counts.
            let held = held.max(wish.wanted);
            table.claims.insert(uid.to_owned(), Claim { held, wish: None });
        }
        verdict
    }

    /// The pod `uid` takes nothing any more.
    pub(crate) fn release(&self, uid: &str) {
        let mut table = self.table.lock();
        table.wakes.remove(uid);
        table.guests.remove(uid);
        if table.claims.remove(uid).is_some() {
            table.wake(uid);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pod::fit::Facts;

    fn of(milli_cpu: i64, memory: i64) -> Requests {
        Requests { milli_cpu, memory, ..Requests::default() }
    }

    fn room() -> Room {
        Room { allocatable: of(4000, 900), capacity: of(4000, 1000), pods: 3 }
    }

    fn claim(held: Requests, wanted: Option<Requests>, priority: i32) -> Claim {
        let wish = |wanted| Wish { wanted, priority, guaranteed: false, since: None };
        Claim { held, wish: wanted.map(wish) }
    }

    fn told(claims: &[(&str, Claim)]) -> Vec<String> {
        let claims = claims.iter().map(|(uid, claim)| ((*uid).to_owned(), *claim)).collect();
        let verdicts = decide(&claims, &room());
        let one = |(uid, verdict): (&&str, &Verdict)| match verdict {
            Verdict::Granted => format!("{uid}: granted"),
            Verdict::Refused(pending) => format!("{uid}: {}: {}", pending.reason, pending.message),
            Verdict::Unknown => format!("{uid}: unknown"),
        };
        verdicts.iter().map(one).collect()
    }

    #[test]
    fn a_wish_is_weighed_against_what_the_others_hold() {
        let other = ("b", claim(of(2000, 400), None, 0));
        for (sentence, wanted, expected) in [
            ("there is room", of(2000, 500), "a: granted"),
            (
                "not now",
                of(2001, 100),
                "a: Deferred: Node didn't have enough resource: cpu, requested: 2001, used: 2000, capacity: 4000",
            ),
            (
                "nor memory",
                of(1000, 501),
                "a: Deferred: Node didn't have enough resource: memory, requested: 501, used: 400, capacity: 900",
            ),
            (
                "never",
                of(4001, 100),
                "a: Infeasible: Node didn't have enough capacity: cpu, requested: 4001, capacity: 4000",
            ),
            (
                "nor so much memory",
                of(4001, 1001),
                "a: Infeasible: Node didn't have enough capacity: memory, requested: 1001, capacity: 1000",
            ),
            (
                "what the node lets one have at most waits",
                of(1000, 1000),
                "a: Deferred: Node didn't have enough resource: memory, requested: 1000, used: 400, capacity: 900",
            ),
        ] {
            assert_eq!(told(&[("a", claim(of(1000, 100), Some(wanted), 0)), other]), [expected], "{sentence}");
        }
        let full = ("b", claim(of(9000, 9000), None, 0));
        let less = claim(of(1000, 100), Some(of(1000, 50)), 0);
        assert_eq!(told(&[("a", less), full]), ["a: granted"], "less is always granted");
    }

    #[test]
    fn who_waits_is_served_in_order() {
        let (one, two) = (claim(of(1000, 0), Some(of(3000, 0)), 0), claim(of(1000, 0), Some(of(3000, 0)), 5));
        let verdicts = told(&[("a", one), ("b", two)]);
        assert!(verdicts[0].starts_with("a: Deferred") && verdicts[1] == "b: granted", "{verdicts:?}");
        let shrinks = claim(of(2000, 0), Some(of(1000, 0)), -5);
        let grows = claim(of(2000, 0), Some(of(3000, 0)), 9);
        assert_eq!(told(&[("a", shrinks), ("b", grows)]), ["a: granted", "b: granted"], "first those who give back");
    }

    #[test]
    fn whoever_waits_is_woken_when_another_holds_less() {
        let allocations = Allocations::new(room());
        let (a, b) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let wish = claim(of(0, 0), Some(of(3000, 0)), 0).wish.unwrap();
        assert_eq!(allocations.ask("a", of(1000, 0), wish, &a), Verdict::Unknown, "b may be there");
        allocations.hold("b", of(2000, 0), &b);
        let woken = |wake: &Notify| futures::FutureExt::now_or_never(wake.notified()).is_some();
        allocations.are_complete(&Facts::default());
        assert!(woken(&a));
        assert!(matches!(allocations.ask("a", of(1000, 0), wish, &a), Verdict::Refused(_)));
        allocations.hold("b", of(1500, 0), &b);
        assert!(woken(&a) && matches!(allocations.ask("a", of(1000, 0), wish, &a), Verdict::Refused(_)));
        allocations.hold("b", of(1500, 0), &b);
        assert!(!woken(&a), "nothing changed");
        allocations.release("b");
        assert!(woken(&a));
        assert_eq!(allocations.ask("a", of(1000, 0), wish, &a), Verdict::Granted);
    }

    prop_compose! {
        fn claims()(all in prop::collection::vec((0..3000i64, 0..700i64, prop::option::of((0..5000i64, 0..1200i64)), 0..3i32), 1..6))
            -> BTreeMap<String, Claim>
        {
            let one = |(cpu, memory, wanted, priority): (i64, i64, Option<(i64, i64)>, i32)| {
                claim(of(cpu, memory), wanted.map(|(cpu, memory)| of(cpu, memory)), priority)
            };
            all.into_iter().enumerate().map(|(index, all)| (index.to_string(), one(all))).collect()
        }
    }

    proptest! {
        #[test]
        fn nothing_is_granted_twice_and_nothing_beyond_the_room(claims in claims()) {
            let mut claims = claims;
            let verdicts: Vec<(String, Verdict)> =
                decide(&claims, &room()).into_iter().map(|(uid, v)| (uid.to_owned(), v)).collect();
            let mut more = false;
            for (uid, _) in verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Granted) {
                let claim = claims.get_mut(uid).unwrap();
                let wanted = claim.wish.unwrap().wanted;
                more |= wanted.milli_cpu > claim.held.milli_cpu;
                *claim = Claim { held: wanted, wish: None };
            }
            let used = claims.values().fold(Requests::default(), |sum, claim| sum.plus(claim.held));
            prop_assert!(!more || used.milli_cpu <= room().allocatable.milli_cpu);
            let again = decide(&claims, &room());
            prop_assert!(again.values().all(|verdict| *verdict != Verdict::Granted), "{:?}", again);
        }
    }
}
