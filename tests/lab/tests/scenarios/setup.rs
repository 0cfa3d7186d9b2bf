//! A cluster that is put together, configured, used, restarted and taken apart; and the lab that most scenarios share.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::ListParams;
use lab::Cluster;
use lab::cluster::{MASTER, MINION, Settings};
use lab::lab::MANIFESTS;
use lab::scenario::Scenarios;
use serde_json::json;

use crate::common::{all_parts_are_healthy, container, controller, kctl, machine, pod, ready, refused, remove, web};
use crate::{images, network, resources};

#[test]
fn two_boxes() -> Result<()> {
    lab::lab::test(async || {
        let minion = ["--pod-manifest-path", MANIFESTS, "--http-check-frequency", "1"].map(str::to_owned).to_vec();
        let cluster = Cluster::start(Settings { minion, ..Settings::default() }).await?;
        let mut all = Scenarios::on(cluster);
        all.run("A1", "the doctor finds both boxes good, also while they work", doctor_is_content).await;
        all.run("A2", "the master serves and all its parts are healthy", master_is_healthy).await;
        let joined = "minions join and are ready with the machine's capacity";
        all.run("A3", joined, nodes_are_whole).await;
        all.run("A5", "the command line works from every host, and strangers are refused", command_line).await;
        all.run("network", "pods of two boxes reach each other's own addresses", network::pods_reach_each_other).await;
        all.run("hostPort", "a host port is reached from everywhere", network::host_ports).await;
        all.run("hairpin", "a pod reaches itself through its service", network::hairpin).await;
        all.run("nginx", "an Nginx on a box leads to the API", network::behind_nginx).await;
        all.run("B9", "services are found and share their load", network::services).await;
        all.run("B5", "pods go where they may", resources::scheduling).await;
        all.run("B6", "ten stay ten", resources::ten_stay_ten).await;
        all.run("B7", "scaling is exact", resources::scaling).await;
        all.run("B8", "a new version takes over and no request fails", resources::rolling_update).await;
        all.run("B16", "a pushed image is pulled by digest", images::pushed_and_pulled_by_digest).await;
        all.run("B17", "a registry with a password", images::behind_a_password).await;
        all.run("B19", "no registry at all", images::no_registry_at_all).await;
        all.run("B1", "nothing acknowledged is lost when the master is killed", state_is_kept).await;
        all.run("B10", "a manifest on the box runs without the master", static_pods).await;
        all.run("A4", "a changed flag is in effect after a restart, a wrong one is refused", configuration).await;
        all.run("routes", "routes are repaired when flushed and go with their node", network::routes_are_kept).await;
        all.run("A7", "restarting everything changes nothing; cleaning up leaves nothing", restart_and_clean_up).await;
        all.finish().await
    })
}

/// A1; what it finds on others is in `preflight.rs`.
async fn doctor_is_content(cluster: &mut Cluster) -> Result<()> {
    let server = cluster.url();
    for machine in &cluster.lab.boxes {
        let said = machine.run(&["sh", "-c", &format!("kctl doctor --server {server} || true")]).await?;
        // How full the machine's disk is nobody here can help.
        let bad: Vec<&str> = said.lines().filter(|line| !line.starts_with("ok") && !line.starts_with(' ')).collect();
        let disk = bad.iter().all(|line| line.split_whitespace().nth(1) == Some("disk"));
        ensure!(disk && said.contains("are free, or Coracle's"), "{said}");
    }
    Ok(())
}

/// A2, with the embedded store.
async fn master_is_healthy(cluster: &mut Cluster) -> Result<()> {
    for path in ["healthz", "livez", "readyz"] {
        let answer = cluster.lab.boxes[1].run(&["curl", "-sk", &format!("{}/{path}", cluster.url())]).await?;
        ensure!(answer == "ok", "{path}: {answer}");
    }
    for machine in &cluster.lab.boxes {
        let answer = machine.run(&["curl", "-s", "http://127.0.0.1:10248/healthz"]).await?;
        ensure!(answer == "ok", "the minion of {}: {answer}", machine.name());
    }
    all_parts_are_healthy(cluster).await
}

