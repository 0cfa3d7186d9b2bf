//! When so many nodes are lost that the fault is more likely in the network between us and them.
//!
//! Compare `ComputeZoneState` in upstream's `node_lifecycle_controller.go`; where upstream evicts slowly in large
//! zones that are partly disrupted, we hold still.

use std::sync::Arc;

use api::nodes;
use k8s_openapi::api::core::v1::Node;

/// The share of lost nodes from which a zone counts as disrupted, in percent.
const UNHEALTHY_PERCENT: usize = 55;
/// No fewer lost nodes than this disrupt a zone that still has others.
const UNHEALTHY_MIN: usize = 3;

/// Whether the zone of `node`, or the whole cluster, has lost so many nodes that no pod should be moved.
pub(super) fn is_disrupted(node: &Node, all: &[Arc<Node>]) -> bool {
    if !all.is_empty() && all.iter().all(|node| !nodes::is_ready(node)) {
        return true;
    }
    let zone: Vec<_> = all.iter().filter(|other| zone(other) == zone(node)).collect();
    let lost = zone.iter().filter(|node| !nodes::is_ready(node)).count();
    lost < zone.len() && lost >= UNHEALTHY_MIN && lost * 100 >= zone.len() * UNHEALTHY_PERCENT
}

fn zone(node: &Node) -> (Option<&str>, Option<&str>) {
    let label = |name: &str| node.metadata.labels.as_ref()?.get(name).map(String::as_str);
    (label("topology.kubernetes.io/region"), label("topology.kubernetes.io/zone"))
}

#[cfg(test)]
mod tests {
    use super::super::plan::testing::{lost_node, node};
    use super::*;

    #[test]
    fn pods_are_moved_only_while_most_nodes_are_well() {
        let cases = [
            ("one of three is lost", 1, 3, false),
            ("two of three are lost", 2, 3, false),
            ("three of four are lost", 3, 4, true),
            ("three of ten are lost", 3, 10, false),
            ("all are lost", 2, 2, true),
            ("the only one is lost", 1, 1, true),
            ("none is lost", 0, 3, false),
        ];
        for (sentence, lost, all, expected) in cases {
            let nodes: Vec<_> = (0..all).map(|n| Arc::new(if n < lost { lost_node() } else { node() })).collect();
            assert_eq!(is_disrupted(&nodes[0], &nodes), expected, "{sentence}");
        }
    }
}
