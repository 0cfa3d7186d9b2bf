//! A watched cache of one kind: a single writer follows the API, everyone else holds a [`Lister`]. What is kept of an
//! object is for the owner to say: all of it, less than that ([`Informer::transform`]), or something else made of it
//! ([`Informer::keeping`]), which is what keeps a process with ten thousand pods small.
//!
//! ```text
//!            Init ─────────▶ InitApply* ─────▶ InitDone          Apply, Delete
//!  (list begins)        (gathered aside)   (swapped in,       (one change each)
//!                                           differences told)
//! ```

mod table;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use kube::api::Api;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::RwLock;
use tokio::sync::watch;

use self::table::{Kept, Key, Table, key};
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

type Handler<T> = Box<dyn Fn(&Change<T>) + Send + Sync>;
type Keep<K, T> = Box<dyn Fn(K) -> T + Send + Sync>;

struct Shared<K> {
    table: RwLock<Table<K>>,
    synced: watch::Sender<bool>,
}

/// A cache to be: add indexes and handlers, take listers, then [`Informer::run`].
pub struct Informer<K, T = K> {
    api: Api<K>,
    config: watcher::Config,
    handlers: Vec<Handler<T>>,
    listed: Vec<Box<dyn Fn() + Send + Sync>>,
    keep: Keep<K, T>,
    shared: Arc<Shared<T>>,
}

/// A read handle on the cache. Cheap to clone.
pub struct Lister<K> {
    shared: Arc<Shared<K>>,
}

impl<K> Clone for Lister<K> {
    fn clone(&self) -> Self {
        Lister { shared: self.shared.clone() }
    }
}

impl<K: 'static> Informer<K> {
    /// A cache of what `api` and `config` select.
    pub fn new(api: Api<K>, config: watcher::Config) -> Informer<K> {
        Informer::keeping(api, config, |object| object)
    }

    /// Changes every object before it is kept, to drop what nobody here reads. Call before `run`.
    pub fn transform(&mut self, transform: impl Fn(&mut K) + Send + Sync + 'static) {
        self.keep = Box::new(move |mut object| {
            transform(&mut object);
            object
        });
    }
}

impl<K, T> Informer<K, T> {
    /// A cache of what `keep` makes of what `api` and `config` select.
    pub fn keeping(
        api: Api<K>,
        config: watcher::Config,
        keep: impl Fn(K) -> T + Send + Sync + 'static,
    ) -> Informer<K, T> {
        let shared = Arc::new(Shared { table: RwLock::default(), synced: watch::Sender::new(false) });
        Informer { api, config, handlers: Vec::new(), listed: Vec::new(), keep: Box::new(keep), shared }
    }
}

impl<K, T> Informer<K, T>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned + Clone + Debug + Send + Sync + 'static,
    T: Send + Sync + 'static,
{
    /// Adds an index: `keys` gives the values under which [`Lister::by_index`] finds an object. Call before `run`.
    pub fn index(&mut self, name: &'static str, keys: impl Fn(&T) -> Vec<String> + Send + Sync + 'static) {
        self.shared.table.write().add_index(name, Box::new(keys));
    }

    /// Adds a handler, called for every change in order, after the cache shows it. It must not block. Call before
    /// `run`.
    pub fn on_change(&mut self, handler: impl Fn(&Change<T>) + Send + Sync + 'static) {
        self.handlers.push(Box::new(handler));
    }

    /// Adds a handler, called whenever the cache was listed anew and shows all there is, after what changed was told: what
    /// came and went between two lists was told to nobody. Call before `run`.
    pub fn on_listed(&mut self, handler: impl Fn() + Send + Sync + 'static) {
        self.listed.push(Box::new(handler));
    }

    /// A read handle; valid before and after `run`.
    pub fn lister(&self) -> Lister<T> {
        Lister { shared: self.shared.clone() }
    }

    /// Follows the API until `tasks` stop, reconnecting with back-off.
    pub fn run(self, tasks: &Tasks) {
        tasks.spawn(self.follow());
    }

    async fn follow(self) {
        let mut events = watcher(self.api.clone(), self.config.clone()).default_backoff().into_stream().boxed();
        let mut listed = HashMap::new();
        loop {
            match events.try_next().await {
                Ok(Some(event)) => self.step(event, &mut listed),
                Ok(None) => return,
                Err(error) => {
                    tracing::debug!(kind = %K::kind(&()), error = &error as &dyn std::error::Error, "watch interrupted");
                }
            }
        }
    }

    /// The one transition function of the cache.
    fn step(&self, event: watcher::Event<K>, listed: &mut HashMap<Key, Kept<T>>) {
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(object) => {
                listed.insert(key_of(&object), self.kept(object));
            }
            watcher::Event::InitDone => {
                self.replace(std::mem::take(listed));
                self.shared.synced.send_replace(true);
                self.listed.iter().for_each(|handler| handler());
            }
            watcher::Event::Apply(object) => self.apply(key_of(&object), Some(self.kept(object))),
            watcher::Event::Delete(object) => self.apply(key_of(&object), None),
        }
    }

    fn kept(&self, mut object: K) -> Kept<T> {
        // Larger than many an object, and nothing to decide by.
        object.meta_mut().managed_fields = None;
        let version = object.meta().resource_version.as_deref().map(Box::from);
        Kept { version, object: Arc::new((self.keep)(object)) }
    }

    fn replace(&self, listed: HashMap<Key, Kept<T>>) {
        let gone: Vec<Key> =
            self.shared.table.read().keys().filter(|key| !listed.contains_key(*key)).cloned().collect();
        for key in gone {
            self.apply(key, None);
        }
        for (key, object) in listed {
            self.apply(key, Some(object));
        }
    }

    fn apply(&self, key: Key, kept: Option<Kept<T>>) {
        let present = kept.as_ref().map(|kept| (kept.version.clone(), kept.object.clone()));
        let old = self.shared.table.write().set(key, kept);
        let change = match (old, present) {
            (Some(old), Some((version, _))) if old.version == version => return,
            (Some(old), Some((_, new))) => Change::Updated { old: old.object, new },
            (None, Some((_, new))) => Change::Added(new),
            (Some(old), None) => Change::Deleted(old.object),
            (None, None) => return,
        };
        for handler in &self.handlers {
            handler(&change);
        }
    }
}

