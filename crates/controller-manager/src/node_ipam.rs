//! Gives each node a part of the cluster's pod addresses: `spec.podCIDR`.
//!
//! Behaviour follows `pkg/controller/nodeipam/ipam/range_allocator.go`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use client::{Change, EventType, Lister, Outcome, Recorder, WorkQueue, object_reference};
use ipnet::Ipv4Net;
use k8s_openapi::api::core::v1::Node;
use kube::Error;
use parking_lot::Mutex;
use serde_json::json;

use crate::Config;
use crate::context::{Context, new_queue, outcome};
use crate::rest::{self, Rest};

const NAME: &str = "cidrAllocator";
/// One at a time: two allocations at once could choose the same part.
const WORKERS: usize = 1;

struct Controller {
    nodes: Lister<Node>,
    /// What was given to nodes whose new state the cache does not show yet.
    given: Mutex<HashMap<String, Ipv4Net>>,
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
        given: Mutex::default(),
        config: context.config.clone(),
        queue: new_queue(),
        rest: context.rest.clone(),
        recorder: context.recorder(NAME),
    });
    let c = controller.clone();
    context.informers.nodes.on_change(move |change| c.node_changed(change));
    let queue = controller.queue.clone();
    let synced = async move { caches.nodes.synced().await };
    context.run_workers(synced, &queue, WORKERS, move |name: String| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&name).await;
            outcome(NAME, &name, result)
        }
    });
}

impl Controller {
    fn node_changed(&self, change: &Change<Node>) {
        let node = change.object();
        if let Change::Deleted(_) = change {
            self.given.lock().remove(node.metadata.name.as_deref().unwrap_or_default());
            // Its addresses are free for those that got none.
            let without = self.nodes.list().into_iter().filter(|node| cidrs(node).is_empty());
            without.filter_map(|node| node.metadata.name.clone()).for_each(|name| self.queue.add(name));
        } else if cidrs(node).is_empty() {
            self.queue.add(node.metadata.name.clone().unwrap_or_default());
        } else {
            self.given.lock().remove(node.metadata.name.as_deref().unwrap_or_default());
        }
    }

    async fn sync(&self, name: &str) -> Result<Outcome, Error> {
        let Some(node) = self.nodes.get(None, name) else { return Ok(Outcome::Done) };
        if self.given.lock().contains_key(name) {
            return Ok(Outcome::Done);
        }
        let mut occupied: HashSet<Ipv4Net> = self.nodes.list().iter().flat_map(|node| cidrs(node)).collect();
        occupied.extend(self.given.lock().values());
        match plan(&node, &occupied, self.config.cluster_cidr, self.config.node_cidr_mask) {
            None => (),
            Some(Action::Give(cidr)) => self.give(name, cidr).await?,
            Some(Action::Refuse) => {
                let message = format!("Node {name} status is now: CIDRNotAvailable");
                tracing::warn!(node = name, cluster_cidr = %self.config.cluster_cidr, "no pod CIDR is left");
                self.recorder.event(&object_reference(&*node), EventType::Normal, "CIDRNotAvailable", message);
            }
        }
        Ok(Outcome::Done)
    }

    async fn give(&self, name: &str, cidr: Ipv4Net) -> Result<(), Error> {
        self.given.lock().insert(name.to_owned(), cidr);
        let patch = json!({"spec": {"podCIDR": cidr, "podCIDRs": [cidr]}});
        let given = self.rest.merge_patch(&rest::path::<Node>(None), name, None, &patch).await;
        match given {
            Ok(_) => tracing::info!(node = name, %cidr, "node has a pod CIDR"),
            Err(_) => drop(self.given.lock().remove(name)),
        }
        rest::ignore_not_found(given.map(|_| ()))
    }
}

/// The pod CIDRs of a node that can be read.
fn cidrs(node: &Node) -> Vec<Ipv4Net> {
    let Some(spec) = &node.spec else { return Vec::new() };
    let all = spec.pod_cidr.iter().chain(spec.pod_cidrs.iter().flatten());
    all.filter_map(|cidr| cidr.parse().ok()).collect()
}

/// What to do for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// It gets this part.
    Give(Ipv4Net),
    /// There is none left for it.
    Refuse,
}

/// The lowest part of `cluster_cidr` of length `mask` that meets no occupied one, for a node that has none.
fn plan(node: &Node, occupied: &HashSet<Ipv4Net>, cluster_cidr: Ipv4Net, mask: u8) -> Option<Action> {
    let named = node.spec.as_ref().is_some_and(|spec| spec.pod_cidr.as_ref().is_some_and(|cidr| !cidr.is_empty()));
    if named || node.metadata.deletion_timestamp.is_some() {
        return None;
    }
    // Parts of other lengths may come from another configuration; they occupy all that they meet.
    let foreign: Vec<_> = occupied.iter().filter(|cidr| cidr.prefix_len() != mask).collect();
    let meets = |cidr: &Ipv4Net| foreign.iter().any(|other| other.contains(cidr) || cidr.contains(*other));
    let mut parts = cluster_cidr.subnets(mask).ok()?;
    let free = parts.find(|cidr| !occupied.contains(cidr) && !meets(cidr));
    Some(free.map_or(Action::Refuse, Action::Give))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::NodeSpec;
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> Ipv4Net {
        text.parse().unwrap()
    }

    fn node(cidr: Option<&str>) -> Node {
        let spec = NodeSpec { pod_cidr: cidr.map(str::to_owned), ..NodeSpec::default() };
        Node { spec: Some(spec), ..Node::default() }
    }

    #[test]
    fn a_node_gets_the_lowest_free_part() {
        let cases = [
            ("the first node", None, vec![], Some(Action::Give(net("10.244.0.0/24")))),
            ("a gap is filled", None, vec!["10.244.0.0/24", "10.244.2.0/24"], Some(Action::Give(net("10.244.1.0/24")))),
            ("a node that has one keeps it", Some("10.9.0.0/24"), vec![], None),
            (
                "what meets a larger part is taken",
                None,
                vec!["10.244.0.0/23"],
                Some(Action::Give(net("10.244.2.0/24"))),
            ),
            (
                "what meets a smaller part is taken",
                None,
                vec!["10.244.0.8/29"],
                Some(Action::Give(net("10.244.1.0/24"))),
            ),
            ("nothing is left", None, vec!["10.244.0.0/16"], Some(Action::Refuse)),
        ];
        for (sentence, has, occupied, expected) in cases {
            let occupied = occupied.into_iter().map(net).collect();
            assert_eq!(plan(&node(has), &occupied, net("10.244.0.0/16"), 24), expected, "{sentence}");
        }
    }

    #[test]
    fn a_mask_that_does_not_fit_gives_nothing() {
        assert_eq!(plan(&node(None), &HashSet::new(), net("10.244.0.0/16"), 8), None);
    }

    proptest! {
        #[test]
        fn no_part_is_given_twice_and_planning_again_gives_nothing(count in 0..20_usize) {
            let (mut occupied, mut refused) = (HashSet::new(), 0);
            for _ in 0..count {
                match plan(&node(None), &occupied, net("10.0.0.0/20"), 24).unwrap() {
                    Action::Give(cidr) => {
                        prop_assert!(occupied.insert(cidr));
                        prop_assert_eq!(plan(&node(Some(&cidr.to_string())), &occupied, net("10.0.0.0/20"), 24), None);
                    }
                    Action::Refuse => refused += 1,
                }
            }
            prop_assert_eq!(refused, count.saturating_sub(16));
        }
    }
}
