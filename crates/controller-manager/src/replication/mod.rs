//! Keeps exactly as many pods as something asks for: the replication controller.
//!
//! ```text
//!  pods, controllers ──▶ queue ──▶ sync: expectations met? ──▶ plan ──▶ execute ──▶ plan_status ──▶ write status
//!                                        │ no: only the status
//! ```
//!
//! Behaviour follows `pkg/controller/replicaset/replica_set.go`, which upstream uses for replication controllers too.
//! - [`replicas`]: what asks for pods, as a trait.
//! - [`plan`]: what must happen; [`ranks`]: whom to delete; [`status`]: what to say about it.
//! - [`expectations`]: what was asked of the API and not seen yet, so that a slow cache causes no storm.
//! - [`execute`]: does it.

mod execute;
mod expectations;
mod plan;
mod ranks;
mod replicas;
mod status;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Instant;

use client::{Change, Lister, Outcome, Recorder, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Error;

use crate::context::{Context, Key, new_queue, outcome};
use crate::informers::{BY_LABEL, BY_OWNER, BY_SELECTOR, label_keys, selector_key};
use crate::pod::PodInfo;
use crate::rest::Rest;
use expectations::Expectations;
use replicas::Replicas;

const NAME: &str = "replication-controller";
/// Controllers of different names are looked at this many at once; upstream's `--concurrent-rc-syncs`.
const WORKERS: usize = 5;

/// The controller for one kind of owner.
struct Replication<R> {
    owners: Lister<R>,
    pods: Lister<PodInfo>,
    expectations: Expectations<Key>,
    queue: WorkQueue<Key>,
    rest: Rest,
    recorder: Recorder,
}

/// Adds the replication controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Replication::<ReplicationController> {
        owners: caches.replication_controllers.clone(),
        pods: caches.pods.clone(),
        expectations: Expectations::new(),
        queue: new_queue(),
        rest: context.rest.clone(),
        recorder: context.recorder(NAME),
    });

    let c = controller.clone();
    context.informers.replication_controllers.on_change(move |change| c.owner_changed(change));
    let c = controller.clone();
    context.informers.pods.on_change(move |change| c.pod_changed(change));

    let synced = async move {
        caches.replication_controllers.synced().await;
        caches.pods.synced().await;
    };
    let queue = controller.queue.clone();
    context.run_workers(synced, &queue, WORKERS, move |key| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&key).await;
            outcome(NAME, &key, result)
        }
    });
}

impl<R: Replicas> Replication<R> {
    async fn sync(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(owner) = self.owners.get(Some(&key.namespace), &key.name) else {
            self.expectations.forget(key);
            return Ok(Outcome::Done);
        };
        let unmet = self.expectations.unmet(key, Instant::now());
        let pods = self.pods_for(&*owner);
        let mut failure = status::Failure::Unchanged;
        let mut result = Ok(());
        if unmet.is_none() {
            let actions = plan::plan(&*owner, &pods, Timestamp::now());
            result = execute::execute(self, key, &owner, actions).await;
            failure = status::Failure::of(&result, &*owner, &pods);
        }

        let status = status::plan(&*owner, &pods, failure, Timestamp::now());
        if let Some(new) = status.write {
            execute::write_status(&self.rest, key, owner.with_status(new)).await?;
        }
        result?;
        // Events end the wait for expectations; the deadline is for an event that never comes.
        Ok(unmet.into_iter().chain(status.next).min().map_or(Outcome::Done, Outcome::After))
    }

    /// The pods `owner` controls and those without a controller that it may adopt.
    fn pods_for(&self, owner: &R) -> Vec<Arc<PodInfo>> {
        let metadata = k8s_openapi::Metadata::metadata(owner);
        let mut pods = self.pods.by_index(BY_OWNER, metadata.uid.as_deref().unwrap_or_default());
        if let Some(label) = selector_key(metadata, owner.match_labels()) {
            let labelled = self.pods.by_index(BY_LABEL, &label);
            pods.extend(labelled.into_iter().filter(|pod| pod.controller().is_none()));
        }
        pods
    }

    fn owner_changed(&self, change: &Change<R>) {
        let key = Key::of(k8s_openapi::Metadata::metadata(&**change.object()));
        let gone = match change {
            Change::Added(_) => false,
            Change::Deleted(_) => true,
            Change::Updated { old, new } => old.meta().uid != new.meta().uid,
        };
        if gone {
            self.expectations.forget(&key);
        }
        self.queue.add(key);
    }

    fn pod_changed(&self, change: &Change<PodInfo>) {
        match change {
            // After a restart a pod may show up that is being deleted already.
            Change::Added(pod) if pod.is_terminating() => self.pod_going(pod),
            Change::Added(pod) => self.pod_added(pod),
            Change::Deleted(pod) => self.pod_going(pod),
            Change::Updated { old, new } if old.uid != new.uid => {
                self.pod_going(old);
                self.pod_added(new);
            }
            Change::Updated { old, new } => self.pod_updated(old, new),
        }
    }

    fn pod_added(&self, pod: &PodInfo) {
        match pod.controller() {
            None => self.wake_adopters(pod),
            Some(reference) => {
                if let Some(key) = self.resolve(pod, reference) {
                    self.expectations.creation_observed(&key);
                    self.queue.add(key);
                }
            }
        }
    }

    fn pod_going(&self, pod: &PodInfo) {
        if let Some(key) = pod.controller().and_then(|reference| self.resolve(pod, reference)) {
            self.expectations.deletion_observed(&key, &pod.uid);
            self.queue.add(key);
        }
    }

    fn pod_updated(&self, old: &PodInfo, new: &PodInfo) {
        if !matters(old, new) {
            return;
        }
        if new.is_terminating() {
            self.pod_going(new);
        }
        let (before, after) = (old.controller(), new.controller());
        for reference in [before, after].into_iter().flatten() {
            if let Some(key) = self.resolve(new, reference) {
                self.queue.add(key);
            }
        }
        if after.is_none() {
            self.wake_adopters(new);
        }
    }

    /// The key of the controller that `reference` means, if it is one of ours and still the same.
    fn resolve(&self, pod: &PodInfo, reference: &OwnerReference) -> Option<Key> {
        if reference.kind != R::KIND {
            return None;
        }
        let owner = self.owners.get(Some(&pod.namespace), &reference.name)?;
        (owner.meta().uid.as_deref() == Some(&reference.uid)).then(|| Key::new(&*pod.namespace, &reference.name))
    }

    /// Wakes every controller whose selector matches a pod without controller.
    fn wake_adopters(&self, pod: &PodInfo) {
        let filed = label_keys(pod).flat_map(|label| self.owners.by_index(BY_SELECTOR, &label));
        for owner in filed.filter(|owner| owner.selects(pod.labels())) {
            self.queue.add(Key::of(k8s_openapi::Metadata::metadata(&*owner)));
        }
    }
}

/// Whether a change of a pod can change what is planned for its controller.
fn matters(old: &PodInfo, new: &PodInfo) -> bool {
    let view = |pod: &PodInfo| (pod.is_terminal(), pod.is_terminating(), pod.ready, pod.ready_since());
    view(old) != view(new) || old.labels() != new.labels() || old.common.owners != new.common.owners
}
