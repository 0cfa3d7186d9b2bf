//! What writers of this process know of the values they are about to write, so that the cache need not decode them a
//! second time. A hint is only used for the very bytes it was made for.

use std::collections::HashMap;
use std::sync::Arc;

use api::Object;
use bytes::Bytes;
use parking_lot::Mutex;

use super::entry::Selectable;

/// The most hints kept; normally there are as many as writes under way.
const MAX_HINTS: usize = 1024;

/// Hints by key.
#[derive(Default)]
pub(super) struct Hints(Mutex<HashMap<String, (Bytes, Arc<Selectable>)>>);

impl Hints {
    /// Says what is in `value`, which is about to be written under `key`.
    pub(super) fn put(&self, key: &str, value: &Bytes, object: &dyn Object) {
        let select = Arc::new(Selectable::of(object));
        let mut hints = self.0.lock();
        if hints.len() >= MAX_HINTS {
            // Writes whose outcome nobody learned. What is lost is time, not truth.
            hints.clear();
        }
        hints.insert(key.to_owned(), (value.clone(), select));
    }

    /// What is known of `value`, which has been written under `key`.
    pub(super) fn take(&self, key: &str, value: &[u8]) -> Option<Arc<Selectable>> {
        let (known, select) = self.0.lock().remove(key)?;
        (known == value).then_some(select)
    }

    /// Forgets what was not written after all.
    pub(super) fn drop(&self, key: &str) {
        self.0.lock().remove(key);
    }
}
