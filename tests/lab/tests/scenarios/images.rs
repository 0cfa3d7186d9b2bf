//! Images: pushed from the master, behind a password, and without any registry.

use std::sync::Arc;

use anyhow::{Result, ensure};
use harness::wait::until;
use k8s_openapi::api::core::v1::{Event, Node, Pod, Secret};
use lab::Cluster;
use lab::cluster::MINION;
use lab::engine::{IMAGE, image};
use lab::registry::{PASSWORD, Registry, USER};
use serde_json::{Value, json};

use crate::common::{container, create, kctl, pod, ready, remove, web};

/// A spec that runs another image.
fn of(image: &str, more: Value) -> Value {
    let mut spec = web(more);
    spec["containers"][0]["image"] = json!(image);
    spec["containers"][0]["imagePullPolicy"] = json!("Always");
    spec
}

/// B16: an image is pushed from the master's box, the registry has it, and another box pulls it by its digest.
pub(crate) async fn pushed_and_pulled_by_digest(cluster: &mut Cluster) -> Result<()> {
    let registry = cluster.lab.machine(1).start_registry(5000).await?;
    let name = format!("{}/team/web:1", registry.host);
    kctl(cluster, &["image", "tag", IMAGE, &name, "--node", "box1"], b"").await?;
    kctl(cluster, &["image", "push", &name, "--node", "box1"], b"").await?;
    let catalog = cluster.lab.boxes[1].run(&["curl", "-sf", &format!("http://{}/v2/_catalog", registry.host)]).await?;
    ensure!(catalog.contains("team/web"), "{catalog}");
    let digest = digest(cluster, &registry).await?;
    pod(cluster, "pulled", of(&format!("{}/team/web@{digest}", registry.host), json!({ "nodeName": "box2" }))).await?;
    let pods = ready(cluster, "pulled", 1).await?;
    let status = pods[0].status.as_ref().and_then(|status| status.container_statuses.clone()).unwrap_or_default();
    ensure!(status[0].image_id.contains(&digest), "{}", status[0].image_id);
    ensure!(cluster.lab.boxes[0].process(&registry.process)?.requests("GET", "/v2/team/web/manifests/sha256:") > 0);
    remove(cluster, &["pulled"]).await?;
    cluster.lab.machine(1).stop(&registry.process).await
}

async fn digest(cluster: &Cluster, registry: &Registry) -> Result<String> {
    let accept = "Accept: application/vnd.docker.distribution.manifest.v2+json";
    let url = format!("http://{}/v2/team/web/manifests/1", registry.host);
    let headers = cluster.lab.boxes[0].run(&["curl", "-sfI", "-H", accept, &url]).await?;
    let found =
        headers.lines().find_map(|line| line.to_lowercase().strip_prefix("docker-content-digest: ").map(str::to_owned));
    Ok(found.unwrap_or_default().trim().to_owned())
}

/// B17: without credentials the pull is refused and the event says why; with a pull secret the pod runs.
pub(crate) async fn behind_a_password(cluster: &mut Cluster) -> Result<()> {
    let registry = cluster.lab.machine(1).start_registry_with_password(5001).await?;
    let name = format!("{}/web:1", registry.host);
    kctl(cluster, &["image", "tag", IMAGE, &name, "--node", "box1"], b"").await?;
    let push = ["image", "push", &name, "--node", "box1", "--username", USER, "--password-stdin"];
    kctl(cluster, &push, PASSWORD.as_bytes()).await?;

    pod(cluster, "stranger", of(&name, json!({ "nodeName": "box2" }))).await?;
    let refused = |events: &[Arc<Event>]| {
        events.iter().any(|event| {
            let message = event.message.as_deref().unwrap_or_default();
            event.involved_object.name.as_deref() == Some("stranger") && message.contains("no basic auth credentials")
        })
    };
    until::<Event>(&cluster.client().await?, "the pull is refused", "", refused).await?;
    let waits = |pods: &[Arc<Pod>]| {
        let statuses = pods.first().and_then(|pod| pod.status.as_ref()?.container_statuses.clone()).unwrap_or_default();
        let waiting = statuses.first().and_then(|status| status.state.as_ref()?.waiting.as_ref()?.reason.clone());
        matches!(waiting.as_deref(), Some("ErrImagePull" | "ImagePullBackOff"))
    };
    until::<Pod>(&cluster.client().await?, "the pod waits for its image", "app=stranger", waits).await?;

    let config = json!({ "auths": { &registry.host: { "username": USER, "password": PASSWORD } } });
    create::<Secret>(
        cluster,
        json!({ "metadata": { "name": "registry" }, "type": "kubernetes.io/dockerconfigjson",
        "stringData": { ".dockerconfigjson": config.to_string() } }),
    )
    .await?;
    let with = json!({ "nodeName": "box2", "imagePullSecrets": [{ "name": "registry" }] });
    pod(cluster, "friend", of(&name, with)).await?;
    ready(cluster, "friend", 1).await?;
    kctl(cluster, &["delete", "secret", "registry"], b"").await?;
    remove(cluster, &["stranger", "friend"]).await?;
    cluster.lab.machine(1).stop(&registry.process).await
}

