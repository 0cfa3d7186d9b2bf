//! Lost nodes: notices that a node has gone silent, says so on the node and its pods, and moves the pods elsewhere.
//!
//! ```text
//!  lease renewed ─▶ heartbeats ─┐ deadline: the grace after the last one
//!  node, pod changed ───────────┴▶ sync ─▶ plan ─▶ conditions, taints, pods not ready, evictions
//! ```
//!
//! Behaviour follows `pkg/controller/nodelifecycle/node_lifecycle_controller.go` and `pkg/controller/tainteviction`.
//! A kubelet that comes back writes its own conditions; the taints then go by themselves.
//! - [`heartbeats`]: when each node was last heard of.
//! - [`plan`]: what must happen to a node and its pods; [`taints`]: which taints it should have; [`evictions`]: until
//!   when a pod may stay.
//! - [`zones`]: when so many nodes are lost that the fault is more likely ours.

mod evictions;
mod heartbeats;
mod plan;
mod taints;
mod zones;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use api::nodes;
use client::{Change, EventType, Lister, Outcome, Recorder, WorkQueue, object_reference};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, NodeStatus, Pod, Taint};
use kube::Error;
use parking_lot::Mutex;
use serde_json::json;

use crate::Config;
use crate::context::{Context, new_queue, outcome};
use crate::informers::BY_NODE;
use crate::pod::PodInfo;
use crate::rest::{self, Rest};
use heartbeats::Heartbeats;
use plan::{Action, View};

const NAME: &str = "node-controller";
const WORKERS: usize = 8;

struct Controller {
    nodes: Lister<Node>,
    pods: Lister<PodInfo>,
    heartbeats: Heartbeats,
    /// When a taint without a time of its own was first seen, by node.
    first_seen: Mutex<HashMap<String, Vec<(Taint, Timestamp)>>>,
    config: Arc<Config>,
    queue: WorkQueue<String>,
    rest: Rest,
    recorder: Recorder,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller {
        nodes: caches.nodes.clone(),
        pods: caches.pods.clone(),
        heartbeats: Heartbeats::default(),
        first_seen: Mutex::default(),
        config: context.config.clone(),
        queue: new_queue(),
        rest: context.rest.clone(),
        recorder: context.recorder(NAME),
    });

    let c = controller.clone();
    context.informers.leases.on_change(move |change| c.lease_changed(change));
    let c = controller.clone();
    context.informers.nodes.on_change(move |change| c.node_changed(change));
    let c = controller.clone();
    context.informers.pods.on_change(move |change| c.pod_changed(change));

    let synced = async move {
        caches.nodes.synced().await;
        caches.leases.synced().await;
        caches.pods.synced().await;
    };
    let queue = controller.queue.clone();
    context.run_workers(synced, &queue, WORKERS, move |name: String| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&name).await;
            outcome(NAME, &name, result)
        }
    });
}

