//! Keeps the Node object true: there, with its labels, with the machine's status; and the pod network on its podCIDR.
//! Looks again when the Node or the machine changed, and otherwise every five minutes.

use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::{Node, NodeStatus};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::eviction::signals::Pressure;
use super::register::{missing_labels, node};
use super::status::{Facts, differs, rebooted, status};
use crate::Kubelet;
use crate::runtime::Machine;

/// Back-off of what failed: first and longest.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);

pub(super) struct Sync {
    pub(super) kubelet: Arc<Kubelet>,
    pub(super) api: Api<Node>,
    pub(super) machine: Machine,
    pub(super) port: Option<u16>,
    pub(super) network: watch::Sender<bool>,
    pub(super) node: watch::Receiver<Option<Arc<Node>>>,
    pub(super) pressure: watch::Receiver<Pressure>,
    pub(super) runtime_down: watch::Receiver<bool>,
    pub(super) shutting_down: watch::Receiver<bool>,
    /// Whether the node server has a certificate.
    pub(super) serves: watch::Receiver<bool>,
}

/// What the task remembers between two looks.
#[derive(Default)]
struct Memory {
    cidr: Option<Ipv4Net>,
    reported: Option<(Instant, NodeStatus)>,
    was_ready: Option<bool>,
    pressure: Pressure,
}

