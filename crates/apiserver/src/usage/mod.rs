//! `metrics.k8s.io`: what nodes and pods use, for `kubectl top` and whoever scales by it. Nothing is collected while
//! nobody asks: a question goes to the nodes it is about, and the answer to the next one is measured from there.
//!
//! - [`scrape`]: the text of a kubelet's `metrics/resource`, and rates between two of them. Pure.
//! - [`nodes`]: asking nodes, and what they said last.
//!
//! Answers read as those of metrics-server (`kubernetes-sigs/metrics-server/pkg/api`).

mod nodes;
mod scrape;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::kinds::metrics::{ContainerMetrics, NodeMetrics, PodMetrics};
use api::{Kind, KindInfo};
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Deserialize;

use crate::cache::Filter;
use crate::call::Call;
use crate::respond::ApiResponse;
use crate::status::ApiError;
use crate::virtual_kinds;

pub(crate) use nodes::Usages;
use scrape::Pair;

/// Nodes asked at a time.
const MAX_ASKED: usize = 16;

/// Answers GET and LIST of NodeMetrics.
pub(crate) async fn of_nodes(call: &Call) -> Result<ApiResponse, ApiError> {
    let nodes = selected(call, "Node").await?;
    let names: BTreeSet<String> = nodes.iter().map(|node| node.metadata.name.clone()).collect();
    let measured = measure(call, names).await?;
    let found = nodes.into_iter().filter_map(|node| {
        let pair = measured.get(&node.metadata.name)?;
        let usage = pair.node()?;
        let (window, timestamp) = (usage.window(), Time(usage.at));
        let metadata = node.metadata.shown();
        Some(NodeMetrics { metadata, timestamp, window, usage: usage.amounts(), ..NodeMetrics::default() })
    });
    virtual_kinds::show(call, &found.collect::<Vec<_>>())
}

/// Answers GET and LIST of PodMetrics.
pub(crate) async fn of_pods(call: &Call) -> Result<ApiResponse, ApiError> {
    let pods = selected(call, "Pod").await?;
    let names: BTreeSet<String> = pods.iter().filter_map(|pod| pod.spec.node_name.clone()).collect();
    let measured = measure(call, names).await?;
    let found = pods.into_iter().filter_map(|pod| {
        let pair = measured.get(pod.spec.node_name.as_ref()?)?;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let containers = pair.pod(namespace, &pod.metadata.name)?;
        let (window, at) = containers.iter().map(|(_, usage)| (usage.window(), usage.at)).max_by_key(|(_, at)| *at)?;
        let shown =
            |(name, usage): &(String, scrape::Usage)| ContainerMetrics { name: name.clone(), usage: usage.amounts() };
        let containers = containers.iter().map(shown).collect();
        let (metadata, timestamp) = (pod.metadata.shown(), Time(at));
        Some(PodMetrics { metadata, timestamp, window, containers, ..PodMetrics::default() })
    });
    virtual_kinds::show(call, &found.collect::<Vec<_>>())
}

/// What of an object is needed here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Seen {
    metadata: Metadata,
    spec: Spec,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Metadata {
    name: String,
    namespace: Option<String>,
    labels: Option<BTreeMap<String, String>>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    node_name: Option<String>,
}

impl Metadata {
    /// The metadata of its metrics: they were made just now.
    fn shown(self) -> ObjectMeta {
        let now = Timestamp::now();
        ObjectMeta {
            name: Some(self.name),
            namespace: self.namespace,
            labels: self.labels,
            creation_timestamp: Some(Time(Timestamp::from_second(now.as_second()).unwrap_or(now))),
            ..ObjectMeta::default()
        }
    }
}

/// The objects of `kind` a request is about.
async fn selected(call: &Call, kind: &str) -> Result<Vec<Seen>, ApiError> {
    call.shared.cache.catch_up().await?;
    let kind = row(kind)?;
    let filter = Filter::parse(kind.info, call.info.namespace.as_deref(), call.info.name.as_deref(), &call.query)?;
    let snapshot = call.shared.cache.of(kind).snapshot(&filter, None, usize::MAX, 0);
    Ok(snapshot.items.iter().filter_map(|entry| serde_json::from_slice(entry.json()).ok()).collect())
}

fn row(kind: &str) -> Result<&'static Kind, ApiError> {
    api::kinds::by_kind("v1", kind).ok_or(ApiError::PathNotFound)
}

/// What the nodes called so measured; without those that do not answer.
async fn measure(call: &Call, names: BTreeSet<String>) -> Result<BTreeMap<String, Arc<Pair>>, ApiError> {
    let kind = row("Node")?;
    let cache = call.shared.cache.of(kind);
    let info: &KindInfo = kind.info;
    let present = cache.snapshot(&Filter::all(info, None), None, usize::MAX, 0).items;
    let nodes: Vec<Node> = present.iter().filter_map(|entry| kind.typed(entry.json())).filter(is_heard).collect();
    call.shared.usages.retain(nodes.iter().filter_map(|node| node.metadata.name.as_deref()));
    let asked = nodes.into_iter().filter(|node| node.metadata.name.as_ref().is_some_and(|name| names.contains(name)));
    let pairs = stream::iter(asked).map(|node| async move {
        let name = node.metadata.name.clone().unwrap_or_default();
        match call.shared.usages.pair(&call.shared.kubelets, &node).await {
            Ok(pair) => Some((name, pair)),
            Err(error) => {
                tracing::debug!(node = name, error, "cannot ask a node what it uses");
                None
            }
        }
    });
    let pairs: Vec<Option<(String, Arc<Pair>)>> = pairs.buffer_unordered(MAX_ASKED).collect().await;
    Ok(pairs.into_iter().flatten().collect())
}

/// Whether the node's kubelet is likely to answer: one that went silent costs everyone the time-out.
fn is_heard(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    !conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "Unknown")
}
