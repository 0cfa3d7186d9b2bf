//! What the machine, its pods and their containers use: measured when someone asks, from the kernel's own files.
//!
//! - [`cgroup`]: processor, memory and processes of a control group, version 1 or 2.
//! - [`network`]: what interfaces sent and received.
//! - [`node`]: the machine as a whole, its file systems.
//! - [`sampler`]: two measurements a moment apart, because a rate needs two.
//! - [`summary`], [`exposition`]: the measurements as JSON (`stats/summary`) and as Prometheus text. Pure.

use jiff::Timestamp;

use crate::runtime::PodIdentity;

pub mod cgroup;
pub mod exposition;
pub mod network;
pub mod node;
pub mod sampler;
pub mod summary;

pub use network::Interface;

/// What a group of processes used until a moment, and uses at it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The moment.
    pub at: Timestamp,
    /// Nanoseconds of processor time since the group was made.
    pub cpu_nanos: Option<u64>,
    /// Memory.
    pub memory: Option<Memory>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// Memory, in bytes and counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Everything charged to the group.
    pub usage: u64,
    /// What of it cannot be given back at once: without the inactive part of the page cache.
    pub working_set: u64,
    /// What no file is behind.
    pub rss: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Those that waited for a disk.
    pub major_page_faults: u64,
    /// What the group may have.
    pub limit: Option<u64>,
}

/// What one running container uses, or a pod's sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    /// Whose.
    pub pod: PodIdentity,
    /// The container's name in the pod's spec; [`crate::names::SANDBOX`] for the sandbox.
    pub name: String,
    /// The runtime's id.
    pub id: String,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// What its processes use.
    pub usage: Usage,
    /// Interfaces of the pod's own network; those of a sandbox only.
    pub network: Vec<Interface>,
}

impl ContainerUsage {
    /// Whether it is a sandbox.
    pub fn is_sandbox(&self) -> bool {
        self.name == crate::names::SANDBOX
    }
}

/// What a container has on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ContainerDisk {
    /// Bytes it wrote beside its volumes.
    pub root: u64,
    /// Bytes of its log.
    pub logs: u64,
}
