//! One copy of equal values, for as long as somebody holds one: ten thousand pods of one template have ten thousand
//! times the same labels.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// The values somebody holds, and some that were let go of since the last time there was no room.
#[derive(Debug)]
pub struct Interner<T: ?Sized> {
    known: HashSet<Arc<T>>,
}

impl<T: ?Sized> Default for Interner<T> {
    fn default() -> Self {
        Interner { known: HashSet::new() }
    }
}

impl<T: ?Sized + Eq + Hash + ToOwned> Interner<T>
where
    Arc<T>: From<T::Owned>,
{
    /// The copy of `value` that all share.
    pub fn share(&mut self, value: &T) -> Arc<T> {
        if let Some(shared) = self.known.get(value) {
            return shared.clone();
        }
        if self.known.len() == self.known.capacity() {
            self.make_room();
        }
        let shared: Arc<T> = value.to_owned().into();
        self.known.insert(shared.clone());
        shared
    }

    /// Lets go of what nobody else holds; grows only if more than half of the values stay.
    fn make_room(&mut self) {
        self.known.retain(|value| Arc::strong_count(value) > 1);
        if self.known.len() > self.known.capacity() / 2 {
            self.known.reserve(self.known.capacity());
        } else {
            self.known.shrink_to(4 * self.known.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one() {
        let mut interner = Interner::<str>::default();
        let (a, b) = (interner.share("a"), interner.share("b"));
        assert!(Arc::ptr_eq(&a, &interner.share("a")));
        assert_eq!((&*a, &*b), ("a", "b"));
    }

    #[test]
    fn what_nobody_holds_takes_no_room_for_long() {
        let mut interner = Interner::<str>::default();
        let held: Vec<_> = (0..1000).map(|n| interner.share(&n.to_string())).collect();
        assert!(held.iter().all(|value| Arc::ptr_eq(value, &interner.share(value))));
        (0..10_000).for_each(|n| drop(interner.share(&format!("passing {n}"))));
        assert!(interner.known.capacity() < 8000, "{}", interner.known.capacity());
        drop(held);
        (0..10_000).for_each(|n| drop(interner.share(&format!("passing {n}"))));
        assert!(interner.known.capacity() < 1000, "{}", interner.known.capacity());
    }
}
