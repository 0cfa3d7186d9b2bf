//! What containers use. On this machine's engine the kernel's files say it, without a call to Docker; a remote engine is
//! asked for each container.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use bollard::Docker;
use bollard::models::{ContainerInspectResponse, ContainerStatsResponse, ContainerSummary};
use bollard::query_parameters::{ListContainersOptionsBuilder, StatsOptionsBuilder};
use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use parking_lot::Mutex;

use super::super::{Error, Result};
use super::DockerOptions;
use crate::names;
use crate::stats::cgroup::{self, Cgroup};
use crate::stats::{ContainerDisk, ContainerUsage, Interface, Memory, Usage, network};

/// Containers that Docker is asked about at a time.
const MAX_CALLS: usize = 8;

/// Where the running containers are, as far as it is known: their process is the same for as long as they run.
#[derive(Default)]
pub(super) struct Places(Mutex<HashMap<String, Place>>);

#[derive(Clone)]
struct Place {
    pid: i64,
    started_at: Option<Timestamp>,
    cgroup: Cgroup,
}

/// What every running container of the node uses.
pub(super) async fn usage(docker: &Docker, options: &DockerOptions, places: &Places) -> Result<Vec<ContainerUsage>> {
    let running = running(docker, &options.node_name, false).await?;
    let local = options.is_local();
    let present: HashSet<String> = running.iter().filter_map(|container| container.id.clone()).collect();
    let measured = stream::iter(running.into_iter().map(|container| async move {
        match local {
            true => from_kernel(docker, &container, places).await,
            false => from_docker(docker, &container).await,
        }
    }));
    let measured: Vec<Option<ContainerUsage>> = measured.buffered(MAX_CALLS).collect().await;
    places.0.lock().retain(|id, _| present.contains(id));
    Ok(measured.into_iter().flatten().collect())
}

async fn running(docker: &Docker, node: &str, size: bool) -> Result<Vec<ContainerSummary>> {
    let filters = HashMap::from([
        ("label", vec![format!("{}={node}", names::NODE)]),
        ("status", vec!["running".to_owned(), "paused".to_owned()]),
    ]);
    let options = ListContainersOptionsBuilder::new().all(true).size(size).filters(&filters).build();
    docker.list_containers(Some(options)).await.map_err(super::error)
}

/// The container as its labels say, without measurements.
fn identified(container: &ContainerSummary) -> Option<ContainerUsage> {
    let labels = container.labels.as_ref()?;
    Some(ContainerUsage {
        pod: names::pod_identity(labels)?,
        name: labels.get(names::CONTAINER_NAME)?.clone(),
        id: container.id.clone()?,
        ..ContainerUsage::default()
    })
}

async fn from_kernel(docker: &Docker, container: &ContainerSummary, places: &Places) -> Option<ContainerUsage> {
    let identified = identified(container)?;
    let known = places.0.lock().get(&identified.id).cloned();
    if let Some(usage) = known.and_then(|place| measure(&place, &identified)) {
        return Some(usage);
    }
    // Not seen before, or started again since.
    let inspected = docker.inspect_container(&identified.id, None).await.ok()?;
    let place = place(&inspected, Path::new(cgroup::ROOT))?;
    let usage = measure(&place, &identified);
    places.0.lock().insert(identified.id, place);
    usage
}

/// Has a container that runs end as a whole when its memory does not suffice: its first process may not notice that another
/// is gone (`singleProcessOOMKill`, false by default where control groups are of version 2). Docker has no word for this.
pub(super) async fn end_together(docker: &Docker, options: &DockerOptions, id: &str) {
    if !options.is_local() || !cgroup::is_unified(Path::new(cgroup::ROOT)) {
        return;
    }
    let Ok(inspected) = docker.inspect_container(id, None).await else { return };
    // One that has ended has no group any more.
    let Some(place) = place(&inspected, Path::new(cgroup::ROOT)) else { return };
    if let Err(error) = place.cgroup.end_together() {
        tracing::warn!(%error, id, "processes of the container run out of memory one by one");
    }
}

/// The same for those that run already, whoever started them.
pub(super) async fn all_end_together(docker: &Docker, options: &DockerOptions) -> Result<()> {
    let running = running(docker, &options.node_name, false).await?;
    let containers = running.iter().filter_map(identified).filter(|container| !container.is_sandbox());
    let each = |container: ContainerUsage| async move { end_together(docker, options, &container.id).await };
    stream::iter(containers.map(each)).buffer_unordered(MAX_CALLS).collect::<()>().await;
    Ok(())
}

fn place(inspected: &ContainerInspectResponse, root: &Path) -> Option<Place> {
    let state = inspected.state.as_ref()?;
    let pid = state.pid.filter(|pid| *pid > 0)?;
    let cgroup = Cgroup::of_process(root, &std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?)?;
    Some(Place { pid, started_at: state.started_at.as_deref().and_then(super::observe::time), cgroup })
}

fn measure(place: &Place, identified: &ContainerUsage) -> Option<ContainerUsage> {
    let usage = place.cgroup.usage(Timestamp::now())?;
    let network = match identified.is_sandbox() {
        true => network::interfaces(&std::fs::read_to_string(format!("/proc/{}/net/dev", place.pid)).ok()?),
        false => Vec::new(),
    };
    Some(ContainerUsage { started_at: place.started_at, usage, network, ..identified.clone() })
}

