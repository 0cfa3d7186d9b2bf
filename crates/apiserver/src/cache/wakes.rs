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
use tokio::sync::watch;
use tokio::time::Instant;

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
    at_once: watch::Sender<u64>,
    parts: [watch::Sender<u64>; PARTS],
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
            at_once: watch::Sender::new(0),
            parts: std::array::from_fn(|_| watch::Sender::new(0)),
            turns: Mutex::default(),
        }
    }

    /// Waits from now on, in the smallest part.
    pub(super) fn subscribe(&self, urgency: Urgency) -> watch::Receiver<u64> {
        let smallest = || self.parts.iter().min_by_key(|part| part.receiver_count());
        match urgency {
            Urgency::AtOnce => self.at_once.subscribe(),
            Urgency::InTurn => smallest().unwrap_or(&self.at_once).subscribe(),
        }
    }

    /// How many wait.
    pub(super) fn watchers(&self) -> usize {
        self.at_once.receiver_count() + self.crowd()
    }

    fn crowd(&self) -> usize {
        self.parts.iter().map(watch::Sender::receiver_count).sum()
    }

    /// Tells everyone that the next event will get the number `next`.
    pub(super) fn tell(self: &Arc<Self>, next: u64) {
        self.newest.store(next, Ordering::SeqCst);
        tell(&self.at_once, next);
        if self.crowd() <= CROWD {
            self.parts.iter().for_each(|part| _ = tell(part, next));
            return;
        }
        let mut turns = self.turns.lock();
        if !std::mem::replace(&mut turns.are_taken, true) {
            tokio::spawn(self.clone().take_turns());
        }
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
            if part.receiver_count() > 0 && tell(part, newest) {
                turns.next = place + 1;
                return Some(part.receiver_count());
            }
        }
        turns.are_taken = false;
        None
    }
}

/// Whether it was news.
fn tell(part: &watch::Sender<u64>, next: u64) -> bool {
    part.send_if_modified(|number| std::mem::replace(number, next) != next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(wakes: &Wakes, count: usize) -> Vec<watch::Receiver<u64>> {
        (0..count).map(|_| wakes.subscribe(Urgency::InTurn)).collect()
    }

    fn told(watchers: &[watch::Receiver<u64>], number: u64) -> usize {
        watchers.iter().filter(|w| *w.borrow() == number).count()
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
        assert_eq!((*urgent.borrow(), told(&watchers, 1)), (1, 0));
        // The first part is told without waiting for anything.
        watchers[0].changed().await.unwrap();
        assert_eq!(begun.elapsed(), Duration::ZERO);
        let first = told(&watchers, 1);
        assert!((1..=1000 / PARTS + 1).contains(&first), "{first}");
        for watcher in &mut watchers[1..] {
            watcher.wait_for(|number| *number == 1).await.unwrap();
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
            watcher.wait_for(|number| *number == 50).await.unwrap();
        }
        drop(watchers);
        assert_eq!(wakes.watchers(), 0);
    }
}
