//! What the kubelet needs of whatever runs containers: the smallest trait that serves, and the words it speaks in.
//!
//! Every container the kubelet makes carries its pod's identity as labels; [`Runtime::pod_state`] reads everything
//! back from there, so the kubelet itself keeps no state. Two implementations: [`docker`] and the in-memory [`hollow`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use ipnet::Ipv4Net;
use jiff::Timestamp;

use crate::stats::{ContainerDisk, ContainerUsage};

pub mod docker;
pub mod hollow;
pub mod image;
pub mod session;

pub use image::{Credentials, Image, ImageStore};
pub use session::{Connection, Output, Process, Session, TerminalSize, Wanted};

/// Why a runtime did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// There is no such container or image.
    #[error("{0}")]
    NotFound(String),
    /// The name is taken, or the object is in a state that does not allow it.
    #[error("{0}")]
    Conflict(String),
    /// The runtime refused; its words.
    #[error("{0}")]
    Refused(String),
    /// A command took longer than it may.
    #[error("{0}")]
    TimedOut(String),
    /// The runtime could not be asked.
    #[error("cannot talk to the container runtime: {0}")]
    Unreachable(String),
}

/// What a runtime call gives.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a container may use, in Docker's terms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Processor share.
    pub cpu_shares: i64,
    /// Microseconds of processor time in each 100 ms; `None`: no limit.
    pub cpu_quota: Option<i64>,
    /// Bytes of memory; `None`: no limit.
    pub memory: Option<i64>,
}

/// Whose container it is: written as labels when it is made, read back ever after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodIdentity {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// Seconds a container of the pod may take to end; used where the pod's object is gone.
    pub grace_period_seconds: i64,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Made, never started.
    Created,
    /// Started.
    Running,
    /// Ended, or refused to start.
    Exited(Exit),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code, 128 + signal where a signal ended it.
    pub code: i32,
    /// When; `None` where it never started.
    pub finished_at: Option<Timestamp>,
    /// Whether it ran into its memory limit.
    pub oom_killed: bool,
    /// Why it could not be started.
    pub start_error: Option<String>,
}

/// A container as the runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// The runtime's id, without scheme.
    pub id: String,
    /// The container's name in the pod's spec.
    pub name: String,
    /// Hash of the part of the spec that a running container must match.
    pub hash: String,
    /// How often containers of this name were restarted before.
    pub restart_count: i32,
    /// How long its successor must wait, if it ends soon ([`crate::pod::backoff`]).
    pub backoff: Duration,
    /// The sandbox it joined.
    pub sandbox_id: String,
    /// The image as it was asked for.
    pub image: String,
    /// The image as a pod's status names it.
    pub image_id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was started.
    pub started_at: Option<Timestamp>,
    /// Where it is in its life.
    pub phase: Phase,
    /// What it left as its last words, where the runtime keeps them itself.
    pub message: Option<String>,
    /// What it may use.
    pub resources: Resources,
}

impl Container {
    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// How it ended, if it did.
    pub fn exit(&self) -> Option<&Exit> {
        match &self.phase {
            Phase::Exited(exit) => Some(exit),
            _ => None,
        }
    }
}

/// A pod's sandbox as the runtime knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// The runtime's id.
    pub id: String,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Whether it runs.
    pub running: bool,
    /// Its address in the pod network; `None` on the host's network.
    pub ip: Option<IpAddr>,
}

/// Everything of one pod that the runtime knows, sandboxes and containers newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodState {
    /// Every sandbox.
    pub sandboxes: Vec<Sandbox>,
    /// Every container.
    pub containers: Vec<Container>,
}

impl PodState {
    /// The newest running sandbox.
    pub fn live_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().find(|s| s.running)
    }

    /// The container that counts of those called `name`: the one that runs, else the newest.
    pub fn current(&self, name: &str) -> Option<&Container> {
        let mut lives = self.containers.iter().filter(|c| c.name == name);
        let newest = lives.clone().next();
        lives.find(|c| c.is_running()).or(newest)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// A number that differs where containers came, went or changed between running and not.
    pub fn fingerprint(&self) -> u64 {
        let sandboxes = self.sandboxes.iter().map(|s| (s.id.as_str(), s.running));
        let containers = self.containers.iter().map(|c| (c.id.as_str(), c.is_running()));
        fingerprint(sandboxes.chain(containers))
    }
}

/// The number behind [`PodState::fingerprint`], the same whatever the order.
pub fn fingerprint<'a>(containers: impl Iterator<Item = (&'a str, bool)>) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    containers.fold(0, |sum, container| {
        let mut hasher = DefaultHasher::new();
        container.hash(&mut hasher);
        sum ^ hasher.finish()
    })
}

/// A pod of which the runtime has at least one container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownPod {
    /// Whose.
    pub identity: PodIdentity,
    /// [`PodState::fingerprint`] of its present state.
    pub fingerprint: u64,
}

