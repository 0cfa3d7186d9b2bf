//! How many decisions a second: `cargo run --release -p scheduler --example decision_rate [nodes] [pods]`.
//!
//! Plain pods and pods of controllers, whole steps (queue, filters, scores, assumption) without any I/O; then the same
//! number of pods that fit nowhere.

#![allow(clippy::print_stdout, reason = "it prints figures")]

use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::StdRng;
use scheduler::pod::Observed;
use scheduler::{Cluster, NodeSpec, PodInfo, Step};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: usize| arguments.next().map_or(Ok(default), |text| text.parse());
    let (nodes, pods) = (number(1_000)?, number(10_000)?);
    let mut cluster = Cluster::default();
    for number in 0..nodes {
        cluster.node_seen(node(number)?);
    }
    measure("placed", &mut cluster, pods, "50m")?;
    measure("refused", &mut cluster, pods, "100")?;
    Ok(())
}

/// Lets `pods` pods that request `cpu` wait, and steps until nothing is left to do.
fn measure(what: &str, cluster: &mut Cluster, pods: usize, cpu: &str) -> Result<(), serde_json::Error> {
    let mut rng = StdRng::seed_from_u64(1);
    for number in 0..pods {
        let pod = pod(&format!("{what}-{number}"), number % 100, cpu)?;
        cluster.pod_seen(&pod.uid.clone(), Observed::Waiting(pod.into()));
    }
    let (start, mut placed, mut refused) = (Instant::now(), 0, 0);
    loop {
        match cluster.step(start, &mut rng) {
            Step::Bind(pod, _) => {
                placed += 1;
                cluster.bound(&pod.uid);
            }
            Step::Refuse(..) => refused += 1,
            Step::Wait(until) if until == Some(start) => {}
            Step::Wait(_) => break,
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let nodes = cluster.snapshot().nodes().len();
    println!(
        "{nodes} nodes, {pods} pods: {placed} placed, {refused} refused, {:.0} decisions/s",
        pods as f64 / seconds
    );
    Ok(())
}

fn node(number: usize) -> Result<NodeSpec, serde_json::Error> {
    let node: Value = json!({
        "metadata": {"name": format!("node-{number:04}"), "labels": {
            "kubernetes.io/hostname": format!("node-{number:04}"), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        }},
        "status": {
            "allocatable": {"cpu": "8", "memory": "32Gi", "ephemeral-storage": "100Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    });
    Ok(NodeSpec::of(&serde_json::from_value(node)?))
}

fn pod(name: &str, controller: usize, cpu: &str) -> Result<PodInfo, serde_json::Error> {
    let owner = json!({"apiVersion": "v1", "kind": "ReplicationController", "name": "rc", "controller": true,
        "uid": format!("rc-{controller}")});
    let tolerations = json!([
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
        {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
    ]);
    let pod = json!({
        "metadata": {"name": name, "namespace": "default", "uid": name, "ownerReferences": [owner]},
        "spec": {"tolerations": tolerations, "containers": [
            {"name": "c", "resources": {"requests": {"cpu": cpu, "memory": "64Mi"}}},
        ]},
    });
    Ok(PodInfo::of(&serde_json::from_value(pod)?))
}
