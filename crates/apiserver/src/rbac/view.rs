//! The rights as the watch cache has them now: compiled again when a role or binding has changed, and only what has.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::rights::Rights;
use crate::cache::KindCache;

/// The four kinds, in the order of [`Sources`].
const KINDS: [&str; 4] = ["clusterroles", "roles", "clusterrolebindings", "rolebindings"];

/// The caches of the four kinds.
pub(super) type Sources = [Arc<KindCache>; 4];

/// Rights, and what they were made from.
pub(crate) struct View {
    sources: Sources,
    made: RwLock<(Versions, Arc<Rights>)>,
    /// Held by the one who compiles.
    making: Mutex<()>,
}

type Versions = [Option<u64>; 4];

impl View {
    pub(crate) fn new(cache_of: impl Fn(&str) -> Arc<KindCache>) -> View {
        View { sources: KINDS.map(cache_of), made: RwLock::default(), making: Mutex::default() }
    }

    /// The rights that everything in the cache gives.
    pub(crate) fn now(&self) -> Arc<Rights> {
        let current = |versions: &Versions| {
            let made = self.made.read();
            (made.0 == *versions).then(|| made.1.clone())
        };
        if let Some(rights) = current(&self.versions()) {
            return rights;
        }
        let _making = self.making.lock();
        // Read before the objects: what changes in between is seen the next time.
        let versions = self.versions();
        if let Some(rights) = current(&versions) {
            return rights;
        }
        let before = self.made.read().1.clone();
        let rights = Arc::new(before.renewed(&self.sources));
        *self.made.write() = (versions, rights.clone());
        rights
    }

    fn versions(&self) -> Versions {
        [0, 1, 2, 3].map(|index: usize| Some(self.sources[index].version()))
    }
}