/// A sandbox to be made.
#[derive(Clone, Debug, Default)]
pub struct SandboxSpec {
    /// Whose.
    pub pod: PodIdentity,
    /// How many sandboxes the pod had before.
    pub attempt: u32,
    /// Its host name.
    pub hostname: String,
    /// Whether it stays on the host's network.
    pub host_network: bool,
    /// Whether it stays in the host's process namespace.
    pub host_pid: bool,
    /// Whether it stays in the host's IPC namespace.
    pub host_ipc: bool,
    /// Ports of the host that lead into it.
    pub ports: Vec<HostPort>,
    /// Kernel settings of its namespaces.
    pub sysctls: BTreeMap<String, String>,
}

/// A port of the host that leads into a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// The host's address, empty for all.
    pub host_ip: String,
    /// The host's port.
    pub host_port: u16,
    /// The pod's port.
    pub container_port: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

/// A path of the host seen inside a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the container.
    pub target: String,
    /// Whether the container may not write there.
    pub read_only: bool,
    /// `private`, `rslave` or `rshared`.
    pub propagation: &'static str,
    /// Whether what is mounted below the path cannot be written either.
    pub recursive_read_only: Recursive,
}

/// Whether a read-only mount covers the mounts below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recursive {
    /// No.
    #[default]
    No,
    /// Where the runtime can.
    IfPossible,
    /// Yes, or there is no container.
    Yes,
}

impl Recursive {
    /// As `recursiveReadOnly` of a volume mount spells it.
    pub fn of(text: &str) -> Recursive {
        match text {
            "Enabled" => Recursive::Yes,
            "IfPossible" => Recursive::IfPossible,
            _ => Recursive::No,
        }
    }
}

/// A filter of system calls.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seccomp {
    /// The runtime's own.
    RuntimeDefault,
    /// None.
    #[default]
    Unconfined,
    /// This one, in JSON.
    Profile(String),
}

/// A container to be made.
#[derive(Clone, Debug, Default)]
pub struct ContainerSpec {
    /// Whose.
    pub pod: PodIdentity,
    /// The container's name in the pod's spec.
    pub name: String,
    /// See [`Container::hash`].
    pub hash: String,
    /// See [`Container::restart_count`].
    pub restart_count: i32,
    /// See [`Container::backoff`].
    pub backoff: Duration,
    /// The sandbox it joins.
    pub sandbox_id: String,
    /// The image, as it was asked for.
    pub image: String,
    /// See [`Container::image_id`].
    pub image_id: String,
    /// What runs; `None`: what the image says.
    pub command: Option<Vec<String>>,
    /// Its arguments; `None`: what the image says, unless `command` is given.
    pub args: Option<Vec<String>>,
    /// Where it starts, empty for what the image says.
    pub working_dir: String,
    /// Its environment, in order.
    pub env: Vec<(String, String)>,
    /// What of the host it sees.
    pub mounts: Vec<Mount>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether its standard input stays open.
    pub stdin: bool,
    /// Whether its standard input closes after the first who attached left.
    pub stdin_once: bool,
    /// What it may use.
    pub resources: Resources,
    /// How early the kernel picks it when memory is short.
    pub oom_score_adj: i64,
    /// `uid[:gid]`, empty for what the image says.
    pub user: String,
    /// Further groups of its processes.
    pub groups: Vec<String>,
    /// Whether it may do everything.
    pub privileged: bool,
    /// Capabilities it has beyond the usual.
    pub cap_add: Vec<String>,
    /// Capabilities it lacks.
    pub cap_drop: Vec<String>,
    /// Whether its root file system cannot be written.
    pub read_only_root: bool,
    /// Whether its processes can never gain privileges.
    pub no_new_privileges: bool,
    /// Which system calls it may make.
    pub seccomp: Seccomp,
    /// Its AppArmor profile; `None`: the runtime's default.
    pub app_armor: Option<String>,
    /// SELinux labels: `user:…`, `role:…`, `type:…`, `level:…`.
    pub se_linux: Vec<String>,
    /// Whether all of `/proc` is there as the kernel has it.
    pub unmasked_proc: bool,
    /// The signal that asks it to end; `None`: what the image says.
    pub stop_signal: Option<String>,
    /// The container whose process namespace it joins.
    pub target_id: Option<String>,
    /// Whether it stays in the host's process namespace.
    pub host_pid: bool,
    /// Whether it shares the sandbox's process namespace.
    pub shared_pid: bool,
    /// Whether it stays in the host's IPC namespace.
    pub host_ipc: bool,
}

/// What of a log is wanted (`v1.PodLogOptions`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Whether to go on until the container ends.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail: Option<u64>,
    /// Only what was written at or after this time.
    pub since: Option<Timestamp>,
    /// Whether each line starts with its time.
    pub timestamps: bool,
    /// Only what was written to standard output or to standard error; both where neither is named.
    pub only: Option<LogStream>,
}

