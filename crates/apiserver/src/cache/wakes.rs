//! Waking the watchers of a kind.
//!
//! A few are woken with every event. A crowd is told in turns, one part of it after another, each part at most once in
//! a while: waking everybody for every event would leave no processor for anything else, and waking all of a crowd at
//! once would make its last wait for all before it, and every request with them. What the control plane itself watches is
//! never put off.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::bell::{Bell, Listener};

/// More watchers than this are a crowd.
const CROWD: usize = 100;
/// How many parts a crowd has.
const PARTS: usize = 64;
/// How long telling one watcher of a crowd may take; the next part's turn comes when the one before should be through.
const PER_WATCHER: Duration = Duration::from_micros(13);
/// How late a turn may be for the next ones to make up for it: timers are as fine as a millisecond, several turns.
const MADE_UP: Duration = Duration::from_millis(2);

/// How urgently a watcher is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Urgency {
    /// In its turn, where there is a crowd.
    InTurn,
    /// At once.
    AtOnce,
}

/// Everybody who waits for news of a kind. What is told is the number of the next event.
pub(super) struct Wakes {
    newest: AtomicU64,
    at_once: Arc<Bell>,
    parts: [Arc<Bell>; PARTS],
    turns: Mutex<Turns>,
}

#[derive(Default)]
struct Turns {
    /// Whose turn it is.
    next: usize,
    /// Whether a task is at it.
    are_taken: bool,
}

impl Wakes {
    pub(super) fn new() -> Wakes {
        Wakes {
            newest: AtomicU64::new(0),
            at_once: Arc::default(),
            parts: std::array::from_fn(|_| Arc::default()),
            turns: Mutex::default(),
        }
    }

    /// Waits from now on, in the smallest part.
    pub(super) fn subscribe(&self, urgency: Urgency) -> Listener {
        let smallest = || self.parts.iter().min_by_key(|part| part.listeners());
        match urgency {
            Urgency::AtOnce => self.at_once.listen(),
            Urgency::InTurn => smallest().unwrap_or(&self.at_once).listen(),
        }
    }

    /// How many wait.
    pub(super) fn watchers(&self) -> usize {
        self.at_once.listeners() + self.crowd()
    }

    fn crowd(&self) -> usize {
        self.parts.iter().map(|part| part.listeners()).sum()
    }

    /// Tells everyone that the next event will get the number `next`.
    pub(super) fn tell(self: &Arc<Self>, next: u64) {
        self.newest.store(next, Ordering::SeqCst);
        self.at_once.tell(next);
        if self.crowd() <= CROWD {
            self.parts.iter().for_each(|part| _ = part.tell(next));
            return;
        }
        let mut turns = self.turns.lock();
        if !std::mem::replace(&mut turns.are_taken, true) {
            tokio::spawn(self.clone().take_turns());
        }
    }

    /// Tells everyone that this was all.
    pub(super) fn close(&self) {
        self.at_once.close();
        self.parts.iter().for_each(|part| part.close());
    }

    /// Tells one part after the other until all know the newest.
    async fn take_turns(self: Arc<Self>) {
        let mut due = Instant::now();
        while let Some(told) = self.take_turn() {
            let now = Instant::now();
            due = due.max(now - MADE_UP) + PER_WATCHER * u32::try_from(told).unwrap_or(u32::MAX);
            if due > now {
                tokio::time::sleep_until(due).await;
            } else {
                // Requests that came meanwhile are not kept waiting by more than one part.
                tokio::task::yield_now().await;
            }
        }
    }

    /// Tells the next part that does not know the newest; how many that were. `None` when there is none.
    fn take_turn(&self) -> Option<usize> {
        let mut turns = self.turns.lock();
        // Under the lock: whoever brings a newer one after this look finds that nobody is at it, and begins anew.
        let newest = self.newest.load(Ordering::SeqCst);
        for place in (0..PARTS).map(|n| (turns.next + n) % PARTS) {
            let part = &self.parts[place];
            if part.listeners() > 0 && part.tell(newest) {
                turns.next = place + 1;
                return Some(part.listeners());
            }
        }
        turns.are_taken = false;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(wakes: &Wakes, count: usize) -> Vec<Listener> {
        (0..count).map(|_| wakes.subscribe(Urgency::InTurn)).collect()
    }

    async fn until(watcher: &mut Listener, number: u64) {
        while watcher.number() != number {
            watcher.mark_heard();
            watcher.news().await.unwrap();
        }
    }

    fn told(watchers: &[Listener], number: u64) -> usize {
        watchers.iter().filter(|w| w.number() == number).count()
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_are_told_at_once() {
        let wakes = Arc::new(Wakes::new());
        let watchers = waiting(&wakes, CROWD);
        wakes.tell(7);
        assert_eq!(told(&watchers, 7), CROWD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_is_told_in_turns_and_in_time_and_what_is_urgent_at_once() {
        let wakes = Arc::new(Wakes::new());
        let (mut watchers, urgent) = (waiting(&wakes, 1000), wakes.subscribe(Urgency::AtOnce));
        let begun = Instant::now();
        wakes.tell(1);
        assert_eq!((urgent.number(), told(&watchers, 1)), (1, 0));
        // The first part is told without waiting for anything.
        watchers[0].news().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let first = told(&watchers, 1);
        assert!((1..=1000 / PARTS + 1).contains(&first), "{first}");
        for watcher in &mut watchers[1..] {
            until(watcher, 1).await;
        }
        let round = PER_WATCHER * 1000;
        assert!(begun.elapsed() <= round + Duration::from_millis(2), "{:?}", begun.elapsed());
        // Those who wait in parts that nobody is left in are not waited for, and nobody goes on when all know.
        tokio::time::sleep(round).await;
        assert!(!wakes.turns.lock().are_taken);
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_while_turns_are_taken_reaches_everyone() {
        let wakes = Arc::new(Wakes::new());
        let mut watchers = waiting(&wakes, 300);
        for number in 1..=50 {
            wakes.tell(number);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for watcher in &mut watchers {
            until(watcher, 50).await;
        }
        drop(watchers);
        assert_eq!(wakes.watchers(), 0);
    }
}
