//! The way to the commit thread: a queue bounded in bytes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::commit::Committer;
use super::index::Version;
use super::lease::Grant;
use crate::{Error, LeaseId, Op, Revision, limits};

/// How much may wait for the commit thread; who brings more waits for a place.
const QUEUE_BYTES: usize = 16 << 20;

/// One place in the queue. Each request takes one for itself and one for each of these many bytes it brings.
const SLOT_BYTES: usize = 1024;

/// The most bytes the thread takes at once, so that one batch does not become too large for the ring.
const BATCH_BYTES: usize = 2 << 20;

/// How a transaction ended. A conflict names the version; its value is read by who asked, not by the commit thread.
#[derive(Debug)]
pub(super) enum Outcome {
    Committed(Revision),
    Conflict { key: String, current: Option<Version> },
    Failed(Error),
}

/// Where an answer goes.
pub(super) type Reply<T> = oneshot::Sender<T>;

/// What the commit thread is asked to do.
#[derive(Debug)]
pub(super) enum Work {
    Commit(Vec<Op>, Reply<Outcome>),
    /// A lease of that many seconds, under an id that may be wanted.
    Grant(Option<LeaseId>, i64, Reply<Result<Grant, Error>>),
    Renew(LeaseId, Reply<Result<Grant, Error>>),
    Revoke(LeaseId, Reply<Result<(), Error>>),
    /// Forget what is before a revision; with `true` the answer waits until it is gone.
    Compact(Revision, bool, Reply<Result<(), Error>>),
    Other(Other),
}

/// Something done while nobody else writes.
pub(super) struct Other(pub(super) Box<dyn FnOnce(&mut Committer) + Send>);

impl std::fmt::Debug for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Other")
    }
}

impl Work {
    fn bytes(&self) -> usize {
        match self {
            Work::Commit(ops, _) => limits::bytes(ops),
            _ => 0,
        }
    }
}

/// The queue.
#[derive(Debug)]
pub(super) struct Queue {
    places: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    wake: Condvar,
    /// Whether writers have lately come more than one at a time.
    crowded: AtomicBool,
}

#[derive(Debug, Default)]
struct Waiting {
    work: VecDeque<(Work, OwnedSemaphorePermit)>,
    /// The commit thread sleeps until this many wait.
    wanted: usize,
    /// It is to look again at what it waits for.
    poked: bool,
    /// It waits until then at the latest.
    until: Option<Instant>,
    closed: bool,
}

/// What the commit thread finds.
pub(super) enum Taken {
    Work(Vec<Work>),
    /// Nobody asks for anything now (or the deadline has come).
    Nothing,
    /// Closed, and everything before was taken.
    Closed,
}

/// How long the commit thread may wait.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wait {
    No,
    Until(Instant),
    ForWork,
}

impl Queue {
    pub(super) fn new() -> Queue {
        Queue {
            places: Arc::new(Semaphore::new(QUEUE_BYTES / SLOT_BYTES)),
            waiting: Mutex::new(Waiting::default()),
            wake: Condvar::new(),
            crowded: AtomicBool::new(false),
        }
    }

    /// Puts work in the queue, once there is a place for it, and waits for its answer.
    pub(super) async fn ask<T>(&self, work: impl FnOnce(Reply<T>) -> Work) -> Result<T, Error> {
        let (reply, answer) = oneshot::channel();
        let work = work(reply);
        let places = u32::try_from(1 + work.bytes() / SLOT_BYTES).unwrap_or(u32::MAX);
        let permit = self.places.clone().acquire_many_owned(places).await.map_err(|_| closed())?;
        {
            let mut waiting = self.waiting.lock();
            if waiting.closed {
                return Err(closed());
            }
            waiting.work.push_back((work, permit));
            if waiting.work.len() >= waiting.wanted {
                self.wake.notify_one();
            }
        }
        answer.await.map_err(|_| closed())
    }

    /// Says how long the next [`Queue::take`] is going to wait, for [`Queue::wake_by`].
    pub(super) fn will_wait(&self, wait: Wait) {
        self.waiting.lock().until = if let Wait::Until(deadline) = wait { Some(deadline) } else { None };
    }

    /// Lets the commit thread look again where it would otherwise sleep beyond this deadline.
    pub(super) fn wake_by(&self, deadline: Instant) {
        let mut waiting = self.waiting.lock();
        if waiting.until.is_none_or(|until| deadline < until) {
            (waiting.until, waiting.poked) = (Some(deadline), true);
            self.wake.notify_one();
        }
    }

    /// Whether somebody who comes now is alone, as those before him were.
    pub(super) fn is_quiet(&self) -> bool {
        if self.crowded.load(Ordering::Relaxed) {
            return false;
        }
        let waiting = self.waiting.lock();
        waiting.work.is_empty() && !waiting.closed
    }

    /// Says whether writers come together.
    pub(super) fn set_crowded(&self, crowded: bool) {
        self.crowded.store(crowded, Ordering::Relaxed);
    }

    /// Takes what waits, at most [`BATCH_BYTES`] (but one request in any case).
    pub(super) fn take(&self, wait: Wait) -> Taken {
        let mut waiting = self.waiting.lock();
        while waiting.work.is_empty() {
            if waiting.closed {
                return Taken::Closed;
            }
            if std::mem::take(&mut waiting.poked) {
                return Taken::Nothing;
            }
            match wait {
                Wait::No => return Taken::Nothing,
                Wait::ForWork => self.wake.wait(&mut waiting),
                Wait::Until(deadline) if self.wake.wait_until(&mut waiting, deadline).timed_out() => {
                    return Taken::Nothing;
                }
                Wait::Until(_) => {}
            }
        }
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while let Some((work, permit)) = waiting.work.pop_front() {
            bytes += work.bytes();
            taken.push(work);
            drop(permit);
            if bytes >= BATCH_BYTES {
                break;
            }
        }
        Taken::Work(taken)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting.lock().work.len()
    }

    /// Lets those who were just answered come back, so that they share the next fsync with those who came meanwhile:
    /// without this, writers fall into two groups that wait for each other's fsyncs. Returns when as many wait as could
    /// be expected, or at the deadline.
    pub(super) fn gather(&self, answered: usize, deadline: Instant) {
        let mut waiting = self.waiting.lock();
        waiting.wanted = answered + waiting.work.len();
        while waiting.work.len() < waiting.wanted && !waiting.closed {
            if self.wake.wait_until(&mut waiting, deadline).timed_out() {
                break;
            }
        }
        waiting.wanted = 0;
    }

    /// Nothing more is let in; what waits is still done.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.places.close();
        self.wake.notify_all();
    }
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".to_owned())
}
