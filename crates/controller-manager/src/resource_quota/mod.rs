//! Counts what the quotas of a namespace limit, when a quota is new or changed, and when something it counts is gone.
//!
//! What comes in is counted by the API server, in the transaction that stores it. That makes this count exact: the quota
//! is read first, then the objects; whatever was created in between has changed the quota, and the count is refused.
//! Behaviour follows `pkg/controller/resourcequota/resource_quota_controller.go`, woken by changes instead of every five
//! minutes.

mod plan;

use std::sync::Arc;

use api::{KindInfo, Object, quota};
use client::{Change, Lister, Outcome, WorkQueue};
use k8s_openapi::api::core::v1::{Pod, ResourceQuota, Service};
use kube::Error;
use plan::{Observed, hard, plan};

use crate::context::{Context, Key, new_queue, outcome};
use crate::informers::BY_NAMESPACE;
use crate::objects::ObjectChange;
use crate::pod::PodInfo;
use crate::rest::{self, Rest};

const NAME: &str = "resourcequota-controller";
const WORKERS: usize = 5;

struct Controller {
    quotas: Lister<ResourceQuota>,
    queue: WorkQueue<Key>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller =
        Arc::new(Controller { quotas: caches.resource_quotas.clone(), queue: new_queue(), rest: context.rest.clone() });
    let c = controller.clone();
    context.informers.resource_quotas.on_change(move |change| c.quota_changed(change));
    let c = controller.clone();
    context.objects.on_change(move |kind, change| {
        if let ObjectChange::Gone(metadata) = change {
            c.less_of(kind, metadata.namespace.as_deref());
        }
    });
    let c = controller.clone();
    context.informers.pods.on_change(move |change| c.pod_changed(change));
    let c = controller.clone();
    context.informers.services.on_change(move |change| c.service_changed(change));
    let synced = async move { caches.resource_quotas.synced().await };
    let queue = controller.queue.clone();
    context.run_workers(synced, &queue, WORKERS, move |key: Key| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&key).await;
            outcome(NAME, &key, result)
        }
    });
}

impl Controller {
    /// What a controller before this one missed is counted at the start; after that only what changes.
    fn quota_changed(&self, change: &Change<ResourceQuota>) {
        match change {
            Change::Added(quota) => self.queue.add(Key::of(&quota.metadata)),
            Change::Updated { new, .. } if !plan::is_counted(new) => self.queue.add(Key::of(&new.metadata)),
            _ => {}
        }
    }

    /// A pod that has ended asks for nothing any more, one that is resized perhaps for less.
    fn pod_changed(&self, change: &Change<PodInfo>) {
        if let Change::Updated { old, new } = change
            && (new.is_terminal() != old.is_terminal() || new.asks != old.asks)
        {
            self.less_of(&<Pod as api::Resource>::INFO, Some(&new.namespace));
        }
    }

    /// A service may come to need fewer node ports.
    fn service_changed(&self, change: &Change<Service>) {
        if let Change::Updated { old, new } = change
            && old.spec != new.spec
        {
            self.less_of(&<Service as api::Resource>::INFO, new.metadata.namespace.as_deref());
        }
    }

    /// There may be less of a kind in a namespace: the quotas that count it must know.
    fn less_of(&self, kind: &KindInfo, namespace: Option<&str>) {
        let Some(namespace) = namespace else { return };
        for quota in self.quotas.by_index(BY_NAMESPACE, namespace) {
            if hard(&quota).keys().any(|name| quota::counts(kind, name)) {
                self.queue.add(Key::of(&quota.metadata));
            }
        }
    }

    async fn sync(&self, key: &Key) -> Result<Outcome, Error> {
        let path = rest::path::<ResourceQuota>(Some(&key.namespace));
        let Some(quota) = self.live(&path, &key.name).await? else { return Ok(Outcome::Done) };
        let mut observed = Vec::new();
        for kind in quota::kinds(&hard(&quota)) {
            observed.push(self.observe(kind, &key.namespace).await?);
        }
        if let Some(counted) = plan(&quota, &observed) {
            let written = self.rest.replace(&path, &key.name, Some("status"), rest::encode(&counted)).await;
            rest::ignore_not_found(written.map(|_| ()))?;
        }
        Ok(Outcome::Done)
    }

    /// The quota as the API has it now: its version is what says whether what is counted then is complete. It is found
    /// among all of its namespace, which are few: the controller's role may list, and not get.
    async fn live(&self, path: &str, name: &str) -> Result<Option<ResourceQuota>, Error> {
        let all = self.rest.list(path).await?;
        let mut all = all.iter().filter_map(|json| serde_json::from_str::<ResourceQuota>(json.get()).ok());
        Ok(all.find(|quota| quota.metadata.name.as_deref() == Some(name)))
    }

    /// The objects of one kind that are in the namespace now, or how many they are where nothing else counts.
    async fn observe(&self, kind: &'static api::Kind, namespace: &str) -> Result<Observed, Error> {
        let path = rest::path_of(kind.info, Some(namespace));
        if !matches!((kind.info.group, kind.info.plural), ("", "pods" | "services" | "persistentvolumeclaims")) {
            let page = self.rest.list_metadata(&path, 1).await?;
            let more = page.metadata.remaining_item_count.and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
            return Ok(Observed::Count(kind.info, page.items.len() + more));
        }
        let mut objects: Vec<Box<dyn Object>> = Vec::new();
        for json in self.rest.list(&path).await? {
            match (kind.decode)(json.get().as_bytes()) {
                Ok(decoded) => objects.push(decoded.object),
                Err(error) => tracing::warn!(resource = kind.info.plural, %error, "an object cannot be counted"),
            }
        }
        Ok(Observed::Objects(objects))
    }
}
