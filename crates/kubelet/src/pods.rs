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
use crate::node::allocations::Preemption;
use crate::node::preemption;
use crate::runtime::{Event, KnownPod, PodIdentity};
use crate::sources::mirror::Mirrors;
use crate::status_writer::{Outgoing, StatusWriter};
use crate::worker::{Desired, Ending, Handle, Worker};

/// All pods of the node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pods {
    kubelet: Arc<Kubelet>,
    writer: StatusWriter,
    mirrors: Mirrors,
    tasks: client::Tasks,
    workers: Arc<Mutex<HashMap<String, Arc<Handle>>>>,
    /// Told whenever a worker has ended.
    ended: Arc<Notify>,
    /// Whether every source was read: until then what runs for no pod may be some pod's yet.
    complete: watch::Sender<bool>,
}

impl Pods {
    pub(crate) fn new(kubelet: Arc<Kubelet>, client: kube::Client, tasks: &client::Tasks) -> Pods {
        Pods {
            mirrors: Mirrors::new(client.clone(), &kubelet.config.node_name),
            kubelet,
            writer: StatusWriter::new(client),
            tasks: tasks.clone(),
            workers: Arc::default(),
            ended: Arc::default(),
            complete: watch::Sender::new(false),
        }
    }

    pub(crate) fn tasks(&self) -> &client::Tasks {
        &self.tasks
    }

    /// A Warning about the node.
    pub(crate) fn node_event(&self, reason: &str, message: String) {
        self.kubelet.node_event(client::EventType::Warning, reason, message);
    }

    /// What the API shows of static pods.
    pub(crate) fn mirrors(&self) -> &Mirrors {
        &self.mirrors
    }

    /// Every source was read once: what runs for no pod is nobody's, and goes.
    pub(crate) fn are_complete(&self) {
        self.complete.send_replace(true);
    }

    /// The pods of the API are known: those that waited for that are judged, the oldest first.
    pub(crate) fn admit_waiting(&self) {
        for preemption in self.kubelet.allocations.are_complete(&self.kubelet.facts()) {
            self.preempt(preemption);
        }
    }

    /// Waits until no pod called `name` (`namespace/name`) but the one with this UID has a worker.
    pub(crate) async fn alone(&self, name: &str, uid: &str) {
        let other = |handle: &Arc<Handle>| {
            let pod = handle.desired().pod;
            crate::sources::full_name(&pod) == name && crate::pod::uid(&pod) != uid
        };
        loop {
            let ended = self.ended.notified();
            let mut ended = std::pin::pin!(ended);
            // From here on no end is missed.
            ended.as_mut().enable();
            if !self.workers.lock().values().any(other) {
                return;
            }
            ended.await;
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
            let gone = desired.gone;
            handle.set(desired);
            if gone {
                // Its room is another's at once: whoever took it away knows no more of it, and may have given it already.
                self.kubelet.allocations.release(&uid);
            }
            return;
        }
        let handle = Arc::new(Handle::new(desired.clone()));
        workers.insert(uid.clone(), handle.clone());
        drop(workers);
        let enters = !desired.gone;
        let allocations = &self.kubelet.allocations;
        let preemption = enters.then(|| allocations.enter(&desired.pod, &handle.wake, &self.kubelet.facts())).flatten();
        let (sender, receiver) = watch::channel(Outgoing::default());
        if crate::sources::is_static(&desired.pod) {
            if !(desired.gone || self.kubelet.config.standalone) {
                self.tasks.spawn(self.mirrors.clone().show(desired.pod, receiver));
            }
        } else if !desired.gone {
            self.tasks.spawn(self.writer.clone().run(desired.pod, receiver));
        }
        let worker = Worker::new(self.kubelet.clone(), handle.clone(), sender);
        let (workers, ended, kubelet) = (self.workers.clone(), self.ended.clone(), self.kubelet.clone());
        self.tasks.spawn(async move {
            worker.run().await;
            workers.lock().remove(&uid);
            kubelet.allocations.release(&uid);
            ended.notify_waiters();
        });
        preemption.into_iter().for_each(|preemption| self.preempt(preemption));
    }

    /// Ends pods for the sake of another, which runs when nothing of them does.
    fn preempt(&self, Preemption { uid, victims }: Preemption) {
        let this = self.clone();
        self.tasks.spawn(async move {
            for victim in &victims {
                this.end_for_another(victim);
            }
            for victim in &victims {
                this.until_stopped(victim).await;
            }
            this.kubelet.allocations.admit(&uid);
        });
    }

    fn end_for_another(&self, uid: &str) {
        let Some(handle) = self.workers.lock().get(uid).cloned() else { return };
        let pod = handle.desired().pod;
        let (message, condition) = (preemption::MESSAGE.to_owned(), Some(preemption::CONDITION));
        let reference = client::object_reference(pod.as_ref());
        self.kubelet.recorder.event(&reference, client::EventType::Warning, "Preempting", message.clone());
        let grace_seconds = i64::try_from(crate::pod::grace(&pod).as_secs()).unwrap_or(i64::MAX);
        handle.end(Ending { reason: "Preempting", message, condition, grace_seconds });
    }

    /// The pod with this UID is to end, and shows why.
    pub(crate) fn end(&self, uid: &str, ending: Ending) {
        if let Some(handle) = self.workers.lock().get(uid) {
            handle.end(ending);
        }
    }

    /// Waits until nothing of the pod with this UID runs.
    pub(crate) async fn until_stopped(&self, uid: &str) {
        let handle = self.workers.lock().get(uid).cloned();
        if let Some(handle) = handle {
            handle.until_stopped().await;
        }
    }

    /// Whether the pod with this UID has ended and nothing of it runs.
    pub(crate) fn has_stopped(&self, uid: &str) -> bool {
        self.workers.lock().get(uid).is_some_and(|handle| handle.has_stopped())
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

    /// Follows the runtime's events, and compares everything where some may have been missed. Whatever runs for a pod that
    /// no source has is removed, once all were read.
    pub(crate) async fn follow_runtime(self) {
        let mut events = self.kubelet.runtime.events();
        let mut complete = self.complete.subscribe();
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
                Ok(()) = complete.changed() => self.relist().await,
                _ = relist.tick() => if self.len() > 0 { self.relist().await },
            }
        }
    }

    async fn happened(&self, uid: &str) {
        let worker = self.workers.lock().get(uid).cloned();
        match worker {
            Some(handle) => handle.wake.notify_one(),
            None if *self.complete.borrow() => self.relist().await,
            None => {}
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
                None if *self.complete.borrow() => self.removed(Arc::new(orphan(identity))),
                None => {}
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
pub(crate) fn orphan(identity: PodIdentity) -> Pod {
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
