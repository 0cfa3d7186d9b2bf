//! Compaction: forgetting versions nobody may read any more, in steps that never hold up a writer for long.
//!
//! ```text
//!  due (policy or asked) ──▶ "compacted" is durable, older reads are refused
//!      ──▶ index pruned some keys at a time ──▶ rows removed from the log, some with each write
//! ```
//!
//! Policy: history is kept for at least `retention`, and for no more than about `history_max` superseded versions. The
//! deadline exists only while there is something to forget, so an idle store does nothing. A crash between the steps
//! leaves rows behind that the next open finds and removes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commit::REMOVED_PER_WRITE;
use super::queue::Reply;
use super::row::{Position, Writes};
use super::{Options, Shared, State};
use crate::{Error, Revision};

/// Keys of the index one step looks at while it holds the lock.
const PRUNED_PER_STEP: usize = 1024;

/// The policy and the work under way.
#[derive(Debug)]
pub(super) struct Compaction {
    retention: Duration,
    history_max: usize,
    /// When to compact up to which revision.
    mark: Option<(Instant, Revision)>,
    job: Option<Job>,
    /// Rows pruned from the index that are still in the log.
    condemned: Vec<Position>,
    /// Who wants to be told when nothing is left to do.
    waiting: Vec<Reply<Result<(), Error>>>,
}

#[derive(Debug)]
struct Job {
    revision: Revision,
    from: Option<Arc<str>>,
}

impl Compaction {
    pub(super) fn new(options: &Options, state: &State) -> Compaction {
        let unfinished = state.compacted > 0 && state.index.superseded() > 0;
        Compaction {
            retention: options.retention,
            history_max: options.history_max,
            mark: None,
            job: unfinished.then_some(Job { revision: state.compacted, from: None }),
            condemned: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// Whether there is a step to do now.
    pub(super) fn is_running(&self) -> bool {
        self.job.is_some() || !self.condemned.is_empty()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.mark.map(|(deadline, _)| deadline)
    }

    /// The revision the policy wants compacted now. Sets the next deadline.
    pub(super) fn due(&mut self, state: &State, now: Instant) -> Option<Revision> {
        let superseded = state.index.superseded();
        let something = superseded > 0 && state.revision > state.compacted;
        if superseded > self.history_max && something && !self.is_running() {
            return Some(crowded(state, self.history_max));
        }
        match self.mark {
            None if something => {
                self.mark = Some((now + self.retention, state.revision));
                None
            }
            Some((deadline, revision)) if deadline <= now => {
                self.mark = something.then_some((now + self.retention, state.revision));
                (something && revision > state.compacted).then_some(revision)
            }
            _ => None,
        }
    }

    /// Begins to forget everything that is not the newest at `revision`.
    pub(super) fn start(&mut self, revision: Revision) {
        self.job = Some(Job { revision, from: None });
    }

    /// Answers once what was started is done.
    pub(super) fn tell_when_done(&mut self, reply: Reply<Result<(), Error>>) {
        self.waiting.push(reply);
    }

    /// Rows for the next write to remove along the way.
    pub(super) fn next_removals(&mut self, at_most: usize) -> Vec<Position> {
        self.condemned.split_off(self.condemned.len().saturating_sub(at_most))
    }

    /// The write did not happen.
    pub(super) fn not_removed(&mut self, mut positions: Vec<Position>) {
        self.condemned.append(&mut positions);
    }

    /// Prunes some keys; removes some rows too where no write is waiting that could take them along.
    pub(super) fn step(&mut self, shared: &Shared, idle: bool) {
        if self.condemned.is_empty() {
            self.prune(shared);
        }
        if idle {
            self.remove(shared);
        }
        if !self.is_running() {
            self.waiting.drain(..).for_each(|reply| drop(reply.send(Ok(()))));
        }
    }

    fn remove(&mut self, shared: &Shared) {
        let removed = self.next_removals(REMOVED_PER_WRITE);
        if removed.is_empty() {
            return;
        }
        if let Err(error) = shared.log.write(&Writes { removed: removed.as_slice().into(), ..Writes::default() }) {
            // The rows stay in the log, unseen, until the next open finds them.
            tracing::warn!(%error, "cannot remove compacted versions");
            self.condemned.clear();
        }
    }

    fn prune(&mut self, shared: &Shared) {
        let Some(job) = &mut self.job else { return };
        let pruned = shared.state.write().index.prune(job.from.as_deref(), job.revision, PRUNED_PER_STEP);
        self.condemned = pruned.removed;
        job.from = pruned.next;
        if job.from.is_none() {
            self.job = None;
        }
    }
}

/// Where to cut when there is too much history: half of it stays, or half of the revisions where that is not enough.
fn crowded(state: &State, history_max: usize) -> Revision {
    let keep = Revision::try_from(history_max / 2).unwrap_or(Revision::MAX);
    match state.revision - keep {
        revision if revision > state.compacted => revision,
        _ => state.compacted + (state.revision - state.compacted + 1) / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::index::Version;

    fn state(revisions: &[(&str, bool)], compacted: Revision) -> State {
        let mut state = State::new(1 << 20);
        for (key, live) in revisions {
            state.revision += 1;
            let at = Position { revision: state.revision, op: 0 };
            state
                .index
                .record(&Arc::from(*key), Version { at, writes: u32::from(*live), created: Revision::from(*live) });
        }
        state.compacted = compacted;
        state
    }

    fn policy(history_max: usize) -> Compaction {
        let options = Options { retention: Duration::from_secs(10), history_max, ..Options::default() };
        Compaction::new(&options, &State::new(0))
    }

    #[test]
    fn nothing_is_planned_while_there_is_nothing_to_forget() {
        let now = Instant::now();
        for (what, state) in [
            ("empty", state(&[], 0)),
            ("only new keys", state(&[("a", true), ("b", true)], 0)),
            ("compacted up to the newest", state(&[("a", true), ("a", false)], 3)),
        ] {
            let mut policy = policy(100);
            assert_eq!((policy.due(&state, now), policy.deadline()), (None, None), "{what}");
        }
    }

    #[test]
    fn history_lives_for_the_retention_and_then_the_deadline_goes_away() {
        let now = Instant::now();
        let mut policy = policy(100);
        let mut state = state(&[("a", true), ("a", true)], 0);
        assert_eq!(policy.due(&state, now), None);
        assert_eq!(policy.due(&state, now + Duration::from_secs(9)), None);
        assert_eq!(policy.due(&state, now + Duration::from_secs(10)), Some(3));
        state.compacted = 3;
        state.index.prune(None, 3, 10);
        assert_eq!(policy.due(&state, now + Duration::from_secs(20)), None);
        assert_eq!(policy.deadline(), None);
    }

    #[test]
    fn too_much_history_goes_before_its_time() {
        let writes: Vec<_> = (0..50).map(|_| ("a", true)).collect();
        let mut policy = policy(20);
        assert_eq!(policy.due(&state(&writes, 0), Instant::now()), Some(51 - 10));
        assert_eq!(policy.due(&state(&writes, 45), Instant::now()), Some(48));
    }
}
