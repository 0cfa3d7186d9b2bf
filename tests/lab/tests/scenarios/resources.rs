//! Where pods go, and how many there are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use harness::wait::until;
use k8s_openapi::api::core::v1::{Event, Pod, ReplicationController};
use kube::Api;
use kube::api::DeleteParams;
use lab::Cluster;
use lab::cluster::MASTER;
use lab::engine::IMAGE;
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

    kctl(cluster, &["label", "--overwrite", "node", "box2", "disk=fast"], b"").await?;
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
    kctl(cluster, &["label", "--overwrite", "node", "box2", "disk-"], b"").await?;
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

/// B6: one of ten that is deleted is replaced, and one whose container is killed runs again, within ten seconds; an eleventh that matches is removed, and a restart of the
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

    container_is_killed(cluster).await?;
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

async fn container_is_killed(cluster: &Cluster) -> Result<()> {
    let pods = ready(cluster, "ten", 10).await?;
    let (name, id) = (pods[1].metadata.name.clone(), container(&pods[1]).context("a container")?);
    let begun = Instant::now();
    machine(cluster, &pods[1])?.run(&["docker", "kill", &id]).await?;
    let again = |pods: &[Arc<Pod>]| {
        let same = pods.iter().find(|pod| pod.metadata.name == name);
        same.is_some_and(|pod| serves(pod) && container(pod).is_some_and(|now| now != id))
    };
    until::<Pod>(&cluster.client().await?, "the killed one runs again", "app=ten", again).await?;
    ensure!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    ready(cluster, "ten", 10).await.map(drop)
}

/// B7: ten, three, twenty, none, each exactly; a size that is not the expected one is not changed.
pub(crate) async fn scaling(cluster: &mut Cluster) -> Result<()> {
    for count in [3, 20, 0] {
        kctl(cluster, &["scale", "rc", "ten", &format!("--replicas={count}")], b"").await?;
        ready(cluster, "ten", count).await?;
    }
    let wrong = kctl(cluster, &["scale", "rc", "ten", "--current-replicas=7", "--replicas=1"], b"").await;
    refused(wrong, "Expected replicas to be 7, was 0")?;
    remove(cluster, &["ten"]).await
}

/// B8: while requests come in all the time, from another box, one image gives way to the next pod by pod, as `kubectl
/// rolling-update` did it with two controllers, and not one request fails; one that does not get ready takes nobody's
/// place, hears no request, and is taken back.
pub(crate) async fn rolling_update(cluster: &mut Cluster) -> Result<()> {
    for machine in &cluster.lab.boxes {
        for (image, script) in IMAGES {
            machine.run(&["sh", "-c", BUILD, image, script, IMAGE]).await?;
        }
    }
    let made = service(cluster, "roll", json!({})).await?;
    version(cluster, "roll-1", IMAGES[0].0, 3).await?;
    ready(cluster, "roll", 3).await?;
    endpoints(cluster, "roll", 3).await?;
    let url = format!("http://{}{PATH}", cluster_ip(&made));
    cluster.lab.boxes[1].run(&curl(&url)).await?;
    let forever = format!("while :; do curl -s -w '%{{http_code}}\\n' --max-time 5 {url} | tr '\\n' ' '; echo; done");
    cluster.lab.machine(2).start("load", &["sh", "-c", &forever]).await?;

    version(cluster, "roll-2", IMAGES[1].0, 0).await?;
    for (new, old) in [(1, 2), (2, 1), (3, 0)] {
        scale(cluster, "roll-2", new).await?;
        ready_of(cluster, "roll-2", new).await?;
        scale(cluster, "roll-1", old).await?;
        ready_of(cluster, "roll-1", old).await?;
    }
    kctl(cluster, &["delete", "rc", "roll-1"], b"").await?;
    ready(cluster, "roll", 3).await?;
    failing_version(cluster).await?;

    let load = cluster.lab.boxes[1].process("load")?;
    // Those that are served after all of it: whatever broke shows in them.
    let answered = load.text().lines().count();
    load.says_more(answered + AFTERWARDS).await?;
    let answers = load.text();
    cluster.lab.boxes[1].kill("load").await?;
    answered_by_two_images(&answers, AFTERWARDS)?;
    for version in ["roll-1", "roll-2", "roll-3"] {
        let _ = kctl(cluster, &["delete", "rc", version], b"").await;
    }
    remove(cluster, &["roll"]).await
}

