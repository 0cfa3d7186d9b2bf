//! The parts of the benchmark, one function each.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::Method;
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::http::{Connection, Target};
use crate::process::{MasterProcess, Process, start_master};
use crate::report::{Report, Samples};
use crate::stream::Accepts;
use crate::{docker, failover, load, node, services, upstream, watchers};

/// What every part needs.
pub(crate) struct Bench {
    /// Where `master` and `minion` lie.
    pub(crate) binaries: PathBuf,
    /// A folder for data and logs.
    pub(crate) folder: PathBuf,
    /// The next free port.
    pub(crate) port: u16,
    /// The kube-apiserver that is measured instead of a master.
    pub(crate) upstream: Option<PathBuf>,
    /// Where figures go.
    pub(crate) report: Report,
}

impl Bench {
    pub(crate) async fn master(&mut self, extra: &[&str]) -> Result<MasterProcess> {
        self.port += 1;
        let data_dir = self.folder.join(format!("master-{}", self.port));
        let master = start_master(&self.binaries, &data_dir, self.port, extra).await?;
        load::ensure_account(&master.target).await?;
        Ok(master)
    }

    /// What answers the API: a master of these components, or upstream's.
    pub(crate) async fn api_server(&mut self, components: &str) -> Result<ApiServer> {
        let Some(program) = self.upstream.clone() else {
            let master = self.master(&["--components", components]).await?;
            return Ok(ApiServer { target: master.target, processes: vec![master.process] });
        };
        self.port += 1;
        let server = upstream::start(&program, &self.folder, self.port).await?;
        load::ensure_account(&server.target).await?;
        Ok(server)
    }
}

/// A running API server, with what it needs.
pub(crate) struct ApiServer {
    /// How to reach it as admin.
    pub(crate) target: Target,
    /// Its processes; the first is the server.
    pub(crate) processes: Vec<Process>,
}

impl ApiServer {
    /// Resident memory of all its processes in MiB.
    fn resident_mib(&self) -> Result<f64> {
        self.processes.iter().map(Process::resident_mib).sum()
    }
}

type Part = for<'a> fn(&'a mut Bench) -> BoxFuture<'a, Result<()>>;

/// Every part by name, in the order they run.
pub(crate) const ALL: &[(&str, Part)] = &[
    ("start", |bench| Box::pin(start(bench))),
    ("idle", |bench| Box::pin(idle(bench))),
    ("requests", |bench| Box::pin(requests(bench))),
    ("etcd", |bench| Box::pin(etcd(bench))),
    ("watch", |bench| Box::pin(watch(bench))),
    ("burst", |bench| Box::pin(watchers::burst(bench))),
    ("crowd", |bench| Box::pin(watchers::crowd(bench))),
    ("reconcile", |bench| Box::pin(reconcile(bench))),
    ("schedule", |bench| Box::pin(schedule(bench))),
    ("hold", |bench| Box::pin(hold(bench))),
    ("pods", |bench| Box::pin(docker::pods(bench))),
    ("node", |bench| Box::pin(node::node(bench))),
    ("failover", |bench| Box::pin(failover::failover(bench))),
    ("services", |bench| Box::pin(services::services(bench))),
    ("upstream", |bench| Box::pin(upstream::upstream(bench))),
];

async fn start(bench: &mut Bench) -> Result<()> {
    let first = bench.master(&[]).await?;
    let seconds = first.ready_after.as_secs_f64();
    bench.report.add("ready after the very first start", format!("{:.0} ms", seconds * 1000.0), "≤ 1000 ms");
    load::create_pods(&first.target, 8, 1000, "start").await?;
    let (data_dir, port) = (first.data_dir.clone(), bench.port);
    first.process.stop();
    let mut again = Vec::new();
    for _ in 0..5 {
        let master = start_master(&bench.binaries, &data_dir, port, &[]).await?;
        again.push(master.ready_after);
        master.process.stop();
    }
    let median = Samples::new(again).milliseconds(0.5);
    bench.report.add("ready on existing data (1,000 pods)", format!("{median:.0} ms"), "≤ 200 ms");
    Ok(())
}

/// How long idleness is watched.
const IDLE_SECONDS: u64 = 20;

