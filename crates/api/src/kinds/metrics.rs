//! `metrics.k8s.io/v1beta1`: what nodes and pods use. Not stored: the API server asks the nodes when it is asked
//! (`k8s.io/metrics/pkg/apis/metrics/v1beta1`).

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::{ClusterResourceScope, NamespaceResourceScope};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::Resource;
use crate::kinds::{Column, KindInfo, NAME, Scope, Verb, column};
use crate::names::NameRule;

const GROUP: &str = "metrics.k8s.io";
const VERSION: &str = "v1beta1";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// Amounts by resource: `cpu` and `memory`.
pub type Usage = BTreeMap<String, Quantity>;

/// What a node used over a window of time that ended at a moment.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.NodeMetrics")]
pub struct NodeMetrics {
    /// `metrics.k8s.io/v1beta1`.
    pub api_version: String,
    /// `NodeMetrics`.
    pub kind: String,
    /// Standard metadata, with the node's labels.
    pub metadata: ObjectMeta,
    /// The end of the window.
    pub timestamp: Time,
    /// How long the window is.
    pub window: String,
    /// What was used.
    pub usage: Usage,
}

/// What a pod used over a window of time that ended at a moment.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.PodMetrics")]
pub struct PodMetrics {
    /// `metrics.k8s.io/v1beta1`.
    pub api_version: String,
    /// `PodMetrics`.
    pub kind: String,
    /// Standard metadata, with the pod's labels.
    pub metadata: ObjectMeta,
    /// The end of the window.
    pub timestamp: Time,
    /// How long the window is.
    pub window: String,
    /// What each container used.
    pub containers: Vec<ContainerMetrics>,
}

/// What a container used.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, rename_all = "camelCase")]
#[schemars(rename = "io.k8s.metrics.pkg.apis.metrics.v1beta1.ContainerMetrics")]
pub struct ContainerMetrics {
    /// Its name in the pod.
    pub name: String,
    /// What it used.
    pub usage: Usage,
}

const CPU: Column = column("cpu", "string", "Processor time used");
const MEMORY: Column = column("memory", "string", "Memory that cannot be given back at once");
const WINDOW: Column = column("window", "string", "How long usage was measured");

/// The row of a kind of metrics.
const fn metrics(
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    scope: Scope,
    columns: &'static [Column],
) -> KindInfo {
    KindInfo {
        group: GROUP,
        version: VERSION,
        kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        scope,
        verbs: Verb::READ_ONLY,
        subresources: &[],
        columns,
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    }
}

impl Default for NodeMetrics {
    fn default() -> NodeMetrics {
        NodeMetrics {
            api_version: API_VERSION.to_owned(),
            kind: "NodeMetrics".to_owned(),
            metadata: ObjectMeta::default(),
            timestamp: Time(Timestamp::UNIX_EPOCH),
            window: "0s".to_owned(),
            usage: Usage::new(),
        }
    }
}

impl Default for PodMetrics {
    fn default() -> PodMetrics {
        PodMetrics {
            api_version: API_VERSION.to_owned(),
            kind: "PodMetrics".to_owned(),
            metadata: ObjectMeta::default(),
            timestamp: Time(Timestamp::UNIX_EPOCH),
            window: "0s".to_owned(),
            containers: Vec::new(),
        }
    }
}

impl k8s_openapi::Resource for NodeMetrics {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "NodeMetrics";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "nodes";
    type Scope = ClusterResourceScope;
}

impl k8s_openapi::Resource for PodMetrics {
    const API_VERSION: &'static str = API_VERSION;
    const GROUP: &'static str = GROUP;
    const KIND: &'static str = "PodMetrics";
    const VERSION: &'static str = VERSION;
    const URL_PATH_SEGMENT: &'static str = "pods";
    type Scope = NamespaceResourceScope;
}

impl k8s_openapi::Metadata for NodeMetrics {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl k8s_openapi::Metadata for PodMetrics {
    type Ty = ObjectMeta;

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Resource for NodeMetrics {
    const INFO: KindInfo = metrics("NodeMetrics", "nodes", "node", Scope::Cluster, &[NAME, CPU, MEMORY, WINDOW]);

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        cells(&self.metadata, &self.usage, &self.window)
    }
}

impl Resource for PodMetrics {
    const INFO: KindInfo = metrics("PodMetrics", "pods", "pod", Scope::Namespaced, &[NAME, CPU, MEMORY, WINDOW]);

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        cells(&self.metadata, &total(&self.containers), &self.window)
    }
}

/// What all containers of a pod use together.
pub fn total(containers: &[ContainerMetrics]) -> Usage {
    let mut sum: BTreeMap<&str, crate::quantity::Quantity> = BTreeMap::new();
    for (name, amount) in containers.iter().flat_map(|container| &container.usage) {
        let amount = crate::quantity::of(amount);
        sum.entry(name).and_modify(|sum| *sum += amount).or_insert(amount);
    }
    sum.into_iter().map(|(name, amount)| (name.to_owned(), Quantity(amount.to_string()))).collect()
}

fn cells(metadata: &ObjectMeta, usage: &Usage, window: &str) -> Vec<Value> {
    let of = |name: &str| json!(usage.get(name).map_or("", |amount| amount.0.as_str()));
    vec![json!(metadata.name), of("cpu"), of("memory"), json!(window)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(cpu: &str, memory: &str) -> ContainerMetrics {
        let usage = [("cpu", cpu), ("memory", memory)].map(|(name, amount)| (name.to_owned(), Quantity(amount.into())));
        ContainerMetrics { name: "c".into(), usage: usage.into() }
    }

    #[test]
    fn a_pod_uses_what_its_containers_use() {
        let containers = vec![container("1500000n", "16Mi"), container("500000n", "1024Ki")];
        let metrics = PodMetrics { containers, window: "15s".into(), ..PodMetrics::default() };
        assert_eq!(metrics.cells(Timestamp::UNIX_EPOCH), [json!(null), json!("2m"), json!("17Mi"), json!("15s")]);
    }

    #[test]
    fn metrics_read_back_as_they_were_written() {
        let metrics = PodMetrics { containers: vec![container("1m", "1Ki")], ..PodMetrics::default() };
        let decoded = crate::decode::decode::<PodMetrics>(&crate::Object::encode(&metrics)).unwrap();
        assert_eq!(decoded.strict_errors, [""; 0]);
        assert_eq!(decoded.object.as_any().downcast_ref(), Some(&metrics));
    }
}
