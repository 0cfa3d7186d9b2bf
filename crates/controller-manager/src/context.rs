//! What every controller gets: a client, the shared caches, the tasks, and how to run its workers.

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use client::{Outcome, Recorder, Tasks, WorkQueue, run_workers};

use crate::Config;
use crate::informers::{Caches, Informers};
use crate::objects::Objects;
use crate::pod::PodInfo;
use crate::rest::Rest;

/// First back-off of a key that failed, as client-go's default controller rate limiter.
const BACKOFF_MIN: Duration = Duration::from_millis(5);
/// Longest back-off; upstream's is 1000 s, which no user waits for.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Handed to each controller's `register`.
pub(crate) struct Context {
    /// Fills the caches.
    client: kube::Client,
    /// Writes, for the controller that registers now.
    writer: kube::Client,
    /// Settings.
    pub(crate) config: Arc<Config>,
    /// Where workers run.
    pub(crate) tasks: Tasks,
    /// Writes and live reads, for the controller that registers now.
    pub(crate) rest: Rest,
    /// The shared caches, still open for handlers.
    pub(crate) informers: Informers,
    /// The metadata of all objects, still open for handlers.
    pub(crate) objects: Objects,
}

impl Context {
    /// Caches without handlers; nothing runs yet.
    pub(crate) fn new(client: kube::Client, config: Config, tasks: Tasks) -> Context {
        Context {
            config: Arc::new(config),
            tasks,
            rest: Rest::new(client.clone()),
            writer: client.clone(),
            informers: Informers::new(&client),
            objects: Objects::default(),
            client,
        }
    }

    /// Whoever registers from now on writes by `client`.
    pub(crate) fn write_by(&mut self, client: kube::Client) {
        self.rest = Rest::new(client.clone());
        self.writer = client;
    }

    /// Read handles on all caches.
    pub(crate) fn caches(&self) -> Caches {
        self.informers.caches()
    }

    /// A recorder of Events for a controller called `component`.
    pub(crate) fn recorder(&self, component: &str) -> Recorder {
        Recorder::new(self.writer.clone(), component, None, &self.tasks)
    }

    /// Runs `work` for keys of `queue` once `synced` says that the caches it reads are complete.
    pub(crate) fn run_workers<K, W, F>(
        &self,
        synced: impl Future<Output = ()> + Send + 'static,
        queue: &WorkQueue<K>,
        workers: usize,
        work: W,
    ) where
        K: Clone + Eq + Hash + Send + Sync + Debug + 'static,
        W: Fn(K) -> F + Clone + Send + Sync + 'static,
        F: Future<Output = Outcome> + Send + 'static,
    {
        let (tasks, queue) = (self.tasks.clone(), queue.clone());
        self.tasks.spawn(async move {
            synced.await;
            run_workers(&tasks, &queue, workers, work);
        });
    }

    /// Starts the watches; every handler is in place by now.
    pub(crate) fn run(mut self) {
        self.objects.run(&self.client, &mut self.informers, &self.tasks);
        self.informers.run(&self.tasks);
    }
}

/// A queue with the back-off all controllers share.
pub(crate) fn new_queue<K: Clone + Eq + Hash + Send + Sync + 'static>() -> WorkQueue<K> {
    WorkQueue::new(BACKOFF_MIN, BACKOFF_MAX)
}

/// A namespaced key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Namespace.
    pub(crate) namespace: String,
    /// Name.
    pub(crate) name: String,
}

impl Key {
    /// The key of the object that `name` in `namespace` means.
    pub(crate) fn new(namespace: impl Into<String>, name: impl Into<String>) -> Key {
        Key { namespace: namespace.into(), name: name.into() }
    }

    /// The key of a pod.
    pub(crate) fn of_pod(pod: &PodInfo) -> Key {
        Key::new(&*pod.namespace, &*pod.name)
    }

    /// The key of the object with this metadata.
    pub(crate) fn of(metadata: &kube::core::ObjectMeta) -> Key {
        Key::new(metadata.namespace.as_deref().unwrap_or(""), metadata.name.as_deref().unwrap_or(""))
    }
}

/// What the queue should do with a key whose sync ended in `result`; failures are logged here, once.
pub(crate) fn outcome<K: Debug>(controller: &str, key: &K, result: Result<Outcome, kube::Error>) -> Outcome {
    match result {
        Ok(outcome) => outcome,
        Err(error) if crate::rest::is_conflict(&error) => {
            tracing::debug!(controller, ?key, %error, "the object changed meanwhile, trying again");
            Outcome::Retry
        }
        Err(error) => {
            tracing::warn!(controller, ?key, %error, "sync failed, trying again");
            Outcome::Retry
        }
    }
}
