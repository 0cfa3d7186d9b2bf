//! What breaks, and what must not: boxes, daemons, engines, links.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::wait::until;
use k8s_openapi::api::core::v1::{Node, Pod};
use lab::cluster::{MASTER, MASTER_DATA, MINION, Settings};
use lab::engine::DOCKERD;
use lab::scenario::Scenarios;
use lab::{Cluster, Machine};
use serde_json::{Value, json};

use crate::common::{
    PATH, cluster_ip, container, controller, curl, endpoints, machine, outside, place, ready, remove, serves, service,
    web,
};
use crate::rejoin;

/// Seconds without a heartbeat after which a node is lost, here; by default it is 40.
const GRACE_SECONDS: u64 = 12;
/// How long pods here stay bound to a lost node.
const TOLERATION_SECONDS: u64 = 3;

#[test]
fn what_fails_and_returns() -> Result<()> {
    lab::lab::test(async || {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let settings = Settings {
            master: words(&format!("--node-monitor-grace-period {GRACE_SECONDS}")),
            minion: words("--node-lease-duration-seconds 8"),
            ..Settings::default()
        };
        let mut all = Scenarios::on(Cluster::start(settings).await?);
        all.run("master", "a master that restarts, is killed or cut off touches no pod", master_goes_and_comes).await;
        all.run("minion", "a minion that is killed and started again starts nothing twice", minion_is_killed).await;
        all.run("docker", "when Docker restarts, pods come back", docker_restarts).await;
        all.run(
            "B14",
            "a lost box is noticed, its pods are replaced, and nothing runs twice after its return",
            node_is_lost,
        )
        .await;
        all.run("reboot", "pods of a box that lost its power come back", box_reboots).await;
        all.run("reboot of all", "so do those of the whole cluster", all_boxes_reboot).await;
        let anew = "a box that is installed anew joins under its name and is the same node; so is one that moves or is renamed";
        all.run("rejoin", anew, rejoin::installed_anew_and_moved).await;
        all.finish().await
    })
}

/// Pods that leave a lost node soon.
fn impatient() -> Value {
    let soon = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS });
    let tolerations = [soon("node.kubernetes.io/unreachable"), soon("node.kubernetes.io/not-ready")];
    web(json!({ "tolerations": tolerations }))
}

/// The containers of pods, which change when one is started again.
fn ids(pods: &[Arc<Pod>]) -> BTreeSet<String> {
    pods.iter().filter_map(|pod| container(pod)).collect()
}

/// How many containers of pods whose names begin so run on all boxes together.
async fn running(cluster: &Cluster, begin: &str) -> Result<usize> {
    let mut count = 0;
    for machine in &cluster.lab.boxes {
        let format = r#"{{.Label "io.kubernetes.pod.name"}}"#;
        let line = ["docker", "ps", "--filter", "label=io.kubernetes.docker.type=container", "--format", format];
        count += machine.run(&line).await?.lines().filter(|name| name.starts_with(begin)).count();
    }
    Ok(count)
}

/// Waits until a node is ready, or is not.
async fn node_is(cluster: &Cluster, name: &str, so: bool) -> Result<()> {
    let check = |nodes: &[Arc<Node>]| {
        nodes.iter().any(|node| node.metadata.name.as_deref() == Some(name) && api::nodes::is_ready(node) == so)
    };
    let what = format!("{name} is {}ready", if so { "" } else { "not " });
    until::<Node>(&cluster.client().await?, &what, "", check).await.map(drop)
}

async fn master_goes_and_comes(cluster: &mut Cluster) -> Result<()> {
    let made = service(cluster, "calm", json!({})).await?;
    controller(cluster, "calm", 4, web(json!({}))).await?;
    let before = ids(&ready(cluster, "calm", 4).await?);
    endpoints(cluster, "calm", 4).await?;
    let url = format!("http://{}{PATH}", cluster_ip(&made));
    cluster.lab.boxes[1].run(&curl(&url)).await?;
    for how in ["stopped", "killed", "cut off"] {
        match how {
            "stopped" => cluster.lab.machine(1).stop(MASTER).await?,
            "killed" => cluster.lab.machine(1).kill(MASTER).await?,
            // Longer than a node may be silent: box2 is not lost, it is the master that cannot hear.
            _ => cluster.lab.cut(1).await?,
        }
        let many = format!("curl -s --max-time 30 --connect-timeout 1 '{url}?[1-40]' | wc -l");
        let answers = cluster.lab.boxes[1].run(&["sh", "-c", &many]).await?;
        if how == "cut off" {
            // Those of the pods on the same box, and no other can be reached.
            let count: u32 = answers.parse()?;
            ensure!((1..40).contains(&count), "on the other side of the cut, {answers} of 40 requests are answered");
            is_lost_for(&cluster.lab.boxes[0], "box2").await?;
            cluster.lab.mend(1).await?;
        } else {
            ensure!(answers == "40", "while the master is {how}, {answers} of 40 requests are answered");
            cluster.start_master(1).await?;
        }
        cluster.ready().await?;
        ensure!(ids(&ready(cluster, "calm", 4).await?) == before, "{how}: containers were started again");
        ensure!(running(cluster, "calm-").await? == 4, "{how}: something runs twice");
    }
    remove(cluster, &["calm"]).await
}