impl Controller {
    fn lease_changed(&self, change: &Change<Lease>) {
        let lease = change.object();
        let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref()).map(|time| time.0);
        if let (Some(name), false) = (&lease.metadata.name, matches!(change, Change::Deleted(_))) {
            self.heartbeats.lease(name, renewed, Instant::now());
        }
    }

    fn node_changed(&self, change: &Change<Node>) {
        let node = change.object();
        let name = node.metadata.name.clone().unwrap_or_default();
        let readiness_changed = match change {
            Change::Updated { old, new } => nodes::is_ready(old) != nodes::is_ready(new),
            Change::Added(_) | Change::Deleted(_) => true,
        };
        if let Change::Deleted(_) = change {
            self.heartbeats.forget(&name);
            self.first_seen.lock().remove(&name);
        } else {
            let posted = nodes::condition(node, "Ready").and_then(|ready| ready.last_heartbeat_time.as_ref());
            self.heartbeats.status(&name, posted.map(|time| time.0), Instant::now());
            self.queue.add(name);
        }
        if readiness_changed {
            // How many are lost decides about all that are lost.
            let lost = self.nodes.list().into_iter().filter(|node| !nodes::is_ready(node));
            lost.filter_map(|node| node.metadata.name.clone()).for_each(|name| self.queue.add(name));
        }
    }

    /// A pod is of interest where its node is not well, or evicts.
    fn pod_changed(&self, change: &Change<PodInfo>) {
        let (Change::Added(pod) | Change::Updated { new: pod, .. }) = change else { return };
        let Some(node) = pod.node.as_ref().and_then(|name| self.nodes.get(None, name)) else { return };
        let evicts = nodes::taints(&node).iter().any(|taint| taint.effect == "NoExecute");
        if evicts || !nodes::is_ready(&node) {
            self.queue.add(node.metadata.name.clone().unwrap_or_default());
        }
    }

    async fn sync(&self, name: &str) -> Result<Outcome, Error> {
        let Some(node) = self.nodes.get(None, name) else { return Ok(Outcome::Done) };
        let (now, grace) = (Timestamp::now(), self.config.node_monitor_grace);
        let patience = self.heartbeats.left(name, grace, Instant::now());
        let first_seen = self.note_taints(name, &node, now);
        let view = View {
            silent: patience.is_none(),
            hold: zones::is_disrupted(&node, &self.nodes.list()),
            eviction_timeout: self.config.pod_eviction_timeout,
            first_seen: &first_seen,
        };
        let planned = plan::plan(&node, &self.pods.by_index(BY_NODE, name), &view, now);
        self.execute(&node, planned.actions, now).await?;
        Ok(patience.into_iter().chain(planned.next).min().map_or(Outcome::Done, Outcome::After))
    }

    /// Remembers since when the node has the taints that do not say so themselves.
    fn note_taints(&self, name: &str, node: &Node, now: Timestamp) -> Vec<(Taint, Timestamp)> {
        let untimed = nodes::taints(node).iter().filter(|t| t.effect == "NoExecute" && t.time_added.is_none());
        let mut first_seen = self.first_seen.lock();
        let before = first_seen.remove(name).unwrap_or_default();
        let since = |taint: &Taint| before.iter().find(|(t, _)| t == taint).map_or(now, |(_, since)| *since);
        let noted: Vec<_> = untimed.map(|taint| (taint.clone(), since(taint))).collect();
        if !noted.is_empty() {
            first_seen.insert(name.to_owned(), noted.clone());
        }
        noted
    }

    async fn execute(&self, node: &Arc<Node>, actions: Vec<Action>, now: Timestamp) -> Result<(), Error> {
        // Each write builds on the version of the one before; whoever else writes meanwhile makes ours fail.
        let mut version = node.metadata.resource_version.clone().unwrap_or_default();
        for action in actions {
            match action {
                Action::SetConditions(conditions) => version = self.set_conditions(node, conditions).await?,
                Action::SetTaints(taints) => version = self.set_taints(node, &version, &taints).await?,
                Action::MarkNotReady(pod) => self.mark_not_ready(&pod, now).await?,
                Action::Evict { pod, taint } => self.evict(&pod, &taint).await?,
            }
        }
        Ok(())
    }

    async fn set_conditions(&self, node: &Arc<Node>, conditions: Vec<NodeCondition>) -> Result<String, Error> {
        let name = node.metadata.name.clone().unwrap_or_default();
        tracing::info!(node = name, reason = "NodeStatusUnknown", "node has gone silent");
        let status = NodeStatus { conditions: Some(conditions), ..node.status.clone().unwrap_or_default() };
        let node = Node { status: Some(status), ..(**node).clone() };
        let path = rest::path::<Node>(None);
        let written = self.rest.replace(&path, &name, Some("status"), rest::encode(&node)).await?;
        let message = format!("Node {name} status is now: NodeNotReady");
        self.recorder.event(&object_reference(&node), EventType::Normal, "NodeNotReady", message);
        Ok(written.metadata.resource_version)
    }

    async fn set_taints(&self, node: &Node, version: &str, taints: &[Taint]) -> Result<String, Error> {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let keys: Vec<_> = taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect();
        tracing::info!(node = name, taints = keys.join(","), "node has other taints");
        let taints = if taints.is_empty() { json!(null) } else { json!(taints) };
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": {"taints": taints}});
        let written = self.rest.merge_patch(&rest::path::<Node>(None), name, None, &patch).await?;
        Ok(written.metadata.resource_version)
    }

    async fn mark_not_ready(&self, pod: &PodInfo, now: Timestamp) -> Result<(), Error> {
        rest::ignore_not_found(self.rest.patch_pod_status(pod, &plan::not_ready(now)).await)?;
        let message = "Node is not ready".to_owned();
        self.recorder.event(&pod.reference(), EventType::Warning, "NodeNotReady", message);
        Ok(())
    }

    async fn evict(&self, pod: &PodInfo, taint: &Taint) -> Result<(), Error> {
        let (namespace, name) = (&*pod.namespace, &*pod.name);
        let message = format!("Marking for deletion Pod {namespace}/{name}");
        tracing::info!(namespace, pod = name, reason = taint.key, "evicting pod");
        self.recorder.event(&pod.reference(), EventType::Normal, "TaintManagerEviction", message);
        self.rest.delete(&rest::path::<Pod>(Some(namespace)), name, &rest::only_uid(&pod.uid)).await
    }
}