/// A3.
async fn nodes_are_whole(cluster: &mut Cluster) -> Result<()> {
    let taken = cluster.joined_after;
    ensure!(taken < Duration::from_secs(30), "the nodes took {taken:?} to be ready");
    let memory =
        cluster.lab.boxes[0].run(&["sed", "-n", "s/^MemTotal: *\\([0-9]*\\) kB/\\1Ki/p", "/proc/meminfo"]).await?;
    let processors = cluster.lab.boxes[0].run(&["nproc"]).await?;
    for node in Api::<Node>::all(cluster.client().await?).list(&ListParams::default()).await? {
        let capacity = node.status.as_ref().and_then(|status| status.capacity.clone()).unwrap_or_default();
        ensure!(capacity["cpu"].0 == processors && capacity["pods"].0 == "110", "{capacity:?}");
        ensure!(capacity["memory"].0 == memory, "{capacity:?}, and there are {memory}");
        ensure!(node.spec.and_then(|spec| spec.pod_cidr).is_some());
    }
    Ok(())
}

/// A5.
async fn command_line(cluster: &mut Cluster) -> Result<()> {
    let config = std::fs::read_to_string(cluster.kubeconfig())?;
    for machine in &cluster.lab.boxes {
        machine.write("/root/.kube/config", &config).await?;
        for words in [&["version"][..], &["cluster-info"], &["get", "nodes"]] {
            let line: Vec<&str> = ["env", "HOME=/root", "kctl"].into_iter().chain(words.iter().copied()).collect();
            machine.run(&line).await?;
        }
    }
    let listed = kctl(cluster, &["get", "nodes"], b"").await?;
    ensure!(listed.contains("box1") && listed.contains("box2"), "{listed}");
    ensure!(kctl(cluster, &["version"], b"").await?.contains("Server Version"), "the third host hears of no server");
    ensure!(kctl(cluster, &["cluster-info"], b"").await?.contains(&cluster.url()));
    let status = async |token: &str| {
        let (url, header) = (format!("{}/api/v1/nodes", cluster.url()), format!("Authorization: Bearer {token}"));
        cluster.lab.boxes[1].run(&["curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}", "-H", &header, &url]).await
    };
    ensure!(status("wrong").await? == "401");
    let request = http_token(cluster).await?;
    ensure!(status(&request).await? == "403", "a service account without rights");
    Ok(())
}

/// A token of the default service account, which has no rights.
async fn http_token(cluster: &Cluster) -> Result<String> {
    use k8s_openapi::api::authentication::v1::TokenRequest;
    use k8s_openapi::api::core::v1::ServiceAccount;
    let accounts = Api::<ServiceAccount>::default_namespaced(cluster.client().await?);
    let request: TokenRequest = serde_json::from_value(json!({ "spec": { "audiences": [] } }))?;
    let answer = accounts.create_token_request("default", &kube::api::PostParams::default(), &request).await?;
    Ok(answer.status.context("a token")?.token)
}

/// B1, with the embedded store.
async fn state_is_kept(cluster: &mut Cluster) -> Result<()> {
    for number in 0..20 {
        let name = format!("kept-{number}");
        let object = json!({ "metadata": { "name": name }, "data": { "number": number.to_string() } });
        crate::common::create::<k8s_openapi::api::core::v1::ConfigMap>(cluster, object).await?;
    }
    // The moment after the last answer.
    cluster.lab.machine(1).kill(MASTER).await?;
    cluster.start_master(1).await?;
    let listed = kctl(cluster, &["get", "configmaps", "-o", "name"], b"").await?;
    ensure!(listed.lines().filter(|line| line.contains("kept-")).count() == 20, "{listed}");
    for number in 0..20 {
        kctl(cluster, &["delete", "configmap", &format!("kept-{number}")], b"").await?;
    }
    Ok(())
}

/// B10.
async fn static_pods(cluster: &mut Cluster) -> Result<()> {
    cluster.lab.machine(1).stop(MASTER).await?;
    let manifest = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "static", "labels": { "app": "static" } },
        "spec": web(json!({})) });
    let path = format!("{MANIFESTS}/static.yaml");
    let box2 = cluster.lab.machine(2);
    box2.start("events", &["docker", "events", "--filter", "event=start", "--format", "{{.Actor.Attributes.name}}"])
        .await?;
    box2.write(&path, &manifest.to_string()).await?;
    box2.process("events")?.says("k8s_web_static-box2_").await?;
    box2.kill("events").await?;
    cluster.start_master(1).await?;
    let mirrors = ready(cluster, "static", 1).await?;
    ensure!(mirrors[0].metadata.name.as_deref() == Some("static-box2"), "{mirrors:?}");
    cluster.lab.boxes[1].run(&["rm", &path]).await?;
    ready(cluster, "static", 0).await?;
    ensure!(cluster.lab.boxes[1].containers("static-box2").await?.is_empty());
    Ok(())
}

