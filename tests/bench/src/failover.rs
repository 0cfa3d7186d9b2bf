//! What fails, and how long until others do its work: a minion that falls silent, a master of two that goes. Pods are held
//! in memory, so that what is measured is who decides, not Docker; with Docker see the part `pods`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use http::Method;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::docker::{minion, node_ready, running};
use crate::http::Target;
use crate::load::ensure_account;
use crate::parts::{Bench, follow, replication_controller};
use crate::process::{MasterProcess, start_master};

/// Pods of a controller here, on a minion each and more.
const PODS: usize = 9;
/// How long they stay bound to a lost node; by default it is 300 s.
const TOLERATION_SECONDS: u64 = 5;
/// Longer than a node may be silent, and a lease of a leader lives.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long what was started is left alone before something fails.
const SETTLE: Duration = Duration::from_secs(3);
/// The leases of those of whom one leads.
const LEADERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];
/// What masters of one cluster share.
const KEYS: [&str; 4] = ["pki/ca.crt", "pki/ca.key", "pki/sa.key", "join-token"];

pub(crate) async fn failover(bench: &mut Bench) -> Result<()> {
    silent_minion(bench).await?;
    second_master(bench).await
}

type Seen = JoinHandle<Result<Instant>>;

/// Follows a watch in the background.
fn seen(target: &Target, path: &str, so: impl FnMut(&str, &Value) -> bool + Send + 'static) -> Seen {
    let (target, path) = (target.clone(), path.to_owned());
    tokio::spawn(async move { follow(&target, &path, PATIENCE, so).await })
}

/// Follows pods of a label until that many run, those on the nodes `where_` accepts.
fn pods_run(target: &Target, app: &str, count: usize, where_: impl Fn(&str) -> bool + Send + 'static) -> Seen {
    let path = format!("/api/v1/namespaces/default/pods?watch=1&resourceVersion=0&labelSelector=app%3D{app}");
    let mut up: HashMap<String, bool> = HashMap::new();
    seen(target, &path, move |kind, pod| {
        let stays = kind != "DELETED" && pod["metadata"]["deletionTimestamp"].is_null();
        let here = where_(pod["spec"]["nodeName"].as_str().unwrap_or_default());
        up.insert(pod["metadata"]["name"].to_string(), stays && here && running(pod));
        up.values().filter(|up| **up).count() == count
    })
}

async fn silent_minion(bench: &mut Bench) -> Result<()> {
    let master = bench.master(&[]).await?;
    let target = &master.target;
    let mut minions = Vec::new();
    for name in ["silent", "left", "right"] {
        minions.push(minion(bench, &[&master], name, "hollow")?);
        node_ready(target, name).await?;
    }
    some_pods(target).await?;
    let heartbeat: Arc<Mutex<Option<Instant>>> = Arc::default();
    let last = heartbeat.clone();
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases?watch=1";
    // It has no end: it goes on until nothing more is heard.
    let listening = seen(target, leases, move |_, lease| {
        if lease["metadata"]["name"] == "silent" {
            *last.lock() = Some(Instant::now());
        }
        false
    });
    let lost = seen(target, "/api/v1/nodes?watch=1&resourceVersion=0", |_, node| {
        let conditions = node["status"]["conditions"].as_array();
        let ready = conditions.into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True");
        node["metadata"]["name"] == "silent" && !ready
    });
    let path = "/api/v1/namespaces/default/endpoints?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Don";
    let gone = seen(target, path, |_, endpoints| {
        let subsets = endpoints["subsets"].as_array();
        let addresses = subsets.into_iter().flatten().filter_map(|subset| subset["addresses"].as_array());
        let mut addresses = addresses.flatten().peekable();
        addresses.peek().is_some() && addresses.all(|address| address["nodeName"] != "silent")
    });
    let replaced = pods_run(target, "on", PODS, |node| node != "silent");
    // Its heartbeat comes every ten seconds: one at least is heard here.
    tokio::time::sleep(Duration::from_secs(12)).await;
    let killed = Instant::now();
    minions.remove(0).kill()?;
    let (lost, gone, replaced) = (lost.await??, gone.await??, replaced.await??);
    listening.abort();
    let heard = heartbeat.lock().context("no heartbeat was heard")?;
    let seconds = |later: Instant, earlier: Instant| later.saturating_duration_since(earlier).as_secs_f64();
    let figure = format!("{:.2} s ({:.1} s after its last heartbeat)", seconds(lost, killed), seconds(lost, heard));
    bench.report.add("a minion is killed: its node is NotReady", figure, "≤ 40 s");
    let figure = format!("{:.0} ms", seconds(gone, lost) * 1000.0);
    bench.report.add("  its pods are out of the endpoints, after that", figure, "at once");
    let figure = format!("{:.2} s", seconds(replaced, lost));
    let what = format!("  its pods run elsewhere, with a toleration of {TOLERATION_SECONDS} s, after that");
    bench.report.add(&what, figure, &format!("≤ {} s", TOLERATION_SECONDS + 1));
    Ok(())
}

