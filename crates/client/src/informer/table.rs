//! What a cache holds, in little room: an index entry is a pointer, and tables that mostly emptied give their room back.

use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// `namespace/name`, `/name` for cluster-scoped objects: one allocation where a pair would be two.
pub(super) type Key = Box<str>;

/// The key of an object. A namespace has no slash in its name, so no two objects have one key.
pub(super) fn key(namespace: Option<&str>, name: &str) -> Key {
    [namespace.unwrap_or_default(), "/", name].concat().into_boxed_str()
}

/// Room for so many entries is not worth giving back.
const ROOM_KEPT: usize = 64;

pub(super) type KeysOf<T> = Box<dyn Fn(&T) -> Vec<String> + Send + Sync>;

/// What is kept of an object, and the resource version it was made of.
pub(super) struct Kept<T> {
    pub(super) version: Option<Box<str>>,
    pub(super) object: Arc<T>,
}

/// The objects by key and by what the indexes say.
pub(super) struct Table<T> {
    objects: HashMap<Key, Kept<T>>,
    indexes: Vec<Index<T>>,
}

struct Index<T> {
    name: &'static str,
    keys_of: KeysOf<T>,
    entries: HashMap<Box<str>, HashSet<Same<T>>>,
}

/// An object that equals only itself.
struct Same<T>(Arc<T>);

impl<T> PartialEq for Same<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Eq for Same<T> {}

impl<T> Hash for Same<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Table { objects: HashMap::new(), indexes: Vec::new() }
    }
}

impl<T> Table<T> {
    pub(super) fn add_index(&mut self, name: &'static str, keys_of: KeysOf<T>) {
        self.indexes.push(Index { name, keys_of, entries: HashMap::new() });
    }

    pub(super) fn get(&self, key: &str) -> Option<&Arc<T>> {
        self.objects.get(key).map(|kept| &kept.object)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.keys()
    }

    pub(super) fn objects(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.values().map(|kept| &kept.object)
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn by_index(&self, index: &str, value: &str) -> impl Iterator<Item = &Arc<T>> {
        let index = self.indexes.iter().find(|i| i.name == index);
        let objects = index.and_then(|i| i.entries.get(value));
        objects.into_iter().flatten().map(|same| &same.0)
    }

    /// Puts or removes one object here and in every index; returns what stood there.
    pub(super) fn set(&mut self, key: Key, kept: Option<Kept<T>>) -> Option<Kept<T>> {
        let new = kept.as_ref().map(|kept| kept.object.clone());
        let old = match kept {
            Some(kept) => self.objects.insert(key, kept),
            None => self.objects.remove(&key),
        };
        for index in &mut self.indexes {
            if let Some(old) = &old {
                index.remove(&old.object);
            }
            if let Some(new) = &new {
                index.insert(new);
            }
        }
        if let Some(room) = room_wanted(self.objects.len(), self.objects.capacity()) {
            self.objects.shrink_to(room);
        }
        old
    }
}

impl<T> Index<T> {
    fn insert(&mut self, object: &Arc<T>) {
        for value in (self.keys_of)(object) {
            self.entries.entry(value.into_boxed_str()).or_default().insert(Same(object.clone()));
        }
    }

    fn remove(&mut self, object: &Arc<T>) {
        for value in (self.keys_of)(object) {
            let Some(objects) = self.entries.get_mut(&*value) else { continue };
            objects.remove(&Same(object.clone()));
            if objects.is_empty() {
                self.entries.remove(&*value);
            } else if let Some(room) = room_wanted(objects.len(), objects.capacity()) {
                objects.shrink_to(room);
            }
        }
        if let Some(room) = room_wanted(self.entries.len(), self.entries.capacity()) {
            self.entries.shrink_to(room);
        }
    }
}

/// The room a table should shrink to: one that is mostly empty keeps twice what it needs, so that it does not have to
/// grow again soon.
fn room_wanted(len: usize, capacity: usize) -> Option<usize> {
    let room = (2 * len).max(ROOM_KEPT);
    (len < capacity / 8 && room < capacity).then_some(room)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(version: usize) -> Option<Kept<String>> {
        let version = version.to_string();
        Some(Kept { version: Some(version.as_str().into()), object: Arc::new(version) })
    }

    #[test]
    fn a_table_that_mostly_emptied_is_small_again() {
        let mut table = Table::<String>::default();
        table.add_index("one", Box::new(|_| vec!["all".to_owned()]));
        table.add_index("each", Box::new(|object| vec![object.clone()]));
        let room = |table: &Table<String>| {
            let entries = table.indexes.iter().flat_map(|i| i.entries.values().map(HashSet::capacity));
            table.objects.capacity() + table.indexes[1].entries.capacity() + entries.sum::<usize>()
        };
        (0..5000).for_each(|n| drop(table.set(key(None, &n.to_string()), kept(n))));
        let full = room(&table);
        (10..5000).for_each(|n| drop(table.set(key(None, &n.to_string()), None)));
        assert!(room(&table) < full / 10, "{} of {full}", room(&table));
        assert_eq!((table.len(), table.by_index("one", "all").count()), (10, 10));
        assert_eq!(table.by_index("each", "7").next(), table.get("/7"));
    }

    #[test]
    fn the_same_object_again_stays_in_its_indexes() {
        let mut table = Table::<String>::default();
        table.add_index("one", Box::new(|_| vec!["all".to_owned()]));
        for version in [1, 1, 2] {
            table.set(key(Some("n"), "a"), kept(version));
        }
        let filed: Vec<_> = table.by_index("one", "all").map(|object| object.as_str()).collect();
        assert_eq!(filed, ["2"]);
    }

    #[test]
    fn there_is_no_back_and_forth_at_the_bound() {
        assert_eq!(room_wanted(0, ROOM_KEPT), None);
        let (len, capacity) = (1000, 8008);
        let room = room_wanted(len, capacity).unwrap();
        assert_eq!((room, room_wanted(len, room), room_wanted(len / 2, room)), (2000, None, None));
    }
}