/// Nobody was turned away, and each pod was what its image makes it: in the end, all are the second.
fn answered_by_two_images(answers: &str, last: usize) -> Result<()> {
    let all: Vec<&str> = answers.lines().collect();
    let served = |line: &&str| ["one roll-1-", "two roll-2-"].iter().any(|by| line.starts_with(by));
    let well = |line: &&str| served(line) && line.trim_end().ends_with(" 200");
    let (served, failed): (Vec<&str>, Vec<&str>) = all.iter().copied().partition(well);
    ensure!(failed.is_empty(), "of {} requests these failed: {failed:?}", all.len());
    ensure!(served.iter().any(|line| line.starts_with("one ")), "no request reached the first image");
    ensure!(served.iter().rev().take(last).all(|line| line.starts_with("two ")), "the first image still answers");
    Ok(())
}

/// Three images and the program by which they answer: the third has none.
const IMAGES: [(&str, &str); 3] = [
    ("coracle/roll:1", "printf '#!/bin/sh\\necho; echo one $(hostname)\\n' >/www/cgi-bin/who"),
    ("coracle/roll:2", "printf '#!/bin/sh\\necho; echo two $(hostname)\\n' >/www/cgi-bin/who"),
    ("coracle/roll:3", "true"),
];
/// Makes the image `$0`, whose program is made by `$1`, of the image `$2`.
const BUILD: &str = "docker run --network none --name made \"$2\" sh -c \
    \"mkdir -p /www/cgi-bin; $1; chmod -R +x /www\" && docker commit \
    --change 'CMD [\"httpd\", \"-f\", \"-p\", \"0.0.0.0:80\", \"-h\", \"/www\"]' made \"$0\" && docker rm made";
/// How many requests are looked at when the last version was taken back.
const AFTERWARDS: usize = 20;

/// The third version runs and never says that it is ready: the update stops there, and the second stays.
async fn failing_version(cluster: &Cluster) -> Result<()> {
    version(cluster, "roll-3", IMAGES[2].0, 1).await?;
    let refused = |events: &[Arc<Event>]| {
        events.iter().any(|event| {
            let about = event.involved_object.name.as_deref().is_some_and(|name| name.starts_with("roll-3"));
            about && event.message.as_deref().is_some_and(|message| message.starts_with("Readiness probe failed"))
        })
    };
    until::<Event>(&cluster.client().await?, "the third version does not get ready", "", refused).await?;
    ready_of(cluster, "roll-2", 3).await?;
    kctl(cluster, &["delete", "rc", "roll-3"], b"").await?;
    ready(cluster, "roll", 3).await.map(drop)
}

/// Makes a controller whose pods run what their image says. One that is told to end serves on until every proxy knows.
async fn version(cluster: &Cluster, name: &str, image: &str, replicas: u32) -> Result<()> {
    let mut spec = web(json!({ "terminationGracePeriodSeconds": 10 }));
    let container = spec["containers"][0].as_object_mut().context("a container")?;
    container.remove("command");
    container.insert("image".to_owned(), json!(image));
    container.insert("lifecycle".to_owned(), json!({ "preStop": { "exec": { "command": ["sleep", "2"] } } }));
    let labels = json!({ "app": "roll", "version": name });
    let object = json!({ "metadata": { "name": name }, "spec": { "replicas": replicas, "selector": labels,
        "template": { "metadata": { "labels": labels }, "spec": spec } } });
    create::<ReplicationController>(cluster, object).await.map(drop)
}

async fn scale(cluster: &Cluster, name: &str, replicas: usize) -> Result<()> {
    kctl(cluster, &["scale", "rc", name, &format!("--replicas={replicas}")], b"").await.map(drop)
}

async fn ready_of(cluster: &Cluster, version: &str, count: usize) -> Result<()> {
    let all = |pods: &[Arc<Pod>]| pods.len() == count && pods.iter().all(|pod| serves(pod));
    let labels = format!("version={version}");
    until::<Pod>(&cluster.client().await?, &format!("{count} pods of {version}"), &labels, all).await.map(drop)
}
