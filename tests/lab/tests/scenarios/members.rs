//! Three boxes with an etcd member each and two masters: whichever of them goes, the API and the controllers go on.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::wait::{PATIENCE, until};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{Patch, PatchParams};
use lab::cluster::{MASTER, Settings};
use lab::{Cluster, Lab, Plan};
use serde_json::json;

use crate::common::{all_parts_are_healthy, controller, ready, remove, web};

/// What etcd is called among a box's processes.
const ETCD: &str = "etcd";
/// How long the second master may take to lead.
const TAKEOVER_LIMIT: Duration = Duration::from_secs(15);
/// The same where the first is cut off, and its etcd member with it. The other may have heard of the last renewal by that
/// member: nine seconds until it gives that up and learns what it missed, and twelve from then on until the lease has run out.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);

#[test]
fn an_etcd_member_and_a_master_may_go() -> Result<()> {
    lab::lab::test(async || {
        let mut cluster = three_members().await?;
        controller(&cluster, "on", 3, web(json!({}))).await?;
        ready(&cluster, "on", 3).await?;
        all_parts_are_healthy(&cluster).await?;
        state_is_in_etcd(&cluster).await?;
        everything_restarts(&mut cluster).await?;
        a_member_goes_and_comes(&mut cluster).await?;
        the_second_master_takes_over(&mut cluster).await?;
        a_leader_is_cut_off(&mut cluster).await?;
        remove(&cluster, &["on"]).await?;
        cluster.stop().await
    })
}

/// Pods run on the third box only, in memory: this is about who decides.
async fn three_members() -> Result<Cluster> {
    let mut lab = Lab::start(Plan { boxes: 3, ..Plan::default() }).await?;
    let (clients, peers) = (urls(&lab, 2379), peers(&lab));
    for number in 0..3 {
        start_etcd(&mut lab, number, &peers).await?;
    }
    for machine in &lab.boxes {
        machine.process(ETCD)?.says("ready to serve client requests").await?;
    }
    let settings = Settings {
        master: vec!["--etcd-servers".to_owned(), clients.join(",")],
        minion: vec!["--runtime".to_owned(), "hollow".to_owned()],
        masters: 2,
        ..Settings::default()
    };
    let mut cluster = Cluster::on(lab, settings);
    cluster.start_master(1).await?;
    cluster.share_keys(2).await?;
    cluster.start_master(2).await?;
    cluster.start_minion(3).await?;
    node_is_ready(&cluster).await?;
    Ok(cluster)
}

fn urls(lab: &Lab, port: u16) -> Vec<String> {
    lab.boxes.iter().map(|machine| format!("http://{}:{port}", machine.address())).collect()
}

fn peers(lab: &Lab) -> Vec<String> {
    urls(lab, 2380)
}

async fn start_etcd(lab: &mut Lab, number: usize, peers: &[String]) -> Result<()> {
    let members: Vec<String> = peers.iter().enumerate().map(|(n, url)| format!("box{}={url}", n + 1)).collect();
    let machine = &mut lab.boxes[number];
    let (name, members, peer) = (machine.name().to_owned(), members.join(","), &peers[number]);
    let client = format!("http://{}:2379", machine.address());
    let line = [
        ETCD,
        "--name",
        &name,
        "--data-dir",
        "/var/lib/etcd",
        "--initial-cluster",
        &members,
        "--listen-client-urls",
        "http://0.0.0.0:2379",
        "--advertise-client-urls",
        &client,
        "--listen-peer-urls",
        peer,
        "--initial-advertise-peer-urls",
        peer,
    ];
    machine.start(ETCD, &line).await.map(drop)
}

async fn node_is_ready(cluster: &Cluster) -> Result<()> {
    let ready = |nodes: &[Arc<Node>]| nodes.iter().any(|node| api::nodes::is_ready(node));
    until::<Node>(&cluster.client().await?, "the node is ready", "", ready).await.map(drop)
}

/// B1, with etcd.
async fn state_is_in_etcd(cluster: &Cluster) -> Result<()> {
    let line =
        ["env", "ETCDCTL_API=3", "etcdctl", "get", "--prefix", "--keys-only", "/registry/replicationcontrollers/"];
    let keys = cluster.lab.boxes[2].run(&line).await?;
    ensure!(keys.contains("/registry/replicationcontrollers/default/on"), "{keys}");
    Ok(())
}

/// B1 and A7, with etcd: all of it is stopped, etcd too, and nothing is lost.
async fn everything_restarts(cluster: &mut Cluster) -> Result<()> {
    let before = ready(cluster, "on", 3).await?;
    for number in [1, 2] {
        cluster.lab.machine(number).kill(MASTER).await?;
    }
    for number in 1..=3 {
        cluster.lab.machine(number).kill(ETCD).await?;
    }
    let peers = peers(&cluster.lab);
    for number in 0..3 {
        start_etcd(&mut cluster.lab, number, &peers).await?;
    }
    for machine in &cluster.lab.boxes {
        machine.process(ETCD)?.says("ready to serve client requests").await?;
    }
    // What follows takes the first for the leader.
    cluster.start_master(1).await?;
    let holds = |leases: &[Arc<Lease>]| leases.iter().filter(|lease| held_by(lease, "box1")).count() == LEADERS.len();
    until::<Lease>(&cluster.client().await?, "the first master leads again", "", holds).await?;
    cluster.start_master(2).await?;
    node_is_ready(cluster).await?;
    ensure!(names(&before) == names(&ready(cluster, "on", 3).await?), "other pods than before");
    all_parts_are_healthy(cluster).await
}

