//! What the commit thread does without being asked: leases that end, compaction, a smaller file, a disk that is well again,
//! memory of what is long past.
//! Each has a deadline; between them the thread sleeps.

use std::time::{Duration, Instant};

use super::commit::Committer;
use super::row::Writes;

/// How soon after a compaction that freed much the file is made smaller, and how long after that at the earliest again.
const SHRINK_AFTER: Duration = Duration::from_secs(1);
const SHRINK_EVERY: Duration = Duration::from_secs(600);
/// Unasked it is done only where it is soon over: nobody reads or writes meanwhile.
const LIVE_MAX: u64 = 64 << 20;

/// How long after a write that failed an empty one is tried.
pub(super) const RETRY_EVERY: Duration = Duration::from_secs(5);

/// For how long the ring holds what happened, at least; up to twice that.
pub(super) const AGE: Duration = Duration::from_secs(30);

impl Committer {
    /// What has to be done whether somebody asks or not.
    pub(super) fn tidy(&mut self, idle: bool) {
        self.end_due_leases();
        self.compact(idle);
        self.shrink(idle);
        self.retry();
        self.age();
        if self.shared.log.flush_deadline().is_some_and(|deadline| deadline <= Instant::now())
            && let Err(error) = self.shared.log.flush()
        {
            tracing::error!(%error, "the store's file cannot follow its journal");
        }
    }

    fn end_due_leases(&mut self) {
        while let Some((deadline, id)) = self.leases.next_deadline() {
            if deadline > Instant::now() || self.end_lease(id).is_err() {
                return;
            }
        }
    }

    /// One bounded step of compaction, where one is due.
    fn compact(&mut self, idle: bool) {
        let due = self.compaction.due(&self.shared.state.read(), Instant::now());
        if let Some(revision) = due
            && let Err(error) = self.start_compaction(revision)
        {
            tracing::warn!(%error, revision, "cannot compact the store");
        }
        let was_running = self.compaction.is_running();
        self.compaction.step(&self.shared, idle);
        let done = was_running && !self.compaction.is_running();
        if done && self.shrink_at.is_none() && self.worth_shrinking() && self.shared.log.live_bytes() <= LIVE_MAX {
            self.shrink_at = Some(Instant::now() + SHRINK_AFTER);
        }
    }

    /// Gives back what large deletions left of the file, when nobody else wants anything.
    fn shrink(&mut self, idle: bool) {
        let is_due = self.shrink_at.is_some_and(|due| due <= Instant::now());
        if !is_due || !idle || self.compaction.is_running() {
            return;
        }
        let before = self.shared.log.file_bytes();
        let shrunk = self.shared.log.shrink();
        let after = self.shared.log.file_bytes();
        match shrunk {
            Ok(()) => tracing::info!(before, after, "the store's file was made smaller"),
            // Mostly somebody still reads.
            Err(error) => tracing::info!(%error, "the store's file is not made smaller now"),
        }
        // Not again and again, where there is nothing to win.
        self.shrink_at = self.worth_shrinking().then(|| Instant::now() + SHRINK_EVERY);
    }

    /// Live watches have long told what is old; whoever still needs it reads the log.
    fn age(&mut self) {
        if self.age_at.is_none_or(|due| due > Instant::now()) {
            return;
        }
        let mut state = self.shared.state.write();
        let old = state.ring.age();
        self.age_at = state.ring.is_long().then(|| Instant::now() + AGE);
        drop(state);
        drop(old);
    }

    fn worth_shrinking(&self) -> bool {
        self.shared.log.waste_bytes() > 0
    }

    /// Finds out whether a store that could not be written can be again, where nobody else tries. A disk is not tried
    /// before there is room.
    fn retry(&mut self) {
        if self.retry_at.is_none_or(|due| due > Instant::now()) {
            return;
        }
        self.retry_at = Some(Instant::now() + RETRY_EVERY);
        if !self.is_full() || self.shared.log.lack_of_room().is_none() {
            drop(self.write(&Writes::default()));
        }
    }
}
