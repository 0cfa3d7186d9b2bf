//! Figures with real containers: a minion on the machine's Docker, beside the bare Docker calls a pod needs.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::UnixStream;

use crate::http::Target;
use crate::parts::{Bench, follow, replication_controller};
use crate::process::{MasterProcess, Process};
use crate::report::Samples;

pub(crate) const SOCKET: &str = "/var/run/docker.sock";
pub(crate) const IMAGE: &str = "coracle/bench:1";
const READY: Duration = Duration::from_secs(30);

/// Starts a minion on Docker where it answers, else on the hollow runtime.
pub(crate) async fn start_minion(bench: &Bench, master: &MasterProcess, name: &str) -> Result<Process> {
    let runtime = if Path::new(SOCKET).exists() { "docker" } else { "hollow" };
    minion(bench, &[master], name, runtime)
}

/// Starts a minion that may ask any of these masters.
pub(crate) fn minion(bench: &Bench, masters: &[&MasterProcess], name: &str, runtime: &str) -> Result<Process> {
    let servers: Vec<String> = masters.iter().map(|master| format!("https://{}", master.target.address)).collect();
    let first = masters.first().context("a minion has a master")?;
    let token = std::fs::read_to_string(first.data_dir.join("join-token"))?;
    let data_dir = bench.folder.join(format!("minion-{name}"));
    let arguments = [
        "--server",
        &servers.join(","),
        "--data-dir",
        &data_dir.display().to_string(),
        "--node-name",
        name,
        "--kubelet-port",
        "0",
        "--healthz-port",
        "0",
        // Nothing is evicted and no image removed because others fill this machine's disk.
        "--eviction-hard",
        "memory.available<100Mi",
        "--image-gc-high-threshold",
        "100",
        "--runtime",
        runtime,
    ]
    .map(str::to_owned);
    let environment = [("CORACLE_TOKEN", token.trim().to_owned())];
    Process::start(&bench.binaries.join("minion"), &arguments, &environment, &data_dir.with_extension("log"))
}

/// Waits until the node is Ready.
pub(crate) async fn node_ready(target: &Target, name: &str) -> Result<()> {
    follow(target, "/api/v1/nodes?watch=1&resourceVersion=0", READY, |_, node| {
        let conditions = node["status"]["conditions"].as_array();
        let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
        node["metadata"]["name"] == name && ready
    })
    .await?;
    Ok(())
}

/// Removes everything the minion of that name made on this machine.
pub(crate) fn cleanup(bench: &Bench, name: &str) -> Result<()> {
    let data_dir = bench.folder.join(format!("minion-{name}"));
    let done = Command::new(bench.binaries.join("minion")).arg("--cleanup").arg("--data-dir").arg(data_dir).status()?;
    ensure!(done.success(), "minion --cleanup ended with {done}");
    Ok(())
}

/// A small image of busybox, imported as one layer.
pub(crate) fn make_image(folder: &Path) -> Result<()> {
    let root = folder.join("image");
    if root.exists() {
        std::fs::remove_dir_all(&root)?;
    }
    std::fs::create_dir_all(root.join("bin"))?;
    std::fs::copy("/bin/busybox", root.join("bin/busybox")).context("busybox-static is not installed")?;
    for applet in ["sh", "sleep", "httpd"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    let script = format!("tar -C {} -c . | docker import - {IMAGE} >/dev/null", root.display());
    ensure!(Command::new("sh").arg("-c").arg(script).status()?.success(), "docker import failed");
    Ok(())
}

async fn call(method: Method, path: &str, body: Value) -> Result<Value> {
    let stream = UnixStream::connect(SOCKET).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
    let request =
        Request::builder().method(method).uri(path).header("host", "docker").header("content-type", "application/json");
    let response = sender.send_request(request.body(Full::new(body))?).await?;
    let status = response.status();
    let answer = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "{path}: {status}: {}", String::from_utf8_lossy(&answer));
    Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
}

/// The Docker calls a pod of one container cannot do without: create and start a sandbox on the pods' network, create
/// and start a container in it. Returns the time they took and the two containers.
pub(crate) async fn bare(number: usize, pause: &str) -> Result<(Duration, [String; 2])> {
    let begun = Instant::now();
    let create = |name: String, body: Value| async move {
        let made = call(Method::POST, &format!("/containers/create?name={name}"), body).await?;
        let id = made["Id"].as_str().context("a created container has an Id")?.to_owned();
        call(Method::POST, &format!("/containers/{id}/start"), Value::Null).await?;
        anyhow::Ok(id)
    };
    let host = json!({ "NetworkMode": "coracle", "IpcMode": "shareable" });
    let sandbox =
        create(format!("coracle-bench-sandbox-{number}"), json!({ "Image": pause, "HostConfig": host })).await?;
    let host = json!({ "NetworkMode": format!("container:{sandbox}"), "IpcMode": format!("container:{sandbox}") });
    let body = json!({ "Image": IMAGE, "Cmd": ["sleep", "1000000"], "HostConfig": host });
    let container = create(format!("coracle-bench-{number}"), body).await?;
    Ok((begun.elapsed(), [container, sandbox]))
}

pub(crate) async fn remove(containers: &[String]) -> Result<()> {
    for id in containers {
        call(Method::DELETE, &format!("/containers/{id}?force=1"), Value::Null).await?;
    }
    Ok(())
}

