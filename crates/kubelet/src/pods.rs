//! From the sources of pods to their workers: one worker per UID, which outlives the pod's object until nothing of the
//! pod is left; and from the runtime's events to the workers they concern (PLEG).

use std::collections::HashMap;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::api::ObjectMeta;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::Kubelet;
use crate::runtime::{Event, KnownPod, PodIdentity};
use crate::status_writer::{Outgoing, StatusWriter};
use crate::worker::{Desired, Handle, Worker};

/// All pods of the node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pods {
    kubelet: Arc<Kubelet>,
    writer: StatusWriter,
    tasks: client::Tasks,
    workers: Arc<Mutex<HashMap<String, Arc<Handle>>>>,
    /// Told of every worker that ended.
    ended: Arc<Notify>,
}

impl Pods {
    pub(crate) fn new(kubelet: Arc<Kubelet>, client: kube::Client, tasks: &client::Tasks) -> Pods {
        Pods {
            kubelet,
            writer: StatusWriter::new(client),
            tasks: tasks.clone(),
            workers: Arc::default(),
            ended: Arc::default(),
        }
    }

    /// A source has this version of a pod.
    pub(crate) fn set(&self, pod: Arc<Pod>) {
        self.tell(Desired { pod, gone: false });
    }

    /// A source no longer has the pod.
    pub(crate) fn removed(&self, pod: Arc<Pod>) {
        self.tell(Desired { pod, gone: true });
    }

    fn tell(&self, desired: Desired) {
        let uid = crate::pod::uid(&desired.pod).to_owned();
        let mut workers = self.workers.lock();
        if let Some(handle) = workers.get(&uid) {
            handle.set(desired);
            return;
        }
        let handle = Arc::new(Handle::new(desired.clone()));
        workers.insert(uid.clone(), handle.clone());
        drop(workers);
        let (sender, receiver) = watch::channel(Outgoing::default());
        if !desired.gone {
            self.tasks.spawn(self.writer.clone().run(desired.pod, receiver));
        }
        let worker = Worker::new(self.kubelet.clone(), handle.clone(), sender);
        let (workers, ended) = (self.workers.clone(), self.ended.clone());
        self.tasks.spawn(async move {
            worker.run().await;
            workers.lock().remove(&uid);
            ended.notify_waiters();
        });
    }

    /// The pod with this UID is to end now, and shows this as the reason.
    pub(crate) fn evict(&self, uid: &str, message: String) {
        if let Some(handle) = self.workers.lock().get(uid) {
            handle.evict(message);
        }
    }

    /// Every pod some source has.
    pub(crate) fn list(&self) -> Vec<Arc<Pod>> {
        self.workers.lock().values().map(|handle| handle.desired().pod).collect()
    }

    /// Waits until no pod has a worker.
    #[cfg(test)]
    pub(crate) async fn until_idle(&self) {
        loop {
            let ended = self.ended.notified();
            if self.len() == 0 {
                return;
            }
            ended.await;
        }
    }

    /// How many pods have workers.
    pub(crate) fn len(&self) -> usize {
        self.workers.lock().len()
    }

    /// Follows the runtime's events, and compares everything where some may have been missed. Call once the sources
    /// are known: whatever runs for a pod they do not have is removed.
    pub(crate) async fn follow_runtime(self) {
        let mut events = self.kubelet.runtime.events();
        let mut relist = tokio::time::interval(self.kubelet.config.relist_interval);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        relist.reset();
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Event::Pod(uid)) => self.happened(&uid).await,
                    Some(Event::Relist) => self.relist().await,
                    None => return,
                },
                _ = relist.tick() => if self.len() > 0 { self.relist().await },
            }
        }
    }

    async fn happened(&self, uid: &str) {
        let worker = self.workers.lock().get(uid).cloned();
        match worker {
            Some(handle) => handle.wake.notify_one(),
            None => self.relist().await,
        }
    }

    /// Wakes the workers whose pod changed unseen, and removes what belongs to no pod.
    async fn relist(&self) {
        let known = match self.kubelet.runtime.pods().await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%error, "cannot list containers");
                return;
            }
        };
        let mut found: HashMap<String, u64> = HashMap::new();
        for KnownPod { identity, fingerprint } in known {
            found.insert(identity.uid.clone(), fingerprint);
            let worker = self.workers.lock().get(&identity.uid).cloned();
            match worker {
                Some(handle) if handle.fingerprint() != fingerprint => handle.wake.notify_one(),
                Some(_) => {}
                None => self.removed(Arc::new(orphan(identity))),
            }
        }
        for (uid, handle) in self.workers.lock().iter() {
            if !found.contains_key(uid) && handle.fingerprint() != 0 {
                handle.wake.notify_one();
            }
        }
    }
}

/// What is left of a pod whose object is gone: enough to remove it.
fn orphan(identity: PodIdentity) -> Pod {
    Pod {
        metadata: ObjectMeta {
            namespace: Some(identity.namespace),
            name: Some(identity.name),
            uid: Some(identity.uid),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            termination_grace_period_seconds: Some(identity.grace_period_seconds),
            ..PodSpec::default()
        }),
        status: None,
    }
}

#[cfg(test)]
mod tests;
