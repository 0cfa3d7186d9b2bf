//! Answers of others, for as long as they hold. Bounded in entries and in the size of each.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{Name, RData, Record, RecordType};

/// Entries of one generation; there are two at most.
const GENERATION_MAX: usize = 4096;
/// Larger answers are not kept.
const RECORDS_MAX: usize = 64;
/// However long an answer's owner allows it.
const TTL_MAX: Duration = Duration::from_secs(3600);
/// However long a negative answer's owner allows it.
const NEGATIVE_TTL_MAX: Duration = Duration::from_secs(300);

/// What makes two questions the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The name, which compares without case.
    pub name: Name,
    /// The type of record.
    pub wanted: RecordType,
    /// Whether signatures are wanted as well.
    pub dnssec_ok: bool,
    /// Whether bad signatures are no reason to refuse.
    pub checking_disabled: bool,
}

struct Kept {
    message: Arc<Message>,
    since: Instant,
    until: Instant,
}

/// The cache. When the young generation is full it becomes the old one, and what was old and not asked for is gone:
/// nearly the least recently used, without a list.
#[derive(Default)]
pub struct Cache {
    young: HashMap<Key, Kept>,
    old: HashMap<Key, Kept>,
}

impl Cache {
    /// The answer kept for a question, as old as it is by now.
    pub fn get(&mut self, key: &Key, now: Instant) -> Option<Message> {
        if let Some(kept) = self.old.remove(key) {
            self.insert(key.clone(), kept);
        }
        let kept = self.young.get(key).filter(|kept| now < kept.until)?;
        let age = u32::try_from(now.duration_since(kept.since).as_secs()).unwrap_or(u32::MAX);
        let mut message = Message::clone(&kept.message);
        let records = message.answers.iter_mut().chain(&mut message.authorities).chain(&mut message.additionals);
        for record in records {
            record.decrement_ttl(age);
        }
        Some(message)
    }

    /// Keeps an answer, if it may be kept.
    pub fn put(&mut self, key: Key, message: &Message, now: Instant) {
        let Some(ttl) = ttl(message) else { return };
        self.insert(key, Kept { message: Arc::new(message.clone()), since: now, until: now + ttl });
    }

    fn insert(&mut self, key: Key, kept: Kept) {
        if self.young.len() >= GENERATION_MAX {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, kept);
    }
}

/// For how long an answer may be kept: as long as its shortest-lived record; a negative one as long as its zone says
/// (RFC 2308).
fn ttl(message: &Message) -> Option<Duration> {
    let records = message.answers.len() + message.authorities.len() + message.additionals.len();
    if message.metadata.truncation || records > RECORDS_MAX {
        return None;
    }
    let aliases_only = message.answers.iter().all(|r| matches!(r.data, RData::CNAME(_)));
    let negative = message.metadata.response_code == ResponseCode::NXDomain || aliases_only;
    match message.metadata.response_code {
        ResponseCode::NoError | ResponseCode::NXDomain => {}
        _ => return None,
    }
    let shortest = message.answers.iter().map(|r| r.ttl).min();
    if !negative {
        return shortest.map(|ttl| Duration::from_secs(ttl.into()).min(TTL_MAX)).filter(|ttl| !ttl.is_zero());
    }
    let zone = message.authorities.iter().find_map(negative_ttl)?;
    let ttl = shortest.map_or(zone, |ttl| ttl.min(zone));
    Some(Duration::from_secs(ttl.into()).min(NEGATIVE_TTL_MAX)).filter(|ttl| !ttl.is_zero())
}

fn negative_ttl(record: &Record) -> Option<u32> {
    match &record.data {
        RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{MessageType, OpCode};
    use hickory_proto::rr::rdata::{A, SOA};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn key(text: &str) -> Key {
        Key { name: name(text), wanted: RecordType::A, dnssec_ok: false, checking_disabled: false }
    }

    fn message(ttl: Option<u32>, soa: Option<u32>, code: ResponseCode) -> Message {
        let mut message = Message::new(1, MessageType::Response, OpCode::Query);
        message.metadata.response_code = code;
        message.answers.extend(ttl.map(|t| Record::from_rdata(name("a."), t, RData::A(A::new(192, 0, 2, 1)))));
        let data = |t| RData::SOA(SOA::new(name("ns."), name("root."), 1, 1, 1, 1, t));
        message.authorities.extend(soa.map(|t| Record::from_rdata(name("."), 900, data(t))));
        message
    }

    #[test]
    fn answers_are_kept_as_long_as_they_hold() {
        use ResponseCode::*;
        let table = [
            ("an address", message(Some(60), None, NoError), Some(60)),
            ("for a week", message(Some(604_800), None, NoError), Some(3600)),
            ("not at all", message(Some(0), None, NoError), None),
            ("no such name", message(None, Some(30), NXDomain), Some(30)),
            ("no such record", message(None, Some(30), NoError), Some(30)),
            ("never, for a day", message(None, Some(86_400), NXDomain), Some(300)),
            ("no, without a word for how long", message(None, None, NXDomain), None),
            ("a failure", message(None, Some(30), ServFail), None),
        ];
        let (start, key) = (Instant::now(), key("www.example.org."));
        for (sentence, answer, expected) in table {
            let mut cache = Cache::default();
            cache.put(key.clone(), &answer, start);
            let after = |seconds| start + Duration::from_secs(seconds);
            assert_eq!(cache.get(&key, after(0)).is_some(), expected.is_some(), "{sentence}");
            let Some(seconds) = expected else { continue };
            assert!(cache.get(&key, after(seconds - 1)).is_some(), "{sentence}: still");
            assert!(cache.get(&key, after(seconds)).is_none(), "{sentence}: no longer");
        }
    }

    #[test]
    fn records_grow_old() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.put(key("a."), &message(Some(60), None, ResponseCode::NoError), start);
        let later = cache.get(&key("A."), start + Duration::from_secs(20)).unwrap();
        assert_eq!(later.answers[0].ttl, 40);
    }

    #[test]
    fn it_never_grows_beyond_its_bounds_and_keeps_what_is_asked_for() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let answer = message(Some(60), None, ResponseCode::NoError);
        cache.put(key("wanted."), &answer, now);
        for i in 0..3 * GENERATION_MAX {
            cache.put(key(&format!("n{i}.")), &answer, now);
            if i % 1000 == 0 {
                assert!(cache.get(&key("wanted."), now).is_some(), "after {i} others");
            }
            assert!(cache.young.len() + cache.old.len() <= 2 * GENERATION_MAX);
        }
        assert!(cache.get(&key("n0."), now).is_none());
    }
}
