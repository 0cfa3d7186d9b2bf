//! Watch events joined in runs, each made and compressed once for everyone who sees all events.
//!
//! ```text
//!  events   ─1─2─3─4─5─6─7─▶      a run is what came between two times that somebody was told
//!  runs     [1 2][3][4 5 6][7     one part of a crowd is told [3][4 5 6], the next [4 5 6][7]
//! ```
//!
//! Whoever has been told a run has its bytes right before those of the next, so the next may look back at them when it is
//! compressed.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use store::Revision;

use super::chunk::{CHUNK_BYTES, Chunk};
use super::filter::Filter;
use super::ring::Ring;
use crate::compress::Packed;

/// How many bytes of runs are held at most, beside the newest. A crowd is told within milliseconds; whoever comes later is
/// told what is joined for him alone.
const HELD_BYTES: usize = 4 * CHUNK_BYTES;
/// How many runs are held at most; those in which nothing is selected are empty.
const HELD: usize = 256;

/// Events in a row, joined.
#[derive(Debug)]
struct Run {
    /// No two runs of a process have the same.
    serial: u64,
    /// The number of the first event, and of the first that is not in it.
    from: u64,
    to: u64,
    /// The revision of the last event.
    last: Revision,
    plain: Bytes,
    /// The run before, as far as there is one.
    before: Option<(u64, Bytes)>,
    packed: OnceLock<Packed>,
    /// Packed for those who have been told the run before.
    following: OnceLock<Packed>,
}

impl Run {
    fn packed(&self) -> &Packed {
        self.packed.get_or_init(|| Packed::new(&self.plain, &[]))
    }

    fn following(&self) -> &Packed {
        let before = self.before.as_ref().map_or(&[][..], |(_, bytes)| bytes);
        self.following.get_or_init(|| Packed::new(&self.plain, before))
    }
}

/// Runs in a row that many are told at once.
#[derive(Debug)]
pub(crate) struct SharedChunk {
    /// At least one, none of them empty.
    runs: Vec<Arc<Run>>,
    plain: OnceLock<Bytes>,
    packed: OnceLock<Packed>,
    following: OnceLock<Packed>,
}

impl SharedChunk {
    fn new(runs: Vec<Arc<Run>>) -> SharedChunk {
        SharedChunk { runs, plain: OnceLock::new(), packed: OnceLock::new(), following: OnceLock::new() }
    }

    /// The events.
    pub(crate) fn plain(&self) -> &Bytes {
        self.plain.get_or_init(|| match &*self.runs {
            [run] => run.plain.clone(),
            runs => {
                let mut joined = BytesMut::with_capacity(runs.iter().map(|run| run.plain.len()).sum());
                runs.iter().for_each(|run| joined.extend_from_slice(&run.plain));
                joined.freeze()
            }
        })
    }

    /// The events for a stream whose last bytes were the run with the mark `told`.
    pub(crate) fn packed_after(&self, told: Option<u64>) -> &Packed {
        let before = self.runs.first().and_then(|run| run.before.as_ref()).map(|(serial, _)| *serial);
        if before.is_some() && before == told {
            return self.following.get_or_init(|| Packed::joined(self.runs.iter().map(|run| run.following())));
        }
        let runs = self.runs.iter().enumerate();
        let pieces = runs.map(|(place, run)| if place == 0 { run.packed() } else { run.following() });
        self.packed.get_or_init(|| Packed::joined(pieces))
    }

    /// The mark of the last run.
    pub(crate) fn mark(&self) -> Option<u64> {
        self.runs.last().map(|run| run.serial)
    }
}

/// The newest runs of one prefix, without a gap.
#[derive(Debug, Default)]
pub(super) struct Runs {
    prefix: Box<str>,
    runs: VecDeque<Arc<Run>>,
    /// Bytes in them.
    bytes: usize,
    /// The number of the first event that is in none.
    to: u64,
    /// The last that is not empty.
    before: Option<(u64, Bytes)>,
    /// How many there have been.
    count: u64,
    /// What was told last: watchers of one part of a crowd come for it one after the other.
    told: Option<Told>,
}

/// A chunk from one event up to another, with the revision of its last event; `None` where nothing is selected.
#[derive(Clone, Debug)]
struct Told {
    from: u64,
    to: u64,
    chunk: Option<(Arc<SharedChunk>, Revision)>,
    /// Whether it is as much as is told at once.
    is_full: bool,
}

