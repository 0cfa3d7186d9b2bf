//! Services of type LoadBalancer: the nodes themselves are the balancer. Their addresses become the service's ingress, and
//! every node's proxy takes the service's ports at them.
//!
//! Upstream leaves this to a cloud (`cloud-provider/controllers/service/controller.go`, whose choice of nodes and
//! labels is followed); a service that names a class is left to whom the class belongs to.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Arc;

use api::well_known::LABEL_SERVICE_NAME;
use client::{Change, EventType, Lister, Outcome, Recorder, WorkQueue, object_reference};
use k8s_openapi::api::core::v1::{Endpoints, LoadBalancerStatus, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Error;
use parking_lot::Mutex;
use serde_json::json;

use self::plan::{Plan, View, balancer, concerns, is_balanced, is_local, plan};
use crate::context::{Context, Key, new_queue, outcome};
use crate::rest::{self, Rest};

const NAME: &str = "service-controller";
/// One at a time: which ports are free is decided over all services.
const WORKERS: usize = 1;
/// Ports of a node that no service may take, beside those of the API server and the kubelets: SSH, etcd's, the overlay's.
const RESERVED: [i32; 4] = [22, 2379, 2380, 8472];

struct Controller {
    services: Lister<Service>,
    nodes: Lister<Node>,
    slices: Lister<EndpointSlice>,
    endpoints: Lister<Endpoints>,
    queue: WorkQueue<()>,
    rest: Rest,
    recorder: Recorder,
    node_ports: RangeInclusive<u16>,
    /// Which services were told that a port is not to be had, lest they are told at every look.
    told: Mutex<BTreeMap<Key, String>>,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller {
        services: caches.services.clone(),
        nodes: caches.nodes.clone(),
        slices: caches.endpoint_slices.clone(),
        endpoints: caches.endpoints.clone(),
        queue: new_queue(),
        rest: context.rest.clone(),
        recorder: context.recorder(NAME),
        node_ports: context.config.service_node_port_range.clone(),
        told: Mutex::default(),
    });
    controller.listen(context);
    let synced = async move {
        caches.services.synced().await;
        caches.nodes.synced().await;
        caches.endpoint_slices.synced().await;
        caches.endpoints.synced().await;
    };
    let queue = controller.queue.clone();
    context.run_workers(synced, &queue, WORKERS, move |()| {
        let controller = controller.clone();
        async move { outcome(NAME, &(), controller.sync().await) }
    });
}

impl Controller {
    fn listen(self: &Arc<Self>, context: &mut Context) {
        let c = self.clone();
        context.informers.services.on_change(move |change| {
            let was = matches!(change, Change::Updated { old, .. } if concerns(old));
            if was || concerns(change.object()) {
                c.queue.add(());
            }
        });
        let c = self.clone();
        context.informers.nodes.on_change(move |change| {
            let same = matches!(change, Change::Updated { old, new } if balancer(old) == balancer(new));
            if !same {
                c.queue.add(());
            }
        });
        let c = self.clone();
        context.informers.endpoint_slices.on_change(move |change| {
            let slice = change.object();
            let name = slice.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_SERVICE_NAME));
            let service = name.and_then(|name| c.services.get(slice.metadata.namespace.as_deref(), name));
            if service.is_some_and(|service| is_balanced(&service) && is_local(&service)) {
                c.queue.add(());
            }
        });
    }

    async fn sync(&self) -> Result<Outcome, Error> {
        let (services, nodes, slices) = (self.services.list(), self.nodes.list(), self.slices.list());
        let view = View {
            nodes: nodes.iter().filter_map(|node| balancer(node)).collect(),
            slices: &slices,
            reserved: self.reserved(),
            node_ports: self.node_ports.clone(),
        };
        let plans = plan(&services, &view);
        self.told.lock().retain(|key, _| plans.iter().any(|plan| plan.key == *key));
        let mut result = Ok(Outcome::Done);
        for plan in plans {
            if let Some(refusal) = &plan.refusal {
                self.tell(&plan, refusal);
            } else {
                self.told.lock().remove(&plan.key);
            }
            if let Some(status) = &plan.status {
                // One that cannot be written does not stop those behind it.
                if let Err(error) = self.write(&plan.key, status).await {
                    result = Err(error);
                }
            }
        }
        result
    }

    /// Ports that must stay what they are: whoever took the API server's would be the API server.
    fn reserved(&self) -> BTreeSet<i32> {
        let api = self.endpoints.get(Some("default"), "kubernetes");
        let ports = api.iter().flat_map(|e| e.subsets.iter().flatten()).flat_map(|s| s.ports.iter().flatten());
        let nodes = self.nodes.list();
        let kubelets = nodes.iter().filter_map(|node| {
            let endpoints = node.status.as_ref()?.daemon_endpoints.as_ref()?;
            Some(endpoints.kubelet_endpoint.as_ref()?.port)
        });
        ports.map(|port| port.port).chain(kubelets).chain(RESERVED).collect()
    }

    fn tell(&self, plan: &Plan<'_>, refusal: &str) {
        let before = self.told.lock().insert(plan.key.clone(), refusal.to_owned());
        if before.as_deref() != Some(refusal) {
            let reference = object_reference(plan.service);
            self.recorder.event(&reference, EventType::Warning, "SyncLoadBalancerFailed", refusal.to_owned());
        }
    }

    async fn write(&self, key: &Key, status: &LoadBalancerStatus) -> Result<(), Error> {
        let patch = json!({"status": {"loadBalancer": {"ingress": status.ingress}}});
        let path = rest::path::<Service>(Some(&key.namespace));
        rest::ignore_not_found(self.rest.merge_patch(&path, &key.name, Some("status"), &patch).await.map(|_| ()))
    }
}
