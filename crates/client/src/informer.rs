//! A watched cache of one kind: a single writer follows the API, everyone else holds a [`Lister`].

use std::sync::Arc;

use kube::api::Api;
use kube::runtime::watcher;

use crate::Tasks;

/// One difference between the cache before and after an event.
#[derive(Clone, Debug)]
pub enum Change<K> {
    /// The object is new to the cache.
    Added(Arc<K>),
    /// The object was known and has another resource version.
    Updated {
        /// What the cache held.
        old: Arc<K>,
        /// What it holds now.
        new: Arc<K>,
    },
    /// The object is gone; this is its last known state.
    Deleted(Arc<K>),
}

impl<K> Change<K> {
    /// The object as it is now, or last was.
    pub fn object(&self) -> &Arc<K> {
        match self {
            Change::Added(object) | Change::Deleted(object) => object,
            Change::Updated { new, .. } => new,
        }
    }
}

/// A cache to be: add indexes and handlers, take listers, then [`Informer::run`].
pub struct Informer<K> {
    _api: Api<K>,
    _config: watcher::Config,
}

/// A read handle on the cache. Cheap to clone.
pub struct Lister<K> {
    _marker: std::marker::PhantomData<K>,
}

impl<K> Clone for Lister<K> {
    fn clone(&self) -> Self {
        todo!()
    }
}

impl<K> Informer<K>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    /// A cache of what `api` and `config` select.
    pub fn new(api: Api<K>, config: watcher::Config) -> Informer<K> {
        Informer { _api: api, _config: config }
    }

    /// Adds an index: `keys` gives the values under which [`Lister::by_index`] finds an object. Call before `run`.
    pub fn index(&mut self, _name: &'static str, _keys: impl Fn(&K) -> Vec<String> + Send + Sync + 'static) {
        todo!()
    }

    /// Adds a handler, called for every change in order, after the cache shows it. It must not block. Call before
    /// `run`.
    pub fn on_change(&mut self, _handler: impl Fn(&Change<K>) + Send + Sync + 'static) {
        todo!()
    }

    /// A read handle; valid before and after `run`.
    pub fn lister(&self) -> Lister<K> {
        todo!()
    }

    /// Follows the API until `tasks` stop, reconnecting with back-off.
    pub fn run(self, _tasks: &Tasks) {
        todo!()
    }
}

impl<K> Lister<K> {
    /// The object of that name.
    pub fn get(&self, _namespace: Option<&str>, _name: &str) -> Option<Arc<K>> {
        todo!()
    }

    /// Every object, in no particular order.
    pub fn list(&self) -> Vec<Arc<K>> {
        todo!()
    }

    /// The objects that `index` files under `value`.
    pub fn by_index(&self, _index: &'static str, _value: &str) -> Vec<Arc<K>> {
        todo!()
    }

    /// Waits until the first complete list is in the cache.
    pub async fn synced(&self) {
        todo!()
    }
}
