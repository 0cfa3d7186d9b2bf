//! Figures of a node that is full: a hundred pods beside bare parallel Docker calls, what they cost once they run, and how
//! punctual their probes are.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

use crate::docker::{IMAGE, bare, cleanup, make_image, node_ready, pause_image, remove, running, start_minion};
use crate::http::Target;
use crate::parts::{Bench, follow, replication_controller};
use crate::process::Process;
use crate::report::Samples;

/// What a full node is.
const PODS: usize = 100;
/// How long a hundred pods may take to start or to go.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long the node is left alone before it is watched, and then watched.
const SETTLE: Duration = Duration::from_secs(10);
const WATCHED: Duration = Duration::from_secs(20);

/// Pods, containers in each, and probes of each container: two hundred in all.
const PROBED_PODS: usize = 20;
const PROBED_CONTAINERS: usize = 5;
const PROBES: [&str; 2] = ["readiness", "liveness"];
const PERIOD: Duration = Duration::from_secs(2);

pub(crate) async fn node(bench: &mut Bench) -> Result<()> {
    if !std::path::Path::new(crate::docker::SOCKET).exists() {
        bench.report.add("a full node", "no Docker here".to_owned(), "");
        return Ok(());
    }
    make_image(&bench.folder)?;
    let master = bench.master(&[]).await?;
    let minion = start_minion(bench, &master, "node").await?;
    node_ready(&master.target, "node").await?;
    start_rate(bench, &master.target).await?;
    settled(bench, &minion).await?;
    remove_pods(&master.target).await?;
    punctuality(bench, &master.target).await?;
    remove_pods(&master.target).await?;
    minion.stop();
    crate::docker::remove_image().await?;
    cleanup(bench, "node")
}

/// A hundred pods at once, and the bare Docker calls for as many, before and after.
async fn start_rate(bench: &mut Bench, target: &Target) -> Result<()> {
    let spec = json!({ "terminationGracePeriodSeconds": 0, "containers": [{ "name": "c", "image": IMAGE, "command": ["sleep", "1000000"] }] });
    // One pod first, so that what a node's first pod needs is there for both.
    start_pods(target, "first", 1, &spec).await?;
    let pause = pause_image().await?;
    let before = bare_at_once(&pause).await?;
    let ours = start_pods(target, "full", PODS, &spec).await?;
    #[allow(clippy::cast_precision_loss)]
    let rate = |taken: Duration| PODS as f64 / taken.as_secs_f64();
    bench.report.add("100 pods of one minion started, a second", format!("{:.1}", rate(ours)), "");
    bench.report.add("  bare Docker calls for as many, all at once", format!("{:.1}", rate(before)), "");
    let share = rate(ours) / rate(before) * 100.0;
    bench.report.add("  pods as a share of them", format!("{share:.0} %"), "≥ 80 %");
    Ok(())
}

/// From the replication controller sent to the last of its pods running.
async fn start_pods(target: &Target, name: &str, count: usize, spec: &Value) -> Result<Duration> {
    let watch = format!("/api/v1/namespaces/default/pods?watch=1&resourceVersion=0&labelSelector=app%3D{name}");
    let (watch_target, mut up) = (target.clone(), HashSet::new());
    let watching = tokio::spawn(async move {
        follow(&watch_target, &watch, PATIENCE, |_, pod| {
            if running(pod) {
                up.insert(pod["metadata"]["name"].to_string());
            }
            up.len() == count
        })
        .await
    });
    let mut connection = target.connect().await?;
    let sent = Instant::now();
    let body = replication_controller(name, u32::try_from(count)?, spec);
    connection.call(Method::POST, "/api/v1/namespaces/default/replicationcontrollers", body).await?;
    Ok(watching.await??.duration_since(sent))
}

async fn bare_at_once(pause: &str) -> Result<Duration> {
    let begun = Instant::now();
    let made = futures::future::join_all((0..PODS).map(|number| bare(number, pause))).await;
    let taken = begun.elapsed();
    for made in made {
        remove(&made?.1).await?;
    }
    Ok(taken)
}

async fn settled(bench: &mut Bench, minion: &Process) -> Result<()> {
    tokio::time::sleep(SETTLE).await;
    let before = minion.cpu_seconds()?;
    tokio::time::sleep(WATCHED).await;
    let share = (minion.cpu_seconds()? - before) / WATCHED.as_secs_f64() * 100.0;
    bench.report.add("minion with 100 pods that run", format!("{share:.2} % of a core"), "< 2 %");
    bench.report.add("minion resident with 100 pods", format!("{:.1} MiB", minion.resident_mib()?), "< 40 MiB");
    Ok(())
}

