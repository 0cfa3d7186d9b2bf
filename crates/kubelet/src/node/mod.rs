//! The Node object: registered once, its status kept true, its lease renewed; and the machine behind it. Each in a task
//! of its own, so that none waits for another, and none for pods.
//!
//! - [`register`], [`status`], `sync`: the object. [`lease`]: the heartbeat.
//! - [`machine`], [`reserved`]: what there is, and what of it pods may have; [`allocations`]: and who does have what;
//!   [`preemption`]: who makes room for whom.
//! - [`eviction`], `image_gc`: what happens where something runs short; [`container_gc`]:
//!   what is kept of what ended. `runtime_health`: whether the runtime answers.
//! - [`shutdown`]: the machine goes down.

use std::path::PathBuf;
use std::sync::Arc;

use client::{EventType, Informer, Tasks};
use k8s_openapi::api::core::v1::{Node, ObjectReference};
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::watch;

use crate::images::puller::Puller;
use crate::images::records::Records;
use crate::pod::admit::Abilities;
use crate::pod::fit::Facts;
use crate::pods::Pods;
use crate::runtime::Machine;
use crate::stats::sampler::Sampler;
use crate::{Config, Kubelet, bootstrap, stats};
use eviction::signals::Pressure;
use eviction::{Manager, Measure};

pub mod allocations;
pub mod container_gc;
pub mod eviction;
pub(crate) mod image_gc;
pub mod lease;
pub mod machine;
pub mod preemption;
pub mod register;
pub mod reserved;
mod runtime_health;
pub mod shutdown;
pub mod status;
mod sync;

/// What the node's parts share.
#[derive(Default)]
pub(crate) struct Shared {
    /// Where the runtime keeps images, if that is on this machine.
    pub(crate) image_dir: Option<PathBuf>,
    /// The last measurements.
    pub(crate) sampler: Sampler,
    /// Pulls under way.
    pub(crate) images: Puller,
    /// What is remembered of those that ended.
    pub(crate) records: Arc<Records>,
    /// Whether the machine is about to go down.
    pub(crate) shutting_down: watch::Sender<bool>,
    /// What the machine runs short of.
    pub(crate) pressure: watch::Sender<Pressure>,
    /// The Node as it was last seen; before that, as it is to be made.
    pub(crate) object: watch::Sender<Arc<Node>>,
}

impl Shared {
    /// For a node on `machine`, whose `files` are of any use.
    pub(crate) fn new(config: &Config, machine: &Machine, files: bool) -> Shared {
        let images = Puller::new(config.max_parallel_image_pulls);
        let records = Arc::new(Records::open(files.then_some(config.data_dir.as_path())));
        let object = watch::Sender::new(Arc::new(register::node(config, machine)));
        Shared { image_dir: machine.image_dir.clone(), images, records, object, ..Shared::default() }
    }
}

/// Starts the node's tasks. `network` is told when the pod network exists.
pub(crate) fn run(
    kubelet: Arc<Kubelet>,
    pods: Pods,
    client: kube::Client,
    machine: Machine,
    port: Option<u16>,
    network: watch::Sender<bool>,
    tasks: &Tasks,
) {
    let selector = format!("metadata.name={}", kubelet.config.node_name);
    let api: Api<Node> = Api::all(client.clone());
    let mut informer = Informer::new(api.clone(), watcher::Config::default().fields(&selector));
    let (sender, node) = watch::channel(None);
    let object = kubelet.node.object.clone();
    informer.on_change(move |change| {
        let present = match change {
            client::Change::Added(node) | client::Change::Updated { new: node, .. } => Some(node.clone()),
            client::Change::Deleted(_) => None,
        };
        present.iter().for_each(|node| drop(object.send_replace((*node).clone())));
        sender.send_replace(present);
    });
    let lister = informer.lister();
    informer.run(tasks);
    let pressure = kubelet.node.pressure.subscribe();
    if kubelet.runtime.uses_files() {
        let measure = measure(&kubelet);
        tasks.spawn(Manager::new(kubelet.clone(), pods, measure, kubelet.node.pressure.clone()).run());
    }
    let (down_sender, runtime_down) = watch::channel(false);
    tasks.spawn(runtime_health::watch(kubelet.clone(), down_sender));
    tasks.spawn(lease::renew(kubelet.clone(), client));
    for kept in kubelet.config.certificates.iter().flat_map(|all| [&all.client, &all.serving]) {
        tasks.spawn(bootstrap::warn(kubelet.clone(), kept.clone()));
    }
    let serves = match &kubelet.config.serving {
        Some(serving) => serving.certificate.is_there(),
        None => watch::channel(true).1,
    };
    let shutting_down = kubelet.node.shutting_down.subscribe();
    let sync = sync::Sync { kubelet, api, machine, port, network, node, pressure, runtime_down, shutting_down, serves };
    tasks.spawn(async move {
        lister.synced().await;
        sync.run().await;
    });
}

/// This machine, measured.
fn measure(kubelet: &Kubelet) -> Measure {
    let (data_dir, image_dir) = (kubelet.config.data_dir.clone(), kubelet.node.image_dir.clone());
    let clock = kubelet.config.clock;
    Arc::new(move || stats::node::measure(&data_dir, image_dir.as_deref(), clock.now()))
}

impl Kubelet {
    /// What is known of the node now.
    pub(crate) fn facts(&self) -> Facts {
        self.facts_of(&self.node.object.borrow())
    }

    /// The same with `node` for the Node.
    pub(crate) fn facts_of(&self, node: &Node) -> Facts {
        Facts {
            name: self.config.node_name.clone(),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: api::nodes::taints(node).to_vec(),
            pressure: *self.node.pressure.borrow(),
            abilities: self.abilities(),
        }
    }

    /// What the node can do now.
    pub(crate) fn abilities(&self) -> Abilities {
        Abilities { shutting_down: *self.node.shutting_down.borrow(), ..self.abilities }
    }

    /// An Event about the node.
    pub(crate) fn node_event(&self, type_: EventType, reason: &str, message: String) {
        // Upstream uses the node's name as the UID here, and tools look for it there.
        let name = self.config.node_name.clone();
        let reference = ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            uid: Some(name.clone()),
            name: Some(name),
            ..ObjectReference::default()
        };
        self.recorder.event(&reference, type_, reason, message);
    }
}
