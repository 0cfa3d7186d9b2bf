//! Owner references: what belongs to something goes with it.
//!
//! ```text
//!  all objects' metadata ─▶ graph (who owns whom, by UID) ─▶ queue of UIDs ─▶ are its owners alive? ─▶ plan ─▶ execute
//! ```
//!
//! Behaviour follows `pkg/controller/garbagecollector`: background (the owner goes first), foreground (the
//! `foregroundDeletion` finalizer keeps the owner until what blocks it is gone) and orphan (the `orphan` finalizer
//! keeps it until nothing refers to it).
//! - [`graph`]: what is known; only metadata. [`plan`]: what must happen to one object.

mod graph;
mod plan;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use client::{EventType, Outcome, Recorder, WorkQueue};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Error;
use kube::api::{DeleteParams, Preconditions};
use parking_lot::Mutex;
use serde_json::json;

use crate::context::{Context, new_queue, outcome};
use crate::objects::ObjectChange;
use crate::rest::{self, Rest};
use graph::{Graph, Node};
use plan::{Action, OwnerState, plan};

const NAME: &str = "garbage-collector";
/// Upstream's `--concurrent-gc-syncs`.
const WORKERS: usize = 20;
/// So many owners known to be gone are remembered, as upstream does.
const REMEMBERED_ABSENT: usize = 500;

struct Controller {
    graph: Mutex<Graph>,
    absent: Mutex<Absent>,
    queue: WorkQueue<String>,
    rest: Rest,
    recorder: Recorder,
}

/// Owners that the API has said do not exist. A UID never comes back.
#[derive(Default)]
struct Absent {
    known: HashSet<String>,
    order: VecDeque<String>,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller {
        graph: Mutex::default(),
        absent: Mutex::default(),
        queue: new_queue(),
        rest: context.rest.clone(),
        recorder: context.recorder("garbage-collector-controller"),
    });
    let c = controller.clone();
    context.objects.on_change(move |kind, change| {
        let woken = match change {
            ObjectChange::Present(metadata) => c.graph.lock().observe(kind, metadata),
            ObjectChange::Gone(metadata) => c.graph.lock().forget(metadata.uid.as_deref().unwrap_or_default()),
        };
        woken.into_iter().for_each(|uid| c.queue.add(uid));
    });
    let listed = context.objects.synced();
    let synced = async move {
        listed.await;
        caches.pods.synced().await;
        caches.replication_controllers.synced().await;
        caches.services.synced().await;
        caches.endpoints.synced().await;
        caches.endpoint_slices.synced().await;
        caches.nodes.synced().await;
        caches.namespaces.synced().await;
        caches.certificate_signing_requests.synced().await;
    };
    let queue = controller.queue.clone();
    context.run_workers(synced, &queue, WORKERS, move |uid: String| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&uid).await;
            outcome(NAME, &uid, result)
        }
    });
}

impl Controller {
    async fn sync(&self, uid: &str) -> Result<Outcome, Error> {
        let Some((item, dependents)) = self.graph.lock().with_dependents(uid) else { return Ok(Outcome::Done) };
        let mut owners = Vec::new();
        if !item.deleting {
            for reference in &*item.owners {
                owners.push((reference.clone(), self.owner_state(&item, reference).await?));
            }
        }
        let planned = plan(&item, &owners, &dependents);
        planned.wake.into_iter().for_each(|uid| self.queue.add(uid));
        for action in planned.actions {
            self.execute(action).await?;
        }
        Ok(Outcome::Done)
    }