/// A controller whose pods run, ready, and a service for them.
async fn some_pods(target: &Target) -> Result<()> {
    let soon = |key: &str| json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATION_SECONDS });
    let tolerations = [soon("node.kubernetes.io/unreachable"), soon("node.kubernetes.io/not-ready")];
    let spec = json!({ "containers": [{ "name": "c", "image": "coracle/bench:1" }], "tolerations": tolerations });
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "on" },
                          "spec": { "selector": { "app": "on" }, "ports": [{ "port": 80 }] } });
    let mut connection = target.connect().await?;
    let path = "/api/v1/namespaces/default";
    connection.call(Method::POST, &format!("{path}/services"), Bytes::from(service.to_string())).await?;
    let body = replication_controller("on", u32::try_from(PODS)?, &spec);
    connection.call(Method::POST, &format!("{path}/replicationcontrollers"), body).await?;
    pods_run(target, "on", PODS, |_| true).await??;
    let path = "/api/v1/namespaces/default/endpoints?watch=1&resourceVersion=0&fieldSelector=metadata.name%3Don";
    let all = seen(target, path, |_, endpoints| {
        let subsets = endpoints["subsets"].as_array();
        subsets.into_iter().flatten().filter_map(|subset| subset["addresses"].as_array()).flatten().count() == PODS
    });
    all.await??;
    Ok(())
}

async fn second_master(bench: &mut Bench) -> Result<()> {
    let Some(etcd) = crate::etcd::start(&bench.folder)? else {
        bench.report.add("a second master takes over", "no etcd here".to_owned(), "");
        return Ok(());
    };
    let flags = ["--etcd-servers", &etcd.endpoint];
    let first = bench.master(&flags).await?;
    let second = beside(bench, &first, &flags).await?;
    let minion = minion(bench, &[&first, &second], "kept", "hollow")?;
    node_ready(&second.target, "kept").await?;
    some_pods(&second.target).await?;
    tokio::time::sleep(SETTLE).await;

    let (port, data_dir) = (bench.port - 1, first.data_dir.clone());
    let (leads, runs) = changes(&second.target, PODS + 1).await?;
    let begun = Instant::now();
    first.process.kill()?;
    takes_over(bench, &second.target, "killed", (begun, PODS + 1, leads, runs)).await?;

    let first = start_master(&bench.binaries, &data_dir, port, &flags).await?;
    tokio::time::sleep(SETTLE).await;
    let (leads, runs) = changes(&first.target, PODS + 2).await?;
    let begun = Instant::now();
    // It ends in its own time, which is not what is measured.
    let ends = tokio::task::spawn_blocking(move || second.process.stop());
    takes_over(bench, &first.target, "stopped", (begun, PODS + 2, leads, runs)).await?;
    ends.await?;
    minion.stop();
    Ok(())
}

/// Another master of the same cluster.
async fn beside(bench: &mut Bench, first: &MasterProcess, flags: &[&str]) -> Result<MasterProcess> {
    bench.port += 1;
    let data_dir = bench.folder.join(format!("master-{}", bench.port));
    for key in KEYS {
        let (from, to) = (first.data_dir.join(key), data_dir.join(key));
        std::fs::create_dir_all(to.parent().unwrap_or(Path::new("/")))?;
        std::fs::copy(&from, to).with_context(|| from.display().to_string())?;
    }
    let master = start_master(&bench.binaries, &data_dir, bench.port, flags).await?;
    ensure_account(&master.target).await?;
    Ok(master)
}

/// Follows, at the master that stays, who leads and what runs: until all that lead are others, and until one pod more
/// runs.
async fn changes(target: &Target, pods: usize) -> Result<(Seen, Seen)> {
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    let list = target.connect().await?.call(Method::GET, path, Bytes::new()).await?;
    let list: Value = serde_json::from_slice(&list)?;
    let holder = |lease: &Value| lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned();
    let mut before: HashMap<String, String> = HashMap::new();
    for lease in list["items"].as_array().into_iter().flatten() {
        before.insert(lease["metadata"]["name"].as_str().unwrap_or_default().to_owned(), holder(lease));
    }
    before.retain(|name, _| LEADERS.contains(&name.as_str()));
    anyhow::ensure!(before.len() == LEADERS.len(), "nobody leads: {before:?}");
    let leads = seen(target, &format!("{path}?watch=1&resourceVersion=0"), move |_, lease| {
        let (name, now) = (lease["metadata"]["name"].as_str().unwrap_or_default(), holder(lease));
        if !now.is_empty() && before.get(name).is_some_and(|old| *old != now) {
            before.remove(name);
        }
        before.is_empty()
    });
    Ok((leads, pods_run(target, "on", pods, |_| true)))
}

/// Asks the master that stays for one pod more, and reports when it leads and when the pod runs.
async fn takes_over(
    bench: &mut Bench,
    target: &Target,
    how: &str,
    (begun, pods, leads, runs): (Instant, usize, Seen, Seen),
) -> Result<()> {
    let patch = json!({ "spec": { "replicas": pods } });
    let path = "/api/v1/namespaces/default/replicationcontrollers/on";
    target.connect().await?.call(Method::PATCH, path, Bytes::from(patch.to_string())).await?;
    let answered = begun.elapsed().as_secs_f64() * 1000.0;
    let leads = leads.await??.duration_since(begun).as_secs_f64();
    let runs = runs.await??.duration_since(begun).as_secs_f64();
    let what = format!("the leading of two masters is {how}: the other answers a write");
    bench.report.add(&what, format!("{answered:.0} ms"), "at once");
    bench.report.add("  leads", format!("{leads:.2} s"), "≤ 15 s");
    bench.report.add("  has a pod of a controller scaled at once run", format!("{runs:.2} s"), "≤ 15 s");
    Ok(())
}