impl Sync {
    pub(super) async fn run(mut self) {
        let mut memory = Memory::default();
        let mut backoff = RETRY_MIN;
        self.event("Starting", "Starting kubelet.");
        loop {
            let present = self.node.borrow_and_update().clone();
            let wait = match self.sync(present, &mut memory).await {
                Ok(()) => {
                    backoff = RETRY_MIN;
                    self.kubelet.config.node_status_report_interval
                }
                Err(error) => {
                    tracing::warn!(error, "cannot bring the node up to date");
                    let wait = backoff;
                    backoff = (backoff * 2).min(RETRY_MAX);
                    wait
                }
            };
            tokio::select! {
                Ok(()) = self.node.changed() => {}
                Ok(()) = self.pressure.changed() => {}
                Ok(()) = self.runtime_down.changed() => {}
                Ok(()) = self.shutting_down.changed() => {}
                Ok(()) = self.serves.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn sync(&self, present: Option<Arc<Node>>, memory: &mut Memory) -> Result<(), String> {
        let config = &self.kubelet.config;
        let node = match present {
            Some(node) => node,
            None => {
                memory.reported = None;
                Arc::new(self.register().await?)
            }
        };
        let labels = missing_labels(&node, config, &self.machine);
        if !labels.is_empty() {
            let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
            self.api.patch(&config.node_name, &PatchParams::default(), &patch).await.map_err(|e| e.to_string())?;
        }
        // A runtime that hangs is not asked for a network.
        let down = *self.runtime_down.borrow();
        let network = match down {
            true => Some(("KubeletNotReady", "container runtime is down".to_owned())),
            false => self.network_for(&node, memory).await,
        };
        // Whoever sees a node that is ready may ask it for logs.
        let no_certificate = || ("KubeletNotReady", "the node server has no certificate yet".to_owned());
        let shutdown = (*self.shutting_down.borrow()).then(|| ("KubeletNotReady", "node is shutting down".to_owned()));
        let problem = shutdown.or(network).or_else(|| (!*self.serves.borrow()).then(no_certificate));
        self.report(&node, memory, problem.clone()).await?;
        match problem {
            Some((_, message)) if memory.cidr.is_none() && pod_cidr(&node).is_some() => Err(message),
            _ => Ok(()),
        }
    }

    /// The Node, made by us or found.
    async fn register(&self) -> Result<Node, String> {
        let config = &self.kubelet.config;
        match self.api.create(&PostParams::default(), &node(config, &self.machine)).await {
            Ok(node) => {
                tracing::info!(node = config.node_name, "registered the node");
                Ok(node)
            }
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.api.get(&config.node_name).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Sees that the pod network is on the node's podCIDR; why pods cannot run, if they cannot.
    async fn network_for(&self, node: &Node, memory: &mut Memory) -> Option<(&'static str, String)> {
        let Some(cidr) = pod_cidr(node) else {
            let message = "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady \
                           message:the node has no podCIDR yet";
            return Some(("NetworkNotReady", message.to_owned()));
        };
        if memory.cidr != Some(cidr) {
            if let Err(error) = self.kubelet.runtime.ensure_network(cidr).await {
                let message = format!("container runtime network not ready: NetworkReady=false message:{error}");
                return Some(("NetworkNotReady", message));
            }
            tracing::info!(%cidr, "the pod network is ready");
            memory.cidr = Some(cidr);
            self.network.send_replace(true);
        }
        None
    }

    /// Writes the status where it differs from the Node's, or is due.
    async fn report(
        &self,
        node: &Node,
        memory: &mut Memory,
        not_ready: Option<(&'static str, String)>,
    ) -> Result<(), String> {
        let config = &self.kubelet.config;
        let due = memory.reported.as_ref().is_none_or(|(at, _)| at.elapsed() >= config.node_status_report_interval);
        let present = node.status.clone().unwrap_or_default();
        let images = match (&memory.reported, due) {
            (_, true) if !*self.runtime_down.borrow() => self.kubelet.runtime.images().await.unwrap_or_default(),
            _ => Vec::new(),
        };
        let ready = not_ready.is_none();
        let facts = Facts {
            config,
            machine: &self.machine,
            port: self.port,
            pressure: *self.pressure.borrow(),
            images: &images,
            not_ready,
        };
        let mut wanted = status(&facts, &present, config.clock.now());
        if !due {
            wanted.images = present.images.clone();
        }
        if !due && !differs(&wanted, &present) {
            return Ok(());
        }
        let patch = Patch::Strategic(json!({"status": wanted}));
        let written = self.api.patch_status(&config.node_name, &PatchParams::default(), &patch).await;
        written.map_err(|error| error.to_string())?;
        // No process outlives its boot, so only the first report can tell of another; what is there may be older than it later.
        if let Some(boot) = rebooted(&present, &wanted).filter(|_| memory.reported.is_none()) {
            let message = format!("Node {} has been rebooted, boot id: {boot}", config.node_name);
            self.kubelet.node_event(EventType::Warning, "Rebooted", message);
        }
        memory.reported = Some((Instant::now(), wanted));
        if memory.was_ready.replace(ready) != Some(ready) {
            let reason = if ready { "NodeReady" } else { "NodeNotReady" };
            self.event(reason, &format!("Node {} status is now: {reason}", config.node_name));
        }
        let pressure = facts.pressure;
        self.tell_pressure(std::mem::replace(&mut memory.pressure, pressure), pressure);
        Ok(())
    }

    /// Events of the conditions that changed.
    fn tell_pressure(&self, before: Pressure, now: Pressure) {
        for (before, now, on, off) in [
            (before.memory, now.memory, "NodeHasInsufficientMemory", "NodeHasSufficientMemory"),
            (before.disk, now.disk, "NodeHasDiskPressure", "NodeHasNoDiskPressure"),
            (before.pids, now.pids, "NodeHasInsufficientPID", "NodeHasSufficientPID"),
        ] {
            let reason = if now { on } else { off };
            if before != now {
                self.event(reason, &format!("Node {} status is now: {reason}", self.kubelet.config.node_name));
            }
        }
    }

    fn event(&self, reason: &str, message: &str) {
        self.kubelet.node_event(EventType::Normal, reason, message.to_owned());
    }
}

fn pod_cidr(node: &Node) -> Option<Ipv4Net> {
    let spec = node.spec.as_ref()?;
    let all = spec.pod_cidrs.iter().flatten().chain(&spec.pod_cidr);
    all.filter_map(|cidr| cidr.parse().ok()).next()
}