/// B19: with no registry anywhere, nor any way out of the lab, an image loaded to both boxes runs on both.
pub(crate) async fn no_registry_at_all(cluster: &mut Cluster) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (archive, saved) = (folder.path().join("image.tar"), folder.path().join("saved.tar"));
    std::fs::write(&archive, image()?)?;
    // On an engine of the test's choice, as a person would on a desk elsewhere; here it is box1's, which forgets it again.
    let machine = &cluster.lab.boxes[0];
    let (from, to) = (archive.display().to_string(), saved.display().to_string());
    machine.run(&["docker", "import", "--change", "ENV PATH=/bin", &from, "island/web:1"]).await?;
    machine.run(&["docker", "save", "-o", &to, "island/web:1"]).await?;
    machine.run(&["docker", "image", "rm", "island/web:1"]).await?;
    kctl(cluster, &["image", "load", "-i", &to], b"").await?;
    let mut spec = web(json!({}));
    spec["containers"][0]["image"] = json!("island/web:1");
    crate::common::controller(cluster, "island", 2, spec).await?;
    let pods = ready(cluster, "island", 2).await?;
    ensure!(crate::common::spread(&pods).len() == 2, "both boxes have the image");
    remove(cluster, &["island"]).await?;
    image_in_use_is_kept(cluster).await
}

/// Where the disk runs short, as it does here by a threshold that none satisfies, an image that nobody could bring back
/// stays while a pod uses it; its neighbour without a pod goes.
async fn image_in_use_is_kept(cluster: &mut Cluster) -> Result<()> {
    let (kept, idle) = ("island/web:1", "island/idle:1");
    // Another image, not another name for the same: those have one life.
    cluster.lab.boxes[1].import_image(idle, &image()?).await?;
    // Who is critical is not evicted, and so is a witness.
    let mut spec = of(kept, json!({ "nodeName": "box2", "priorityClassName": "system-node-critical" }));
    spec["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
    pod(cluster, "castaway", spec).await?;
    let before = container(&ready(cluster, "castaway", 1).await?[0]);
    cluster.lab.machine(2).start("removals", &["docker", "events", "--filter", "event=delete"]).await?;
    cluster.lab.machine(2).stop(MINION).await?;
    let scarce = ["--eviction-hard", "imagefs.available<99%", "--minimum-image-ttl-duration", "0s"];
    let scarce = [&scarce[..], &["--pinned-images", "coracle/*"]].concat();
    cluster.start_minion_with(2, &scarce).await?;
    pressure(cluster, true).await?;
    cluster.lab.boxes[1].process("removals")?.says("image delete").await?;
    let left = cluster.lab.boxes[1].run(&["docker", "images", "--format", "{{.Repository}}:{{.Tag}}"]).await?;
    ensure!(left.contains(kept) && !left.contains(idle), "{left}");
    ensure!(container(&ready(cluster, "castaway", 1).await?[0]) == before, "the pod was started again");
    cluster.lab.boxes[1].kill("removals").await?;

    cluster.lab.machine(2).stop(MINION).await?;
    cluster.start_minion(2).await?;
    pressure(cluster, false).await?;
    remove(cluster, &["castaway"]).await
}

/// Waits until box2 says that its disk is full, and is avoided, or not.
async fn pressure(cluster: &Cluster, so: bool) -> Result<()> {
    let avoided = |node: &Node| {
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        taints.into_iter().flatten().any(|taint| taint.key == "node.kubernetes.io/disk-pressure")
    };
    let check = |nodes: &[Arc<Node>]| {
        nodes.iter().any(|node| node.metadata.name.as_deref() == Some("box2") && avoided(node) == so)
    };
    let what = format!("the disk of box2 is {}", if so { "full" } else { "not full" });
    until::<Node>(&cluster.client().await?, &what, "", check).await.map(drop)
}
