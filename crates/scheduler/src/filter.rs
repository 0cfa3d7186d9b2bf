//! Filters: which nodes a pod may run on, and why not on the others.
//!
//! They run in upstream's order (`pkg/scheduler/apis/config/v1/default_plugins.go`); the first that refuses a node is the
//! one that is reported, because whoever lifts it will learn the next.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::node::{NodeInfo, Usage};
use crate::pod::{Demand, PodInfo};
use crate::resources::Allocatable;
use crate::storage::Volumes;
use crate::taints::{Effect, Taint};

/// Why a node does not take a pod; the texts are upstream's, they become Events.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// It is cordoned.
    Unschedulable,
    /// The pod names another.
    NodeName,
    /// It has a taint that the pod does not tolerate.
    UntoleratedTaint {
        /// The taint's key.
        key: Arc<str>,
        /// The taint's value.
        value: Arc<str>,
    },
    /// Node selector or required node affinity do not match.
    NodeAffinity,
    /// What is wrong with the pod's claims, whatever the node.
    Claim(Arc<str>),
    /// A volume of the pod is not on the node.
    VolumeAffinity,
    /// A host port is taken.
    HostPorts,
    /// It has its full number of pods.
    TooManyPods,
    /// Not enough of this resource is free.
    Insufficient(Cow<'static, str>),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Unschedulable => f.write_str("node(s) were unschedulable"),
            Reason::NodeName => f.write_str("node(s) didn't match the requested node name"),
            Reason::UntoleratedTaint { key, value } => write!(f, "node(s) had untolerated taint {{{key}: {value}}}"),
            Reason::NodeAffinity => f.write_str("node(s) didn't match Pod's node affinity/selector"),
            Reason::Claim(why) => f.write_str(why),
            Reason::VolumeAffinity => f.write_str("node(s) didn't match PersistentVolume's node affinity"),
            Reason::HostPorts => f.write_str("node(s) didn't have free ports for the requested pod ports"),
            Reason::TooManyPods => f.write_str("Too many pods"),
            Reason::Insufficient(resource) => write!(f, "Insufficient {resource}"),
        }
    }
}

impl Reason {
    /// Whether it is about the pod alone, and every node says the same.
    pub fn is_of_pod(&self) -> bool {
        matches!(self, Reason::Claim(_))
    }
}

type Filter = fn(&Demand, &NodeInfo, &mut Vec<Reason>);

/// Every filter, in the order in which they are asked.
const FILTERS: &[Filter] =
    &[claims, node_unschedulable, node_name, taints, node_affinity, host_ports, resources, volumes];

/// Asks the filters in turn until one refuses; `reasons` then holds why. True: the node takes the pod.
pub fn admits(pod: &PodInfo, node: &NodeInfo, reasons: &mut Vec<Reason>) -> bool {
    reasons.clear();
    for filter in FILTERS {
        filter(&pod.demand, node, reasons);
        if !reasons.is_empty() {
            return false;
        }
    }
    true
}

/// First of all, as it does not depend on the node (`PreFilter` upstream).
fn claims(pod: &Demand, _node: &NodeInfo, reasons: &mut Vec<Reason>) {
    if let Volumes::Wait(reason) = &pod.volumes {
        reasons.push(reason.clone());
    }
}

fn volumes(pod: &Demand, node: &NodeInfo, reasons: &mut Vec<Reason>) {
    if let Volumes::On(places) = &pod.volumes
        && !places.iter().all(|place| place.admit(&node.spec.name, &node.spec.labels))
    {
        reasons.push(Reason::VolumeAffinity);
    }
}

/// Cordoned nodes take only pods that tolerate the taint that stands for it.
fn node_unschedulable(pod: &Demand, node: &NodeInfo, reasons: &mut Vec<Reason>) {
    if !node.spec.unschedulable {
        return;
    }
    let cordon = Taint::new(api::well_known::TAINT_UNSCHEDULABLE, "", Effect::NoSchedule);
    if !cordon.tolerated_by(&pod.tolerations) {
        reasons.push(Reason::Unschedulable);
    }
}

fn node_name(pod: &Demand, node: &NodeInfo, reasons: &mut Vec<Reason>) {
    if pod.node_name.as_deref().is_some_and(|name| name != &*node.spec.name) {
        reasons.push(Reason::NodeName);
    }
}

/// Readiness is in here too: a node that is not ready has a taint that says so (see [`crate::taints::of`]).
fn taints(pod: &Demand, node: &NodeInfo, reasons: &mut Vec<Reason>) {
    let forbidding = node.spec.taints.iter().filter(|taint| taint.effect.forbids());
    if let Some(taint) = forbidding.into_iter().find(|taint| !taint.tolerated_by(&pod.tolerations)) {
        reasons.push(Reason::UntoleratedTaint { key: taint.key.clone(), value: taint.value.clone() });
    }
}

fn node_affinity(pod: &Demand, node: &NodeInfo, reasons: &mut Vec<Reason>) {
    if !pod.affinity.admits(&node.spec.name, &node.spec.labels) {
        reasons.push(Reason::NodeAffinity);
    }
}

