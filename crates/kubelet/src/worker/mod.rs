//! One task per pod: observe, plan, say what is, act; then wait for news or for the plan's deadline. A slow pod delays
//! no other (`pkg/kubelet/pod_workers.go`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::Kubelet;
use crate::clock::{after, until};
use crate::pod::actions::{PodActions, pod_actions};
use crate::pod::observed::{Hold, Observed, Termination};
use crate::pod::status::status;
use crate::probes::Probes;
use crate::runtime::{Container, PodState, Resources};
use crate::status_writer::Outgoing;

mod admission;
#[cfg(test)]
mod bench;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod docker_lifecycle_tests;
#[cfg(test)]
mod docker_tests;
mod events;
mod eviction;
mod execute;
#[cfg(test)]
mod health_tests;
mod hooks;
mod images;
mod prepare;
mod references;
mod resize;
#[cfg(test)]
mod resize_tests;
pub(crate) use references::names_of;
#[cfg(test)]
mod tests;
mod tokens;
mod volumes;

/// Steps of one pod between two waits; what needs more is looked at again a moment later.
const MAX_STEPS: u32 = 64;
/// Back-off of what failed for reasons outside the pod: first and longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What a pod worker is told; only the newest counts.
pub(crate) struct Handle {
    desired: Mutex<Desired>,
    pub(crate) wake: Arc<Notify>,
    /// Cancelled once the pod is to end: what waits for its sake stops waiting.
    ending: CancellationToken,
    fingerprint: AtomicU64,
    /// Why the pod is to end though nobody deletes it, if it is.
    ended: Mutex<Option<Ending>>,
    /// Whether the pod has ended and nothing of it runs.
    stopped: watch::Sender<bool>,
}

/// Why a pod ends that nobody deletes: it has failed from then on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// `Evicted`, `Terminated`.
    pub(crate) reason: &'static str,
    /// In words.
    pub(crate) message: String,
    /// What the condition says; `None`: the message.
    pub(crate) condition: Option<&'static str>,
    /// How many seconds its containers have.
    pub(crate) grace_seconds: i64,
}

/// What a pod is to be.
#[derive(Clone)]
pub(crate) struct Desired {
    /// Its newest object.
    pub(crate) pod: Arc<Pod>,
    /// Whether that object is no longer in the API.
    pub(crate) gone: bool,
}

impl Handle {
    pub(crate) fn new(desired: Desired) -> Handle {
        let handle = Handle {
            desired: Mutex::new(desired.clone()),
            wake: Arc::new(Notify::new()),
            ending: CancellationToken::new(),
            fingerprint: AtomicU64::new(0),
            ended: Mutex::default(),
            stopped: watch::Sender::new(false),
        };
        handle.set(desired);
        handle
    }

    /// Replaces what the pod is to be. A pod that is gone stays gone.
    pub(crate) fn set(&self, desired: Desired) {
        if desired.gone || desired.pod.metadata.deletion_timestamp.is_some() {
            self.ending.cancel();
        }
        let mut present = self.desired.lock();
        let gone = present.gone || desired.gone;
        *present = Desired { gone, ..desired };
        drop(present);
        self.wake.notify_one();
    }

    /// The machine needs what the pod uses, or goes down.
    pub(crate) fn end(&self, ending: Ending) {
        self.ended.lock().get_or_insert(ending);
        self.ending.cancel();
        self.wake.notify_one();
    }

    /// Waits until the pod has ended and nothing of it runs.
    pub(crate) async fn until_stopped(&self) {
        // The sender lives as long as the handle.
        let _ = self.stopped.subscribe().wait_for(|stopped| *stopped).await;
    }

    /// Whether it has, by now.
    pub(crate) fn has_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    pub(crate) fn desired(&self) -> Desired {
        self.desired.lock().clone()
    }

    /// Of the runtime's state as the worker last saw it.
    pub(crate) fn fingerprint(&self) -> u64 {
        self.fingerprint.load(Ordering::Relaxed)
    }
}