pub(crate) fn running(pod: &Value) -> bool {
    pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
}

/// Pod start beside bare Docker, a killed container, a deleted pod.
pub(crate) async fn pods(bench: &mut Bench) -> Result<()> {
    if !Path::new(SOCKET).exists() {
        bench.report.add("pods on Docker", "no Docker here".to_owned(), "");
        return Ok(());
    }
    make_image(&bench.folder)?;
    let master = crate::process::start_master(&bench.binaries, &bench.folder.join("master-pods"), 17443, &[]).await?;
    let minion = start_minion(bench, &master, "bench").await?;
    node_ready(&master.target, "bench").await?;
    start_cost(bench, &master.target).await?;
    healing(bench, &master.target).await?;
    minion.stop();
    remove_image().await?;
    cleanup(bench, "bench")
}

/// Removes the image that was made.
pub(crate) async fn remove_image() -> Result<()> {
    call(Method::DELETE, &format!("/images/{IMAGE}?force=1"), Value::Null).await.map(|_| ())
}

async fn start_cost(bench: &mut Bench, target: &Target) -> Result<()> {
    let mut connection = target.connect().await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    let mut pause = None;
    for number in 0..6 {
        let name = format!("start-{number}");
        let spec = json!({ "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": IMAGE, "command": ["sleep", "1000000"] }] });
        let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name }, "spec": spec });
        let path =
            format!("/api/v1/namespaces/default/pods?watch=1&resourceVersion=0&fieldSelector=metadata.name%3D{name}");
        let watch_target = target.clone();
        let watching = tokio::spawn(async move { follow(&watch_target, &path, READY, |_, pod| running(pod)).await });
        let sent = Instant::now();
        connection.call(Method::POST, "/api/v1/namespaces/default/pods", Bytes::from(pod.to_string())).await?;
        let taken = watching.await??.duration_since(sent);
        if pause.is_none() {
            pause = Some(pause_image().await?);
        }
        let (bare, containers) = bare(number, pause.as_deref().unwrap_or_default()).await?;
        remove(&containers).await?;
        connection.call(Method::DELETE, &format!("/api/v1/namespaces/default/pods/{name}"), Bytes::new()).await?;
        if number > 0 {
            ours.push(taken);
            theirs.push(bare);
        }
    }
    let (ours, theirs) = (Samples::new(ours).milliseconds(0.5), Samples::new(theirs).milliseconds(0.5));
    bench.report.add("pod sent to container running, median", format!("{ours:.0} ms"), "");
    bench.report.add("  bare Docker calls for the same, side by side", format!("{theirs:.0} ms"), "");
    bench.report.add("  what the pod costs beyond them", format!("{:.0} ms", ours - theirs), "< 100 ms");
    Ok(())
}

/// The image of a sandbox the minion made.
pub(crate) async fn pause_image() -> Result<String> {
    let containers = call(Method::GET, "/containers/json", Value::Null).await?;
    let images = containers.as_array().into_iter().flatten().filter_map(|c| c["Image"].as_str());
    images.into_iter().find(|i| i.contains("pause")).map(str::to_owned).context("no sandbox runs")
}

async fn healing(bench: &mut Bench, target: &Target) -> Result<()> {
    let mut connection = target.connect().await?;
    let spec = json!({ "terminationGracePeriodSeconds": 1, "containers": [{ "name": "c", "image": IMAGE, "command": ["sleep", "1000000"] }] });
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    connection.call(Method::POST, path, replication_controller("heal", 1, &spec)).await?;
    let watch = "/api/v1/namespaces/default/pods?watch=1&resourceVersion=0&labelSelector=app%3Dheal";
    let mut found = (String::new(), String::new());
    follow(target, watch, READY, |_, pod| {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        found = (text(&pod["metadata"]["name"]), text(&pod["status"]["containerStatuses"][0]["containerID"]));
        running(pod)
    })
    .await?;
    let (pod_name, container) = found;
    let watch_target = target.clone();
    let restarted = tokio::spawn(async move {
        follow(&watch_target, watch, READY, |_, pod| {
            running(pod) && pod["status"]["containerStatuses"][0]["restartCount"] == 1
        })
        .await
    });
    let begun = Instant::now();
    call(Method::POST, &format!("/containers/{}/kill", container.trim_start_matches("docker://")), Value::Null).await?;
    let taken = restarted.await??.duration_since(begun).as_secs_f64() * 1000.0;
    bench.report.add("a killed container running again (first restart)", format!("{taken:.0} ms"), "≤ 1000 ms");
    let (watch_target, old) = (target.clone(), pod_name.clone());
    let replaced = tokio::spawn(async move {
        follow(&watch_target, watch, READY, |_, pod| running(pod) && pod["metadata"]["name"] != old.as_str()).await
    });
    let begun = Instant::now();
    connection.call(Method::DELETE, &format!("/api/v1/namespaces/default/pods/{pod_name}"), Bytes::new()).await?;
    let taken = replaced.await??.duration_since(begun).as_secs_f64() * 1000.0;
    bench.report.add("a deleted pod's replacement running", format!("{taken:.0} ms"), "≤ 1500 ms");
    connection.call(Method::DELETE, &format!("{path}/heal"), Bytes::new()).await?;
    Ok(())
}
