//! What the scheduler keeps of a node: what it offers and what its pods use of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::pods::HostPort;
use k8s_openapi::api::core::v1::Node;

use crate::pod::Demand;
use crate::resources::{self, Allocatable, Resources};
use crate::taints::{self, Taint};

/// A node's name.
pub type NodeName = Arc<str>;

/// One node.
#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    /// As its object says.
    pub spec: NodeSpec,
    /// As its pods say.
    pub usage: Usage,
}

/// Everything about a node's object that decides which pods it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSpec {
    /// Its name.
    pub name: NodeName,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its taints, with those its conditions imply.
    pub taints: Vec<Taint>,
    /// Cordoned.
    pub unschedulable: bool,
    /// What it gives to pods.
    pub allocatable: Allocatable,
}

/// The sum of what the pods on one node take; adding and removing a pod cost the same whatever is there already.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many pods.
    pub pods: i128,
    /// What they request.
    pub requested: Resources,
    /// CPU for scores.
    pub scoring_milli_cpu: i128,
    /// Memory for scores.
    pub scoring_memory: i128,
    /// Host ports taken.
    pub host_ports: Vec<HostPort>,
    /// How many pods each controller has here.
    pub by_controller: HashMap<Arc<str>, u32>,
}

impl Default for NodeSpec {
    fn default() -> Self {
        NodeSpec {
            name: "".into(),
            labels: BTreeMap::new(),
            taints: Vec::new(),
            unschedulable: false,
            allocatable: Allocatable::default(),
        }
    }
}

impl NodeSpec {
    /// What is kept of `node`.
    pub fn of(node: &Node) -> NodeSpec {
        let status = node.status.as_ref();
        // A node that says nothing of its allocatable gives all it has, as defaulting writes it.
        let given = status.and_then(|s| s.allocatable.as_ref().filter(|a| !a.is_empty()).or(s.capacity.as_ref()));
        NodeSpec {
            name: node.metadata.name.as_deref().unwrap_or("").into(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: taints::of(node),
            unschedulable: node.spec.as_ref().and_then(|s| s.unschedulable).unwrap_or(false),
            allocatable: given.map(resources::allocatable).unwrap_or_default(),
        }
    }
}

/// Drops the bulk of a node that no decision looks at.
pub fn trim(node: &mut Node) {
    node.metadata.annotations = None;
    if let Some(status) = &mut node.status {
        status.images = None;
    }
}

impl Usage {
    /// A pod comes.
    pub fn add(&mut self, pod: &Demand) {
        self.pods += 1;
        self.requested.add(&pod.requests);
        self.scoring_milli_cpu += pod.scoring_milli_cpu;
        self.scoring_memory += pod.scoring_memory;
        self.host_ports.extend(pod.host_ports.iter().cloned());
        if let Some(controller) = &pod.controller {
            *self.by_controller.entry(controller.clone()).or_insert(0) += 1;
        }
    }

    /// A pod that was added goes.
    pub fn remove(&mut self, pod: &Demand) {
        self.pods -= 1;
        self.requested.subtract(&pod.requests);
        self.scoring_milli_cpu -= pod.scoring_milli_cpu;
        self.scoring_memory -= pod.scoring_memory;
        for port in &pod.host_ports {
            if let Some(held) = self.host_ports.iter().position(|p| p == port) {
                self.host_ports.swap_remove(held);
            }
        }
        if let Some(controller) = &pod.controller {
            self.forget_one_of(controller);
        }
    }

    fn forget_one_of(&mut self, controller: &Arc<str>) {
        let Some(count) = self.by_controller.get_mut(controller) else { return };
        *count -= 1;
        if *count == 0 {
            self.by_controller.remove(controller);
        }
    }

    /// How many pods of that controller are here.
    pub fn pods_of(&self, controller: &Arc<str>) -> u32 {
        self.by_controller.get(controller).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_comes_and_goes_leaves_no_trace() {
        let pod = Demand { controller: Some("rc".into()), scoring_memory: 5, ..Demand::default() };
        let mut usage = Usage::default();
        usage.add(&pod);
        usage.add(&pod);
        assert_eq!((usage.pods, usage.pods_of(&"rc".into())), (2, 2));
        usage.remove(&pod);
        usage.remove(&pod);
        assert_eq!(usage, Usage::default());
    }

    #[test]
    fn a_node_without_allocatable_gives_its_capacity() {
        let node = json!({"metadata": {"name": "n"}, "status": {"capacity": {"cpu": "2", "pods": "5"}}});
        let spec = NodeSpec::of(&serde_json::from_value(node).unwrap());
        assert_eq!((spec.allocatable.resources.milli_cpu, spec.allocatable.pods), (2000, 5));
    }
}