/// Removes everything in namespace `default`, and waits until it is gone.
async fn remove_pods(target: &Target) -> Result<()> {
    let mut connection = target.connect().await?;
    let path = "/api/v1/namespaces/default/replicationcontrollers?propagationPolicy=Background";
    connection.call(Method::DELETE, path, Bytes::new()).await?;
    connection.call(Method::DELETE, "/api/v1/namespaces/default/pods", Bytes::new()).await?;
    let list = connection.call(Method::GET, "/api/v1/namespaces/default/pods", Bytes::new()).await?;
    let list: Value = serde_json::from_slice(&list)?;
    let mut left: HashSet<String> =
        list["items"].as_array().into_iter().flatten().map(|pod| pod["metadata"]["uid"].to_string()).collect();
    if left.is_empty() {
        return Ok(());
    }
    let version = list["metadata"]["resourceVersion"].as_str().context("a list has a resourceVersion")?;
    let watch = format!("/api/v1/namespaces/default/pods?watch=1&resourceVersion={version}");
    follow(target, &watch, PATIENCE, |kind, pod| {
        if kind == "DELETED" {
            left.remove(&pod["metadata"]["uid"].to_string());
        }
        left.is_empty()
    })
    .await?;
    Ok(())
}

/// When each probe's requests came.
type Arrivals = Arc<Mutex<HashMap<String, Vec<Instant>>>>;

/// Two hundred HTTP probes that ask this program, which notes when.
async fn punctuality(bench: &mut Bench, target: &Target) -> Result<()> {
    let arrivals = Arrivals::default();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let _server = AbortOnDropHandle::new(tokio::spawn(answer(listener, arrivals.clone())));
    let mut connection = target.connect().await?;
    for pod in 0..PROBED_PODS {
        let body = Bytes::from(probed_pod(pod, port).to_string());
        connection.call(Method::POST, "/api/v1/namespaces/default/pods", body).await?;
    }
    let mut ready = HashSet::new();
    follow(target, "/api/v1/namespaces/default/pods?watch=1&resourceVersion=0", PATIENCE, |_, pod| {
        let conditions = pod["status"]["conditions"].as_array();
        if conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True") {
            ready.insert(pod["metadata"]["name"].to_string());
        }
        ready.len() == PROBED_PODS
    })
    .await?;
    tokio::time::sleep(SETTLE).await;
    arrivals.lock().clear();
    tokio::time::sleep(WATCHED).await;
    let late = deviations(&arrivals.lock());
    let probes = arrivals.lock().len();
    let percent = |share: f64| late.milliseconds(share) / PERIOD.as_secs_f64() / 10.0;
    let figure = format!("{:.1} % of the period (p99 {:.1} %, {probes} probes)", percent(0.5), percent(0.99));
    bench.report.add("what 200 probes are off their period, median", figure, "< 10 %");
    Ok(())
}

fn probed_pod(number: usize, port: u16) -> Value {
    let probe = |container: usize, kind: &str| {
        let path = format!("/{number}/{container}/{kind}");
        json!({ "httpGet": { "host": "127.0.0.1", "port": port, "path": path }, "periodSeconds": PERIOD.as_secs() })
    };
    let container = |container: usize| {
        json!({
            "name": format!("c{container}"), "image": IMAGE, "command": ["sleep", "1000000"],
            "readinessProbe": probe(container, PROBES[0]), "livenessProbe": probe(container, PROBES[1]),
        })
    };
    let containers: Vec<Value> = (0..PROBED_CONTAINERS).map(container).collect();
    let spec = json!({ "terminationGracePeriodSeconds": 0, "containers": containers });
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": format!("probed-{number}") }, "spec": spec })
}

/// Answers every request with 200.
async fn answer(listener: TcpListener, arrivals: Arrivals) {
    while let Ok((stream, _)) = listener.accept().await {
        let arrived = Instant::now();
        let arrivals = arrivals.clone();
        tokio::spawn(async move {
            if let Ok(path) = respond(stream).await {
                arrivals.lock().entry(path).or_default().push(arrived);
            }
        });
    }
}

async fn respond(mut stream: TcpStream) -> Result<String> {
    let (mut head, mut length) = ([0; 2048], 0);
    while !head[..length].windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut head[length..]).await? {
            0 => anyhow::bail!("no whole request"),
            read => length += read,
        }
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
    let line = std::str::from_utf8(&head[..length])?.lines().next().unwrap_or_default();
    Ok(line.split(' ').nth(1).unwrap_or_default().to_owned())
}

/// By how much the time between two requests of a probe differs from its period.
fn deviations(arrivals: &HashMap<String, Vec<Instant>>) -> Samples {
    let pairs = arrivals.values().flat_map(|times| times.windows(2));
    Samples::new(pairs.map(|pair| pair[1].duration_since(pair[0]).abs_diff(PERIOD)).collect())
}
