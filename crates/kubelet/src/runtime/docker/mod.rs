//! Containers in Docker, over its HTTP API (bollard). The only place that knows Docker.
//!
//! - [`connect`]: the client, pinned to an API version.
//! - [`observe`]: from Docker's containers to [`PodState`].
//! - [`create`]: from specs to what Docker is asked to make.
//! - [`network`]: the pod network, a bridge on the podCIDR.
//! - [`pause`]: the image of sandboxes, built in.
//! - [`events`]: what happened, for ever.
//! - [`images`]: present, pulled.
//! - [`usage`]: what containers use.
//! - [`exec`]: commands in containers, connections to containers, and their logs; [`hijack`] and [`frames`]: the byte
//!   streams behind these.
//! - [`netns`]: connections to ports inside a sandbox.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bollard::Docker;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, KillContainerOptionsBuilder, RemoveContainerOptionsBuilder,
};
use bytes::Bytes;
use futures::stream::BoxStream;
use ipnet::Ipv4Net;

use super::{
    Connection, ContainerSpec, Error, Event, KnownPod, LogOptions, Machine, PodIdentity, PodState, Resources, Result,
    Runtime, Sandbox, SandboxSpec, Session, Wanted,
};
use crate::names;
use crate::stats::{ContainerDisk, ContainerUsage};

mod connect;
mod create;
mod events;
mod exec;
mod frames;
mod hijack;
mod images;
mod netns;
mod network;
mod observe;
pub(crate) mod pause;
mod usage;

pub use connect::DockerTls;

/// What the runtime is told when it starts.
#[derive(Clone, Debug)]
pub struct DockerOptions {
    /// `unix://…`, `tcp://…`.
    pub endpoint: String,
    /// How the engine and we prove who we are to each other; for `tcp://` only.
    pub tls: Option<DockerTls>,
    /// The node whose containers these are: several nodes may share one Docker.
    pub node_name: String,
    /// Whose file system's size the machine reports.
    pub data_dir: PathBuf,
    /// Name of the pod network.
    pub network: String,
    /// Name of its bridge, at most 15 characters.
    pub bridge: String,
    /// How long its packets may be; Docker's default where nobody knows better.
    pub mtu: Option<u32>,
}

impl DockerOptions {
    /// The local Docker, for `node_name`, with the usual network.
    pub fn new(node_name: &str, data_dir: impl Into<PathBuf>) -> DockerOptions {
        DockerOptions {
            endpoint: "unix:///var/run/docker.sock".to_owned(),
            tls: None,
            node_name: node_name.to_owned(),
            data_dir: data_dir.into(),
            network: "coracle".to_owned(),
            bridge: "coracle0".to_owned(),
            mtu: None,
        }
    }

    /// Whether the engine is on this machine, so that its processes and files can be seen.
    fn is_local(&self) -> bool {
        self.endpoint.starts_with("unix://")
    }
}

/// The runtime. Cheap to clone.
#[derive(Clone)]
pub struct DockerRuntime {
    docker: Docker,
    hijacker: hijack::Hijacker,
    version: connect::Version,
    options: Arc<DockerOptions>,
    pause: Arc<tokio::sync::OnceCell<()>>,
    places: Arc<usage::Places>,
    oom_score_adj_min: i64,
}

impl DockerRuntime {
    /// Connects to Docker; fails if it does not answer.
    pub async fn connect(options: DockerOptions) -> Result<DockerRuntime> {
        let connect::Connected { docker, hijacker, version } =
            connect::connect(&options.endpoint, options.tls.as_ref()).await?;
        images::remove_leftovers(&docker, &options.node_name).await?;
        usage::all_end_together(&docker, &options).await?;
        Ok(DockerRuntime {
            docker,
            hijacker,
            version,
            options: Arc::new(options),
            pause: Arc::default(),
            places: Arc::default(),
            oom_score_adj_min: oom_score_adj_min(),
        })
    }

    /// Removes every container of this node, its network and, if no other node's sandboxes use it, the sandbox's image,
    /// as `minion --cleanup` does.
    pub async fn clean_up(&self) -> Result<()> {
        for container in observe::list(&self.docker, &self.options.node_name, None).await? {
            self.remove(container.id.as_deref().unwrap_or_default()).await?;
        }
        network::remove(&self.docker, &self.options).await?;
        pause::remove(&self.docker).await
    }

