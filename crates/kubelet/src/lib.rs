//! The kubelet: makes what runs on one node match the pods bound to it, and says how they are.
//!
//! ```text
//!  API ──watch──▶ pods ──newest──▶ worker (one per pod)
//!                                   │ observe ◀── Runtime: docker | hollow ──events──▶ pods ──wake──▶ worker
//!                                   │ plan      = pod::actions::pod_actions (pure)
//!                                   │ say       = pod::status::status (pure) ──▶ status_writer ──▶ API
//!                                   └ execute ──▶ Runtime, volumes, images
//!  node: registration, status, lease (each in its own task)      server: logs, pods, health
//! ```
//!
//! In reading order:
//! - [`config`]: what a kubelet is told; [`start`] starts it.
//! - [`runtime`]: the trait, and its implementations on Docker and in memory.
//! - [`pod`]: one pod, purely: what is observed, what must happen, what the status is.
//! - `sources`: static pods, from a directory or URL; what the API shows of them.
//! - `pods`, `worker`: from sources and events to one worker per pod; `status_writer`: from workers to the API.
//! - `probes`: whether containers have started, are ready and alive: each probe in a task of its own.
//! - [`container_spec`], [`env`], [`images`], [`objects`], [`tokens`], [`volumes`]: what a container is made from.
//! - [`node`]: the Node object, its status and its lease.
//! - [`stats`]: what node, pods and containers use.
//! - [`server`]: the node's HTTPS server; `spdy`, `mux`: many streams over one of its connections.
//! - [`bootstrap`]: how a machine becomes a node: credentials from a join token.
//! - [`names`], [`clock`]: labels and names of containers; time as an argument.
//!
//! The kubelet keeps no state of its own: what runs is read from the labels of containers, so a kubelet that starts
//! again adopts them all. It does not schedule, and it does not touch services or routes.

use std::sync::Arc;

use client::{Informer, Lister, Recorder, Tasks};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service};
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::watch;

pub mod bootstrap;
pub mod clock;
pub mod config;
pub mod container_spec;
pub mod env;
pub mod images;
mod mux;
pub mod names;
pub mod node;
pub mod objects;
pub mod pod;
mod pods;
mod probes;
pub mod runtime;
pub mod server;
pub mod sources;
mod spdy;
pub mod stats;
mod status_writer;
#[cfg(test)]
mod testing;
pub mod tokens;
pub mod volumes;
mod worker;

pub use config::{Config, Serving};
use env::NodeResources;
use node::allocations::Allocations;
use objects::ObjectCache;
use pod::admit::Abilities;
use pod::status::NodeFacts;
use pods::Pods;
use runtime::Runtime;
use sources::StaticPods;

/// Exit code of what SIGKILL ended.
pub(crate) const KILLED_EXIT_CODE: i32 = 137;