fn host_ports(pod: &Demand, node: &NodeInfo, reasons: &mut Vec<Reason>) {
    let taken = |port| node.usage.host_ports.iter().any(|held| held.conflicts_with(port));
    if pod.host_ports.iter().any(taken) {
        reasons.push(Reason::HostPorts);
    }
}

/// Says of every resource that is short, not only of the first.
fn resources(pod: &Demand, node: &NodeInfo, reasons: &mut Vec<Reason>) {
    let (Allocatable { resources: total, pods }, Usage { requested: used, .. }) = (&node.spec.allocatable, &node.usage);
    if node.usage.pods + 1 > *pods {
        reasons.push(Reason::TooManyPods);
    }
    let wanted = &pod.requests;
    let mut check = |wanted: i128, free: i128, name: &dyn Fn() -> Cow<'static, str>| {
        if wanted > 0 && wanted > free {
            reasons.push(Reason::Insufficient(name()));
        }
    };
    check(wanted.milli_cpu, total.milli_cpu - used.milli_cpu, &|| "cpu".into());
    check(wanted.memory, total.memory - used.memory, &|| "memory".into());
    check(wanted.ephemeral_storage, total.ephemeral_storage - used.ephemeral_storage, &|| "ephemeral-storage".into());
    for (name, amount) in &wanted.scalars {
        let of = |list: &BTreeMap<String, i128>| list.get(name).copied().unwrap_or(0);
        check(*amount, of(&total.scalars) - of(&used.scalars), &|| name.clone().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{node, pod};
    use serde_json::{Value, json};

    fn reasons(pod_change: Value, node_change: Value) -> Vec<String> {
        let mut reasons = Vec::new();
        let node = NodeInfo { spec: node("n", node_change), ..NodeInfo::default() };
        admits(&pod("p", pod_change), &node, &mut reasons);
        reasons.iter().map(Reason::to_string).collect()
    }

    fn requests(list: Value) -> Value {
        json!({"spec": {"containers": [{"name": "c", "resources": {"requests": list}}]}})
    }

    #[test]
    fn each_filter_refuses_with_upstreams_words() {
        let tainted = json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}});
        let everywhere = json!({"spec": {"tolerations": [{"operator": "Exists"}]}});
        let cordoned = json!({"spec": {"unschedulable": true}});
        let lost = json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}});
        let table = [
            ("a plain pod fits a plain node", json!({}), json!({}), vec![]),
            ("cordoned", json!({}), cordoned.clone(), vec!["node(s) were unschedulable"]),
            ("cordoned but tolerated", everywhere.clone(), cordoned, vec![]),
            (
                "another node's name",
                json!({"spec": {"nodeName": "other"}}),
                json!({}),
                vec!["node(s) didn't match the requested node name"],
            ),
            ("tainted", json!({}), tainted.clone(), vec!["node(s) had untolerated taint {k: v}"]),
            ("tainted but tolerated", everywhere, tainted, vec![]),
            ("lost", json!({}), lost, vec!["node(s) had untolerated taint {node.kubernetes.io/unreachable: }"]),
            (
                "only preferred against",
                json!({}),
                json!({"spec": {"taints": [{"key": "k", "effect": "PreferNoSchedule"}]}}),
                vec![],
            ),
            (
                "a label it lacks",
                json!({"spec": {"nodeSelector": {"disk": "ssd"}}}),
                json!({}),
                vec!["node(s) didn't match Pod's node affinity/selector"],
            ),
            ("too much cpu", requests(json!({"cpu": "5"})), json!({}), vec!["Insufficient cpu"]),
            (
                "too much of two",
                requests(json!({"cpu": "5", "memory": "1Ti"})),
                json!({}),
                vec!["Insufficient cpu", "Insufficient memory"],
            ),
            (
                "too much storage",
                requests(json!({"ephemeral-storage": "1Ti"})),
                json!({}),
                vec!["Insufficient ephemeral-storage"],
            ),
            (
                "a resource it lacks",
                requests(json!({"example.com/gpu": "1"})),
                json!({}),
                vec!["Insufficient example.com/gpu"],
            ),
            ("exactly all", requests(json!({"cpu": "4", "memory": "8Gi"})), json!({}), vec![]),
            ("no room for pods", json!({}), json!({"status": {"allocatable": {"pods": "0"}}}), vec!["Too many pods"]),
        ];
        for (sentence, pod_change, node_change, expected) in table {
            assert_eq!(reasons(pod_change, node_change), expected, "{sentence}");
        }
    }

    #[test]
    fn a_taken_host_port_refuses() {
        let wants = json!({"spec": {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
        let mut node = NodeInfo { spec: node("n", json!({})), ..NodeInfo::default() };
        node.usage.add(&pod("first", wants.clone()).demand);
        let mut reasons = Vec::new();
        assert!(!admits(&pod("second", wants), &node, &mut reasons));
        assert_eq!(reasons, [Reason::HostPorts]);
    }
}