    /// The connection, for tests that do what nobody asked the kubelet for.
    #[cfg(test)]
    pub(crate) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Makes a container, under a fresh name if the usual one is taken by what is still being removed.
    async fn create(
        &self,
        body: bollard::models::ContainerCreateBody,
        pod: &PodIdentity,
        name: &str,
        attempt: u32,
    ) -> Result<String> {
        let usual = names::container_name(pod, name, attempt);
        let options = |name: &str| CreateContainerOptionsBuilder::new().name(name).build();
        let made = match self.docker.create_container(Some(options(&usual)), body.clone()).await.map_err(error) {
            Err(Error::Conflict(_)) => {
                let fresh = format!("{usual}_{:08x}", rand::random::<u32>());
                self.docker.create_container(Some(options(&fresh)), body).await.map_err(error)
            }
            made => made,
        };
        Ok(made?.id)
    }
}

#[async_trait::async_trait]
impl Runtime for DockerRuntime {
    fn scheme(&self) -> &'static str {
        "docker"
    }

    fn uses_files(&self) -> bool {
        true
    }

    async fn machine(&self) -> Result<Machine> {
        let version = self.docker.version().await.map_err(error)?;
        let info = self.docker.info().await.map_err(error)?;
        let image_dir = info.docker_root_dir.clone().map(PathBuf::from).filter(|_| self.options.is_local());
        let data_dir = self.options.data_dir.clone();
        let machine = tokio::task::spawn_blocking(move || crate::node::machine::detect(&data_dir)).await;
        let mut machine = machine.map_err(|error| Error::Refused(error.to_string()))?;
        if !self.options.is_local() {
            create::remote_machine(&mut machine, info.clone());
        }
        let runtime_version = format!("docker://{}", version.version.unwrap_or_default());
        Ok(Machine { runtime_version, image_dir, ..machine })
    }

    async fn ping(&self) -> Result<()> {
        self.docker.ping().await.map(drop).map_err(error)
    }

    async fn network(&self) -> Result<Option<Ipv4Net>> {
        network::present(&self.docker, &self.options).await
    }

    async fn ensure_network(&self, pod_cidr: Ipv4Net) -> Result<()> {
        network::ensure(&self.docker, &self.options, pod_cidr).await
    }

    async fn pods(&self) -> Result<Vec<KnownPod>> {
        let found = observe::list(&self.docker, &self.options.node_name, None).await?;
        Ok(observe::known_pods(&found))
    }

    async fn pod_state(&self, uid: &str) -> Result<PodState> {
        observe::pod_state(&self.docker, &self.options, uid).await
    }

    async fn run_sandbox(&self, spec: &SandboxSpec) -> Result<Sandbox> {
        self.pause.get_or_try_init(|| pause::ensure(&self.docker)).await?;
        let body = create::sandbox(spec, &self.options, self.oom_score_adj_min);
        let id = match self.create(body.clone(), &spec.pod, names::SANDBOX, spec.attempt).await {
            Err(Error::NotFound(_)) => {
                // Somebody pruned the image since.
                pause::ensure(&self.docker).await?;
                self.create(body, &spec.pod, names::SANDBOX, spec.attempt).await?
            }
            made => made?,
        };
        if let Err(failed) = self.docker.start_container(&id, None).await.map_err(error) {
            self.remove(&id).await?;
            return Err(failed);
        }
        let inspected = self.docker.inspect_container(&id, None).await.map_err(error)?;
        let sandbox = observe::sandbox(&inspected, &self.options.network);
        sandbox.ok_or_else(|| Error::Refused(format!("container {id} is not a sandbox")))
    }

    async fn create_container(&self, spec: &ContainerSpec) -> Result<String> {
        let attempt = u32::try_from(spec.restart_count).unwrap_or(0);
        create::check(spec, self.version)?;
        self.create(
            create::container(spec, &self.options.node_name, self.oom_score_adj_min, self.version),
            &spec.pod,
            &spec.name,
            attempt,
        )
        .await
    }

    async fn start_container(&self, id: &str) -> Result<()> {
        self.docker.start_container(id, None).await.map_err(error)?;
        usage::end_together(&self.docker, &self.options, id).await;
        Ok(())
    }

    async fn update(&self, id: &str, had: &Resources, resources: &Resources) -> Result<()> {
        let body = create::update(had, resources);
        self.docker.update_container(id, body).await.map_err(error)?;
        // Who wrote the limits may have written the rest of the group, too.
        usage::end_together(&self.docker, &self.options, id).await;
        Ok(())
    }

    async fn terminate(&self, id: &str) -> Result<()> {
        let inspected = self.docker.inspect_container(id, None).await.map_err(error)?;
        let signal = inspected.config.and_then(|config| config.stop_signal).filter(|signal| !signal.is_empty());
        self.signal(id, signal.as_deref().unwrap_or("SIGTERM")).await
    }

    async fn kill(&self, id: &str) -> Result<()> {
        self.signal(id, "SIGKILL").await
    }

    async fn remove(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        match self.docker.remove_container(id, Some(options)).await.map_err(error) {
            // Gone, or on its way.
            Ok(()) | Err(Error::NotFound(_) | Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn events(&self) -> BoxStream<'static, Event> {
        events::events(self.docker.clone(), self.options.node_name.clone())
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>> {
        exec::logs(&self.docker, id, options).await
    }

    async fn usage(&self) -> Result<Vec<ContainerUsage>> {
        usage::usage(&self.docker, &self.options, &self.places).await
    }

    async fn disks(&self) -> Result<BTreeMap<String, ContainerDisk>> {
        usage::disks(&self.docker, &self.options).await
    }

    async fn exec(&self, id: &str, command: &[String], wanted: Wanted) -> Result<Session> {
        exec::exec(&self.docker, &self.hijacker, id, command, wanted).await
    }

    async fn attach(&self, id: &str, wanted: Wanted) -> Result<Session> {
        exec::attach(&self.docker, &self.hijacker, id, wanted).await
    }

    async fn connect(&self, sandbox_id: &str, port: u16) -> Result<Connection> {
        let inspected = self.docker.inspect_container(sandbox_id, None).await.map_err(error)?;
        let pid = inspected.state.and_then(|state| state.pid).filter(|pid| *pid > 0);
        let pid = pid.ok_or_else(|| Error::Conflict(format!("sandbox {sandbox_id} is not running")))?;
        let refused = |error| Error::Refused(format!("connect to port {port}: {error}"));
        Ok(Box::new(netns::connect(pid, port).await.map_err(refused)?))
    }
}

impl DockerRuntime {
    async fn signal(&self, id: &str, signal: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::new().signal(signal).build();
        match self.docker.kill_container(id, Some(options)).await.map_err(error) {
            // It ended before.
            Ok(()) | Err(Error::NotFound(_) | Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// The least `oom_score_adj` a container can be given: on machines that withhold CAP_SYS_RESOURCE even from root (some
/// virtual ones do) nobody may go below zero, and runc fails where it is asked to.
fn oom_score_adj_min() -> i64 {
    const CAP_SYS_RESOURCE: u32 = 24;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bounding = status.lines().find_map(|line| line.strip_prefix("CapBnd:"));
    let bounding = bounding.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    if bounding.is_none_or(|mask| mask & (1 << CAP_SYS_RESOURCE) != 0) { -1000 } else { 0 }
}

/// Docker's answer as the runtime's error.
fn error(error: bollard::errors::Error) -> Error {
    use bollard::errors::Error as Docker;
    match error {
        Docker::DockerResponseServerError { status_code: 404, message } => Error::NotFound(message),
        Docker::DockerResponseServerError { status_code: 409, message } => Error::Conflict(message),
        Docker::DockerResponseServerError { message, .. } => {
            Error::Refused(format!("Error response from daemon: {message}"))
        }
        Docker::DockerStreamError { error } => Error::Refused(format!("Error response from daemon: {error}")),
        error => {
            // The chain says what the outermost error leaves out: which socket, and why.
            let mut text = error.to_string();
            let mut source = std::error::Error::source(&error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            Error::Unreachable(text)
        }
    }
}