async fn idle(bench: &mut Bench) -> Result<()> {
    let master = bench.master(&[]).await?;
    let minion = docker::start_minion(bench, &master, "idle").await?;
    docker::node_ready(&master.target, "idle").await?;
    // Let what start-up set in motion come to rest: the first heartbeats and status writes.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = master.process.cpu_seconds()? + minion.cpu_seconds()?;
    tokio::time::sleep(Duration::from_secs(IDLE_SECONDS)).await;
    let used = master.process.cpu_seconds()? + minion.cpu_seconds()? - before;
    #[allow(clippy::cast_precision_loss)]
    let share = used / IDLE_SECONDS as f64 * 100.0;
    bench.report.add("idle CPU, master and minion together", format!("{share:.2} % of a core"), "< 1 %");
    bench.report.add("master resident, idle", format!("{:.1} MiB", master.process.resident_mib()?), "< 40 MiB");
    bench.report.add("minion resident, idle", format!("{:.1} MiB", minion.resident_mib()?), "< 25 MiB");
    minion.stop();
    docker::cleanup(bench, "idle")
}

pub(crate) async fn requests(bench: &mut Bench) -> Result<()> {
    let master = bench.api_server("apiserver").await?;
    let target = &master.target;
    load::create_pods(target, 32, 1000, "warm").await?;
    let one = load::create_pods(target, 1, 3000, "one").await?;
    bench.report.add("pods created a second, 1 client", format!("{:.0}", one.rate()), "≥ 1,500");
    let many = load::create_pods(target, 32, 20_000, "many").await?;
    bench.report.add("pods created a second, 32 clients", format!("{:.0}", many.rate()), "≥ 5,000");
    bench.report.add("  p99 of a create, 32 clients", format!("{:.1} ms", many.latencies.milliseconds(0.99)), "");
    let gets = load::run(target, 32, 40_000, |connection, number| {
        Box::pin(async move {
            let path = format!("/api/v1/namespaces/default/pods/many-{}", number % 20_000);
            connection.call(Method::GET, &path, Bytes::new()).await.map(|_| ())
        })
    })
    .await?;
    bench.report.add("GETs a second, 32 clients", format!("{:.0}", gets.rate()), "≥ 25,000");
    let patches = load::run(target, 32, 20_000, |connection, number| {
        Box::pin(async move {
            let path = format!("/api/v1/namespaces/default/pods/many-{number}");
            let body = format!(r#"{{"metadata":{{"labels":{{"patched":"{number}"}}}}}}"#);
            connection.call(Method::PATCH, &path, Bytes::from(body)).await.map(|_| ())
        })
    })
    .await?;
    bench.report.add("patches a second, 32 clients", format!("{:.0}", patches.rate()), "≥ 6,000");
    load::delete_pods(target).await?;
    load::create_pods(target, 32, 5000, "list").await?;
    let lists = load::run(target, 1, 15, |connection, _| {
        Box::pin(async move {
            connection.call(Method::GET, "/api/v1/namespaces/default/pods", Bytes::new()).await.map(|_| ())
        })
    })
    .await?;
    bench.report.add("LIST of 5,000 pods, median", format!("{:.1} ms", lists.latencies.milliseconds(0.5)), "≤ 20 ms");
    Ok(())
}

async fn etcd(bench: &mut Bench) -> Result<()> {
    let Some(etcd) = crate::etcd::start(&bench.folder)? else {
        bench.report.add("pods created a second on etcd", "no etcd here".to_owned(), "");
        return Ok(());
    };
    let master = bench.master(&["--components", "apiserver", "--etcd-servers", &etcd.endpoint]).await?;
    load::create_pods(&master.target, 32, 500, "warm").await?;
    let one = load::create_pods(&master.target, 1, 1000, "one").await?;
    bench.report.add("pods created a second on etcd, 1 client", format!("{:.0}", one.rate()), "more than 440");
    let many = load::create_pods(&master.target, 32, 5000, "many").await?;
    bench.report.add("pods created a second on etcd, 32 clients", format!("{:.0}", many.rate()), "more than 1,250");
    Ok(())
}

/// How many creations the watch latency is measured on.
const WATCHED_CREATES: usize = 200;

pub(crate) async fn watch(bench: &mut Bench) -> Result<()> {
    let master = bench.api_server("apiserver").await?;
    let arrivals: Arc<Mutex<HashMap<String, Vec<Instant>>>> = Arc::default();
    let seen = arrivals.clone();
    let streams = load::watchers(&master.target, 50, Accepts::Plain, move |arrived, chunk| {
        let mut seen = seen.lock();
        for line in chunk.split(|b| *b == b'\n').filter(|l| l.starts_with(b"{\"type\":\"ADDED\"")) {
            if let Some(name) = name_in(line) {
                seen.entry(name).or_default().push(arrived);
            }
        }
    })
    .await?;
    let mut connection = master.target.connect().await?;
    let mut latencies = Vec::new();
    for number in 0..WATCHED_CREATES {
        let name = format!("watched-{number}");
        let sent = Instant::now();
        connection.call(Method::POST, "/api/v1/namespaces/default/pods", load::pod(&name, "nobody")).await?;
        // The next create waits until all 50 have this one, so that each is measured alone.
        while arrivals.lock().get(&name).is_none_or(|a| a.len() < 50) {
            ensure!(sent.elapsed() < Duration::from_secs(5), "not all watchers saw {name} within 5 s");
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
        latencies.extend(arrivals.lock()[&name].iter().map(|at| at.duration_since(sent)));
    }
    drop(streams);
    let samples = Samples::new(latencies);
    let figure = format!("{:.2} ms, p99 {:.2} ms", samples.milliseconds(0.5), samples.milliseconds(0.99));
    bench.report.add("watch event after the create was sent, 50 watchers, median", figure, "≤ 2 ms");
    Ok(())
}

fn name_in(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?;
    let start = text.find("\"name\":\"watched-")? + 8;
    let end = text[start..].find('"')? + start;
    Some(text[start..end].to_owned())
}

/// Follows a watch line by line until `until` says so.
pub(super) async fn follow<F>(target: &Target, path: &str, limit: Duration, mut until: F) -> Result<Instant>
where
    F: FnMut(&str, &Value) -> bool,
{
    let mut connection = target.connect().await?;
    let mut body = connection.stream(path).await?;
    let mut buffer = Vec::new();
    let reading = async {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line)?;
                if until(event["type"].as_str().unwrap_or_default(), &event["object"]) {
                    return Ok(Instant::now());
                }
            }
        }
        anyhow::bail!("the watch ended early")
    };
    tokio::time::timeout(limit, reading)
        .await
        .with_context(|| format!("nothing of the kind within {limit:?} on {path}"))?
}

