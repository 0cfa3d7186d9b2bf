//! The watch cache: the latest state of every kind and a bounded past, fed by one watch on the store.
//!
//! ```text
//!  store ──one watch──▶ feeder ──by kind──▶ KindCache: latest state (GET, LIST) + ring of events (WATCH)
//! ```
//!
//! An object is decoded once and encoded once, whoever reads it: a LIST joins slices, a watch event is a slice.
//! Watchers are cursors into the ring; nothing is queued for them, and nobody waits for a slow one.
//! Compare `k8s.io/apiserver/pkg/storage/cacher`.

mod age;
mod bell;
mod chunk;
mod entry;
mod feeder;
mod filter;
mod fresh;
mod hints;
mod kind_cache;
mod ring;
mod runs;
mod wakes;

use std::collections::HashMap;
use std::sync::Arc;

use api::{Kind, Object, kinds};
use bytes::Bytes;
use store::{Revision, Store};
use tokio::sync::watch;

pub(crate) use age::age;
pub(crate) use bell::Closed;
pub(crate) use chunk::Chunk;
pub(crate) use entry::{Change, Entry, Identity, encode_with_revision};
pub(crate) use feeder::{load, run};
pub(crate) use filter::Filter;
pub(crate) use kind_cache::{Cursor, FellBehind, KindCache, Snapshot};
pub(crate) use ring::CacheEvent;
pub(crate) use runs::SharedChunk;
pub(crate) use wakes::Urgency;

use crate::rbac;

/// The cache of everything under `/registry/`.
pub(crate) struct Cache {
    store: Arc<dyn Store>,
    by_plural: HashMap<&'static str, Arc<KindCache>>,
    /// Every change up to this revision is in, for all kinds.
    revision: watch::Sender<Revision>,
    fresh: fresh::RevisionReads,
    hints: hints::Hints,
    rights: rbac::View,
}

impl Cache {
    pub(crate) fn new(store: Arc<dyn Store>) -> Cache {
        let mut by_plural = HashMap::new();
        for kind in kinds().filter(|kind| kind.info.is_stored()) {
            by_plural.entry(kind.info.plural).or_insert_with(|| Arc::new(KindCache::new(kind)));
        }
        let (fresh, hints) = (fresh::RevisionReads::default(), hints::Hints::default());
        let rights = rbac::View::new(|plural| by_plural[plural].clone());
        Cache { store, by_plural, revision: watch::Sender::new(0), fresh, hints, rights }
    }

    /// Tells the cache what is in a value that is about to be written.
    pub(crate) fn expect(&self, key: &str, value: &Bytes, object: &dyn Object) {
        self.hints.put(key, value, object);
    }

    /// Takes that back: it was not written.
    pub(crate) fn forget(&self, key: &str) {
        self.hints.drop(key);
    }

    /// Who has which rights, as the roles and bindings here say.
    pub(crate) fn rights(&self) -> Arc<rbac::Rights> {
        self.rights.now()
    }

    /// The cache of one kind. Kinds that share a plural share their objects.
    pub(crate) fn of(&self, kind: &Kind) -> &Arc<KindCache> {
        self.by_plural
            .get(kind.info.plural)
            .expect("there is a cache for every stored kind, and virtual ones are answered before")
    }

    /// The cache whose keys `key` is one of.
    fn of_key(&self, key: &str) -> Option<&Arc<KindCache>> {
        let (plural, _) = key.strip_prefix(REGISTRY)?.split_once('/')?;
        self.by_plural.get(plural)
    }

    /// The revision up to which everything is in.
    pub(crate) fn revision(&self) -> Revision {
        *self.revision.borrow()
    }

    /// Lets the past of all kinds age; whether there will be something to forget next time.
    fn age(&self) -> bool {
        self.kinds().filter(|kind| kind.age()).count() > 0
    }

    /// Nothing will be told any more: whoever waits for news hears that.
    fn close(&self) {
        self.kinds().for_each(|kind| kind.close());
    }

    pub(crate) fn kinds(&self) -> impl Iterator<Item = &Arc<KindCache>> {
        self.by_plural.values()
    }
}

/// Where objects live in the store.
pub(crate) const REGISTRY: &str = "/registry/";