/// Why a kubelet does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The runtime cannot be asked.
    #[error("the container runtime does not answer: {0}")]
    Runtime(#[from] runtime::Error),
    /// The node server cannot be started.
    #[error("cannot serve: {0}")]
    Server(#[from] server::Error),
}

/// A running kubelet; it stops with the [`Tasks`] it was started on.
pub struct Handle {
    /// The port of the node server, if there is one.
    pub port: Option<u16>,
    pods: Pods,
    network: watch::Receiver<bool>,
}

impl Handle {
    /// How many pods have workers.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    /// Waits until the pod network exists.
    pub async fn network_ready(&self) {
        let mut network = self.network.clone();
        // The sender lives as long as the node's tasks; without it nothing is ever ready.
        if network.wait_for(|ready| *ready).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// What all parts of one kubelet share.
pub(crate) struct Kubelet {
    pub(crate) config: Config,
    pub(crate) client: kube::Client,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) resources: NodeResources,
    pub(crate) node: node::Shared,
    pub(crate) recorder: Recorder,
    pub(crate) network: watch::Receiver<bool>,
    pub(crate) services: Services,
    pub(crate) config_maps: ObjectCache<ConfigMap>,
    pub(crate) secrets: ObjectCache<Secret>,
    pub(crate) abilities: Abilities,
    /// What of the node is set aside for whom.
    pub(crate) allocations: Allocations,
    /// When this kubelet started.
    pub(crate) started_at: Timestamp,
}

/// Where services are read from.
pub(crate) enum Services {
    /// The API.
    Watched(Lister<Service>),
    /// A test.
    #[cfg(test)]
    Fixed(Vec<Arc<Service>>),
}

impl Services {
    /// Every service; waits until they have been read once, as a pod without their variables would be wrong for good.
    pub(crate) async fn list(&self) -> Vec<Arc<Service>> {
        match self {
            Services::Watched(lister) => {
                lister.synced().await;
                lister.list()
            }
            #[cfg(test)]
            Services::Fixed(services) => services.clone(),
        }
    }

    /// Those known now: a static pod waits for no master.
    pub(crate) fn known(&self) -> Vec<Arc<Service>> {
        match self {
            Services::Watched(lister) => lister.list(),
            #[cfg(test)]
            Services::Fixed(services) => services.clone(),
        }
    }
}

impl Kubelet {
    pub(crate) fn node_facts(&self) -> NodeFacts {
        NodeFacts { ip: self.config.node_ip, scheme: self.runtime.scheme() }
    }

    /// Removes what a pod had on disk; whether nothing of it is left.
    pub(crate) async fn tear_down_volumes(&self, uid: &str) -> bool {
        if !self.runtime.uses_files() {
            return true;
        }
        let (data_dir, pod) = (self.config.data_dir.clone(), uid.to_owned());
        let removed = tokio::task::spawn_blocking(move || volumes::tear_down(&data_dir, &pod)).await;
        match removed {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::warn!(uid, %error, "cannot remove the pod's directory");
                false
            }
            Err(_) => false,
        }
    }
}

/// A client for a kubelet that is [`Config::standalone`]: there is no one to ask.
pub fn no_master() -> kube::Client {
    let nobody = tower::service_fn(async |_: http::Request<kube::client::Body>| {
        Err::<http::Response<kube::client::Body>, _>(std::io::Error::other("there is no master"))
    });
    kube::Client::new(nobody, "default")
}

/// Starts the kubelet of `config.node_name` on `runtime`. Its node is registered and its pods are followed in the
/// background; everything stops with `tasks`, and containers keep running.
pub async fn start(
    client: kube::Client,
    config: Config,
    runtime: Arc<dyn Runtime>,
    tasks: &Tasks,
) -> Result<Handle, Error> {
    let machine = runtime.machine().await?;
    let listener = match &config.serving {
        Some(serving) => Some(server::bind(serving, config.port).await?),
        None => None,
    };
    if let Some(address) = config.healthz {
        tasks.spawn(server::health::serve(server::health::bind(address).await?));
    }
    let port = listener.as_ref().map(server::Listener::port);
    let recorder = Recorder::new(client.clone(), "kubelet", Some(&config.node_name), tasks);
    let (network_sender, network) = watch::channel(false);
    let services = Informer::new(Api::<Service>::all(client.clone()), watcher::Config::default());
    let kubelet = Arc::new(Kubelet {
        resources: node_resources(&config, &machine),
        node: node::Shared::new(&config, &machine, runtime.uses_files()),
        runtime,
        recorder,
        network: network.clone(),
        services: Services::Watched(services.lister()),
        config_maps: ObjectCache::new(client.clone()),
        secrets: ObjectCache::new(client.clone()),
        client: client.clone(),
        abilities: Abilities::of_host(),
        allocations: Allocations::new(node::reserved::room(&config, &machine)),
        started_at: config.clock.now(),
        config,
    });
    if !kubelet.config.standalone {
        services.run(tasks);
    }
    tasks.spawn(node::container_gc::run(kubelet.clone()));
    node::image_gc::recover(&kubelet).await;
    let pods = Pods::new(kubelet.clone(), client.clone(), tasks);
    tasks.spawn(node::shutdown::watch(kubelet.clone(), pods.clone()));
    network_of_last_time(&kubelet, &network_sender).await;
    if kubelet.config.standalone {
        // Nobody else says so; the sender lives as long as the kubelet.
        tasks.spawn(async move { network_sender.closed().await });
    } else {
        node::run(kubelet.clone(), pods.clone(), client.clone(), machine, port, network_sender, tasks);
    }
    follow_pods(&kubelet, &pods, client, tasks);
    if let Some(listener) = listener {
        tasks.spawn(server::serve(listener, kubelet, pods.clone()));
    }
    Ok(Handle { port, pods, network })
}

/// The pod network as it was, or is to be without a master: static pods need not wait for one.
async fn network_of_last_time(kubelet: &Kubelet, network: &watch::Sender<bool>) {
    let config = &kubelet.config;
    if config.manifest_dir.is_none() && config.manifest_url.is_none() {
        return;
    }
    let present = match kubelet.runtime.network().await {
        Ok(Some(cidr)) => Some(cidr),
        _ => kubelet.config.pod_cidr,
    };
    let Some(cidr) = present else { return };
    match kubelet.runtime.ensure_network(cidr).await {
        Ok(()) => drop(network.send_replace(true)),
        Err(error) => tracing::warn!(%cidr, %error, "the pod network is not there yet"),
    }
}

/// All sources of pods: the API (those bound to this node), the manifest directory and the manifest URL.
fn follow_pods(kubelet: &Arc<Kubelet>, pods: &Pods, client: kube::Client, tasks: &Tasks) {
    let selector = format!("spec.nodeName={}", kubelet.config.node_name);
    let mut informer = Informer::new(Api::<Pod>::all(client), watcher::Config::default().fields(&selector));
    let handler = pods.clone();
    informer.on_change(move |change| match change {
        client::Change::Added(pod) | client::Change::Updated { new: pod, .. } if api::pods::is_mirror(pod) => {
            handler.mirrors().saw(pod, true);
        }
        client::Change::Deleted(pod) if api::pods::is_mirror(pod) => handler.mirrors().saw(pod, false),
        client::Change::Added(pod) | client::Change::Updated { new: pod, .. } => handler.set(pod.clone()),
        client::Change::Deleted(pod) => handler.removed(pod.clone()),
    });
    let lister = informer.lister();
    let (mirrors, listed) = (pods.mirrors().clone(), lister.clone());
    informer.on_listed(move || {
        mirrors.listed(|mirror| {
            let metadata = &mirror.metadata;
            listed.get(metadata.namespace.as_deref(), pod::name(metadata)).is_some()
        });
    });
    let standalone = kubelet.config.standalone;
    if !standalone {
        informer.run(tasks);
    }
    let statics = follow_manifests(kubelet, pods, tasks);
    tasks.spawn(pods.clone().follow_runtime());
    let (kubelet, pods) = (kubelet.clone(), pods.clone());
    tasks.spawn(async move {
        // Static pods come first, but nobody else waits for a source that does not answer.
        let _ = tokio::time::timeout(STATICS_FIRST, statics.all_read()).await;
        if !standalone {
            lister.synced().await;
        }
        pods.admit_waiting();
        statics.all_read().await;
        remove_orphan_directories(&kubelet, &pods).await;
        pods.are_complete();
        let known =
            |name: &str| pods.list().iter().any(|pod| sources::is_static(pod) && sources::full_name(pod) == name);
        pods.mirrors().remove_orphans(known).await;
    });
}

/// How long pods of the API wait for those of manifests, which then find their room taken.
const STATICS_FIRST: std::time::Duration = std::time::Duration::from_secs(5);

fn follow_manifests(kubelet: &Kubelet, pods: &Pods, tasks: &Tasks) -> StaticPods {
    let config = &kubelet.config;
    let file = config.manifest_dir.as_ref().map(|_| sources::manifest::FILE);
    let http = config.manifest_url.as_ref().map(|_| sources::manifest::HTTP);
    let all: Vec<&'static str> = file.into_iter().chain(http).collect();
    let statics = StaticPods::new(pods.clone(), &all);
    if let Some(dir) = config.manifest_dir.clone() {
        tasks.spawn(sources::files::follow(dir, config.node_name.clone(), statics.clone()));
    }
    if let Some(from) = config.manifest_url.clone() {
        tasks.spawn(sources::url::follow(from, config.node_name.clone(), statics.clone()));
    }
    statics
}

/// Directories of pods that ended while no kubelet ran. Those of pods that still have containers go with them.
async fn remove_orphan_directories(kubelet: &Kubelet, pods: &Pods) {
    if !kubelet.runtime.uses_files() {
        return;
    }
    let Ok(running) = kubelet.runtime.pods().await else { return };
    let wanted: std::collections::HashSet<String> = pods
        .list()
        .iter()
        .map(|pod| pod::uid(pod).to_owned())
        .chain(running.into_iter().map(|p| p.identity.uid))
        .collect();
    for uid in volumes::pods_on_disk(&kubelet.config.data_dir) {
        if !wanted.contains(&uid) {
            kubelet.tear_down_volumes(&uid).await;
        }
    }
}

/// What containers that have no limits of their own may take the node's to be.
pub(crate) fn node_resources(config: &Config, machine: &runtime::Machine) -> NodeResources {
    let allocatable = node::reserved::allocatable(config, machine);
    let of = |name: &str| allocatable.get(name).copied().unwrap_or(0);
    NodeResources {
        ip: config.node_ip,
        milli_cpu: of("cpu"),
        memory: of("memory"),
        ephemeral_storage: of("ephemeral-storage"),
        machine_memory: machine.memory,
    }
}
