//! Runs the probes of one pod's containers: a task for each, asleep until its own deadline. What they say is counted by
//! [`crate::pod::probe`]; a verdict that changes wakes the pod's worker (`pkg/kubelet/prober`).
//!
//! - [`check`]: one try: exec, HTTP, TCP or gRPC.
//! - [`http`]: GET as probes and lifecycle hooks do it: no certificate is verified, redirects stay on their host.
//! - [`dial`]: connections, and why there is none in Go's words.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use client::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, ObjectReference, Pod, PodStatus, Probe};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::Kubelet;
use crate::clock::until;
use crate::pod::probe::{self, Health, Kind, Run};
use crate::runtime::{Container, PodState};
use check::{Checked, Target};
pub(crate) use dial::dial;

mod check;
mod dial;
pub(crate) mod http;
#[cfg(test)]
mod tests;

/// A try that could not be made is made again at once, so many times (`maxProbeRetries`).
const MAX_TRIES: u32 = 3;

/// What is known of containers, by id; shared with the tasks that find it out.
type Verdicts = Arc<Mutex<BTreeMap<String, Health>>>;

/// The probes of one pod.
pub(crate) struct Probes {
    kubelet: Arc<Kubelet>,
    wake: Arc<Notify>,
    verdicts: Verdicts,
    tasks: BTreeMap<(String, Kind), AbortOnDropHandle<()>>,
}

impl Probes {
    /// None yet; `wake` is notified of every verdict.
    pub(crate) fn new(kubelet: Arc<Kubelet>, wake: Arc<Notify>) -> Probes {
        Probes { kubelet, wake, verdicts: Verdicts::default(), tasks: BTreeMap::new() }
    }

    /// What is known of each container.
    pub(crate) fn health(&self) -> BTreeMap<String, Health> {
        self.verdicts.lock().clone()
    }

    /// The postStart hook of a container failed.
    pub(crate) fn hook_failed(&self, id: &str) {
        self.verdicts.lock().entry(id.to_owned()).or_default().hook_failed = true;
    }

    /// Sees that the probes of what runs now run, and no others. Of a container seen for the first time, which ran when
    /// the last status was written, what that said is believed until its probes say otherwise.
    pub(crate) fn follow(&mut self, pod: &Pod, state: &PodState, history: &PodStatus, ending: bool) {
        let Some(spec) = pod.spec.as_ref() else { return };
        let mut verdicts = self.verdicts.lock();
        verdicts.retain(|id, _| state.containers.iter().any(|c| c.id == *id));
        let mut wanted = Vec::new();
        for container in state.containers.iter().filter(|c| c.is_running()) {
            let Some((_, spec)) = crate::pod::container(spec, &container.name) else { continue };
            if probe::probes(&spec).next().is_none() {
                continue;
            }
            let health = verdicts.entry(container.id.clone()).or_insert_with(|| remembered(container, history));
            let kinds = probe::wanted(&spec, *health, ending);
            wanted.extend(kinds.into_iter().map(|kind| (container, kind)));
        }
        drop(verdicts);
        let is_wanted = |id: &str, kind| wanted.iter().any(|(c, k)| c.id == id && *k == kind);
        self.tasks.retain(|(id, kind), _| is_wanted(id, *kind));
        let address = state.live_sandbox().and_then(|s| s.ip).unwrap_or(self.kubelet.config.node_ip);
        for (container, kind) in wanted {
            let key = (container.id.clone(), kind);
            if !self.tasks.contains_key(&key)
                && let Some(asker) = self.asker(pod, container, kind, address)
            {
                self.tasks.insert(key, AbortOnDropHandle::new(tokio::spawn(asker.run())));
            }
        }
    }

    fn asker(&self, pod: &Pod, container: &Container, kind: Kind, address: IpAddr) -> Option<Asker> {
        let (sort, spec) = crate::pod::container(pod.spec.as_ref()?, &container.name)?;
        let probe = probe::probes(&spec).find(|(k, _)| *k == kind)?.1.clone();
        let mut reference = client::object_reference(pod);
        reference.field_path = Some(format!("spec.{}{{{}}}", sort.list(), container.name));
        Some(Asker {
            kubelet: self.kubelet.clone(),
            wake: self.wake.clone(),
            verdicts: self.verdicts.clone(),
            reference,
            kind,
            probe,
            started_at: container.started_at.unwrap_or(container.created_at),
            target: Target { id: container.id.clone(), container: spec.into_owned(), address },
        })
    }
}

/// What the last status said of this very container.
fn remembered(container: &Container, history: &PodStatus) -> Health {
    let statuses = history.container_statuses.iter().chain(&history.init_container_statuses).flatten();
    let same = |s: &&ContainerStatus| s.container_id.as_ref().is_some_and(|id| id.ends_with(&container.id));
    let Some(status) = statuses.into_iter().find(same) else { return Health::default() };
    let was = |said: bool| said.then_some(true);
    Health { started: was(status.started == Some(true)), ready: was(status.ready), ..Health::default() }
}

/// Asks one container one thing, again and again.
struct Asker {
    kubelet: Arc<Kubelet>,
    wake: Arc<Notify>,
    verdicts: Verdicts,
    reference: ObjectReference,
    kind: Kind,
    probe: Probe,
    started_at: Timestamp,
    target: Target,
}

impl Asker {
    /// Until the worker no longer wants it.
    async fn run(self) {
        let clock = self.kubelet.config.clock;
        let mut due = probe::first(&self.probe, self.started_at, self.kubelet.started_at, rand::random());
        let mut run = Run::default();
        loop {
            tokio::time::sleep(until(clock.now(), due)).await;
            // Boxed, as it is many times what a probe needs that waits.
            if let Some(success) = Box::pin(self.ask()).await
                && let Some(verdict) = run.step(success, &self.probe)
            {
                self.tell(verdict);
            }
            due = probe::next(&self.probe, due, clock.now());
        }
    }

    /// One try; `None` where it could not be made, which says nothing about the container.
    async fn ask(&self) -> Option<bool> {
        let timeout = probe::timeout(&self.probe);
        let mut tried = 0;
        let checked = loop {
            tried += 1;
            match check::check(self.kubelet.runtime.as_ref(), &self.probe, &self.target, timeout).await {
                Err(_) if tried < MAX_TRIES => {}
                checked => break checked,
            }
        };
        let kind = self.kind.as_str();
        match checked {
            Ok(Checked::Success) => Some(true),
            Ok(Checked::Warning(output)) => {
                self.event("ProbeWarning", format!("{kind} probe warning: {output}"));
                Some(true)
            }
            Ok(Checked::Failure(output)) => {
                self.event("Unhealthy", format!("{kind} probe failed: {output}"));
                Some(false)
            }
            Err(error) => {
                self.event("Unhealthy", format!("{kind} probe errored and resulted in unknown state: {error}"));
                None
            }
        }
    }

    fn event(&self, reason: &str, message: String) {
        self.kubelet.recorder.event(&self.reference, EventType::Warning, reason, message);
    }

    fn tell(&self, verdict: bool) {
        let mut verdicts = self.verdicts.lock();
        // Gone while it was asked.
        let Some(health) = verdicts.get_mut(&self.target.id) else { return };
        if health.of(self.kind).replace(verdict) != Some(verdict) {
            self.wake.notify_one();
        }
    }
}
