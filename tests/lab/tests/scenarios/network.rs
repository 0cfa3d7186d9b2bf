//! The pod network and services across boxes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Node, Pod, ServiceAccount};
use kube::Api;
use kube::api::{DeleteParams, PostParams};
use lab::cluster::MASTER_DATA;
use lab::nginx::NGINX;
use lab::{Cluster, Machine};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::common::{
    PATH, cluster_ip, controller, curl, endpoints, fetch, inside, outside, place, pod, ready, remove, service, web,
};

/// What reads a pod's address from where a box keeps the routes to pods elsewhere.
const ROUTES: [&str; 6] = ["ip", "-4", "route", "show", "proto", "119"];

/// Two pods, each on its box.
async fn pair(cluster: &Cluster) -> Result<[std::sync::Arc<Pod>; 2]> {
    pod(cluster, "left", web(json!({ "nodeName": "box1" }))).await?;
    pod(cluster, "right", web(json!({ "nodeName": "box2" }))).await?;
    let (left, right) = (ready(cluster, "left", 1).await?, ready(cluster, "right", 1).await?);
    Ok([left[0].clone(), right[0].clone()])
}

/// Pods see each other's own addresses, the outside sees the node's; host ports and hairpins work.
pub(crate) async fn pods_reach_each_other(cluster: &mut Cluster) -> Result<()> {
    let pods = pair(cluster).await?;
    for (from, to) in [(0, 1), (1, 0)] {
        let (_, _, own) = place(&pods[from]);
        let (_, name, address) = place(&pods[to]);
        let answer = fetch(cluster, &pods[from], &format!("http://{address}{PATH}")).await?;
        ensure!(answer.trim() == format!("{name} {own}"), "between boxes: {answer}");
    }
    let (node, _, _) = place(&pods[1]);
    let listener = TcpListener::bind((cluster.lab.boxes[1].gateway(), 8080)).await?;
    let url = format!("http://{}", listener.local_addr()?);
    let asked = tokio::spawn(async move {
        let (mut stream, peer) = listener.accept().await?;
        // Who ends a connection with something unread resets it.
        ensure!(stream.read(&mut [0; 4096]).await? > 0, "nothing was asked for");
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello").await?;
        anyhow::Ok(peer.ip().to_string())
    });
    ensure!(fetch(cluster, &pods[1], &url).await?.trim() == "hello");
    let seen = asked.await??;
    ensure!(seen == cluster.lab.boxes[1].address().to_string(), "outside, {node}'s pod is seen as {seen}");
    remove(cluster, &["left", "right"]).await
}

/// A host port is reached from outside, from the other box, from its own and from pods; one that is for one address of the box
/// only there.
pub(crate) async fn host_ports(cluster: &mut Cluster) -> Result<()> {
    let spec = json!({ "nodeName": "box2" });
    let mut spec = web(spec);
    spec["containers"][0]["ports"] = json!([
        { "containerPort": 80, "hostPort": 8081 },
        { "containerPort": 80, "hostPort": 8082, "hostIP": "127.0.0.1" },
    ]);
    pod(cluster, "door", spec).await?;
    pod(cluster, "left", web(json!({ "nodeName": "box1" }))).await?;
    let (_, left) = (ready(cluster, "door", 1).await?, ready(cluster, "left", 1).await?);
    let url = format!("http://{}:8081{PATH}", cluster.lab.boxes[1].address());
    ensure!(outside(&url).await?.starts_with("door "), "from outside");
    ensure!(cluster.lab.boxes[0].run(&curl(&url)).await?.starts_with("door "), "from the other box");
    ensure!(cluster.lab.boxes[1].run(&curl(&url)).await?.starts_with("door "), "from the box itself");
    ensure!(fetch(cluster, &left[0], &url).await?.starts_with("door "), "from a pod on the other box");
    let own = format!("http://127.0.0.1:8082{PATH}");
    ensure!(cluster.lab.boxes[1].run(&curl(&own)).await?.starts_with("door "), "at the one address");
    let elsewhere = url.replace("8081", "8082");
    let asked = cluster.lab.boxes[0].run(&["curl", "-sS", "--max-time", "5", &elsewhere]).await;
    ensure!(asked.is_err(), "at another address of the box: {asked:?}");
    remove(cluster, &["door", "left"]).await
}

