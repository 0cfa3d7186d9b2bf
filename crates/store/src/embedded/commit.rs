//! The committer: the only writer of the log, the index, the ring and the leases.
//!
//! ```text
//!  queue ──▶ evaluate in order (index + overlay) ──▶ one frame of the journal, one fsync ──▶ publish ──▶ answer all
//! ```
//!
//! Transactions that came in while the last fsync ran share the next one. Memory changes only after the disk has:
//! where the write fails, everybody in the batch hears [`Error::Unavailable`] and the store is as before.
//!
//! A thread of its own does this: it sleeps until somebody asks or a known deadline comes (a lease, a compaction, redb
//! having to follow the journal). Where writers come one at a time and processors are free, each commits himself instead
//! ([`commit_alone`]): waking one thread after another would take longer than the fsync.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};

use super::compact::Compaction;
use super::index::{Index, Version};
use super::lease::{Grant, Leases};
use super::queue::{Outcome, Reply, Taken, Wait, Work};
use super::ring::{Change, Entry};
use super::room::grows;
use super::row::{LeaseChange, Position, Writes};
use super::tidy::{AGE, RETRY_EVERY};
use super::{Options, Shared};
use crate::{Action, Error, Expect, LeaseId, Op, Revision};

/// Most superseded rows one write takes out of the log along the way.
pub(super) const REMOVED_PER_WRITE: usize = 256;

/// The longest the thread waits for writers to share an fsync; a quarter of what the last commit took, if that is less.
const GATHER_MAX: Duration = Duration::from_micros(500);

/// A writer who took longer than this to commit himself waited for a processor rather than for the disk, each time the
/// disk had done its part; or has a disk beside which it is nothing to wake a thread.
const ALONE_MAX: Duration = Duration::from_millis(1);
/// How long nobody commits himself then: a thread that has nothing else to do gets its processor sooner, and leaves the
/// writers' threads to their own work.
const NOT_ALONE: Duration = Duration::from_secs(5);

/// Work of the commit thread, until the queue is closed and empty.
pub(super) fn run(shared: &Shared, committer: &Mutex<Committer>) {
    loop {
        let wait = {
            let committer = committer.lock();
            let wait = committer.wait();
            shared.queue.will_wait(wait);
            wait
        };
        let taken = shared.queue.take(wait);
        let idle = matches!(taken, Taken::Nothing);
        match taken {
            Taken::Closed => break,
            Taken::Work(work) => process_and_gather(shared, committer, work),
            Taken::Nothing => {}
        }
        committer.lock().tidy(idle);
    }
    shared.watchers.close();
    drop(shared.log.close());
}

/// Writers that come one at a time are never delayed: a lone one is not waited for.
fn process_and_gather(shared: &Shared, committer: &Mutex<Committer>, work: Vec<Work>) {
    let (answered, started) = (work.len(), Instant::now());
    committer.lock().process(work);
    let crowded = answered + shared.queue.len() > 1;
    shared.queue.set_crowded(crowded);
    if crowded {
        let finished = Instant::now();
        shared.queue.gather(answered, finished + GATHER_MAX.min((finished - started) / 4));
    }
}

/// Commits on the caller's own thread, if nobody else wants to commit now and this thread may block; else gives the
/// operations back.
pub(super) fn commit_alone(shared: &Shared, committer: &Mutex<Committer>, ops: Vec<Op>) -> Result<Outcome, Vec<Op>> {
    let may_block = || Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if !shared.queue.is_quiet() || !may_block() {
        return Err(ops);
    }
    let begun = Instant::now();
    let Some(mut committer) = committer.try_lock().filter(|committer| committer.alone_from <= begun) else {
        return Err(ops);
    };
    let outcome = tokio::task::block_in_place(|| committer.commit_one(ops));
    let finished = Instant::now();
    if finished - begun > ALONE_MAX {
        committer.alone_from = finished + NOT_ALONE;
    }
    if let Some(deadline) = committer.deadline() {
        shared.queue.wake_by(deadline);
    }
    Ok(outcome)
}

