//! What the node and its pods use: `stats/summary` and the metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use serde::Deserialize;

use super::{Shared, find, plain};
use crate::Kubelet;
use crate::stats::exposition::{self, Own};
use crate::stats::sampler::Snapshot;
use crate::stats::summary::{Facts, summary};
use crate::stats::{cgroup, node};

#[derive(Debug, Default, Deserialize)]
pub(super) struct SummaryQuery {
    only_cpu_and_memory: Option<String>,
}

/// Measures everything.
async fn measure(kubelet: &Arc<Kubelet>) -> crate::runtime::Result<Snapshot> {
    let containers = kubelet.runtime.usage().await?;
    let (data_dir, image_dir) = (kubelet.config.data_dir.clone(), kubelet.node.image_dir.clone());
    let now = Timestamp::now();
    let measured = tokio::task::spawn_blocking(move || node::measure(&data_dir, image_dir.as_deref(), now)).await;
    let node = measured.map_err(|error| crate::runtime::Error::Refused(error.to_string()))?;
    Ok(Snapshot { node, containers })
}

pub(super) async fn stats_summary(State(shared): State<Shared>, Query(query): Query<SummaryQuery>) -> Response {
    let kubelet = &shared.kubelet;
    let all = !matches!(query.only_cpu_and_memory.as_deref(), Some("true" | "1"));
    let (before, now) = match kubelet.node.sampler.pair(|| measure(kubelet)).await {
        Ok(pair) => pair,
        Err(error) => return refused(find::failed(error)),
    };
    let (disks, volumes) = if all {
        match tokio::join!(kubelet.runtime.disks(), volumes(&shared)) {
            (Ok(disks), volumes) => (Some(disks), volumes),
            (Err(error), _) => return refused(find::failed(error)),
        }
    } else {
        (None, BTreeMap::new())
    };
    let node_name = &kubelet.config.node_name;
    let facts = Facts { node_name, now: &now, before: &before, disks: disks.as_ref(), volumes: &volumes };
    Json(summary(&facts)).into_response()
}

/// Bytes of the volumes that are directories of the pods' own.
async fn volumes(shared: &Shared) -> BTreeMap<String, BTreeMap<String, u64>> {
    if !shared.kubelet.runtime.uses_files() {
        return BTreeMap::new();
    }
    let (pods, data_dir) = (shared.pods.list(), shared.kubelet.config.data_dir.clone());
    let measure = move || {
        let of = |pod: &Arc<_>| {
            let used = crate::volumes::usage::of_pod(&data_dir, pod);
            (crate::pod::uid(pod).to_owned(), used.into_iter().map(|(name, used)| (name, used.bytes)).collect())
        };
        pods.iter().map(of).collect()
    };
    tokio::task::spawn_blocking(measure).await.unwrap_or_default()
}

pub(super) async fn metrics_resource(State(shared): State<Shared>) -> Response {
    exposed(measure(&shared.kubelet).await.map(|snapshot| exposition::resource(&snapshot)))
}

pub(super) async fn metrics_cadvisor(State(shared): State<Shared>) -> Response {
    exposed(measure(&shared.kubelet).await.map(|snapshot| exposition::cadvisor(&snapshot)))
}

/// The kubelet's own metrics; they are there also while the runtime is not.
pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    let containers = shared.kubelet.runtime.usage().await.ok();
    let containers = containers.map(|all| all.iter().filter(|container| !container.is_sandbox()).count());
    let process = tokio::task::spawn_blocking(Process::read).await.unwrap_or_default();
    let own = Own {
        node_name: &shared.kubelet.config.node_name,
        pods: shared.pods.len(),
        containers,
        cpu_seconds: process.cpu_seconds,
        resident_bytes: process.resident_bytes,
        open_files: process.open_files,
        certificates: shared.kubelet.config.certificates.as_ref().map(|all| (all, Timestamp::now())),
    };
    exposed(Ok(exposition::own_metrics(&own)))
}

fn exposed(text: crate::runtime::Result<String>) -> Response {
    match text {
        Ok(text) => ([(header::CONTENT_TYPE, exposition::CONTENT_TYPE)], text).into_response(),
        Err(error) => refused(find::failed(error)),
    }
}

fn refused((status, message): (StatusCode, String)) -> Response {
    plain(status, message)
}

/// This process as the kernel sees it.
#[derive(Debug, Default)]
struct Process {
    cpu_seconds: Option<f64>,
    resident_bytes: Option<f64>,
    open_files: Option<usize>,
}

impl Process {
    fn read() -> Process {
        let ticks = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten();
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let resident: Option<f64> = resident.and_then(|line| line.trim().trim_end_matches("kB").trim().parse().ok());
        Process {
            cpu_seconds: ticks.and_then(|ticks| Some(busy_ticks(&stat)? / ticks as f64)),
            resident_bytes: resident.map(|kib| kib * 1024.0),
            open_files: std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
        }
    }
}

/// User and system time in a `/proc/<pid>/stat`. The program's name, in parentheses, may hold anything.
fn busy_ticks(stat: &str) -> Option<f64> {
    let after_name = stat.rsplit_once(')')?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let at = |index: usize| fields.get(index)?.parse::<f64>().ok();
    Some(at(11)? + at(12)?)
}

/// Whether this machine counts what containers use at all; what does not is named in the log once.
pub(super) fn warn_without_cgroups() {
    let root = std::path::Path::new(cgroup::ROOT);
    if cgroup::Cgroup::root(root).usage(Timestamp::now()).is_none() {
        tracing::warn!(root = cgroup::ROOT, "no cpu and memory controllers: usage of pods is not measured");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_time_is_found_behind_any_name() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194304 100 0 0 0 150 50 0 0 20 0 1 0 100";
        assert_eq!(busy_ticks(stat), Some(200.0));
        assert_eq!(busy_ticks("42 (cut"), None);
        let process = Process::read();
        assert!(process.resident_bytes.unwrap() > 0.0 && process.open_files.unwrap() > 0);
    }
}