/// What a worker does next.
enum Next {
    /// Wait for news, at most until this time.
    Wait(Option<Timestamp>),
    /// End: nothing of the pod is left.
    Gone,
}

/// The worker of one pod and all it remembers; whatever of this is lost at a restart is found again or started over.
pub(crate) struct Worker {
    kubelet: Arc<Kubelet>,
    handle: Arc<Handle>,
    status: watch::Sender<Outgoing>,
    history: Arc<PodStatus>,
    holds: BTreeMap<String, Hold>,
    terminations: BTreeMap<String, Termination>,
    messages: BTreeMap<String, String>,
    probes: Probes,
    hooks: HashMap<String, hooks::Hook>,
    failures: HashMap<String, u32>,
    image_backoffs: HashMap<String, ImageBackoff>,
    backing_off: HashSet<String>,
    references: Option<references::References>,
    volumes: Option<prepare::VolumesMade>,
    tokens: tokens::Held,
    /// What containers were given to use last, by id.
    actuated: BTreeMap<String, Resources>,
    size: resize::Size,
    standing: admission::Standing,
}

/// A pull that failed.
struct ImageBackoff {
    until: Timestamp,
    wait: Duration,
    told: bool,
    /// Reason and message of the last failure.
    error: String,
}

impl Worker {
    pub(crate) fn new(kubelet: Arc<Kubelet>, handle: Arc<Handle>, status: watch::Sender<Outgoing>) -> Worker {
        let history = Arc::new(handle.desired().pod.status.clone().unwrap_or_default());
        let probes = Probes::new(kubelet.clone(), handle.wake.clone());
        Worker {
            kubelet,
            handle,
            status,
            history,
            holds: BTreeMap::new(),
            terminations: BTreeMap::new(),
            messages: BTreeMap::new(),
            probes,
            hooks: HashMap::new(),
            failures: HashMap::new(),
            image_backoffs: HashMap::new(),
            backing_off: HashSet::new(),
            references: None,
            volumes: None,
            tokens: tokens::Held::default(),
            actuated: BTreeMap::new(),
            size: resize::Size::default(),
            standing: admission::Standing::default(),
        }
    }

    /// Sees to the pod until nothing of it is left.
    pub(crate) async fn run(mut self) {
        let mut network = self.kubelet.network.clone();
        loop {
            // Boxed, as it is many times what a pod that rests needs.
            let deadline = match Box::pin(self.sync()).await {
                Next::Gone => break,
                Next::Wait(deadline) => deadline,
            };
            let sleep = deadline.map(|at| until(self.kubelet.config.clock.now(), at));
            let wake = self.handle.wake.clone();
            tokio::select! {
                () = wake.notified() => {}
                () = tokio::time::sleep(sleep.unwrap_or_default()), if sleep.is_some() => {}
                Ok(()) = network.changed() => {}
            }
        }
        self.finish().await;
    }

    /// Observes, plans and acts until there is nothing left to do now.
    async fn sync(&mut self) -> Next {
        for _ in 0..MAX_STEPS {
            let mut desired = self.handle.desired();
            let evicted = self.evicted(&mut desired);
            let Some(state) = self.observe(&desired.pod).await else { return self.retry() };
            if !self.is_judged(&desired, &state).await {
                return Next::Wait(None);
            }
            let sized = self.sized(&desired);
            let seen = std::mem::replace(&mut desired.pod, sized);
            let plan = self.plan(&desired, &seen, &state, evicted);
            if plan.gone {
                return Next::Gone;
            }
            if plan.actions.is_empty() {
                self.refresh_volumes(&desired.pod, &state).await;
                self.failures.remove("runtime");
                return Next::Wait(plan.wake_at.into_iter().chain(self.tokens.next).min());
            }
            if !self.execute(&desired.pod, state, plan.actions).await {
                return self.retry();
            }
        }
        Next::Wait(Some(after(self.kubelet.config.clock.now(), RETRY_MIN)))
    }

    /// The runtime could not do what was asked: again after a back-off, or when its event stream returns.
    fn retry(&mut self) -> Next {
        let wait = self.failed("runtime");
        Next::Wait(Some(after(self.kubelet.config.clock.now(), wait)))
    }

