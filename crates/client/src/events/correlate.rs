//! What becomes of an event before it is written: similar ones become one, repeats are counted, and an object that causes
//! too many loses the surplus. Purely; the rules and numbers are those of `k8s.io/client-go/tools/record`
//! (`events_cache.go`).

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, RandomState};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::EventType;

/// How many events, kinds of events and objects are remembered; the longest unused is forgotten first.
const REMEMBERED: usize = 4096;
/// So many different messages with one reason about one object become one event ...
const SIMILAR_MAX: usize = 10;
/// ... if no more than so many seconds lie between two of them.
const SIMILAR_INTERVAL_SECONDS: i64 = 600;
/// How many events one object may cause at once.
const BURST_PER_OBJECT: f64 = 25.0;
/// The seconds in which an object may cause one event more.
const REFILL_SECONDS: f64 = 300.0;

/// Something that happened to an object.
#[derive(Clone, Debug)]
pub(super) struct Happening {
    /// To what.
    pub(super) object: ObjectReference,
    /// Whether it is trouble.
    pub(super) event_type: EventType,
    /// What, in a word.
    pub(super) reason: String,
    /// What, in a sentence.
    pub(super) message: String,
    /// When.
    pub(super) at: Timestamp,
}

/// The event to be written for a happening.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Correlated {
    /// The name of the Event.
    pub(super) name: String,
    /// Its message: that of the happening, or one that says that it stands for several.
    pub(super) message: String,
    /// When the first of its kind happened.
    pub(super) first_at: Timestamp,
    /// How many there were; from the second on the Event should be there.
    pub(super) count: i32,
}

/// Messages of one reason about one object.
#[derive(Clone, Default)]
struct Similar {
    messages: Vec<u64>,
    last_at: Timestamp,
}

/// An event that was told.
#[derive(Clone)]
struct Told {
    name: Box<str>,
    first_at: Timestamp,
    count: i32,
}

/// How many more events an object may cause.
#[derive(Clone, Copy)]
struct Budget {
    left: f64,
    at: Timestamp,
}

impl Budget {
    fn spend(&mut self, now: Timestamp) -> bool {
        let earned = now.duration_since(self.at).as_secs_f64().max(0.0) / REFILL_SECONDS;
        self.left = BURST_PER_OBJECT.min(self.left + earned);
        self.at = now;
        let granted = self.left >= 1.0;
        if granted {
            self.left -= 1.0;
        }
        granted
    }
}

/// What one source of events has told. Keys are hashes: nobody asks what the texts were.
pub(super) struct Correlator {
    keys: RandomState,
    similar: Recent<Similar>,
    told: Recent<Told>,
    budgets: Recent<Budget>,
}

impl Correlator {
    pub(super) fn new() -> Correlator {
        Correlator { keys: RandomState::new(), similar: Recent::new(), told: Recent::new(), budgets: Recent::new() }
    }

    /// What is to be written of `happening`, if anything is.
    pub(super) fn correlate(&mut self, happening: &Happening) -> Option<Correlated> {
        let object = Object::of(&happening.object);
        let (key, message) = self.aggregated(&object, happening);
        let told = self.told.get(key).cloned();
        let observed = match told {
            Some(told) => Told { count: told.count.saturating_add(1), ..told },
            None => {
                let involved = happening.object.name.as_deref().unwrap_or("unknown");
                let name = format!("{involved}.{:x}", happening.at.as_nanosecond());
                Told { name: name.into(), first_at: happening.at, count: 1 }
            }
        };
        // What is not written counts all the same.
        self.told.put(key, observed.clone());
        self.within_budget(&object, happening.at).then(|| Correlated {
            name: observed.name.into(),
            message,
            first_at: observed.first_at,
            count: observed.count,
        })
    }

    /// What the event is remembered by, and its message.
    fn aggregated(&mut self, object: &Object<'_>, happening: &Happening) -> (u64, String) {
        let Happening { event_type, reason, message, at, .. } = happening;
        let group = self.keys.hash_one(("similar", object, event_type, reason));
        let mut similar = self.similar.get(group).cloned().unwrap_or_default();
        if at.duration_since(similar.last_at).as_secs() > SIMILAR_INTERVAL_SECONDS {
            similar.messages.clear();
        }
        let hashed = self.keys.hash_one(message);
        if !similar.messages.contains(&hashed) {
            similar.messages.push(hashed);
        }
        similar.last_at = *at;
        let many = similar.messages.len() >= SIMILAR_MAX;
        if many {
            similar.messages.swap_remove(0);
        }
        self.similar.put(group, similar);
        if many {
            return (group, format!("(combined from similar events): {message}"));
        }
        let field_path = happening.object.field_path.as_deref();
        (self.keys.hash_one(("same", object, field_path, event_type, reason, message)), message.clone())
    }

    fn within_budget(&mut self, object: &Object<'_>, now: Timestamp) -> bool {
        let key = self.keys.hash_one(object);
        let mut budget = self.budgets.get(key).copied().unwrap_or(Budget { left: BURST_PER_OBJECT, at: now });
        let granted = budget.spend(now);
        self.budgets.put(key, budget);
        granted
    }
}