/// What it takes to commit, beside what all share.
pub(super) struct Committer {
    pub(super) shared: Arc<Shared>,
    pub(super) leases: Leases,
    pub(super) compaction: Compaction,
    /// From when on a writer may commit himself.
    alone_from: Instant,
    /// When to make the file smaller.
    pub(super) shrink_at: Option<Instant>,
    /// When to find out whether the disk is well again.
    pub(super) retry_at: Option<Instant>,
    /// When to forget what is old in the ring.
    pub(super) age_at: Option<Instant>,
}

impl Committer {
    pub(super) fn new(shared: Arc<Shared>, leases: Leases, options: &Options) -> Committer {
        let compaction = Compaction::new(options, &shared.state.read());
        let alone_from = Instant::now();
        Committer { shared, leases, compaction, alone_from, shrink_at: None, retry_at: None, age_at: None }
    }

    /// When there is something to do without being asked; now, where something is under way.
    fn wait(&self) -> Wait {
        if self.compaction.is_running() {
            return Wait::No;
        }
        match self.deadline() {
            Some(deadline) => Wait::Until(deadline),
            None => Wait::ForWork,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let lease = self.leases.next_deadline().map(|(deadline, _)| deadline);
        let (compaction, flush) = (self.compaction.deadline(), self.shared.log.flush_deadline());
        let deadlines = [lease, compaction, flush, self.shrink_at, self.retry_at, self.age_at];
        deadlines.into_iter().flatten().min()
    }

    /// Transactions in a row are one batch; everything else is done on its own, in its turn.
    fn process(&mut self, work: Vec<Work>) {
        let mut transactions = Vec::with_capacity(work.len());
        for work in work {
            match work {
                Work::Commit(ops, reply) => {
                    transactions.push((ops, reply));
                    continue;
                }
                _ if !transactions.is_empty() => self.commit(std::mem::take(&mut transactions)),
                _ => {}
            }
            self.process_alone(work);
        }
        self.commit(transactions);
    }

    /// Answers go out as they are: who no longer waits for one has given up on it.
    fn process_alone(&mut self, work: Work) {
        match work {
            Work::Commit(ops, reply) => self.commit(vec![(ops, reply)]),
            Work::Grant(wanted, ttl_seconds, reply) => drop(reply.send(self.grant(wanted, ttl_seconds))),
            Work::Renew(lease, reply) => drop(reply.send(self.renew(lease))),
            Work::Revoke(lease, reply) => drop(reply.send(self.end_lease(lease))),
            Work::Compact(revision, wait, reply) => match self.start_compaction(revision) {
                Ok(()) if wait => self.compaction.tell_when_done(reply),
                started => drop(reply.send(started)),
            },
            Work::Other(work) => (work.0)(self),
        }
    }

    fn commit(&mut self, transactions: Vec<(Vec<Op>, Reply<Outcome>)>) {
        if transactions.is_empty() {
            return;
        }
        let (entries, answers) = self.evaluate(transactions);
        let written = self.write_and_publish(entries, None);
        for (reply, outcome) in answers {
            // Who no longer waits has given up on the answer.
            drop(reply.send(settled(&written, outcome)));
        }
    }

    fn commit_one(&mut self, ops: Vec<Op>) -> Outcome {
        let (entries, outcomes) = self.evaluate(vec![(ops, ())]);
        let written = self.write_and_publish(entries, None);
        let outcome = outcomes.into_iter().next().map(|((), outcome)| outcome);
        settled(&written, outcome.expect("there is an outcome for each transaction"))
    }

    /// Decides every transaction in order, each seeing what the ones before it will have written.
    fn evaluate<R>(&self, transactions: Vec<(Vec<Op>, R)>) -> (Vec<Entry>, Vec<(R, Outcome)>) {
        let state = self.shared.state.read();
        let mut batch = Batch {
            index: &state.index,
            leases: &self.leases,
            revision: state.revision,
            overlay: HashMap::new(),
            entries: Vec::new(),
        };
        let answers = transactions.into_iter().map(|(ops, reply)| (reply, batch.evaluate(ops))).collect();
        (batch.entries, answers)
    }

    /// Makes entries durable, together with a change of lease and a bounded part of what compaction has to remove, then
    /// visible.
    fn write_and_publish(&mut self, entries: Vec<Entry>, lease: Option<LeaseChange>) -> Result<(), Error> {
        if entries.is_empty() && lease.is_none() {
            return Ok(());
        }
        let removed = self.compaction.next_removals(REMOVED_PER_WRITE);
        let rows = entries.iter().flat_map(|entry| &entry.changes).map(|change| (change.at, change.row())).collect();
        let written = self.write(&Writes { rows, removed: removed.as_slice().into(), compacted: None, lease });
        if let Err(error) = written {
            self.compaction.not_removed(removed);
            return Err(error);
        }
        self.publish(entries.into_iter().map(Arc::new).collect());
        Ok(())
    }

    /// Writes, and remembers whether that is possible. On a disk that was full only what makes room is tried before there
    /// is enough of it, and proves nothing.
    pub(super) fn write(&mut self, writes: &Writes<'_>) -> Result<(), Error> {
        let lack = if self.is_full() { self.shared.log.lack_of_room() } else { None };
        if let Some(lack) = lack.as_ref().filter(|_| grows(writes)) {
            return Err(lack.clone());
        }
        let written = self.shared.log.write(writes);
        let has_failed = self.shared.failure.borrow().is_some();
        match &written {
            Err(error) => tracing::error!(%error, "cannot write to the store"),
            Ok(()) if has_failed && lack.is_none() => tracing::info!("the store can be written again"),
            Ok(()) => return written,
        }
        self.shared.failure.send_replace(written.clone().err());
        self.retry_at = written.is_err().then(|| Instant::now() + RETRY_EVERY);
        written
    }

    /// Whether the last write that failed found no room.
    pub(super) fn is_full(&self) -> bool {
        matches!(*self.shared.failure.borrow(), Some(Error::NoSpace(_)))
    }

    fn publish(&mut self, entries: Vec<Arc<Entry>>) {
        let Some(newest) = entries.last().map(|entry| entry.revision) else { return };
        for change in entries.iter().flat_map(|entry| &entry.changes) {
            self.leases.bind(&change.key, change.lease);
        }
        let mut state = self.shared.state.write();
        for entry in &entries {
            for change in &entry.changes {
                state.index.record(&change.key, change.version());
            }
            state.ring.push(entry.clone());
        }
        state.revision = newest;
        if state.ring.is_long() {
            self.age_at.get_or_insert_with(|| Instant::now() + AGE);
        }
        self.shared.watchers.published(&entries);
    }

    fn grant(&mut self, wanted: Option<LeaseId>, ttl_seconds: i64) -> Result<Grant, Error> {
        let grant = self.leases.next(wanted, ttl_seconds, (Instant::now(), SystemTime::now()));
        self.write_lease(grant.ok_or(Error::LeaseExists(wanted.unwrap_or(LeaseId(0))))?)
    }

    fn renew(&mut self, id: LeaseId) -> Result<Grant, Error> {
        let grant = self.leases.renewal(id, (Instant::now(), SystemTime::now()));
        self.write_lease(grant.ok_or(Error::LeaseNotFound(id))?)
    }

    fn write_lease(&mut self, grant: Grant) -> Result<Grant, Error> {
        self.write_and_publish(Vec::new(), Some(grant.change()))?;
        self.leases.granted(grant);
        Ok(grant)
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(super) fn leases(&self) -> &Leases {
        &self.leases
    }

    /// Lets somebody read, decide on the ground of that, and commit, while nobody else writes.
    pub(super) fn decide<T, E: From<Error>>(
        &mut self,
        decide: impl FnOnce(&Shared) -> Result<(Vec<Op>, T), E>,
    ) -> Result<(Revision, T), E> {
        let (ops, answer) = decide(&self.shared)?;
        match self.commit_one(ops) {
            Outcome::Committed(revision) => Ok((revision, answer)),
            Outcome::Failed(error) => Err(error.into()),
            Outcome::Conflict { key, .. } => Err(Error::Conflict { key, current: None }.into()),
        }
    }

    /// Ends a lease: its keys go in one ordinary transaction.
    pub(super) fn end_lease(&mut self, id: LeaseId) -> Result<(), Error> {
        let keys = self.leases.keys(id).ok_or(Error::LeaseNotFound(id))?;
        let entries = {
            let state = self.shared.state.read();
            let revision = state.revision + 1;
            let live = keys.iter().filter(|key| state.index.newest(key).is_some_and(|version| version.is_live()));
            let changes: Vec<Change> = live.enumerate().map(|(n, key)| removal(key, position(revision, n))).collect();
            if changes.is_empty() { Vec::new() } else { vec![Entry { revision, changes }] }
        };
        self.write_and_publish(entries, Some(LeaseChange::Ended(id)))?;
        self.leases.ended(id);
        Ok(())
    }

    pub(super) fn start_compaction(&mut self, revision: Revision) -> Result<(), Error> {
        {
            let state = self.shared.state.read();
            if revision > state.revision {
                return Err(Error::Future { requested: revision, current: state.revision });
            }
            if revision <= state.compacted {
                return Err(Error::Compacted { requested: revision, compacted: state.compacted });
            }
        }
        self.write(&Writes { compacted: Some(revision), ..Writes::default() })?;
        self.shared.state.write().compacted = revision;
        self.compaction.start(revision);
        Ok(())
    }
}

/// What was decided counts only if it was also written.
fn settled(written: &Result<(), Error>, outcome: Outcome) -> Outcome {
    match written {
        Ok(()) => outcome,
        Err(error) => Outcome::Failed(error.clone()),
    }
}

/// Transactions being decided: what the index says, under what the batch has decided so far.
struct Batch<'a> {
    index: &'a Index,
    leases: &'a Leases,
    revision: Revision,
    overlay: HashMap<Arc<str>, Version>,
    entries: Vec<Entry>,
}

impl Batch<'_> {
    fn evaluate(&mut self, ops: Vec<Op>) -> Outcome {
        for op in &ops {
            let current = self.live(&op.key);
            if !holds(op.expect, current) {
                return Outcome::Conflict { key: op.key.clone(), current };
            }
        }
        let named = ops.iter().filter_map(|op| if let Action::Put(_, lease) = op.action { lease } else { None });
        if let Some(lease) = named.into_iter().find(|lease| !self.leases.contains(*lease)) {
            return Outcome::Failed(Error::LeaseNotFound(lease));
        }
        let revision = self.revision + 1;
        let mut changes = Vec::with_capacity(ops.len());
        for op in ops {
            changes.extend(self.change(op, position(revision, changes.len())));
        }
        if changes.is_empty() {
            return Outcome::Committed(self.revision);
        }
        for change in &changes {
            self.overlay.insert(change.key.clone(), change.version());
        }
        self.revision = revision;
        self.entries.push(Entry { revision, changes });
        Outcome::Committed(revision)
    }