    /// Counts a failure of `what`; how long to leave it alone.
    fn failed(&mut self, what: &str) -> Duration {
        let count = self.failures.entry(what.to_owned()).or_default();
        *count += 1;
        RETRY_MIN.saturating_mul(1 << (*count - 1).min(16)).min(RETRY_MAX)
    }

    async fn observe(&mut self, pod: &Pod) -> Option<PodState> {
        let state = match self.kubelet.runtime.pod_state(crate::pod::uid(pod)).await {
            Ok(state) => state,
            Err(error) => {
                tracing::warn!(pod = crate::pod::full_name(pod), %error, "cannot observe the pod");
                return None;
            }
        };
        self.handle.fingerprint.store(state.fingerprint(), Ordering::Relaxed);
        let runs = |id: &String| state.containers.iter().any(|c| c.id == *id && c.is_running());
        self.terminations.retain(|id, _| runs(id));
        self.hooks.retain(|id, _| runs(id));
        self.actuated.retain(|id, _| runs(id));
        for (id, termination) in &mut self.terminations {
            termination.hook_runs = self.hooks.get(id).is_some_and(|hook| !hook.is_over());
        }
        self.probes.follow(pod, &state, &self.history, self.handle.ending.is_cancelled());
        self.messages.retain(|id, _| state.containers.iter().any(|c| c.id == *id));
        for container in state.containers.iter().filter(|c| c.exit().is_some()) {
            if !self.messages.contains_key(&container.id) {
                let message = self.last_words(pod, container).await;
                self.messages.insert(container.id.clone(), message);
            }
        }
        Some(state)
    }

    /// Plans, and says what is before anything is done about it: what ends is in the status before it is removed.
    fn plan(&mut self, desired: &Desired, seen: &Arc<Pod>, state: &PodState, evicted: bool) -> PodActions {
        let now = self.kubelet.config.clock.now();
        self.holds.retain(|_, hold| hold.until > now);
        let health = self.probes.health();
        let observed = Observed {
            state,
            history: &self.history,
            holds: &self.holds,
            terminations: &self.terminations,
            network_ready: *self.kubelet.network.borrow(),
            gone: desired.gone,
            health: &health,
            messages: &self.messages,
            abilities: self.kubelet.abilities(),
            refused: self.standing.refused(),
            actuated: &self.actuated,
            resize: &self.size.standing,
            dead: self.kubelet.config.dead_containers,
        };
        let plan = pod_actions(&desired.pod, &observed, now);
        let status = status(&desired.pod, &observed, &plan, self.kubelet.node_facts(), now);
        let runs = state.containers.iter().any(Container::is_running);
        let stopped = plan.ends && !runs;
        // One that is put out has failed before its containers have stopped, and until then has what it has.
        self.leaves(!runs && (plan.ends || matches!(status.phase.as_deref(), Some("Failed" | "Succeeded"))));
        self.handle.stopped.send_if_modified(|was| std::mem::replace(was, stopped) != stopped);
        self.tell_back_offs(&desired.pod, &plan);
        self.tell_failure(&desired.pod, &plan);
        self.tell_resized(&desired.pod, &plan);
        // Said once in any case: what others write over it later is to be put right, though nothing has changed since the start.
        let is_said = self.status.borrow().status.is_some();
        let news = (evicted || !is_said || status != *self.history).then(|| Arc::new(status));
        if let Some(status) = &news {
            self.history = status.clone();
        }
        self.status.send_if_modified(|outgoing| outgoing.tell(news, seen));
        plan
    }

    /// Nothing runs any more: what the pod had on disk goes, then its object. Stays until the API no longer has it, so
    /// that its last updates find the worker they belong to.
    async fn finish(mut self) {
        self.tear_down().await;
        let Desired { pod, gone } = self.handle.desired();
        if !gone || crate::sources::is_static(&pod) {
            self.status.send_modify(|outgoing| outgoing.delete = true);
        }
        while !self.handle.desired().gone {
            self.handle.wake.notified().await;
        }
    }
}