/// Routes that someone flushed come back by themselves, and go with their node.
pub(crate) async fn routes_are_kept(cluster: &mut Cluster) -> Result<()> {
    let pods = pair(cluster).await?;
    let (_, _, address) = place(&pods[1]);
    let url = format!("http://{address}{PATH}");
    let routes = cluster.lab.boxes[0].run(&ROUTES).await?;
    cluster.lab.boxes[0].run(&["ip", "route", "flush", "proto", "119"]).await?;
    cluster.lab.boxes[0].run(&curl(&url)).await?;
    ensure!(cluster.lab.boxes[0].run(&ROUTES).await? == routes, "other routes after a flush");
    cluster.lab.cut(1).await?;
    cluster.lab.mend(1).await?;
    fetch(cluster, &pods[0], &url).await?;
    remove(cluster, &["left", "right"]).await?;

    // The node is deleted while its minion does not run, or it would register again at once.
    cluster.lab.machine(2).stop(lab::cluster::MINION).await?;
    let nodes = Api::<Node>::all(cluster.client().await?);
    let cidr = nodes.get("box2").await?.spec.and_then(|spec| spec.pod_cidr).context("box2 has a podCIDR")?;
    let monitor = monitor(&mut cluster.lab.boxes[0]).await?;
    nodes.delete("box2", &DeleteParams::default()).await?;
    cluster.lab.machine(1).process(&monitor)?.says(&format!("Deleted {cidr}")).await?;
    cluster.lab.machine(1).kill(&monitor).await?;
    cluster.start_minion(2).await?;
    cluster.ready().await
}

/// Starts a program on a box that tells every change of its routes, and waits until it listens.
async fn monitor(machine: &mut Machine) -> Result<String> {
    let (name, change) = ("monitor", "ip route add 198.51.100.0/24 dev lo && ip route del 198.51.100.0/24");
    machine.start(name, &["ip", "monitor", "route"]).await?;
    for _ in 0..20 {
        machine.run(&["sh", "-c", change]).await?;
        if machine.process(name)?.says_within("198.51.100.0/24", Duration::from_millis(200)).await.is_ok() {
            return Ok(name.to_owned());
        }
    }
    anyhow::bail!("ip monitor does not tell of changes")
}

