//! Signatures verified lately: verifying takes a hundred times as long as finding the result again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Results in one generation; there are two.
const GENERATION: usize = 4096;

/// Results by the digest of what was verified, the least used ones forgotten: when a generation is full it becomes the
/// old one, and what of that is not asked for again goes with the next change.
pub(super) struct Recent<V>(Mutex<Generations<V>>);

struct Generations<V> {
    young: HashMap<[u8; 32], Arc<V>>,
    old: HashMap<[u8; 32], Arc<V>>,
}

impl<V> Default for Recent<V> {
    fn default() -> Recent<V> {
        Recent(Mutex::new(Generations { young: HashMap::new(), old: HashMap::new() }))
    }
}

impl<V> Recent<V> {
    pub(super) fn get(&self, digest: &[u8; 32]) -> Option<Arc<V>> {
        let mut generations = self.0.lock();
        if let Some(found) = generations.young.get(digest) {
            return Some(found.clone());
        }
        let found = generations.old.remove(digest)?;
        generations.put(*digest, found.clone());
        Some(found)
    }

    pub(super) fn put(&self, digest: [u8; 32], value: Arc<V>) {
        self.0.lock().put(digest, value);
    }
}

impl<V> Generations<V> {
    fn put(&mut self, digest: [u8; 32], value: Arc<V>) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(number: usize) -> [u8; 32] {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_le_bytes());
        digest
    }

    #[test]
    fn what_is_used_stays_and_the_rest_is_bounded() {
        let recent = Recent::default();
        for number in 0..10 * GENERATION {
            recent.put(digest(number), Arc::new(number));
            assert_eq!(recent.get(&digest(0)).as_deref(), Some(&0), "used all the time");
        }
        let generations = recent.0.lock();
        assert!(generations.young.len() <= GENERATION && generations.old.len() <= GENERATION);
    }
}