async fn a_member_goes_and_comes(cluster: &mut Cluster) -> Result<()> {
    let peers = peers(&cluster.lab);
    for number in 0..3 {
        cluster.lab.boxes[number].kill(ETCD).await?;
        scale(cluster, 2).await?;
        ready(cluster, "on", 2).await?;
        start_etcd(&mut cluster.lab, number, &peers).await?;
        cluster.lab.boxes[number].process(ETCD)?.says("ready to serve client requests").await?;
        scale(cluster, 3).await?;
        ready(cluster, "on", 3).await?;
    }
    Ok(())
}

async fn scale(cluster: &Cluster, replicas: u32) -> Result<()> {
    type Controllers = Api<k8s_openapi::api::core::v1::ReplicationController>;
    let controllers: Controllers = Api::default_namespaced(cluster.client().await?);
    let patch = Patch::Merge(json!({ "spec": { "replicas": replicas } }));
    // etcd elects a leader for a moment: whoever is told so asks again, as every client of it does.
    let write = async {
        loop {
            match controllers.patch("on", &PatchParams::default(), &patch).await {
                Ok(_) => return anyhow::Ok(()),
                Err(kube::Error::Api(status)) if status.code >= 500 => something_is_written(cluster).await?,
                Err(error) => return Err(error.into()),
            }
        }
    };
    tokio::time::timeout(PATIENCE, write).await.context("nothing can be written")?
}

/// Waits until some lease was renewed: whoever leads does that every two seconds, and tries again while he cannot.
async fn something_is_written(cluster: &Cluster) -> Result<()> {
    let first = std::sync::Mutex::new(None);
    let moved = |leases: &[Arc<Lease>]| {
        let versions: BTreeSet<_> = leases.iter().map(|lease| lease.metadata.resource_version.clone()).collect();
        *first.lock().unwrap().get_or_insert_with(|| versions.clone()) != versions
    };
    until::<Lease>(&cluster.client().await?, "a lease is renewed", "", moved).await.map(drop)
}

/// The leases of those of whom one leads.
const LEADERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];

/// Whether this is such a lease, and the master of a box holds it.
fn held_by(lease: &Lease, name: &str) -> bool {
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
    let leads = lease.metadata.name.as_deref().is_some_and(|lease| LEADERS.contains(&lease));
    leads && holder.is_some_and(|holder| holder.split('_').next() == Some(name))
}

/// Which box holds a lease.
async fn holder(cluster: &Cluster, name: &str) -> Result<String> {
    let leases = Api::<Lease>::namespaced(cluster.client().await?, "kube-system");
    let spec = leases.get(name).await?.spec.context("a lease has a spec")?;
    Ok(spec.holder_identity.unwrap_or_default().split('_').next().unwrap_or_default().to_owned())
}

/// Which of the two masters leads, and the other. That the first does is likely, but a slow etcd may have had it give way.
async fn roles(cluster: &Cluster) -> Result<(usize, usize)> {
    Ok(if holder(cluster, LEADERS[0]).await? == "box1" { (1, 2) } else { (2, 1) })
}

/// Waits until the master of this box, which the test talks to, leads.
async fn leads(cluster: &Cluster, number: usize, begun: Instant, limit: Duration) -> Result<()> {
    let name = format!("box{number}");
    let taken = |leases: &[Arc<Lease>]| leases.iter().filter(|lease| held_by(lease, &name)).count() == LEADERS.len();
    until::<Lease>(&cluster.client().await?, "the other master leads", "", taken).await?;
    ensure!(begun.elapsed() <= limit, "it took {:?}", begun.elapsed());
    Ok(())
}

async fn the_second_master_takes_over(cluster: &mut Cluster) -> Result<()> {
    let (goes, stays) = roles(cluster).await?;
    cluster.lab.machine(goes).kill(MASTER).await?;
    let begun = Instant::now();
    cluster.use_master(stays);
    ensure!(!cluster.client().await?.apiserver_version().await?.major.is_empty(), "API calls go on");
    leads(cluster, stays, begun, TAKEOVER_LIMIT).await?;
    // Controllers, scheduler and kubelet all work with it.
    scale(cluster, 5).await?;
    ready(cluster, "on", 5).await?;
    node_is_ready(cluster).await?;
    cluster.start_master(goes).await?;
    cluster.use_master(goes);
    ready(cluster, "on", 5).await.map(drop)
}

/// A master that leads and is cut off goes on running: it must have stopped leading before the other begins, and do nothing
/// of what it had in mind when it is back.
async fn a_leader_is_cut_off(cluster: &mut Cluster) -> Result<()> {
    let (goes, stays) = roles(cluster).await?;
    cluster.use_master(stays);
    cluster.lab.cut(goes).await?;
    leads(cluster, stays, Instant::now(), SILENCE_LIMIT).await?;
    scale(cluster, 2).await?;
    ready(cluster, "on", 2).await?;
    node_is_ready(cluster).await?;
    scale(cluster, 4).await?;
    let pods = names(&ready(cluster, "on", 4).await?);
    cluster.lab.mend(goes).await?;
    // It serves what was written meanwhile, and makes no pod of its own.
    cluster.use_master(goes);
    ensure!(names(&ready(cluster, "on", 4).await?) == pods, "other pods than before");
    scale(cluster, 3).await?;
    ready(cluster, "on", 3).await.map(drop)
}

/// Which pods they are.
fn names(pods: &[Arc<Pod>]) -> BTreeSet<Option<String>> {
    pods.iter().map(|pod| pod.metadata.uid.clone()).collect()
}