impl Runs {
    /// What `filter`, which looks at nothing but keys, selects of `ring` from number `from` on, as much as is told at once,
    /// with the revision of its last event; and the number of the event after it.
    pub(super) fn next(
        &mut self,
        filter: &Filter,
        from: u64,
        ring: &Ring,
    ) -> (Option<(Arc<SharedChunk>, Revision)>, u64) {
        if *self.prefix != *filter.prefix {
            self.forget();
            self.prefix = filter.prefix.as_str().into();
        }
        // Who is told the same as the one before him needs no run more: those that are held would soon be others'.
        if let Some(told) = self.told.as_ref().filter(|told| told.from == from && self.is_enough(told, ring)) {
            return (told.chunk.clone(), told.to);
        }
        if self.needs_more(from, ring) {
            self.extend(filter, from, ring);
        }
        let told = self.from(from).unwrap_or_else(|| self.alone(filter, from, ring));
        self.told = Some(told.clone());
        (told.chunk, told.to)
    }

    /// Forgets all runs.
    pub(super) fn forget(&mut self) {
        *self = Runs { count: self.count, ..Runs::default() };
    }

    /// Whether who is told this is told as much as is told at once, as there is, or as leads to a run.
    fn is_enough(&self, told: &Told, ring: &Ring) -> bool {
        told.is_full || told.to == ring.next() || self.begins_at(told.to).is_some()
    }

    /// Whether what is new is for one who is at `from`: not while the runs from there on are enough, or he is on the way
    /// to one.
    fn needs_more(&self, from: u64, ring: &Ring) -> bool {
        let is_beyond = self.runs.is_empty() || from >= self.to || ring.from(self.to).is_none();
        is_beyond || self.from(from).is_some_and(|told| !told.is_full)
    }

    /// The place of the run that begins with this event.
    fn begins_at(&self, from: u64) -> Option<usize> {
        let place = self.runs.partition_point(|run| run.from < from);
        self.runs.get(place).filter(|run| run.from == from).map(|_| place)
    }

    /// Makes a run of what is new. Where the runs end before what `ring` still has, or before `from` when there are none,
    /// they begin anew.
    fn extend(&mut self, filter: &Filter, from: u64, ring: &Ring) {
        if self.runs.is_empty() || ring.from(self.to).is_none() || from > self.to {
            let (prefix, count) = (std::mem::take(&mut self.prefix), self.count);
            *self = Runs { prefix, count, to: from, ..Runs::default() };
        }
        if self.to == ring.next() {
            return;
        }
        let run = Arc::new(self.join(filter, self.to, u64::MAX, ring));
        self.to = run.to;
        if !run.plain.is_empty() {
            self.before = Some((run.serial, run.plain.clone()));
        }
        self.bytes += run.plain.len();
        self.runs.push_back(run);
        while self.runs.len() > 1 && (self.bytes > HELD_BYTES || self.runs.len() > HELD) {
            let Some(oldest) = self.runs.pop_front() else { break };
            self.bytes -= oldest.plain.len();
        }
    }

    /// One run of events from `from` on, at most up to `to`.
    fn join(&mut self, filter: &Filter, from: u64, to: u64, ring: &Ring) -> Run {
        let (mut chunk, mut next, mut last) = (Chunk::default(), from, 0);
        for event in ring.from(from).into_iter().flatten() {
            if next == to || chunk.is_full() {
                break;
            }
            next += 1;
            if let Some(change) = event.seen_through(filter) {
                last = event.entry.revision;
                chunk.push(event.frame(change));
            }
        }
        self.count += 1;
        let before = self.before.clone().filter(|_| from == self.to);
        let plain = chunk.finish().unwrap_or_default();
        let (packed, following) = Default::default();
        Run { serial: self.count, from, to: next, last, plain, before, packed, following }
    }

    /// The runs from event `from` on; `None` where none begins there.
    fn from(&self, from: u64) -> Option<Told> {
        let first = self.begins_at(from)?;
        let (mut bytes, mut to, mut runs) = (0, from, Vec::new());
        for run in self.runs.range(first..) {
            if bytes >= CHUNK_BYTES {
                break;
            }
            bytes += run.plain.len();
            to = run.to;
            if !run.plain.is_empty() {
                runs.push(run.clone());
            }
        }
        Some(Told::new((from, to), runs, bytes >= CHUNK_BYTES))
    }

