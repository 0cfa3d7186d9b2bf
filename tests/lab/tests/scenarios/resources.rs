//! Where pods go, and how many there are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::wait::until;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::Api;
use kube::api::DeleteParams;
use lab::Cluster;
use lab::cluster::MASTER;
use serde_json::json;

use crate::common::{
    PATH, cluster_ip, container, controller, create, curl, endpoints, kctl, machine, pod, ready, refused, remove,
    serves, service, spread, web,
};

/// B5: pods spread; selectors, host ports, room and cordons are respected; a pod without a place says why, and runs when
/// there is one.
pub(crate) async fn scheduling(cluster: &mut Cluster) -> Result<()> {
    controller(cluster, "many", 6, web(json!({}))).await?;
    let pods = ready(cluster, "many", 6).await?;
    ensure!(spread(&pods).len() == 2 && spread(&pods).values().all(|n| (2..=4).contains(n)), "{:?}", spread(&pods));

    kctl(cluster, &["label", "node", "box2", "disk=fast"], b"").await?;
    pod(cluster, "picky", web(json!({ "nodeSelector": { "disk": "fast" } }))).await?;
    ensure!(spread(&ready(cluster, "picky", 1).await?).contains_key("box2"));

    let mut door = web(json!({}));
    door["containers"][0]["ports"] = json!([{ "containerPort": 80, "hostPort": 8082 }]);
    controller(cluster, "door", 2, door.clone()).await?;
    ensure!(spread(&ready(cluster, "door", 2).await?).len() == 2, "a host port once on each box");
    pod(cluster, "third", door).await?;
    unscheduled(cluster, "third", "didn't have free ports").await?;

    let mut huge = web(json!({}));
    huge["containers"][0]["resources"] = json!({ "requests": { "cpu": "1000" } });
    pod(cluster, "huge", huge).await?;
    unscheduled(cluster, "huge", "Insufficient cpu").await?;

    cordon(cluster, true).await?;
    pod(cluster, "waiting", web(json!({}))).await?;
    unscheduled(cluster, "waiting", "were unschedulable").await?;
    cordon(cluster, false).await?;
    ready(cluster, "waiting", 1).await?;
    // Room for the third door: one of the other two goes.
    kctl(cluster, &["scale", "rc", "door", "--replicas=1"], b"").await?;
    ready(cluster, "third", 1).await?;
    kctl(cluster, &["label", "node", "box2", "disk-"], b"").await?;
    remove(cluster, &["many", "picky", "door", "third", "huge", "waiting"]).await
}

async fn cordon(cluster: &Cluster, on: bool) -> Result<()> {
    use kube::api::{Patch, PatchParams};
    let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(cluster.client().await?);
    for name in ["box1", "box2"] {
        let patch = Patch::Merge(json!({ "spec": { "unschedulable": on.then_some(true) } }));
        nodes.patch(name, &PatchParams::default(), &patch).await?;
    }
    Ok(())
}

async fn unscheduled(cluster: &Cluster, name: &str, why: &str) -> Result<()> {
    let said = |events: &[Arc<Event>]| {
        events.iter().any(|event| {
            let message = event.message.as_deref().unwrap_or_default();
            let about = event.involved_object.name.as_deref() == Some(name);
            about && event.reason.as_deref() == Some("FailedScheduling") && message.contains(why)
        })
    };
    until::<Event>(&cluster.client().await?, &format!("an event says of {name} that {why}"), "", said).await.map(drop)
}

/// B6: one of ten that is killed is replaced within ten seconds, an eleventh that matches is removed, and a restart of the
/// master in between changes nothing.
pub(crate) async fn ten_stay_ten(cluster: &mut Cluster) -> Result<()> {
    controller(cluster, "ten", 10, web(json!({}))).await?;
    let pods = ready(cluster, "ten", 10).await?;
    let begun = Instant::now();
    let victim = pods[0].metadata.name.clone().context("a name")?;
    Api::<Pod>::default_namespaced(cluster.client().await?).delete(&victim, &DeleteParams::default()).await?;
    let replaced = |pods: &[Arc<Pod>]| {
        let others = pods.iter().filter(|pod| pod.metadata.name.as_ref() != Some(&victim));
        others.filter(|pod| serves(pod)).count() == 10
    };
    until::<Pod>(&cluster.client().await?, "ten again", "app=ten", replaced).await?;
    ensure!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());

    create::<Pod>(
        cluster,
        json!({ "metadata": { "generateName": "extra-", "labels": { "app": "ten" } },
        "spec": web(json!({})) }),
    )
    .await?;
    let kept = ready(cluster, "ten", 10).await?;
    cluster.lab.machine(1).stop(MASTER).await?;
    cluster.start_master(1).await?;
    let after = ready(cluster, "ten", 10).await?;
    let ids =
        |pods: &[Arc<Pod>]| pods.iter().filter_map(|pod| container(pod)).collect::<std::collections::BTreeSet<_>>();
    ensure!(ids(&kept) == ids(&after), "the restart changed the pods");
    for pod in &after {
        let running = machine(cluster, pod)?.containers(pod.metadata.name.as_deref().context("a name")?).await?;
        ensure!(running.len() == 1, "{running:?}");
    }
    Ok(())
}

