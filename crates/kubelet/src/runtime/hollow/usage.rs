//! What containers use in a machine without processes: each a hundredth of a core and 16 MiB, from its start on.

use jiff::Timestamp;

use super::super::{Container, PodIdentity};
use crate::stats::{ContainerUsage, Interface, Memory, Usage};

/// Every how many nanoseconds a container works for one.
const CPU_SHARE: u64 = 100;
/// Bytes of memory of a container, and of a sandbox.
const CONTAINER_MEMORY: u64 = 16 << 20;
const SANDBOX_MEMORY: u64 = 256 << 10;

pub(super) fn container(pod: &PodIdentity, container: &Container, now: Timestamp) -> ContainerUsage {
    let started_at = container.started_at.unwrap_or(container.created_at);
    let ran = u64::try_from(now.duration_since(started_at).as_nanos()).unwrap_or(0);
    let usage = usage(now, ran / CPU_SHARE, CONTAINER_MEMORY);
    let (name, id) = (container.name.clone(), container.id.clone());
    ContainerUsage { pod: pod.clone(), name, id, started_at: Some(started_at), usage, network: Vec::new() }
}

pub(super) fn sandbox(pod: &PodIdentity, id: &str, created_at: Timestamp, now: Timestamp) -> ContainerUsage {
    ContainerUsage {
        pod: pod.clone(),
        name: crate::names::SANDBOX.to_owned(),
        id: id.to_owned(),
        started_at: Some(created_at),
        usage: usage(now, 0, SANDBOX_MEMORY),
        network: vec![Interface { name: "eth0".to_owned(), ..Interface::default() }],
    }
}

fn usage(at: Timestamp, cpu_nanos: u64, bytes: u64) -> Usage {
    let memory = Memory { usage: bytes, working_set: bytes, rss: bytes, ..Memory::default() };
    Usage { at, cpu_nanos: Some(cpu_nanos), memory: Some(memory), processes: Some(1) }
}
