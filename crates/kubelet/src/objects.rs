//! Secrets and ConfigMaps that pods of this node refer to: each is watched by name as long as some pod needs it, because
//! a node may read nothing else (`pkg/kubelet/util/manager/watch_based_manager.go`).

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::{WatchStreamExt, watcher};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::task::AbortOnDropHandle;

/// How long a pod waits for the first word about an object.
const FIRST_WORD: Duration = Duration::from_secs(30);

/// What is known of an object.
#[derive(Clone, Debug)]
pub enum Fetched<K> {
    /// Nothing yet.
    Unknown,
    /// There is none of that name.
    Missing,
    /// It is this.
    Present(Arc<K>),
    /// It may not or cannot be read.
    Failed(String),
}

/// Entries by namespace and name, as long as somebody refers to them.
type Entries<K> = HashMap<(String, String), Weak<Entry<K>>>;

/// All watched objects of one kind.
pub struct ObjectCache<K> {
    client: kube::Client,
    entries: Mutex<Entries<K>>,
}

struct Entry<K> {
    value: watch::Receiver<Fetched<K>>,
    wakers: Arc<Mutex<Vec<Weak<Notify>>>>,
    _task: AbortOnDropHandle<()>,
}

/// One pod's interest in one object; the watch ends with the last of them.
pub struct Reference<K> {
    entry: Arc<Entry<K>>,
}

impl<K> ObjectCache<K>
where
    K: kube::Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + k8s_openapi::Resource
        + Clone
        + Debug
        + serde::de::DeserializeOwned
        + Send
        + Sync
        + 'static,
{
    /// An empty cache.
    pub fn new(client: kube::Client) -> ObjectCache<K> {
        ObjectCache { client, entries: Mutex::default() }
    }

    /// Watches `namespace/name`; `wake` is notified of every change.
    pub fn refer(&self, namespace: &str, name: &str, wake: &Arc<Notify>) -> Reference<K> {
        let key = (namespace.to_owned(), name.to_owned());
        let mut entries = self.entries.lock();
        let entry = entries.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            entries.retain(|_, entry| entry.strong_count() > 0);
            let entry = Arc::new(self.follow(namespace, name));
            entries.insert(key, Arc::downgrade(&entry));
            entry
        });
        let mut wakers = entry.wakers.lock();
        wakers.retain(|waker| waker.strong_count() > 0);
        wakers.push(Arc::downgrade(wake));
        drop(wakers);
        Reference { entry }
    }

    fn follow(&self, namespace: &str, name: &str) -> Entry<K> {
        let api = kube::Api::namespaced(self.client.clone(), namespace);
        let (sender, value) = watch::channel(Fetched::Unknown);
        let wakers: Arc<Mutex<Vec<Weak<Notify>>>> = Arc::default();
        let (tell, name) = (wakers.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            let mut states = std::pin::pin!(watcher::watch_object::<K>(api, &name).default_backoff());
            while let Some(state) = states.next().await {
                let known = matches!(*sender.borrow(), Fetched::Present(_) | Fetched::Missing);
                let fetched = match state {
                    Ok(Some(object)) => Fetched::Present(Arc::new(object)),
                    Ok(None) => Fetched::Missing,
                    // What was read stays true until something newer is.
                    Err(_) if known => continue,
                    Err(error) => Fetched::Failed(error.to_string()),
                };
                sender.send_replace(fetched);
                tell.lock().iter().filter_map(Weak::upgrade).for_each(|waker| waker.notify_one());
            }
        });
        Entry { value, wakers, _task: AbortOnDropHandle::new(task) }
    }
}

impl<K> Reference<K> {
    /// The object, `None` if there is none. Waits for the first word about it, not for ever.
    pub async fn get(&self) -> Result<Option<Arc<K>>, String> {
        let mut value = self.entry.value.clone();
        let known = value.wait_for(|fetched| !matches!(fetched, Fetched::Unknown));
        match tokio::time::timeout(FIRST_WORD, known).await {
            Ok(Ok(fetched)) => match &*fetched {
                Fetched::Present(object) => Ok(Some(object.clone())),
                Fetched::Missing => Ok(None),
                Fetched::Failed(error) => Err(error.clone()),
                Fetched::Unknown => Err("not read yet".to_owned()),
            },
            Ok(Err(_)) => Err("its watch has ended".to_owned()),
            Err(_) => Err("timed out waiting for the condition".to_owned()),
        }
    }
}