/// B7: ten, three, twenty, none, each exactly; a size that is not the expected one is not changed.
pub(crate) async fn scaling(cluster: &mut Cluster) -> Result<()> {
    for count in [3, 12, 0] {
        kctl(cluster, &["scale", "rc", "ten", &format!("--replicas={count}")], b"").await?;
        ready(cluster, "ten", count).await?;
    }
    let wrong = kctl(cluster, &["scale", "rc", "ten", "--current-replicas=7", "--replicas=1"], b"").await;
    refused(wrong, "Expected replicas to be 7, was 0")?;
    remove(cluster, &["ten"]).await
}

/// B8, as a person does it with two controllers: while requests come in all the time, one version gives way to the next pod
/// by pod, and not one request fails; a version that does not get ready takes nobody's place.
pub(crate) async fn rolling_update(cluster: &mut Cluster) -> Result<()> {
    let made = service(cluster, "roll", json!({})).await?;
    version(cluster, "roll-1", 3, rolling()).await?;
    version(cluster, "roll-2", 0, rolling()).await?;
    ready(cluster, "roll", 3).await?;
    endpoints(cluster, "roll", 3).await?;
    let url = format!("http://{}{PATH}", cluster_ip(&made));
    cluster.lab.boxes[1].run(&curl(&url)).await?;
    let forever = format!("while :; do curl -s -o /dev/null -w '%{{http_code}}\\n' --max-time 5 {url}; done");
    cluster.lab.machine(2).start("load", &["sh", "-c", &forever]).await?;
    for (new, old) in [(1, 2), (2, 1), (3, 0)] {
        scale(cluster, "roll-2", new).await?;
        ready_of(cluster, "roll-2", new).await?;
        scale(cluster, "roll-1", old).await?;
        ready_of(cluster, "roll-1", old).await?;
    }
    let mut broken = rolling();
    broken["containers"][0]["image"] = json!("coracle/no-such-version:3");
    broken["containers"][0]["imagePullPolicy"] = json!("Never");
    version(cluster, "roll-3", 1, broken).await?;
    let stuck = |pods: &[Arc<Pod>]| {
        let statuses = pods.first().and_then(|pod| pod.status.as_ref()?.container_statuses.clone()).unwrap_or_default();
        let waiting = statuses.first().and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
        waiting.as_deref() == Some("ErrImageNeverPull")
    };
    until::<Pod>(&cluster.client().await?, "the third version does not start", "version=roll-3", stuck).await?;
    scale(cluster, "roll-3", 0).await?;
    ready(cluster, "roll", 3).await?;
    let answers = cluster.lab.boxes[1].process("load")?.text();
    cluster.lab.boxes[1].kill("load").await?;
    let failed = answers.lines().filter(|line| *line != "200").count();
    ensure!(answers.lines().count() > 50 && failed == 0, "{failed} of {} requests failed", answers.lines().count());
    for name in ["roll-1", "roll-2", "roll-3"] {
        kctl(cluster, &["delete", "rc", name], b"").await?;
    }
    remove(cluster, &["roll"]).await
}

/// A pod that is told to end serves on until every proxy knows.
fn rolling() -> serde_json::Value {
    let mut spec = web(json!({ "terminationGracePeriodSeconds": 10 }));
    spec["containers"][0]["lifecycle"] = json!({ "preStop": { "exec": { "command": ["sleep", "2"] } } });
    spec
}

async fn version(cluster: &Cluster, name: &str, replicas: u32, spec: serde_json::Value) -> Result<()> {
    let labels = json!({ "app": "roll", "version": name });
    let object = json!({ "metadata": { "name": name }, "spec": { "replicas": replicas, "selector": labels,
        "template": { "metadata": { "labels": labels }, "spec": spec } } });
    create::<k8s_openapi::api::core::v1::ReplicationController>(cluster, object).await.map(drop)
}

async fn scale(cluster: &Cluster, name: &str, replicas: usize) -> Result<()> {
    kctl(cluster, &["scale", "rc", name, &format!("--replicas={replicas}")], b"").await.map(drop)
}

async fn ready_of(cluster: &Cluster, version: &str, count: usize) -> Result<()> {
    let all = |pods: &[Arc<Pod>]| pods.len() == count && pods.iter().all(|pod| serves(pod));
    let labels = format!("version={version}");
    until::<Pod>(&cluster.client().await?, &format!("{count} pods of {version}"), &labels, all).await.map(drop)
}
