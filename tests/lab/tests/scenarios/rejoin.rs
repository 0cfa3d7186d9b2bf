//! A box that comes back changed: installed anew, with another address, or with another host name.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Result, ensure};
use harness::wait::until;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use lab::Cluster;
use lab::cluster::{MINION, MINION_DATA};
use serde_json::json;

use crate::common::{PATH, container, controller, curl, kctl, place, ready, remove, serves, web};
use crate::failure::come_back;

/// What the box is, and where it has another address.
const BOX: &str = "box2";
const ELSEWHERE: &str = "10.55.0.77";

/// Six pods, some of them on the box whose minion is purged, then moves, then moves back.
pub(crate) async fn installed_anew_and_moved(cluster: &mut Cluster) -> Result<()> {
    controller(cluster, "stay", 6, web(json!({}))).await?;
    let before = there(&ready(cluster, "stay", 6).await?);
    ensure!(!before.is_empty(), "the box has pods");
    let uid = node(cluster).await?.metadata.uid;
    purge(cluster).await?;
    let token = kctl(cluster, &["token", "create"], b"").await?;
    cluster.start_minion_with(2, &["--token", token.trim()]).await?;
    let anew = |pods: &[Arc<Pod>]| {
        let now = there(pods);
        pods.iter().filter(|pod| serves(pod)).count() == 6 && now.len() == before.len() && now.is_disjoint(&before)
    };
    until::<Pod>(&cluster.client().await?, "the pods run in new containers", "app=stay", anew).await?;
    come_back(cluster, "stay", 6).await?;
    nothing_stale(cluster).await?;
    ensure!(node(cluster).await?.metadata.uid == uid, "it is the same node");

    let first = cluster.lab.boxes[1].address().to_string();
    let held = there(&ready(cluster, "stay", 6).await?);
    for (old, new) in [(first.as_str(), ELSEWHERE), (ELSEWHERE, first.as_str())] {
        moves(cluster, old, new).await?;
        ensure!(node(cluster).await?.metadata.uid == uid, "it is the same node");
        let pods = ready(cluster, "stay", 6).await?;
        ensure!(there(&pods) == held, "containers were started again");
        reached_from_the_other_box(cluster, &pods).await?;
    }
    renamed(cluster).await?;
    ensure!(node(cluster).await?.metadata.uid == uid, "it is the same node");
    ensure!(there(&ready(cluster, "stay", 6).await?) == held, "containers were started again");
    remove(cluster, &["stay"]).await
}

/// Gives the box another host name while its minion is away, and the first one again: the node has its name all along, and
/// there is no other.
async fn renamed(cluster: &mut Cluster) -> Result<()> {
    for name in ["another", BOX] {
        cluster.lab.machine(2).stop(MINION).await?;
        let leases: Api<Lease> = Api::namespaced(cluster.client().await?, "kube-node-lease");
        let last = leases.get(BOX).await?.metadata.resource_version;
        cluster.lab.machine(2).run(&["hostname", name]).await?;
        cluster.start_minion(2).await?;
        let alive = |leases: &[Arc<Lease>]| {
            let lease = leases.iter().find(|lease| lease.metadata.name.as_deref() == Some(BOX));
            lease.is_some_and(|lease| lease.metadata.resource_version != last)
        };
        until::<Lease>(&cluster.client().await?, &format!("it lives on as {name}"), "", alive).await?;
        cluster.ready().await?;
        let nodes = Api::<Node>::all(cluster.client().await?).list(&ListParams::default()).await?;
        ensure!(nodes.items.len() == cluster.lab.boxes.len(), "called {name}, it is another node");
    }
    Ok(())
}

/// Takes the minion away as its package does when it is purged, and joins nothing for now.
async fn purge(cluster: &mut Cluster) -> Result<()> {
    let machine = cluster.lab.machine(2);
    machine.stop(MINION).await?;
    machine.run(&[MINION, "--cleanup", "--data-dir", MINION_DATA]).await?;
    machine.run(&["rm", "-rf", "--one-file-system", MINION_DATA]).await?;
    let left = machine.run(&["docker", "ps", "-aq", "--filter", "label=io.kubernetes.pod.uid"]).await?;
    ensure!(left.is_empty(), "left: {left}");
    Ok(())
}

/// Gives the box another address while its minion is away, and waits until its node says so.
async fn moves(cluster: &mut Cluster, old: &str, new: &str) -> Result<()> {
    let machine = cluster.lab.machine(2);
    machine.stop(MINION).await?;
    let gateway = machine.gateway();
    let script = format!(
        "ip address del {old}/24 dev eth0 && ip address add {new}/24 dev eth0 && ip route replace default via {gateway}"
    );
    machine.run(&["sh", "-c", &script]).await?;
    cluster.start_minion(2).await?;
    let moved = |nodes: &[Arc<Node>]| {
        let node = nodes.iter().find(|node| node.metadata.name.as_deref() == Some(BOX));
        node.is_some_and(|node| api::nodes::is_ready(node) && addresses(node) == [new])
    };
    until::<Node>(&cluster.client().await?, &format!("the node is at {new}"), "", moved).await.map(drop)
}

/// The other box reaches each pod here, which takes a route to the new address; and the API server reaches the kubelet,
/// whose certificate names it.
async fn reached_from_the_other_box(cluster: &Cluster, pods: &[Arc<Pod>]) -> Result<()> {
    for pod in pods.iter().filter(|pod| place(pod).0 == BOX) {
        let (_, name, ip) = place(pod);
        let heard = cluster.lab.boxes[0].run(&curl(&format!("http://{ip}{PATH}"))).await?;
        ensure!(heard.starts_with(&name), "{heard}");
        kctl(cluster, &["logs", &name], b"").await?;
    }
    Ok(())
}

/// The containers of pods on the box, which change when one is started again.
fn there(pods: &[Arc<Pod>]) -> BTreeSet<String> {
    pods.iter().filter(|pod| place(pod).0 == BOX).filter_map(|pod| container(pod)).collect()
}

async fn node(cluster: &Cluster) -> Result<Node> {
    Ok(Api::<Node>::all(cluster.client().await?).get(BOX).await?)
}

/// Its addresses of type InternalIP.
fn addresses(node: &Node) -> Vec<&str> {
    let all = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    all.filter(|address| address.type_ == "InternalIP").map(|address| address.address.as_str()).collect()
}

/// Every container on the box, whether it runs or not, is of a pod that is there.
async fn nothing_stale(cluster: &Cluster) -> Result<()> {
    let pods = Api::<Pod>::all(cluster.client().await?).list(&ListParams::default()).await?;
    let known: BTreeSet<String> = pods.into_iter().filter_map(|pod| pod.metadata.uid).collect();
    let format = r#"{{.Label "io.kubernetes.pod.uid"}}"#;
    let line = ["docker", "ps", "-a", "--filter", "label=io.kubernetes.pod.uid", "--format", format];
    let found = cluster.lab.boxes[1].run(&line).await?;
    ensure!(found.lines().count() > 0 && found.lines().all(|uid| known.contains(uid)), "{found}, of {known:?}");
    Ok(())
}