/// Waits until the master of this box has not heard of a node for too long; asked there, as from elsewhere it may be cut off.
async fn is_lost_for(master: &Machine, node: &str) -> Result<()> {
    let status = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}{"\n"}"#;
    let follow =
        format!("kctl --kubeconfig {MASTER_DATA}/admin.kubeconfig get node {node} -w -o '{status}' 2>/dev/null");
    let line = format!("timeout 50 grep -qm1 Unknown < <({follow})");
    master.run(&["bash", "-c", &line]).await.with_context(|| format!("{node} is not lost")).map(drop)
}

async fn minion_is_killed(cluster: &mut Cluster) -> Result<()> {
    controller(cluster, "held", 4, web(json!({}))).await?;
    let before = ids(&ready(cluster, "held", 4).await?);
    cluster.lab.machine(2).kill(MINION).await?;
    cluster.start_minion(2).await?;
    cluster.ready().await?;
    ensure!(ids(&ready(cluster, "held", 4).await?) == before, "containers were started again");
    ensure!(running(cluster, "held-").await? == 4);
    remove(cluster, &["held"]).await
}

async fn docker_restarts(cluster: &mut Cluster) -> Result<()> {
    controller(cluster, "dock", 4, web(json!({}))).await?;
    ready(cluster, "dock", 4).await?;
    for kill in [false, true] {
        let machine = cluster.lab.machine(2);
        if kill {
            machine.kill(DOCKERD).await?
        } else {
            machine.stop(DOCKERD).await?
        }
        machine.start_docker().await?;
        come_back(cluster, "dock", 4).await?;
    }
    remove(cluster, &["dock"]).await
}

/// Waits until that many pods serve, each container runs once, and each pod answers at its address.
pub(crate) async fn come_back(cluster: &Cluster, app: &str, count: usize) -> Result<()> {
    cluster.ready().await?;
    // A pod may be shown ready as it was before, until its kubelet has looked.
    let alive = async {
        loop {
            let pods = ready(cluster, app, count).await?;
            let mut answers = 0;
            for pod in &pods {
                let url = format!("http://{}{PATH}", place(pod).2);
                let asked = machine(cluster, pod)?.run(&["curl", "-s", "--max-time", "2", &url]).await;
                answers += usize::from(asked.is_ok());
            }
            if answers == count && running(cluster, &format!("{app}-")).await? == count {
                return anyhow::Ok(());
            }
            let version = pods.iter().filter_map(|pod| pod.metadata.resource_version.clone()).collect::<BTreeSet<_>>();
            let moved = |pods: &[Arc<Pod>]| {
                pods.iter().filter_map(|pod| pod.metadata.resource_version.clone()).collect::<BTreeSet<_>>() != version
            };
            until::<Pod>(&cluster.client().await?, "the pods change", &format!("app={app}"), moved).await?;
        }
    };
    tokio::time::timeout(Duration::from_secs(90), alive).await.context("they do not come back")?
}

/// B14.
async fn node_is_lost(cluster: &mut Cluster) -> Result<()> {
    let made = service(cluster, "safe", json!({ "type": "NodePort" })).await?;
    controller(cluster, "safe", 4, impatient()).await?;
    let pods = ready(cluster, "safe", 4).await?;
    endpoints(cluster, "safe", 4).await?;
    let here = pods.iter().filter(|pod| place(pod).0 == "box1").count();
    ensure!((1..4).contains(&here), "both boxes have pods");
    let begun = Instant::now();
    cluster.lab.cut(2).await?;
    node_is(cluster, "box2", false).await?;
    let noticed = begun.elapsed();
    ensure!(noticed < Duration::from_secs(GRACE_SECONDS + 6), "it took {noticed:?} to notice");
    endpoints(cluster, "safe", here).await?;
    ensure!(begun.elapsed() - noticed < Duration::from_secs(5), "the endpoints stay");
    let replaced = |pods: &[Arc<Pod>]| pods.iter().filter(|pod| serves(pod) && place(pod).0 == "box1").count() == 4;
    until::<Pod>(&cluster.client().await?, "its pods are replaced", "app=safe", replaced).await?;
    let ports = made.spec.and_then(|spec| spec.ports).unwrap_or_default();
    outside(&format!("http://{}:{}{PATH}", cluster.lab.boxes[0].address(), ports[0].node_port.unwrap_or(0))).await?;

    cluster.lab.mend(2).await?;
    node_is(cluster, "box2", true).await?;
    ready(cluster, "safe", 4).await?;
    come_back(cluster, "safe", 4).await?;
    remove(cluster, &["safe"]).await
}

async fn box_reboots(cluster: &mut Cluster) -> Result<()> {
    controller(cluster, "boot", 4, web(json!({}))).await?;
    ready(cluster, "boot", 4).await?;
    cluster.lab.power_off(2).await?;
    cluster.boot(2).await?;
    come_back(cluster, "boot", 4).await?;
    remove(cluster, &["boot"]).await
}

async fn all_boxes_reboot(cluster: &mut Cluster) -> Result<()> {
    let made = service(cluster, "boot", json!({})).await?;
    controller(cluster, "boot", 4, web(json!({}))).await?;
    ready(cluster, "boot", 4).await?;
    cluster.lab.power_off(2).await?;
    cluster.lab.power_off(1).await?;
    cluster.boot(1).await?;
    cluster.boot(2).await?;
    come_back(cluster, "boot", 4).await?;
    cluster.lab.boxes[0].run(&curl(&format!("http://{}{PATH}", cluster_ip(&made)))).await?;
    remove(cluster, &["boot"]).await
}