    fn live(&self, key: &str) -> Option<Version> {
        self.overlay.get(key).copied().or_else(|| self.index.newest(key)).filter(Version::is_live)
    }

    fn change(&self, op: Op, at: Position) -> Option<Change> {
        let current = self.live(&op.key);
        let key = || self.shared_key(&op.key);
        match op.action {
            Action::Check => None,
            Action::Delete => current.map(|_| removal(&key(), at)),
            Action::Put(value, lease) => Some(Change {
                key: key(),
                at,
                created: current.map_or(at.revision, |version| version.created),
                lease,
                writes: current.map_or(0, |version| version.writes).saturating_add(1),
                value,
            }),
        }
    }

    fn shared_key(&self, key: &str) -> Arc<str> {
        let in_batch = || self.overlay.get_key_value(key).map(|(key, _)| key.clone());
        self.index.shared_key(key).or_else(in_batch).unwrap_or_else(|| key.into())
    }
}

fn holds(expect: Expect, current: Option<Version>) -> bool {
    match expect {
        Expect::Any => true,
        Expect::Absent => current.is_none(),
        Expect::Unchanged(revision) => current.is_some_and(|version| version.at.revision == revision),
    }
}

fn removal(key: &Arc<str>, at: Position) -> Change {
    let value = bytes::Bytes::new();
    Change { key: key.clone(), at, created: 0, lease: None, writes: 0, value }
}

fn position(revision: Revision, op: usize) -> Position {
    Position { revision, op: u32::try_from(op).unwrap_or(u32::MAX) }
}
