//! Waiting for what a scenario expects: on a watch, with a limit.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, bail};
use client::{Informer, Tasks};
use kube::api::Api;
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use tokio::sync::Notify;

/// How long a scenario waits for what it expects. Generous: it is only ever used up by a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long stopping may take.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// Waits until the objects of a kind that `labels` select are as `expected` wants them; returns them.
pub async fn until<K>(
    client: &kube::Client,
    what: &str,
    labels: &str,
    expected: impl Fn(&[Arc<K>]) -> bool,
) -> Result<Vec<Arc<K>>>
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug + Send + Sync + 'static,
{
    let tasks = Tasks::new();
    let changed = Arc::new(Notify::new());
    let config = if labels.is_empty() { watcher::Config::default() } else { watcher::Config::default().labels(labels) };
    let mut informer = Informer::new(Api::<K>::all(client.clone()), config);
    let lister = informer.lister();
    let notify = changed.clone();
    informer.on_change(move |_| notify.notify_one());
    informer.run(&tasks);
    let waiting = async {
        lister.synced().await;
        loop {
            let objects = lister.list();
            if expected(&objects) {
                return objects;
            }
            changed.notified().await;
        }
    };
    let result = tokio::time::timeout(PATIENCE, waiting).await;
    tasks.stop(STOP_GRACE).await;
    match result {
        Ok(objects) => Ok(objects),
        Err(_) => bail!("not within {PATIENCE:?}: {what}; what is there: {:#?}", lister.list()),
    }
}