pub(super) fn replication_controller(name: &str, replicas: u32, pod_spec: &Value) -> Bytes {
    let labels = json!({ "app": name });
    let object = json!({
        "apiVersion": "v1", "kind": "ReplicationController", "metadata": { "name": name },
        "spec": { "replicas": replicas, "selector": labels, "template": { "metadata": { "labels": labels }, "spec": pod_spec } }
    });
    Bytes::from(object.to_string())
}

async fn reconcile(bench: &mut Bench) -> Result<()> {
    let master = bench.master(&["--components", "apiserver,controller-manager"]).await?;
    let target = &master.target;
    let mut connection = target.connect().await?;
    let spec = json!({ "schedulerName": "nobody", "containers": [{ "name": "web", "image": "coracle/demo-web:1" }] });
    let mut taken = Vec::new();
    for round in 0..5 {
        let name = format!("rc{round}");
        let path = format!("/api/v1/namespaces/default/pods?watch=1&resourceVersion=0&labelSelector=app%3D{name}");
        let mut names = HashSet::new();
        let watch_target = target.clone();
        let counted = tokio::spawn(async move {
            follow(&watch_target, &path, Duration::from_secs(30), |kind, pod| {
                if kind == "ADDED" {
                    names.insert(pod["metadata"]["name"].to_string());
                }
                names.len() == 500
            })
            .await
        });
        tokio::time::sleep(Duration::from_millis(200)).await;
        let sent = Instant::now();
        let body = replication_controller(&name, 500, &spec);
        connection.call(Method::POST, "/api/v1/namespaces/default/replicationcontrollers", body).await?;
        taken.push(counted.await??.duration_since(sent));
    }
    bench.report.add(
        "500 pods of a new RC created, median of 5",
        format!("{:.0} ms", Samples::new(taken).milliseconds(0.5)),
        "≤ 200 ms",
    );
    let replaced = replaced(&mut connection, target).await?;
    let figure = format!("{:.1} ms, p99 {:.1} ms", replaced.milliseconds(0.5), replaced.milliseconds(0.99));
    bench.report.add("a deleted pod object replaced, median of 50", figure, "≤ 5 ms");
    Ok(())
}