/// One of the two streams a container writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What the event stream of a runtime says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something happened to a container of the pod with this UID: look at it.
    Pod(String),
    /// Events may have been missed: look at everything.
    Relist,
}

/// How a command in a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecResult {
    /// Its exit code.
    pub code: i64,
    /// What it wrote, bounded.
    pub output: String,
}

/// The machine and its runtime, as a Node's status shows them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    /// Thousandths of a core.
    pub milli_cpu: i64,
    /// Bytes.
    pub memory: i64,
    /// Bytes of the file system pods live on.
    pub ephemeral_storage: i64,
    /// `amd64`, `arm64`.
    pub architecture: String,
    /// `linux`.
    pub operating_system: String,
    /// Release of the kernel.
    pub kernel_version: String,
    /// Name of the distribution.
    pub os_image: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// The firmware's UUID, or the machine id.
    pub system_uuid: String,
    /// The id of this boot.
    pub boot_id: String,
    /// `docker://20.10.24`.
    pub runtime_version: String,
    /// Where the runtime keeps images and what containers write, if that is on this machine.
    pub image_dir: Option<PathBuf>,
}

/// What runs containers.
#[async_trait::async_trait]
pub trait Runtime: ImageStore {
    /// `docker` or `hollow`: the scheme of container ids in a pod's status.
    fn scheme(&self) -> &'static str;

    /// Whether containers see real files, so that volumes must be made. The hollow runtime has none.
    fn uses_files(&self) -> bool;

    /// The machine and the runtime's version. Fails while the runtime cannot be reached.
    async fn machine(&self) -> Result<Machine>;

    /// Answers if the runtime does.
    async fn ping(&self) -> Result<()>;

    /// Where the pod network is, if there is one.
    async fn network(&self) -> Result<Option<Ipv4Net>>;

    /// Makes the pod network on `pod_cidr`, unless it is there.
    async fn ensure_network(&self, pod_cidr: Ipv4Net) -> Result<()>;

    /// Every pod of which a container exists.
    async fn pods(&self) -> Result<Vec<KnownPod>>;

    /// Everything of the pod with this UID.
    async fn pod_state(&self, uid: &str) -> Result<PodState>;

    /// Makes and starts a sandbox.
    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox>;

    /// Makes a container; gives its id.
    async fn create_container(&self, spec: &ContainerSpec) -> Result<String>;

    /// Starts a container.
    async fn start_container(&self, id: &str) -> Result<()>;

    /// Lets a container use so much from now on, instead of what it `had`. A limit is never taken away.
    async fn update(&self, id: &str, had: &Resources, resources: &Resources) -> Result<()>;

    /// Asks a container or sandbox to end, with the signal its image names (SIGTERM). Does not wait.
    async fn terminate(&self, id: &str) -> Result<()>;

    /// Ends a container or sandbox at once. Does not wait for anything else.
    async fn kill(&self, id: &str) -> Result<()>;

    /// Removes a container or sandbox, ending it first where it runs.
    async fn remove(&self, id: &str) -> Result<()>;

    /// What happened, from now on. Never ends: it reconnects by itself and then says [`Event::Relist`], also as its
    /// first word.
    fn events(&self) -> BoxStream<'static, Event>;

    /// What a container wrote.
    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>>;

    /// What every running container and sandbox uses.
    async fn usage(&self) -> Result<Vec<ContainerUsage>>;

    /// What running containers have on disk beside their volumes, by id. Not cheap.
    async fn disks(&self) -> Result<BTreeMap<String, ContainerDisk>>;

    /// Starts a command in a container, connected to the caller. The command ends when the session is dropped.
    async fn exec(&self, id: &str, command: &[String], wanted: Wanted) -> Result<Session>;

    /// Connects to what a container runs anyway. It goes on when the session is dropped.
    async fn attach(&self, id: &str, wanted: Wanted) -> Result<Session>;

    /// Connects to a TCP port of the loopback address inside a sandbox's network.
    async fn connect(&self, sandbox_id: &str, port: u16) -> Result<Connection>;

    /// Connects to a TCP port as the node does, to a pod's address or any other.
    async fn dial(&self, host: &str, port: u16) -> std::io::Result<Connection> {
        Ok(Box::new(tokio::net::TcpStream::connect((host, port)).await?))
    }

    /// Runs a command in a container to its end, at most for `limit`, and keeps the first of what it wrote.
    async fn exec_sync(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecResult> {
        let wanted = Wanted { stdout: true, stderr: true, ..Wanted::default() };
        let run = async { session::collect(self.exec(id, command, wanted).await?).await };
        let timed_out = || Error::TimedOut(format!("command \"{}\" timed out", command.join(" ")));
        tokio::time::timeout(limit, run).await.unwrap_or_else(|_| Err(timed_out()))
    }
}
