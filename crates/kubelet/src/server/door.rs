//! Who is let in. A client whom nobody knows yet has to say who he is soon, and there are few such at a time: for each
//! that comes when there are as many as may be, the one that waits longest goes. So connections that say nothing never keep
//! out who has something to say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// Connections at a time of clients who proved who they are; more are refused.
const MAX_KNOWN: usize = 256;
/// Connections at a time of others.
pub(super) const MAX_STRANGERS: usize = 64;
/// How long one stays a stranger: handshake, first request and the API server's word about it.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);

/// Keeps count of connections.
pub(super) struct Door {
    /// By when they came.
    strangers: Mutex<BTreeMap<u64, CancellationToken>>,
    came: AtomicU64,
    slots: Arc<Semaphore>,
}

impl Door {
    pub(super) fn new() -> Arc<Door> {
        let slots = Arc::new(Semaphore::new(MAX_KNOWN));
        Arc::new(Door { strangers: Mutex::default(), came: AtomicU64::new(0), slots })
    }

    /// Somebody comes.
    pub(super) fn enter(self: &Arc<Door>) -> Guest {
        let (number, sent_away) = (self.came.fetch_add(1, Ordering::Relaxed), CancellationToken::new());
        let mut strangers = self.strangers.lock();
        if strangers.len() >= MAX_STRANGERS
            && let Some((_, longest)) = strangers.pop_first()
        {
            longest.cancel();
        }
        strangers.insert(number, sent_away.clone());
        drop(strangers);
        Guest { door: self.clone(), number, sent_away, slot: OnceLock::new(), known: CancellationToken::new() }
    }
}

/// A connection's client.
pub(super) struct Guest {
    door: Arc<Door>,
    number: u64,
    sent_away: CancellationToken,
    slot: OnceLock<OwnedSemaphorePermit>,
    known: CancellationToken,
}

impl Guest {
    /// He proved who he is; whether there is room for him.
    pub(super) fn is_known(&self) -> bool {
        if self.slot.get().is_none() {
            let Ok(slot) = self.door.slots.clone().try_acquire_owned() else { return false };
            // Another of his requests may have been quicker: then this slot is free again.
            let _ = self.slot.set(slot);
            self.known.cancel();
            self.door.strangers.lock().remove(&self.number);
        }
        true
    }

    /// Resolves when he has to go: never, once he is known.
    pub(super) async fn has_to_go(&self) {
        tokio::select! {
            biased;
            () = self.known.cancelled() => std::future::pending().await,
            () = self.sent_away.cancelled() => {}
            () = tokio::time::sleep(KNOWN_WITHIN) => {}
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.door.strangers.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn goes(guest: &Guest) -> bool {
        guest.has_to_go().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_stranger_who_waits_longest_makes_room_for_the_next() {
        let door = Door::new();
        let known = door.enter();
        assert!(known.is_known());
        let first = door.enter();
        let others: Vec<Guest> = (1..MAX_STRANGERS).map(|_| door.enter()).collect();
        assert!(!goes(&first));
        let next = door.enter();
        assert!(goes(&first) && !goes(&next) && !goes(&known) && !others.iter().any(goes));
        drop(others);
        assert_eq!(door.strangers.lock().len(), 1, "who left is no stranger any more");
    }

    #[tokio::test(start_paused = true)]
    async fn a_stranger_has_to_say_soon_who_he_is() {
        let door = Door::new();
        let (silent, known) = (door.enter(), door.enter());
        assert!(known.is_known() && known.is_known());
        let begun = tokio::time::Instant::now();
        silent.has_to_go().await;
        assert_eq!(begun.elapsed(), KNOWN_WITHIN);
        assert!(tokio::time::timeout(KNOWN_WITHIN * 100, known.has_to_go()).await.is_err());
    }

    #[tokio::test]
    async fn there_is_room_for_so_many_only() {
        let door = Door::new();
        let mut known: Vec<Guest> = (0..MAX_KNOWN).map(|_| door.enter()).collect();
        assert!(known.iter().all(Guest::is_known));
        let late = door.enter();
        assert!(!late.is_known());
        known.pop();
        assert!(late.is_known());
    }
}
