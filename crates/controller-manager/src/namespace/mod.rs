//! Empties a namespace that is being deleted, then lets it go.
//!
//! ```text
//!  terminating ─▶ observe what is left ─▶ delete pods ─ all gone ─▶ delete the rest ─ all gone ─▶ finalize
//!                     ▲      └─▶ say in the conditions what is left          │
//!                     └───────── woken by every object that goes ◀───────────┘
//! ```
//!
//! Behaviour follows `pkg/controller/namespace/deletion/namespaced_resources_deleter.go`.
//! - [`plan`]: the next step; [`conditions`]: what to say.

mod conditions;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;

use api::{KindInfo, Scope, kinds};
use client::{Change, Lister, Outcome, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Error;
use kube::api::DeleteParams;

use crate::context::{Context, new_queue, outcome};
use crate::objects::ObjectChange;
use crate::rest::{self, Rest};
use plan::{Action, Remaining, plan};

const NAME: &str = "namespace-controller";
/// Upstream's `--concurrent-namespace-syncs`.
const WORKERS: usize = 10;
/// Pods, the rest, finalize, and one to spare; what takes longer is woken by what goes.
const MAX_ROUNDS: usize = 4;
/// So many objects of a kind are counted one by one; the server tells how many more there are.
const COUNTED: u32 = 500;

struct Controller {
    namespaces: Lister<Namespace>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller { namespaces: caches.namespaces.clone(), rest: context.rest.clone() });
    let queue: WorkQueue<String> = new_queue();
    let q = queue.clone();
    context.informers.namespaces.on_change(move |change| {
        if let Change::Added(namespace) | Change::Updated { new: namespace, .. } = change
            && namespace.metadata.deletion_timestamp.is_some()
        {
            q.add(namespace.metadata.name.clone().unwrap_or_default());
        }
    });
    let (q, namespaces) = (queue.clone(), caches.namespaces.clone());
    context.objects.on_change(move |_, change| {
        // What is on its way and changes may have lost one of its finalizers, which the conditions tell of.
        let metadata = match change {
            ObjectChange::Gone(metadata) => Some(metadata),
            ObjectChange::Present(metadata) => Some(metadata).filter(|m| m.deletion_timestamp.is_some() && is_held(m)),
        };
        if let Some(metadata) = metadata
            && let Some(name) = &metadata.namespace
            && namespaces.get(None, name).is_some_and(|n| n.metadata.deletion_timestamp.is_some())
        {
            q.add(name.clone());
        }
    });
    let synced = async move { caches.namespaces.synced().await };
    context.run_workers(synced, &queue, WORKERS, move |name: String| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&name).await;
            outcome(NAME, &name, result)
        }
    });
}

/// Whether a finalizer keeps an object.
fn is_held(metadata: &ObjectMeta) -> bool {
    metadata.finalizers.as_ref().is_some_and(|finalizers| !finalizers.is_empty())
}

impl Controller {
    async fn sync(&self, name: &str) -> Result<Outcome, Error> {
        let Some(namespace) = self.namespaces.get(None, name) else { return Ok(Outcome::Done) };
        if !plan::is_ours(&namespace) {
            return Ok(Outcome::Done);
        }
        let mut failures = Vec::new();
        let mut remaining = self.observe(name).await?;
        for _ in 0..MAX_ROUNDS {
            let actions = plan(&namespace, &remaining);
            if actions.is_empty() || !failures.is_empty() {
                break;
            }
            for action in actions {
                match action {
                    Action::Finalize => return self.finalize(&namespace).await,
                    Action::DeleteAll(kind) => {
                        tracing::debug!(namespace = name, resource = kind.plural, "deleting all of a kind");
                        let path = rest::path_of(kind, Some(name));
                        if let Err(error) = self.rest.delete_collection(&path, &DeleteParams::background()).await {
                            failures.push((kind, error.to_string()));
                        }
                    }
                }
            }
            remaining = self.observe(name).await?;
        }
        self.tell(&namespace, &remaining, &failures).await?;
        Ok(if failures.is_empty() { Outcome::Done } else { Outcome::Retry })
    }

    /// What is in the namespace now, as the API has it: the cache may be behind.
    async fn observe(&self, namespace: &str) -> Result<Vec<Remaining>, Error> {
        let mut remaining = Vec::new();
        let stored = kinds().map(|kind| kind.info).filter(|info| info.is_stored());
        for kind in stored.filter(|info| info.scope == Scope::Namespaced) {
            let found = self.count(kind, namespace).await?;
            if found.count > 0 {
                remaining.push(found);
            }
        }
        Ok(remaining)
    }

    async fn count(&self, kind: &'static KindInfo, namespace: &str) -> Result<Remaining, Error> {
        let page = self.rest.list_metadata(&rest::path_of(kind, Some(namespace)), COUNTED).await?;
        let more = usize::try_from(page.metadata.remaining_item_count.unwrap_or(0)).unwrap_or(0);
        let mut finalizers = BTreeMap::new();
        for finalizer in page.items.iter().flat_map(|item| item.metadata.finalizers.iter().flatten()) {
            *finalizers.entry(finalizer.clone()).or_insert(0) += 1;
        }
        let undeleted = page.items.iter().filter(|item| item.metadata.deletion_timestamp.is_none()).count();
        Ok(Remaining { kind, count: page.items.len() + more, undeleted: undeleted + more, finalizers })
    }

    async fn tell(
        &self,
        namespace: &Namespace,
        remaining: &[Remaining],
        failures: &[(&'static KindInfo, String)],
    ) -> Result<(), Error> {
        let Some(status) = conditions::plan(namespace, remaining, failures, Timestamp::now()) else { return Ok(()) };
        let namespace = Namespace { status: Some(status), ..namespace.clone() };
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let path = rest::path::<Namespace>(None);
        let written = self.rest.replace(&path, name, Some("status"), rest::encode(&namespace)).await;
        rest::ignore_not_found(written.map(|_| ()))
    }

    async fn finalize(&self, namespace: &Namespace) -> Result<Outcome, Error> {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let finalized = plan::finalized(namespace);
        let path = rest::path::<Namespace>(None);
        let written = self.rest.replace(&path, name, Some("finalize"), rest::encode(&finalized)).await;
        rest::ignore_not_found(written.map(|_| ()))?;
        tracing::info!(namespace = name, "namespace is empty and gone");
        Ok(Outcome::Done)
    }
}
