//! A work queue of keys: equal keys merge, a key runs once at a time, failures come back later.
//!
//! The contract is `k8s.io/client-go/util/workqueue`'s: a key added while it runs is run once more when it is done.

use std::future::Future;
use std::hash::Hash;
use std::time::Duration;

use crate::Tasks;

/// What a worker wants of its key next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing until it is added again; its back-off is forgotten.
    Done,
    /// Look again after this time (a known deadline); its back-off is forgotten.
    After(Duration),
    /// It failed: look again after a back-off that doubles with every failure in a row.
    Retry,
}

/// The queue. Cheap to clone; clones share it.
pub struct WorkQueue<K> {
    _marker: std::marker::PhantomData<K>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        todo!()
    }
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> WorkQueue<K> {
    /// An empty queue whose back-off for failures starts at `backoff_min` and doubles up to `backoff_max`.
    pub fn new(_backoff_min: Duration, _backoff_max: Duration) -> WorkQueue<K> {
        todo!()
    }

    /// Wants `key` looked at, soon. Does nothing if it is waiting already.
    pub fn add(&self, _key: K) {
        todo!()
    }

    /// Wants `key` looked at after `delay`, or sooner if something else asks for it. Of several delays for one key
    /// the earliest counts.
    pub fn add_after(&self, _key: K, _delay: Duration) {
        todo!()
    }

    /// How many keys wait to be run now (delayed ones not counted).
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether no key waits to be run now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Runs `work` for keys of `queue`, `workers` at a time, until `tasks` stop; a panic in `work` counts as a failure of
/// its key.
pub fn run_workers<K, W, F>(_tasks: &Tasks, _queue: &WorkQueue<K>, _workers: usize, _work: W)
where
    K: Clone + Eq + Hash + Send + Sync + std::fmt::Debug + 'static,
    W: Fn(K) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    todo!()
}