async fn from_docker(docker: &Docker, container: &ContainerSummary) -> Option<ContainerUsage> {
    let identified = identified(container)?;
    let options = StatsOptionsBuilder::new().stream(false).one_shot(true).build();
    let answer = std::pin::pin!(docker.stats(&identified.id, Some(options))).next().await?.ok()?;
    let started_at = container.created.and_then(|created| Timestamp::from_second(created).ok());
    let network = if identified.is_sandbox() { interfaces(&answer) } else { Vec::new() };
    Some(ContainerUsage { started_at, usage: converted(&answer, Timestamp::now()), network, ..identified })
}

/// What Docker measured; it passes the kernel's table of memory through, of either version of control groups.
fn converted(answer: &ContainerStatsResponse, at: Timestamp) -> Usage {
    let memory = answer.memory_stats.as_ref().and_then(|memory| {
        let of = |names: [&str; 2]| {
            let stats = memory.stats.as_ref();
            stats.and_then(|stats| names.iter().find_map(|name| stats.get(*name)).copied()).unwrap_or(0)
        };
        let usage = memory.usage?;
        Some(Memory {
            usage,
            working_set: usage.saturating_sub(of(["total_inactive_file", "inactive_file"])),
            rss: of(["total_rss", "anon"]),
            page_faults: of(["total_pgfault", "pgfault"]),
            major_page_faults: of(["total_pgmajfault", "pgmajfault"]),
            limit: None,
        })
    });
    Usage {
        at,
        cpu_nanos: answer.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()?.total_usage),
        memory,
        processes: answer.pids_stats.as_ref().and_then(|pids| pids.current),
    }
}

fn interfaces(answer: &ContainerStatsResponse) -> Vec<Interface> {
    let mut interfaces: Vec<Interface> = answer
        .networks
        .iter()
        .flatten()
        .map(|(name, counts)| Interface {
            name: name.clone(),
            rx_bytes: counts.rx_bytes.unwrap_or(0),
            rx_errors: counts.rx_errors.unwrap_or(0),
            tx_bytes: counts.tx_bytes.unwrap_or(0),
            tx_errors: counts.tx_errors.unwrap_or(0),
        })
        .collect();
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    interfaces
}

/// What running containers have on disk, by id. Docker walks through every writable layer for this.
pub(super) async fn disks(docker: &Docker, options: &DockerOptions) -> Result<BTreeMap<String, ContainerDisk>> {
    let running = running(docker, &options.node_name, true).await?;
    let root = match options.is_local() {
        true => docker.info().await.map_err(super::error)?.docker_root_dir.map(PathBuf::from),
        false => None,
    };
    let measure = move || {
        let disk = |container: ContainerSummary| {
            let id = container.id?;
            let logs = root.as_ref().map_or(0, |root| log_bytes(&root.join("containers").join(&id), &id));
            Some((id, ContainerDisk { root: u64::try_from(container.size_rw.unwrap_or(0)).unwrap_or(0), logs }))
        };
        running.into_iter().filter_map(disk).collect()
    };
    tokio::task::spawn_blocking(measure).await.map_err(|error| Error::Refused(error.to_string()))
}

/// A container's log and those before it (`<id>-json.log`, `<id>-json.log.1`).
fn log_bytes(dir: &Path, id: &str) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let is_log = |name: &std::ffi::OsStr| name.to_str().is_some_and(|name| name.starts_with(&format!("{id}-json.log")));
    let logs = entries.filter_map(Result::ok).filter(|entry| is_log(&entry.file_name()));
    logs.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_remote_docker_measured_reads_the_same_for_both_versions() {
        for stats in [
            json!({"total_inactive_file": 100, "inactive_file": 1, "total_rss": 7, "total_pgfault": 3, "total_pgmajfault": 1}),
            json!({"inactive_file": 100, "anon": 7, "pgfault": 3, "pgmajfault": 1}),
        ] {
            let answer: ContainerStatsResponse = serde_json::from_value(json!({
                "cpu_stats": {"cpu_usage": {"total_usage": 28_430_000}},
                "memory_stats": {"usage": 1000, "stats": stats},
                "pids_stats": {"current": 2},
                "networks": {"eth0": {"rx_bytes": 5, "rx_errors": 0, "tx_bytes": 6, "tx_errors": 1}},
            }))
            .unwrap();
            let usage = converted(&answer, Timestamp::UNIX_EPOCH);
            assert_eq!((usage.cpu_nanos, usage.processes), (Some(28_430_000), Some(2)));
            let memory = usage.memory.unwrap();
            assert_eq!((memory.working_set, memory.rss, memory.page_faults, memory.major_page_faults), (900, 7, 3, 1));
            let eth0 = Interface { name: "eth0".into(), rx_bytes: 5, rx_errors: 0, tx_bytes: 6, tx_errors: 1 };
            assert_eq!(interfaces(&answer), [eth0]);
        }
    }

    #[test]
    fn a_log_is_all_its_files() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("ab-json.log", "12345"), ("ab-json.log.1", "123"), ("config.v2.json", "1234567")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        assert_eq!(log_bytes(dir.path(), "ab"), 8);
        assert_eq!(log_bytes(&dir.path().join("none"), "ab"), 0);
    }
}