    /// Whether an owner lives; one the graph does not know is asked for, by its name, and known by its UID.
    async fn owner_state(&self, item: &Node, reference: &OwnerReference) -> Result<OwnerState, Error> {
        if let Some(state) = self.graph.lock().owner_state(item, reference) {
            return Ok(state);
        }
        let Some(kind) = api::kinds::by_kind(&reference.api_version, &reference.kind) else {
            // A kind we do not serve may be served by someone else: never collect on ignorance.
            return Ok(OwnerState::Solid);
        };
        let namespace = match (kind.info.scope, &item.namespace) {
            (api::Scope::Cluster, _) => None,
            (api::Scope::Namespaced, Some(namespace)) => Some(&**namespace),
            (api::Scope::Namespaced, None) => {
                tracing::debug!(
                    object = &*item.name,
                    owner = reference.name,
                    "an owner in a namespace owns nothing outside"
                );
                return Ok(OwnerState::Solid);
            }
        };
        let key =
            format!("{}/{}/{}/{}", kind.info.plural, namespace.unwrap_or_default(), reference.name, reference.uid);
        if self.absent.lock().known.contains(&key) {
            return Ok(OwnerState::Absent);
        }
        let live = self.rest.get_metadata(&rest::path_of(kind.info, namespace), &reference.name).await?;
        match live.filter(|live| live.uid.as_deref() == Some(&reference.uid)) {
            Some(live) => Ok(OwnerState::of(&live)),
            None => {
                if self.graph.lock().is_elsewhere(item, reference) {
                    self.tell_of_invalid_namespace(item, reference);
                }
                self.absent.lock().remember(key);
                Ok(OwnerState::Absent)
            }
        }
    }

    /// Who wrote such a reference learns why the object goes (`reportInvalidNamespaceOwnerRef`).
    fn tell_of_invalid_namespace(&self, item: &Node, reference: &OwnerReference) {
        let about = ObjectReference {
            api_version: Some(item.kind.api_version()),
            kind: Some(item.kind.kind.to_owned()),
            namespace: item.namespace.as_deref().map(str::to_owned),
            name: Some(item.name.to_string()),
            uid: Some(item.uid.to_string()),
            ..ObjectReference::default()
        };
        let namespace = item.namespace.as_deref().unwrap_or_default();
        let OwnerReference { api_version, kind, name, uid, .. } = reference;
        let owner = format!("[{api_version}/{kind}, namespace: {namespace}, name: {name}, uid: {uid}]");
        let message = format!("ownerRef {owner} does not exist in namespace {namespace:?}");
        self.recorder.event(&about, EventType::Warning, "OwnerRefInvalidNamespace", message);
    }

    async fn execute(&self, action: Action) -> Result<(), Error> {
        let result = match action {
            Action::Delete { item, propagation, reason } => {
                tracing::debug!(resource = item.kind.plural, object = &*item.name, ?reason, "collecting");
                // An object that changed since may have found an owner: then the deletion fails and we look again.
                let preconditions = Preconditions {
                    uid: Some(item.uid.to_string()),
                    resource_version: item.version.as_deref().map(str::to_owned),
                };
                let params = DeleteParams {
                    preconditions: Some(preconditions),
                    propagation_policy: Some(propagation),
                    ..DeleteParams::default()
                };
                self.rest.delete(&path(&item), &item.name, &params).await
            }
            Action::RemoveOwners { item, owners } => {
                let left: Vec<_> = item.owners.iter().filter(|owner| !owners.contains(&owner.uid)).collect();
                self.patch(&item, "ownerReferences", json!(left)).await
            }
            Action::Unblock { item } => {
                let unblock =
                    |owner: &OwnerReference| OwnerReference { block_owner_deletion: Some(false), ..owner.clone() };
                let unblocked: Vec<_> = item.owners.iter().map(unblock).collect();
                self.patch(&item, "ownerReferences", json!(unblocked)).await
            }
            Action::RemoveFinalizer { item, finalizer } => {
                let left: Vec<_> = item.finalizers.iter().filter(|f| *f != finalizer).collect();
                self.patch(&item, "finalizers", json!(left)).await
            }
        };
        rest::ignore_not_found(result)
    }

    /// Replaces a list in the metadata of exactly the object that was planned for.
    async fn patch(&self, item: &Node, field: &str, list: serde_json::Value) -> Result<(), Error> {
        let list = if list.as_array().is_some_and(Vec::is_empty) { serde_json::Value::Null } else { list };
        let patch = json!({"metadata": {"uid": &*item.uid, "resourceVersion": item.version, field: list}});
        self.rest.merge_patch(&path(item), &item.name, None, &patch).await.map(|_| ())
    }
}

fn path(item: &Node) -> String {
    rest::path_of(item.kind, item.namespace.as_deref())
}

impl Absent {
    fn remember(&mut self, key: String) {
        if self.known.insert(key.clone()) {
            self.order.push_back(key);
        }
        if self.order.len() > REMEMBERED_ABSENT
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}