/// B9: a service is reached by its address from pods and boxes, evenly; by its name, asked for or in the environment; by its port of the
/// node from outside; and with affinity by the same endpoint.
pub(crate) async fn services(cluster: &mut Cluster) -> Result<()> {
    let made = service(cluster, "web", json!({ "type": "NodePort" })).await?;
    controller(cluster, "web", 4, web(json!({}))).await?;
    let pods = ready(cluster, "web", 4).await?;
    endpoints(cluster, "web", 4).await?;
    let url = format!("http://{}{PATH}", cluster_ip(&made));
    for number in [0, 1] {
        let machine = &cluster.lab.boxes[number];
        machine.run(&curl(&url)).await?;
        // Far beyond chance: a share of a fifth less or more would be five standard deviations.
        let many = format!("curl -s --max-time 30 '{url}?[1-1600]' | cut -d' ' -f1 | sort | uniq -c");
        let shares = counts(&machine.run(&["sh", "-c", &many]).await?)?;
        ensure!(
            shares.len() == 4 && shares.values().all(|n| (320..=480).contains(n)),
            "from box{}: {shares:?}",
            number + 1
        );
    }
    for from in &pods {
        let answer = fetch(cluster, from, &url).await?;
        ensure!(pods.iter().any(|pod| answer.starts_with(&format!("{} ", place(pod).1))), "{answer}");
        let environment = inside(cluster, from, &["env"]).await?;
        ensure!(environment.contains(&format!("WEB_SERVICE_HOST={}", cluster_ip(&made))), "{environment}");
        let named = inside(cluster, from, &["nslookup", "-type=a", "web.default.svc.cluster.local"]).await?;
        ensure!(named.contains(&format!("Address: {}", cluster_ip(&made))), "{named}");
        // Busybox does not try search paths itself; that they are there is what the kubelet owes.
        let resolver = inside(cluster, from, &["cat", "/etc/resolv.conf"]).await?;
        ensure!(resolver.contains("search default.svc.cluster.local svc.cluster.local cluster.local"), "{resolver}");
    }
    let ports = made.spec.and_then(|spec| spec.ports).unwrap_or_default();
    let port = ports[0].node_port.context("a node port")?;
    for machine in &cluster.lab.boxes {
        outside(&format!("http://{}:{port}{PATH}", machine.address())).await?;
    }
    let sticky =
        service(cluster, "sticky", json!({ "selector": { "app": "web" }, "sessionAffinity": "ClientIP" })).await?;
    endpoints(cluster, "sticky", 4).await?;
    let url = format!("http://{}{PATH}", cluster_ip(&sticky));
    cluster.lab.boxes[0].run(&curl(&url)).await?;
    let many = format!("curl -s --max-time 30 '{url}?[1-50]' | sort | uniq -c");
    ensure!(counts(&cluster.lab.boxes[0].run(&["sh", "-c", &many]).await?)?.len() == 1, "affinity does not stick");
    remove(cluster, &["web", "sticky"]).await
}

/// The service is reached by the one pod behind it, on its own box: the packet turns round.
pub(crate) async fn hairpin(cluster: &mut Cluster) -> Result<()> {
    let made = service(cluster, "alone", json!({})).await?;
    pod(cluster, "alone", web(json!({}))).await?;
    let pods = ready(cluster, "alone", 1).await?;
    endpoints(cluster, "alone", 1).await?;
    let url = format!("http://{}{PATH}", cluster_ip(&made));
    crate::common::machine(cluster, &pods[0])?.run(&curl(&url)).await?;
    ensure!(fetch(cluster, &pods[0], &url).await?.starts_with("alone "));
    remove(cluster, &["alone"]).await
}

/// What `uniq -c` counted.
fn counts(text: &str) -> Result<BTreeMap<String, u32>> {
    let lines = text.lines().filter_map(|line| line.trim().split_once(' '));
    lines.map(|(count, name)| Ok((name.to_owned(), count.parse()?))).collect()
}

/// Who comes to the API by an Nginx on the master's box, from the other one, shows a token.
pub(crate) async fn behind_nginx(cluster: &mut Cluster) -> Result<()> {
    cluster.lab.machine(1).start_nginx().await?;
    let accounts: Api<ServiceAccount> = Api::default_namespaced(cluster.client().await?);
    let asked = accounts.create_token_request("default", &PostParams::default(), &TokenRequest::default()).await?;
    let token = asked.status.context("a token")?.token;
    let ca = std::fs::read_to_string(cluster.lab.boxes[0].file(&format!("{MASTER_DATA}/ca.crt")))?;
    cluster.lab.boxes[1].write("/root/ca.crt", &ca).await?;
    let (url, shown) =
        (format!("https://{}/api", cluster.lab.boxes[0].address()), format!("Authorization: Bearer {token}"));
    let line = ["curl", "-sS", "--max-time", "20", "--cacert", "/root/ca.crt", &url, "-w", "%{http_code}", "-H"];
    let answer = cluster.lab.boxes[1].run(&[&line[..], &[&shown]].concat()).await?;
    ensure!(answer.contains("APIVersions") && answer.ends_with("200"), "with a token: {answer}");
    let answer = cluster.lab.boxes[1].run(&[&line[..], &["Accept: application/json"]].concat()).await?;
    ensure!(answer.ends_with("403"), "without: {answer}");
    cluster.lab.machine(1).stop(NGINX).await
}
