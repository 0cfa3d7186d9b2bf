//! The picture of the cluster that decisions are made on: kept up to date event by event, never rebuilt.
//!
//! A pod we decided about is *assumed* on its node before the API server has acknowledged the binding, so that the
//! next decision sees its room as taken. The assumption ends when the watch shows the pod bound (it is confirmed), when
//! the binding fails (it is forgotten) or when the pod is gone. It has no timeout: every one of the three is certain to
//! come.

use std::collections::HashMap;
use std::sync::Arc;

use crate::node::{NodeInfo, NodeName, NodeSpec, Usage};
use crate::pod::{PodInfo, Uid};

/// All nodes with what their pods use.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    nodes: Vec<NodeInfo>,
    positions: HashMap<NodeName, usize>,
    pods: HashMap<Uid, Placed>,
    /// Usage on nodes that we have not seen yet, or not any more.
    elsewhere: HashMap<NodeName, Usage>,
}

#[derive(Clone, Debug)]
struct Placed {
    pod: Arc<PodInfo>,
    node: NodeName,
    assumed: bool,
}

impl Snapshot {
    /// Every node, in no particular order.
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.nodes
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&NodeInfo> {
        self.positions.get(name).map(|position| &self.nodes[*position])
    }

    /// Puts a node or changes it. Returns whether anything differs from before.
    pub fn set_node(&mut self, spec: NodeSpec) -> bool {
        if let Some(position) = self.positions.get(&spec.name) {
            let node = &mut self.nodes[*position];
            let differs = node.spec != spec;
            node.spec = spec;
            return differs;
        }
        let usage = self.elsewhere.remove(&spec.name).unwrap_or_default();
        self.positions.insert(spec.name.clone(), self.nodes.len());
        self.nodes.push(NodeInfo { spec, usage });
        true
    }