    /// For one who is not where a run begins: up to where he is.
    fn alone(&mut self, filter: &Filter, from: u64, ring: &Ring) -> Told {
        let next = self.runs.get(self.runs.partition_point(|run| run.from <= from)).map_or(self.to, |run| run.from);
        let run = self.join(filter, from, next, ring);
        let (to, is_full) = (run.to, run.plain.len() >= CHUNK_BYTES);
        Told::new((from, to), if run.plain.is_empty() { Vec::new() } else { vec![Arc::new(run)] }, is_full)
    }
}

impl Told {
    fn new((from, to): (u64, u64), runs: Vec<Arc<Run>>, is_full: bool) -> Told {
        let chunk = runs.last().map(|run| run.last).map(|last| (Arc::new(SharedChunk::new(runs)), last));
        Told { from, to, chunk, is_full }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use api::{Kind, kinds};
    use flate2::read::GzDecoder;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::cache::{CacheEvent, Change, Entry};
    use crate::compress::GzipStream;
    use crate::query::Query;

    fn kind() -> &'static Kind {
        kinds().find(|kind| kind.info.plural == "configmaps").unwrap()
    }

    fn event(namespace: &str, revision: Revision, size: usize) -> Arc<CacheEvent> {
        let key = format!("/registry/configmaps/{namespace}/m");
        let value = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "m", "namespace": namespace},
            "data": {"a": format!("{revision} {}", "filler ".repeat(size))}});
        let value: Bytes = value.to_string().into();
        let entry = Entry::new(kind(), key.as_str().into(), &value, (1, revision), Change::Modified).unwrap();
        let previous = Some(entry.select.clone());
        Arc::new(CacheEvent { change: Change::Modified, entry: Arc::new(entry), previous, left: None })
    }

    fn everything_in(namespace: Option<&str>) -> Filter {
        Filter::parse(kind().info, namespace, None, &Query::parse(None)).unwrap()
    }

    /// One who is told, compressed and as it is.
    struct Watcher {
        filter: Filter,
        next: u64,
        gzip: GzipStream,
        packed: Vec<u8>,
        plain: Vec<u8>,
    }

    impl Watcher {
        fn from(next: u64, namespace: Option<&str>) -> Watcher {
            let (gzip, packed, plain) = <_>::default();
            Watcher { filter: everything_in(namespace), next, gzip, packed, plain }
        }

        fn take(&mut self, piece: &Packed, mark: Option<u64>, plain: &[u8]) {
            self.packed.extend_from_slice(&self.gzip.push(piece, mark));
            self.plain.extend_from_slice(plain);
        }

        /// Tells him one chunk, if there is something.
        fn tell(&mut self, runs: &mut Runs, ring: &Ring) {
            if self.next == ring.next() {
                return;
            }
            let (chunk, next) = runs.next(&self.filter, self.next, ring);
            assert!(next > self.next);
            self.next = next;
            if let Some((chunk, _)) = chunk {
                let piece = chunk.packed_after(self.gzip.mark()).clone();
                self.take(&piece, chunk.mark(), &chunk.plain().clone());
            }
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Event { other: bool, size: usize },
        Tell(prop::sample::Index),
        Bookmark(prop::sample::Index),
        Forget,
        Join { late: u64, namespaced: bool },
    }

    fn step() -> impl Strategy<Value = Step> {
        let size = prop_oneof![4 => 0..500_usize, 1 => 5_000..12_000_usize];
        prop_oneof![
            8 => (any::<bool>(), size).prop_map(|(other, size)| Step::Event { other, size }),
            8 => any::<prop::sample::Index>().prop_map(Step::Tell),
            1 => any::<prop::sample::Index>().prop_map(Step::Bookmark),
            1 => Just(Step::Forget),
            2 => (0..5_u64, any::<bool>()).prop_map(|(late, namespaced)| Step::Join { late, namespaced }),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whoever comes when, and whatever else he is told between: he reads every event from where he began once and in
        /// order, compressed or not.
        #[test]
        fn everyone_reads_every_event_in_order(steps in prop::collection::vec(step(), 1..60)) {
            let (mut ring, mut runs, mut events) = (Ring::starting(1, 5), Runs::default(), Vec::new());
            let mut watchers = vec![(Watcher::from(5, None), 0)];
            for (number, step) in steps.iter().enumerate() {
                let count = watchers.len();
                match step {
                    Step::Event { other, size } => {
                        let event = event(if *other { "b" } else { "a" }, number as i64 + 2, *size);
                        events.push(event.clone());
                        ring.push(event);
                    }
                    Step::Tell(who) => watchers[who.index(count)].0.tell(&mut runs, &ring),
                    Step::Bookmark(who) => {
                        let mark = format!("bookmark {number}\n");
                        watchers[who.index(count)].0.take(&Packed::new(mark.as_bytes(), &[]), None, mark.as_bytes());
                    }
                    Step::Forget => runs.forget(),
                    Step::Join { late, namespaced } => {
                        let from = ring.next().saturating_sub(*late).max(5);
                        watchers.push((Watcher::from(from, namespaced.then_some("a")), from as usize - 5));
                    }
                }
            }
            for (mut watcher, first) in watchers {
                while watcher.next < ring.next() {
                    watcher.tell(&mut runs, &ring);
                }
                let seen = events[first..].iter().filter(|event| event.seen_through(&watcher.filter).is_some());
                let expected: Vec<u8> = seen.flat_map(|event| event.frame(event.change).to_vec()).collect();
                let lines = watcher.plain.split_inclusive(|byte| *byte == b'\n');
                let told: Vec<u8> = lines.filter(|line| !line.starts_with(b"bookmark")).flatten().copied().collect();
                prop_assert!(told == expected);
                watcher.packed.extend_from_slice(&watcher.gzip.finish());
                let mut unpacked = Vec::new();
                GzDecoder::new(&*watcher.packed).read_to_end(&mut unpacked).unwrap();
                prop_assert!(unpacked == watcher.plain);
            }
        }
    }

    /// How many runs are made for so many who begin with event 0, where a megabyte waits.
    fn runs_for(watchers: usize) -> u64 {
        let (mut ring, mut runs) = (Ring::starting(1, 0), Runs::default());
        (2..130).for_each(|revision| ring.push(event("a", revision, 1200)));
        let mut crowd: Vec<Watcher> = (0..watchers).map(|_| Watcher::from(0, None)).collect();
        while crowd.iter().any(|watcher| watcher.next < ring.next()) {
            crowd.iter_mut().for_each(|watcher| watcher.tell(&mut runs, &ring));
        }
        let told = crowd[0].plain.clone();
        assert!(told.len() > 1_000_000 && crowd.iter().all(|watcher| watcher.plain == told), "{}", told.len());
        runs.count
    }

    #[test]
    fn a_crowd_far_behind_makes_no_more_runs_than_one() {
        assert_eq!(runs_for(10), runs_for(1));
    }

    #[test]
    fn who_is_told_the_same_shares_it() {
        let (mut ring, mut runs, filter) = (Ring::starting(1, 0), Runs::default(), everything_in(None));
        let mut leader = Watcher::from(0, None);
        for revision in 2..102 {
            ring.push(event("a", revision, 250));
            if revision % 2 == 1 {
                leader.tell(&mut runs, &ring);
            }
        }
        assert_eq!(runs.count, 50);
        // At a run's beginning with more than is told at once before him, between two runs, and before the end.
        for from in [0, 1, 96] {
            let (first, next) = runs.next(&filter, from, &ring);
            let count = runs.count;
            let (again, same) = runs.next(&filter, from, &ring);
            let (first, again) = (first.unwrap().0, again.unwrap().0);
            assert!(Arc::ptr_eq(&first, &again) && (next, count) == (same, runs.count), "from {from}");
        }
        assert_eq!(runs.next(&filter, 0, &ring).0.unwrap().0.plain().len().div_ceil(CHUNK_BYTES), 2);
    }

    #[test]
    fn an_event_is_packed_once_for_all_and_looks_back_at_the_one_before() {
        let (mut ring, mut runs) = (Ring::starting(1, 0), Runs::default());
        let mut parts: Vec<Watcher> = (0..4).map(|_| Watcher::from(0, None)).collect();
        let mut lengths = Vec::new();
        for revision in 2..30 {
            ring.push(event("a", revision, 100));
            let part = &mut parts[revision as usize % 4];
            let before = part.packed.len();
            part.tell(&mut runs, &ring);
            lengths.push((part.packed.len() - before, part.next));
        }
        let plain = event("a", 2, 100).frame(Change::Modified).len();
        let later = &lengths[lengths.len() - 4..];
        // Each is told four events at a time, in less than one would take by itself.
        assert!(later.iter().all(|(length, _)| *length < plain), "{later:?} of {plain} each");
        assert_eq!(runs.count, 28, "a run for each event, whoever was told it");
    }
}
