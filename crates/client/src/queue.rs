//! A work queue of keys: equal keys merge, a key runs once at a time, failures come back later.
//!
//! The contract is `k8s.io/client-go/util/workqueue`'s: a key added while it runs is run once more when it is done.
//!
//! ```text
//!  add ──────────▶ ready ──take──▶ running ──finish──▶ (gone)
//!  add_after ─▶ delayed ──due──▶ ready        └── added meanwhile ──▶ ready
//! ```

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

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

/// When a delayed key is due, and a number that keeps equal instants apart.
type Due = (Instant, u64);

struct State<K> {
    ready: VecDeque<K>,
    /// Everything in `ready`, and every running key that was added again.
    wanted: HashSet<K>,
    running: HashSet<K>,
    delayed: BTreeMap<Due, K>,
    due: HashMap<K, Due>,
    failures: HashMap<K, u32>,
    sequence: u64,
}

struct Shared<K> {
    state: Mutex<State<K>>,
    changed: Notify,
    backoff_min: Duration,
    backoff_max: Duration,
}

/// The queue. Cheap to clone; clones share it.
pub struct WorkQueue<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue { shared: self.shared.clone() }
    }
}

impl<K: Clone + Eq + Hash + Send + Sync + 'static> WorkQueue<K> {
    /// An empty queue whose back-off for failures starts at `backoff_min` and doubles up to `backoff_max`.
    pub fn new(backoff_min: Duration, backoff_max: Duration) -> WorkQueue<K> {
        let state = Mutex::new(State::default());
        WorkQueue { shared: Arc::new(Shared { state, changed: Notify::new(), backoff_min, backoff_max }) }
    }

    /// Wants `key` looked at, soon. Does nothing if it is waiting already.
    pub fn add(&self, key: K) {
        self.shared.state.lock().want(key);
        self.shared.changed.notify_one();
    }

    /// Wants `key` looked at after `delay`, or sooner if something else asks for it. Of several delays for one key
    /// the earliest counts.
    pub fn add_after(&self, key: K, delay: Duration) {
        self.shared.state.lock().delay(key, Instant::now() + delay);
        self.shared.changed.notify_one();
    }

    /// How many keys wait to be run now (delayed ones not counted).
    pub fn len(&self) -> usize {
        self.shared.state.lock().ready.len()
    }

    /// Whether no key waits to be run now.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The next key; it counts as running until [`WorkQueue::finish`].
    async fn take(&self) -> K {
        loop {
            let changed = self.shared.changed.notified();
            let next_due = {
                let mut state = self.shared.state.lock();
                state.promote(Instant::now());
                if let Some(key) = state.start() {
                    // Another waiter may have to take over the rest, or the next deadline.
                    if !state.ready.is_empty() || !state.delayed.is_empty() {
                        self.shared.changed.notify_one();
                    }
                    return key;
                }
                state.delayed.first_key_value().map(|(due, _)| due.0)
            };
            match next_due {
                Some(due) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(due) => {}
                },
                None => changed.await,
            }
        }
    }

    fn finish(&self, key: K, outcome: Outcome) {
        let mut state = self.shared.state.lock();
        state.running.remove(&key);
        if state.wanted.contains(&key) {
            state.ready.push_back(key.clone());
        }
        match outcome {
            Outcome::Done => {
                state.failures.remove(&key);
            }
            Outcome::After(delay) => {
                state.failures.remove(&key);
                state.delay(key, Instant::now() + delay);
            }
            Outcome::Retry => {
                let failures = state.failures.entry(key.clone()).or_default();
                let delay = self.shared.backoff_min.saturating_mul(1 << (*failures).min(30));
                *failures += 1;
                state.delay(key, Instant::now() + delay.min(self.shared.backoff_max));
            }
        }
        drop(state);
        self.shared.changed.notify_one();
    }
}

impl<K> Default for State<K> {
    fn default() -> Self {
        State {
            ready: VecDeque::new(),
            wanted: HashSet::new(),
            running: HashSet::new(),
            delayed: BTreeMap::new(),
            due: HashMap::new(),
            failures: HashMap::new(),
            sequence: 0,
        }
    }
}

impl<K: Clone + Eq + Hash> State<K> {
    fn want(&mut self, key: K) {
        if self.wanted.insert(key.clone()) && !self.running.contains(&key) {
            self.ready.push_back(key);
        }
    }

    fn delay(&mut self, key: K, at: Instant) {
        if let Some(due) = self.due.get(&key) {
            if due.0 <= at {
                return;
            }
            self.delayed.remove(due);
        }
        self.sequence += 1;
        self.due.insert(key.clone(), (at, self.sequence));
        self.delayed.insert((at, self.sequence), key);
    }

