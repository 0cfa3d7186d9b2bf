//! The Node object: registered once, its status kept true, its lease renewed. Three tasks, so that none waits for
//! another, and none for pods.

use std::sync::Arc;

use client::{Informer, Tasks};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::watch;

use crate::Kubelet;
use crate::runtime::Machine;

pub mod lease;
pub mod machine;
pub mod pressure;
pub mod register;
pub mod status;
mod sync;

/// Starts the node's tasks. `network` is told when the pod network exists.
pub(crate) fn run(
    kubelet: Arc<Kubelet>,
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
    informer.on_change(move |change| {
        let present = match change {
            client::Change::Added(node) | client::Change::Updated { new: node, .. } => Some(node.clone()),
            client::Change::Deleted(_) => None,
        };
        sender.send_replace(present);
    });
    let lister = informer.lister();
    informer.run(tasks);
    let (pressure_sender, pressure) = watch::channel(pressure::Pressure::default());
    tasks.spawn(lease::renew(kubelet.clone(), client, pressure_sender));
    let sync = sync::Sync { kubelet, api, machine, port, network, node, pressure };
    tasks.spawn(async move {
        lister.synced().await;
        sync.run().await;
    });
}