async fn replaced(connection: &mut Connection, target: &Target) -> Result<Samples> {
    let path = "/api/v1/namespaces/default/pods?labelSelector=app%3Drc0";
    let list: Value = serde_json::from_slice(&connection.call(Method::GET, path, Bytes::new()).await?)?;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
    let names: Vec<String> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .take(50)
        .filter_map(|p| p["metadata"]["name"].as_str())
        .map(str::to_owned)
        .collect();
    let (sender, mut arrivals) = tokio::sync::mpsc::channel(64);
    let (watch_target, watch_path) = (target.clone(), format!("{path}&watch=1&resourceVersion={version}"));
    let mut left = names.len();
    let watching = tokio::spawn(async move {
        follow(&watch_target, &watch_path, Duration::from_secs(30), |kind, _| {
            if kind == "ADDED" {
                left -= 1;
                // The receiver reads one per deletion; the channel holds more than there are.
                let _ = sender.try_send(Instant::now());
            }
            left == 0
        })
        .await
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut taken = Vec::new();
    for name in names {
        let sent = Instant::now();
        let path = format!("/api/v1/namespaces/default/pods/{name}?gracePeriodSeconds=0");
        connection.call(Method::DELETE, &path, Bytes::new()).await?;
        taken.push(arrivals.recv().await.context("the watch ended")?.duration_since(sent));
    }
    watching.await??;
    Ok(Samples::new(taken))
}

async fn schedule(bench: &mut Bench) -> Result<()> {
    const NODES: usize = 200;
    const PODS: usize = 5000;
    let master = bench.master(&[]).await?;
    load::run(&master.target, 16, NODES, |connection, number| {
        let name = format!("node-{number}");
        let amounts = json!({ "cpu": "64", "memory": "256Gi", "pods": "110", "ephemeral-storage": "100Gi" });
        let conditions = json!([{ "type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": "2026-01-01T00:00:00Z" }]);
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": name } });
        let status = json!({ "status": { "capacity": amounts, "allocatable": amounts, "conditions": conditions } });
        Box::pin(async move {
            connection.call(Method::POST, "/api/v1/nodes", Bytes::from(node.to_string())).await?;
            let path = format!("/api/v1/nodes/{name}/status");
            connection.call(Method::PATCH, &path, Bytes::from(status.to_string())).await.map(|_| ())
        })
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let target = master.target.clone();
    let bound = tokio::spawn(async move {
        let mut names = HashSet::new();
        let path = "/api/v1/namespaces/default/pods?watch=1&resourceVersion=0";
        follow(&target, path, Duration::from_secs(60), |_, pod| {
            if pod["spec"]["nodeName"].is_string() {
                names.insert(pod["metadata"]["name"].to_string());
            }
            names.len() == PODS
        })
        .await
    });
    let begun = Instant::now();
    load::run(&master.target, 32, PODS, |connection, number| {
        let body = load::pod(&format!("sched-{number}"), "default-scheduler");
        Box::pin(
            async move { connection.call(Method::POST, "/api/v1/namespaces/default/pods", body).await.map(|_| ()) },
        )
    })
    .await?;
    let elapsed = bound.await??.duration_since(begun).as_secs_f64();
    #[allow(clippy::cast_precision_loss)]
    let rate = PODS as f64 / elapsed;
    bench.report.add("pods created and bound a second (5,000 pods, 200 nodes)", format!("{rate:.0}"), "≥ 2,000");
    Ok(())
}

/// How long after everything was deleted memory is looked at: at once, and when its history is forgotten, too.
const GIVEN_BACK: [Duration; 2] = [Duration::from_secs(20), Duration::from_secs(360)];

pub(crate) async fn hold(bench: &mut Bench) -> Result<()> {
    let master = bench.api_server("apiserver,scheduler,controller-manager").await?;
    let idle = master.resident_mib()?;
    load::create_pods(&master.target, 32, 10_000, "held").await?;
    let held = master.resident_mib()?;
    bench.report.add("resident with 10,000 pods", format!("{held:.0} MiB"), "≤ 150 MiB");
    load::delete_pods(&master.target).await?;
    let deleted = Instant::now();
    for moment in GIVEN_BACK {
        tokio::time::sleep(moment.saturating_sub(deleted.elapsed())).await;
        let after = master.resident_mib()?;
        let name = format!("resident {} s after they were deleted", moment.as_secs());
        bench.report.add(&name, format!("{after:.0} MiB ({idle:.0} before)"), "given back");
    }
    Ok(())
}