    /// Moves delayed keys whose time has come to `ready`.
    fn promote(&mut self, now: Instant) {
        while let Some(entry) = self.delayed.first_entry() {
            if entry.key().0 > now {
                return;
            }
            let key = entry.remove();
            self.due.remove(&key);
            self.want(key);
        }
    }

    fn start(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        self.wanted.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }
}

/// Runs `work` for keys of `queue`, `workers` at a time, until `tasks` stop; a panic in `work` counts as a failure of
/// its key.
pub fn run_workers<K, W, F>(tasks: &Tasks, queue: &WorkQueue<K>, workers: usize, work: W)
where
    K: Clone + Eq + Hash + Send + Sync + Debug + 'static,
    W: Fn(K) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Outcome> + Send + 'static,
{
    for _ in 0..workers {
        let (queue, work) = (queue.clone(), work.clone());
        tasks.spawn(async move {
            loop {
                let key = queue.take().await;
                let outcome = AssertUnwindSafe(work(key.clone())).catch_unwind().await.unwrap_or_else(|_| {
                    tracing::error!(?key, "work on a key panicked");
                    Outcome::Retry
                });
                queue.finish(key, outcome);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MIN: Duration = Duration::from_millis(5);
    const MAX: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn equal_keys_merge_and_a_key_added_while_it_runs_runs_once_more() {
        let queue = WorkQueue::new(MIN, MAX);
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.len(), 1);
        let key = queue.take().await;
        queue.add("a");
        queue.add("a");
        assert!(queue.is_empty(), "a running key is not handed to a second worker");
        queue.finish(key, Outcome::Done);
        assert_eq!(queue.take().await, "a");
        queue.finish("a", Outcome::Done);
        assert!(queue.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn failures_come_back_with_a_doubling_delay_until_one_succeeds() {
        let queue = WorkQueue::new(MIN, MAX);
        queue.add("a");
        let mut delays = Vec::new();
        for _ in 0..10 {
            let key = queue.take().await;
            let before = Instant::now();
            queue.finish(key, Outcome::Retry);
            let key = queue.take().await;
            delays.push(before.elapsed().as_millis());
            queue.finish(key, Outcome::Retry);
        }
        assert_eq!(delays[..4], [5, 20, 80, 320]);
        assert_eq!(delays[9], 1000);
        queue.take().await;
        queue.finish("a", Outcome::Done);
        queue.add("a");
        queue.take().await;
        let before = Instant::now();
        queue.finish("a", Outcome::Retry);
        queue.take().await;
        assert_eq!(before.elapsed(), MIN);
    }

    #[tokio::test(start_paused = true)]
    async fn the_earliest_delay_of_a_key_counts() {
        let queue = WorkQueue::new(MIN, MAX);
        let start = Instant::now();
        queue.add_after("a", Duration::from_secs(5));
        queue.add_after("a", Duration::from_secs(2));
        queue.add_after("a", Duration::from_secs(9));
        queue.take().await;
        assert_eq!(start.elapsed(), Duration::from_secs(2));
        queue.finish("a", Outcome::Done);
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.take()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_is_a_failure_of_its_key_only() {
        let tasks = Tasks::new();
        let queue = WorkQueue::new(MIN, MAX);
        let (sent, mut seen) = tokio::sync::mpsc::unbounded_channel();
        run_workers(&tasks, &queue, 1, move |key: u32| {
            let sent = sent.clone();
            async move {
                sent.send(key).unwrap();
                assert!(key != 1, "a broken object");
                Outcome::Done
            }
        });
        queue.add(1);
        queue.add(2);
        let mut keys = Vec::new();
        for _ in 0..3 {
            keys.push(seen.recv().await.unwrap());
        }
        assert_eq!(keys, [1, 2, 1]);
        assert!(tasks.stop(MAX).await);
    }

    proptest! {
        /// Whatever is added in whatever order: every wanted key runs, none runs twice at once.
        #[test]
        fn nothing_wanted_is_lost(steps in proptest::collection::vec((0u8..5, 0u8..3), 0..200)) {
            let mut state = State::default();
            let mut owed = HashSet::new();
            for (key, step) in steps {
                match step {
                    0 => {
                        state.want(key);
                        owed.insert(key);
                    }
                    1 => {
                        if let Some(key) = state.start() {
                            prop_assert!(owed.remove(&key));
                        }
                    }
                    _ => {
                        if state.running.remove(&key) && state.wanted.contains(&key) {
                            state.ready.push_back(key);
                        }
                    }
                }
                prop_assert_eq!(&state.wanted, &owed);
            }
        }
    }
}