    /// Takes a node away; what its pods use is remembered in case it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(position) = self.positions.remove(name) else { return };
        let node = self.nodes.swap_remove(position);
        if let Some(moved) = self.nodes.get(position) {
            self.positions.insert(moved.spec.name.clone(), position);
        }
        if node.usage.pods > 0 {
            self.elsewhere.insert(node.spec.name, node.usage);
        }
    }

    /// Whether the pod is on a node only by our own decision so far.
    pub fn is_assumed(&self, uid: &str) -> bool {
        self.pods.get(uid).is_some_and(|placed| placed.assumed)
    }

    /// How many pods take room anywhere.
    pub fn pod_count(&self) -> usize {
        self.pods.len()
    }

    /// Takes the room for a pod whose binding is not acknowledged yet.
    pub fn assume(&mut self, pod: Arc<PodInfo>, node: &NodeName) {
        self.put(Placed { pod, node: node.clone(), assumed: true });
    }

    /// The watch shows the pod on `node`. Returns the node on which room became free by this, if any.
    pub fn place(&mut self, pod: impl Into<Arc<PodInfo>>, node: &str) -> Option<NodeName> {
        let pod = pod.into();
        if let Some(placed) = self.pods.get_mut(&pod.uid)
            && &*placed.node == node
            && placed.pod.demand.requests == pod.demand.requests
        {
            placed.assumed = false;
            return None;
        }
        let freed = self.remove(&pod.uid);
        let node = self.known_name(node);
        self.put(Placed { pod, node, assumed: false });
        freed
    }

    /// The pod takes no room any more. Returns the node it was on.
    pub fn remove(&mut self, uid: &str) -> Option<NodeName> {
        let placed = self.pods.remove(uid)?;
        self.usage(&placed.node).remove(&placed.pod.demand);
        if self.elsewhere.get(&placed.node).is_some_and(|usage| usage.pods == 0) {
            self.elsewhere.remove(&placed.node);
        }
        Some(placed.node)
    }

    /// The binding of an assumed pod failed. Returns the node whose room is free again.
    pub fn forget(&mut self, uid: &str) -> Option<NodeName> {
        if self.is_assumed(uid) { self.remove(uid) } else { None }
    }

    fn put(&mut self, placed: Placed) {
        self.remove(&placed.pod.uid);
        self.usage(&placed.node).add(&placed.pod.demand);
        self.pods.insert(placed.pod.uid.clone(), placed);
    }

    fn usage(&mut self, node: &NodeName) -> &mut Usage {
        match self.positions.get(node) {
            Some(position) => &mut self.nodes[*position].usage,
            None => self.elsewhere.entry(node.clone()).or_default(),
        }
    }

    /// The one shared copy of a node's name.
    fn known_name(&self, name: &str) -> NodeName {
        self.positions.get_key_value(name).map_or_else(|| name.into(), |(known, _)| known.clone())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::pod::Demand;
    use crate::resources::Resources;

    fn pod(uid: &str, milli_cpu: i128) -> PodInfo {
        let requests = Resources { milli_cpu, ..Resources::default() };
        PodInfo { uid: uid.into(), demand: Demand { requests, ..Demand::default() }, ..PodInfo::default() }
    }

    fn node(name: &str) -> NodeSpec {
        NodeSpec { name: name.into(), ..NodeSpec::default() }
    }

    fn used(snapshot: &Snapshot, name: &str) -> i128 {
        snapshot.node(name).unwrap().usage.requested.milli_cpu
    }

    #[test]
    fn an_assumed_pod_takes_room_until_it_is_forgotten() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n"));
        snapshot.assume(pod("a", 7).into(), &"n".into());
        assert_eq!(used(&snapshot, "n"), 7);
        assert_eq!(snapshot.forget("a").as_deref(), Some("n"));
        assert_eq!(used(&snapshot, "n"), 0);
    }

    #[test]
    fn a_confirmed_pod_is_not_forgotten() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n"));
        snapshot.assume(pod("a", 7).into(), &"n".into());
        assert_eq!(snapshot.place(pod("a", 7), "n"), None);
        assert_eq!(snapshot.forget("a"), None);
        assert_eq!(used(&snapshot, "n"), 7);
    }

    #[test]
    fn a_pod_bound_elsewhere_frees_what_was_assumed() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n"));
        snapshot.set_node(node("m"));
        snapshot.assume(pod("a", 7).into(), &"n".into());
        assert_eq!(snapshot.place(pod("a", 7), "m").as_deref(), Some("n"));
        assert_eq!((used(&snapshot, "n"), used(&snapshot, "m")), (0, 7));
    }

    #[test]
    fn pods_seen_before_their_node_count_when_it_comes() {
        let mut snapshot = Snapshot::default();
        snapshot.place(pod("a", 7), "n");
        snapshot.set_node(node("n"));
        assert_eq!(used(&snapshot, "n"), 7);
        snapshot.remove_node("n");
        snapshot.set_node(node("n"));
        assert_eq!(used(&snapshot, "n"), 7);
    }

    #[test]
    fn a_resized_pod_is_counted_anew() {
        let mut snapshot = Snapshot::default();
        snapshot.set_node(node("n"));
        snapshot.place(pod("a", 7), "n");
        snapshot.place(pod("a", 3), "n");
        assert_eq!(used(&snapshot, "n"), 3);
    }

    #[derive(Clone, Debug)]
    enum Step {
        SetNode(u8),
        RemoveNode(u8),
        Assume(u8, u8),
        Place(u8, u8, u8),
        Remove(u8),
        Forget(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        let id = || 0..4u8;
        prop_oneof![
            id().prop_map(Step::SetNode),
            id().prop_map(Step::RemoveNode),
            (id(), id()).prop_map(|(pod, node)| Step::Assume(pod, node)),
            (id(), id(), 1..9u8).prop_map(|(pod, node, cpu)| Step::Place(pod, node, cpu)),
            id().prop_map(Step::Remove),
            id().prop_map(Step::Forget),
        ]
    }

    fn apply(snapshot: &mut Snapshot, step: Step) {
        match step {
            Step::SetNode(n) => {
                snapshot.set_node(node(&n.to_string()));
            }
            Step::RemoveNode(n) => snapshot.remove_node(&n.to_string()),
            Step::Assume(p, n) => snapshot.assume(pod(&p.to_string(), 1).into(), &n.to_string().into()),
            Step::Place(p, n, cpu) => {
                snapshot.place(pod(&p.to_string(), cpu.into()), &n.to_string());
            }
            Step::Remove(p) => {
                snapshot.remove(&p.to_string());
            }
            Step::Forget(p) => {
                snapshot.forget(&p.to_string());
            }
        }
    }

    proptest! {
        /// Whatever happens, each node's usage is the sum of the pods placed on it.
        #[test]
        fn usage_is_always_the_sum_of_the_pods(steps in prop::collection::vec(step(), 0..60)) {
            let mut snapshot = Snapshot::default();
            for step in steps {
                apply(&mut snapshot, step);
            }
            let mut sums: BTreeMap<NodeName, Usage> = BTreeMap::new();
            for placed in snapshot.pods.values() {
                sums.entry(placed.node.clone()).or_default().add(&placed.pod.demand);
            }
            for node in &snapshot.nodes {
                prop_assert_eq!(&node.usage, &sums.remove(&node.spec.name).unwrap_or_default());
            }
            for (name, usage) in &snapshot.elsewhere {
                prop_assert_eq!(usage, &sums.remove(name).unwrap_or_default());
            }
            prop_assert!(sums.is_empty());
        }
    }
}