impl<K> Lister<K> {
    /// The object of that name; `namespace` is `None` for cluster-scoped kinds.
    pub fn get(&self, namespace: Option<&str>, name: &str) -> Option<Arc<K>> {
        self.shared.table.read().get(&key(namespace, name)).cloned()
    }

    /// Every object, in no particular order.
    pub fn list(&self) -> Vec<Arc<K>> {
        self.shared.table.read().objects().cloned().collect()
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.shared.table.read().len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The objects that `index` files under `value`, in no particular order; none for an index nobody added.
    pub fn by_index(&self, index: &'static str, value: &str) -> Vec<Arc<K>> {
        self.shared.table.read().by_index(index, value).cloned().collect()
    }

    /// Waits until the first complete list is in the cache.
    pub async fn synced(&self) {
        let mut synced = self.shared.synced.subscribe();
        // The sender lives in `shared`, which `self` holds: waiting cannot fail.
        let _ = synced.wait_for(|done| *done).await;
    }
}

fn key_of<K: kube::Resource>(object: &K) -> Key {
    let meta = object.meta();
    key(meta.namespace.as_deref(), meta.name.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::ConfigMap;
    use parking_lot::Mutex;

    fn config_map(name: &str, version: &str, team: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.namespace = Some("default".into());
        map.metadata.name = Some(name.into());
        map.metadata.resource_version = Some(version.into());
        map.metadata.labels = Some([("team".to_owned(), team.to_owned())].into());
        map
    }

    /// An informer fed by hand, with the changes it told.
    fn informer() -> (Informer<ConfigMap>, Arc<Mutex<Vec<String>>>) {
        let service = tower::service_fn(|_| async {
            Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::empty()))
        });
        let client = kube::Client::new(service, "default");
        let mut informer = Informer::<ConfigMap>::new(Api::all(client), watcher::Config::default());
        informer.index("team", |map| map.metadata.labels.iter().flatten().map(|(_, v)| v.clone()).collect());
        let told = Arc::new(Mutex::new(Vec::new()));
        let log = told.clone();
        informer.on_change(move |change| {
            let name = change.object().metadata.name.clone().unwrap_or_default();
            let verb = match change {
                Change::Added(_) => "added",
                Change::Updated { .. } => "updated",
                Change::Deleted(_) => "deleted",
            };
            log.lock().push(format!("{verb} {name}"));
        });
        (informer, told)
    }

    fn feed(informer: &Informer<ConfigMap>, events: Vec<watcher::Event<ConfigMap>>) {
        let mut listed = HashMap::new();
        for event in events {
            informer.step(event, &mut listed);
        }
    }

    #[tokio::test]
    async fn a_relist_tells_only_differences() {
        use watcher::Event::*;
        let (mut informer, told) = informer();
        feed(
            &informer,
            vec![Init, InitApply(config_map("a", "1", "x")), InitApply(config_map("b", "2", "x")), InitDone],
        );
        told.lock().clear();
        let (log, lister) = (told.clone(), informer.lister());
        informer.on_listed(move || log.lock().push(format!("all {}", lister.len())));
        feed(
            &informer,
            vec![Init, InitApply(config_map("a", "1", "x")), InitApply(config_map("c", "3", "y")), InitDone],
        );
        assert_eq!(*told.lock(), ["deleted b", "added c", "all 2"]);
        assert!(informer.lister().get(Some("default"), "b").is_none());
        informer.lister().synced().await;
    }

    #[tokio::test]
    async fn an_index_follows_its_objects() {
        use watcher::Event::*;
        let (informer, told) = informer();
        let lister = informer.lister();
        feed(&informer, vec![Apply(config_map("a", "1", "x")), Apply(config_map("a", "2", "y"))]);
        assert!(lister.by_index("team", "x").is_empty());
        assert_eq!(lister.by_index("team", "y").len(), 1);
        feed(&informer, vec![Delete(config_map("a", "3", "y"))]);
        assert!(lister.by_index("team", "y").is_empty() && lister.is_empty());
        assert_eq!(*told.lock(), ["added a", "updated a", "deleted a"]);
    }

    #[tokio::test]
    async fn what_the_transform_drops_is_not_kept() {
        let (mut informer, _) = informer();
        informer.transform(|map| map.metadata.labels = None);
        feed(&informer, vec![watcher::Event::Apply(config_map("a", "1", "x"))]);
        assert_eq!(informer.lister().get(Some("default"), "a").unwrap().metadata.labels, None);
    }
}