/// A4: a file on the box, as its unit gives it to the minion.
async fn configuration(cluster: &mut Cluster) -> Result<()> {
    let file = "/etc/coracle/minion.yaml";
    cluster.lab.boxes[1].write(file, "node-labels: [disk=ssd]\nmax-pods: none\n").await?;
    let data = ["--data-dir", "/tmp/x"];
    let wrong = [MINION, "--config", file, data[0], data[1], "--server", "https://10.55.0.1:6443"];
    let wrong = cluster.lab.boxes[1].run(&wrong).await;
    refused(wrong, "/etc/coracle/minion.yaml:2: invalid value 'none' for '--max-pods <N>'")?;
    let wrong = cluster.lab.boxes[0].run(&[MASTER, data[0], data[1], "--cluster-cidr", "10.96.0.0/16"]).await;
    refused(wrong, "--service-cluster-ip-range")?;
    cluster.lab.machine(2).stop(MINION).await?;
    cluster.lab.boxes[1].write(file, "node-labels: [disk=ssd]\nmax-pods: 55\n").await?;
    cluster.start_minion_with(2, &["--config", file]).await?;
    let nodes = |nodes: &[std::sync::Arc<Node>]| {
        let node = nodes.iter().find(|node| node.metadata.name.as_deref() == Some("box2"));
        let capacity = node.and_then(|node| node.status.as_ref()?.capacity.clone()).unwrap_or_default();
        capacity.get("pods").is_some_and(|pods| pods.0 == "55")
    };
    harness::wait::until::<Node>(&cluster.client().await?, "box2 takes 55 pods", "", nodes).await?;
    let request = http::Request::get("/api/v1/nodes/box2/proxy/configz").body(Vec::new())?;
    let effective = cluster.client().await?.request_text(request).await?;
    ensure!(effective.contains("\"maxPods\":55") && effective.contains("disk=ssd"), "{effective}");
    let request = http::Request::get("/configz").body(Vec::new())?;
    let effective = cluster.client().await?.request_text(request).await?;
    ensure!(effective.contains("\"advertise-address\":\"10.55.0.1\""), "{effective}");
    cluster.lab.machine(2).stop(MINION).await?;
    cluster.start_minion(2).await?;
    kctl(cluster, &["label", "--overwrite", "node", "box2", "disk-"], b"").await.map(drop)
}

/// A7.
async fn restart_and_clean_up(cluster: &mut Cluster) -> Result<()> {
    controller(cluster, "steady", 4, web(json!({}))).await?;
    let ids = |pods: &[std::sync::Arc<k8s_openapi::api::core::v1::Pod>]| {
        pods.iter().filter_map(|pod| container(pod)).collect::<std::collections::BTreeSet<_>>()
    };
    let before = ids(&ready(cluster, "steady", 4).await?);
    for number in [1, 2] {
        cluster.lab.machine(number).stop(MINION).await?;
    }
    cluster.lab.machine(1).stop(MASTER).await?;
    cluster.start_master(1).await?;
    for number in [1, 2] {
        cluster.start_minion(number).await?;
    }
    cluster.ready().await?;
    let pods = ready(cluster, "steady", 4).await?;
    ensure!(ids(&pods) == before, "restarting the daemons restarted containers");
    for pod in &pods {
        ensure!(machine(cluster, pod)?.containers(pod.metadata.name.as_deref().unwrap_or_default()).await?.len() == 1);
    }
    remove(cluster, &["steady"]).await?;

    let machine = cluster.lab.machine(2);
    machine.stop(MINION).await?;
    machine.run(&[MINION, "--cleanup", "--data-dir", "/var/lib/coracle/minion"]).await?;
    let left = "docker ps -aq --filter label=io.coracle.node; docker network ls -q --filter name=^coracle$; \
                nft list tables | grep coracle; ip route show proto 119; ip -o link show coracle-vxlan 2>&1 | grep UP; \
                nft list ruleset | grep coracle; grep coracle/minion /proc/mounts; ls /var/lib/coracle/minion; true";
    let left = machine.run(&["sh", "-c", left]).await?;
    ensure!(left.is_empty(), "left: {left}");
    cluster.start_minion(2).await?;
    cluster.ready().await?;
    pod(cluster, "again", web(json!({ "nodeName": "box2" }))).await?;
    ready(cluster, "again", 1).await?;
    remove(cluster, &["again"]).await
}
