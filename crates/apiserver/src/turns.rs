//! Taking turns: those who are about to change the same keys go one after the other, instead of all trying and all but
//! one failing. Only a courtesy: what may not happen twice is for the store to refuse.

use std::hash::{BuildHasher, RandomState};

use tokio::sync::{Mutex, MutexGuard};

/// How many queues there are; namespaces share them by chance.
const QUEUES: usize = 64;

/// Queues by namespace.
pub(crate) struct Turns {
    queues: [Mutex<()>; QUEUES],
    hasher: RandomState,
}

impl Default for Turns {
    fn default() -> Turns {
        Turns { queues: std::array::from_fn(|_| Mutex::new(())), hasher: RandomState::new() }
    }
}

impl Turns {
    /// Waits for one's turn in a namespace; it lasts as long as the guard.
    pub(crate) async fn of(&self, namespace: &str) -> MutexGuard<'_, ()> {
        let hash = self.hasher.hash_one(namespace);
        let queue = usize::try_from(hash % QUEUES as u64).unwrap_or(0);
        self.queues[queue].lock().await
    }
}
