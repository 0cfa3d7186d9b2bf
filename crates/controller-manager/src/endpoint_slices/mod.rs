//! Endpoint slices: the addresses of a service's pods in portions, so that one pod's change is a small change.
//!
//! Behaviour follows `k8s.io/endpointslice` (`reconciler.go`) and `pkg/controller/endpointslice`.
//! - [`plan`]: which slices to write; [`endpoints`]: what each pod looks like in them.

mod endpoints;
mod plan;

use std::sync::Arc;
use std::time::Instant;

use api::well_known::{LABEL_MANAGED_BY, LABEL_SERVICE_NAME};
use client::{Change, Lister, Outcome, WorkQueue};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Error;

use crate::context::{Context, Key, new_queue, outcome};
use crate::informers::{BY_SERVICE, service_key};
use crate::own_writes::OwnWrites;
use crate::pod::PodInfo;
use crate::rest::{self, Rest};
use crate::service_pods as backing;
use crate::trigger_times::{self, TriggerTimes};
use plan::{Action, plan};

const NAME: &str = "endpoint-slice-controller";
const WORKERS: usize = 5;
/// The value of [`LABEL_MANAGED_BY`] on our slices.
const MANAGER: &str = "endpointslice-controller.k8s.io";
/// The node label that says where a node stands.
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

struct Controller {
    services: Lister<Service>,
    pods: Lister<PodInfo>,
    slices: Lister<EndpointSlice>,
    nodes: Lister<Node>,
    own_writes: OwnWrites<Key>,
    trigger_times: TriggerTimes,
    queue: WorkQueue<Key>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller {
        services: caches.services.clone(),
        pods: caches.pods.clone(),
        slices: caches.endpoint_slices.clone(),
        nodes: caches.nodes.clone(),
        own_writes: OwnWrites::new(),
        trigger_times: TriggerTimes::default(),
        queue: new_queue(),
        rest: context.rest.clone(),
    });

    let queue = controller.queue.clone();
    context.informers.services.on_change(move |change| queue.add(Key::of(&change.object().metadata)));
    let c = controller.clone();
    context.informers.pods.on_change(move |change| {
        backing::services_of(&c.services, change).into_iter().for_each(|key| c.queue.add(key));
    });
    let c = controller.clone();
    context.informers.endpoint_slices.on_change(move |change| c.slice_changed(change));
    let c = controller.clone();
    context.informers.nodes.on_change(move |change| c.node_changed(change));

    let synced = async move {
        caches.services.synced().await;
        caches.pods.synced().await;
        caches.endpoint_slices.synced().await;
        caches.nodes.synced().await;
    };
    let queue = controller.queue.clone();
    context.run_workers(synced, &queue, WORKERS, move |key| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&key).await;
            outcome(NAME, &key, result)
        }
    });
}

/// The service whose slice this is, if it is one of ours.
pub(crate) fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = slice.metadata.labels.as_ref()?;
    let ours = labels.get(LABEL_MANAGED_BY).is_some_and(|manager| manager == MANAGER);
    let service = labels.get(LABEL_SERVICE_NAME).filter(|_| ours)?;
    Some(Key::new(slice.metadata.namespace.as_deref()?, service))
}

fn zone_of(node: &Node) -> Option<&String> {
    node.metadata.labels.as_ref()?.get(LABEL_ZONE)
}

impl Controller {
    fn slice_changed(&self, change: &Change<EndpointSlice>) {
        if let Change::Updated { old, .. } = change {
            // Someone may have taken our labels off.
            service_of(old).into_iter().for_each(|key| self.queue.add(key));
        }
        service_of(change.object()).into_iter().for_each(|key| self.queue.add(key));
    }

    /// A node's zone is written into every endpoint on it.
    fn node_changed(&self, change: &Change<Node>) {
        let changed = match change {
            Change::Added(node) => zone_of(node).is_some(),
            Change::Updated { old, new } => zone_of(old) != zone_of(new),
            Change::Deleted(_) => false,
        };
        if changed {
            self.services.list().iter().for_each(|service| self.queue.add(Key::of(&service.metadata)));
        }
    }

    async fn sync(&self, key: &Key) -> Result<Outcome, Error> {
        let version = |name: &str| {
            let slice = self.slices.get(Some(&key.namespace), name)?;
            Some((slice.metadata.uid.clone()?, slice.metadata.resource_version.clone()?))
        };
        if let Some(wait) = self.own_writes.unseen(key, Instant::now(), version) {
            return Ok(Outcome::After(wait));
        }
        let service = self.services.get(Some(&key.namespace), &key.name);
        let pods = service.as_ref().map(|service| backing::pods_of(service, &self.pods)).unwrap_or_default();
        let slices = self.slices.by_index(BY_SERVICE, &service_key(key));
        let zone = |node: &str| self.nodes.get(None, node).and_then(|node| zone_of(&node).cloned());
        let trigger_time = self.trigger_times.look(key, service.as_deref(), &pods);
        for mut action in plan(service.as_deref(), &pods, &slices, zone) {
            if let Action::Create(slice) | Action::Update(slice) = &mut action {
                trigger_times::annotate(&mut slice.metadata, trigger_time);
            }
            self.execute(key, action).await?;
        }
        Ok(Outcome::Done)
    }

    async fn execute(&self, key: &Key, action: Action) -> Result<(), Error> {
        let path = rest::path::<EndpointSlice>(Some(&key.namespace));
        let written = match action {
            Action::Create(slice) => self.rest.create(&path, rest::encode(&slice)).await?,
            Action::Update(slice) => {
                let name = slice.metadata.name.clone().unwrap_or_default();
                self.rest.replace(&path, &name, None, rest::encode(&slice)).await?
            }
            Action::Delete { name, uid } => {
                self.rest.delete(&path, &name, &rest::only_uid(&uid)).await?;
                self.own_writes.deleted(key, &name, &uid, Instant::now());
                return Ok(());
            }
        };
        let written = written.metadata;
        self.own_writes.wrote(key, &written.name, &written.uid, &written.resource_version, Instant::now());
        Ok(())
    }
}