/// What tells objects apart.
#[derive(Hash)]
struct Object<'a> {
    kind: Option<&'a str>,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
    uid: Option<&'a str>,
    api_version: Option<&'a str>,
}

impl<'a> Object<'a> {
    fn of(reference: &'a ObjectReference) -> Object<'a> {
        Object {
            kind: reference.kind.as_deref(),
            namespace: reference.namespace.as_deref(),
            name: reference.name.as_deref(),
            uid: reference.uid.as_deref(),
            api_version: reference.api_version.as_deref(),
        }
    }
}

/// The values used last.
struct Recent<V> {
    values: HashMap<u64, (u64, V)>,
    /// Keys by when they were used.
    order: BTreeMap<u64, u64>,
    uses: u64,
}

impl<V> Recent<V> {
    fn new() -> Recent<V> {
        Recent { values: HashMap::new(), order: BTreeMap::new(), uses: 0 }
    }

    fn get(&self, key: u64) -> Option<&V> {
        self.values.get(&key).map(|(_, value)| value)
    }

    fn put(&mut self, key: u64, value: V) {
        self.uses += 1;
        if let Some((before, _)) = self.values.insert(key, (self.uses, value)) {
            self.order.remove(&before);
        }
        self.order.insert(self.uses, key);
        if self.values.len() > REMEMBERED
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.values.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan;

    use super::*;

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn happening(name: &str, reason: &str, message: &str, seconds: i64) -> Happening {
        let object = ObjectReference { name: Some(name.into()), ..ObjectReference::default() };
        let at = start().checked_add(seconds.seconds()).unwrap();
        Happening { object, event_type: EventType::Normal, reason: reason.into(), message: message.into(), at }
    }

    #[test]
    fn an_object_may_cause_25_events_and_then_one_in_five_minutes() {
        let mut correlator = Correlator::new();
        let mut told = |name: &str, seconds: i64, times: usize| {
            (0..times).filter(|_| correlator.correlate(&happening(name, "R", "m", seconds)).is_some()).count()
        };
        for (what, name, seconds, times, expected) in [
            ("a burst", "a", 0, 100, 25),
            ("another object has a budget of its own", "b", 0, 1, 1),
            ("not yet", "a", 299, 1, 0),
            ("one after five minutes", "a", 300, 5, 1),
            ("time counts on while nothing is granted", "a", 450, 5, 0),
            ("half and half make one", "a", 600, 5, 1),
            ("never more than a burst", "a", 1_000_000, 100, 25),
        ] {
            assert_eq!(told(name, seconds, times), expected, "{what}");
        }
    }

    #[test]
    fn repeats_are_counted_also_those_that_are_not_told() {
        let mut correlator = Correlator::new();
        let first = correlator.correlate(&happening("a", "R", "m", 0)).unwrap();
        let mut tell = |seconds| correlator.correlate(&happening("a", "R", "m", seconds));
        let second = tell(1).unwrap();
        assert_eq!((second.count, second.first_at, second.name), (2, first.first_at, first.name));
        let told = (0..100).filter_map(|_| tell(2)).count();
        assert_eq!(told, 23);
        assert_eq!(tell(400).unwrap().count, 103);
    }

    #[test]
    fn from_the_tenth_message_on_similar_events_are_one() {
        let mut correlator = Correlator::new();
        let mut tell = |number: i64| correlator.correlate(&happening("a", "R", &format!("m{number}"), number)).unwrap();
        for number in 0..9 {
            let told = tell(number);
            assert_eq!((told.message, told.count), (format!("m{number}"), 1));
        }
        let tenth = tell(9);
        assert_eq!((tenth.message.as_str(), tenth.count), ("(combined from similar events): m9", 1));
        let eleventh = tell(10);
        assert_eq!(eleventh.message, "(combined from similar events): m10");
        assert_eq!((eleventh.count, eleventh.name), (2, tenth.name));
        let late = tell(10 + SIMILAR_INTERVAL_SECONDS + 1);
        assert_eq!((late.message, late.count), (format!("m{}", 11 + SIMILAR_INTERVAL_SECONDS), 1));
    }

    #[test]
    fn other_reasons_and_objects_are_other_events() {
        let mut correlator = Correlator::new();
        for happening in [("a", "R"), ("a", "S"), ("b", "R")].map(|(name, reason)| happening(name, reason, "m", 0)) {
            assert_eq!(correlator.correlate(&happening).unwrap().count, 1);
        }
    }

    #[test]
    fn what_was_not_used_for_longest_is_forgotten_first() {
        let mut recent = Recent::new();
        (0..REMEMBERED as u64).for_each(|key| recent.put(key, key));
        recent.put(0, 7);
        recent.put(u64::MAX, 1);
        assert_eq!((recent.get(0), recent.get(1), recent.values.len()), (Some(&7), None, REMEMBERED));
        assert_eq!(recent.order.len(), REMEMBERED);
    }
}
