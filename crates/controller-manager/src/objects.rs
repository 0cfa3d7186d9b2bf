//! The metadata of every object of every kind, for controllers that care about all kinds alike.
//!
//! Kinds that have a shared cache are followed through it; of the others only metadata is watched.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use api::{KindInfo, kinds};
use client::{Change, Informer, Tasks};
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::Api;
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use tokio::sync::watch;

use crate::informers::Informers;
use crate::pod::PodInfo;

/// What became of an object.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ObjectChange<'a> {
    /// It exists, and this is its metadata now.
    Present(&'a ObjectMeta),
    /// It is gone, and this was its metadata.
    Gone(&'a ObjectMeta),
}

type Handler = Box<dyn Fn(&'static KindInfo, ObjectChange<'_>) + Send + Sync>;

/// Kinds nobody here needs to know about: their objects own nothing and have no owners, and there are many of them.
const IGNORED: &[&str] = &["events"];

/// The feed of all objects.
pub(crate) struct Objects {
    handlers: Vec<Handler>,
    /// How many kinds have not been listed yet; known once running.
    unlisted: watch::Sender<Option<usize>>,
}

impl Default for Objects {
    fn default() -> Objects {
        Objects { handlers: Vec::new(), unlisted: watch::Sender::new(None) }
    }
}

impl Objects {
    /// Adds a handler, called for every change of every object; it must not block.
    pub(crate) fn on_change(&mut self, handler: impl Fn(&'static KindInfo, ObjectChange<'_>) + Send + Sync + 'static) {
        self.handlers.push(Box::new(handler));
    }

    /// Waits until every kind without a cache has been listed once.
    pub(crate) fn synced(&self) -> impl Future<Output = ()> + Send + 'static {
        let mut unlisted = self.unlisted.subscribe();
        async move {
            // The sender lives as long as the watches; without it nothing will ever be known.
            if unlisted.wait_for(|n| *n == Some(0)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Starts to follow all kinds.
    pub(crate) fn run(self, client: &Client, informers: &mut Informers, tasks: &Tasks) {
        let feed = Arc::new(self);
        let mut cached = vec![
            follow_pods(&feed, &mut informers.pods),
            follow_cache(&feed, &mut informers.replication_controllers),
            follow_cache(&feed, &mut informers.services),
            follow_cache(&feed, &mut informers.endpoints),
            follow_cache(&feed, &mut informers.endpoint_slices),
            follow_cache(&feed, &mut informers.nodes),
            follow_cache(&feed, &mut informers.namespaces),
            follow_cache(&feed, &mut informers.resource_quotas),
            follow_cache(&feed, &mut informers.persistent_volumes),
            follow_cache(&feed, &mut informers.persistent_volume_claims),
            follow_cache(&feed, &mut informers.certificate_signing_requests),
            follow_cache(&feed, &mut informers.cluster_roles),
        ];
        cached.extend(IGNORED);
        let watched: Vec<_> =
            kinds().filter(|kind| kind.info.is_stored() && !cached.contains(&kind.info.plural)).collect();
        feed.unlisted.send_replace(Some(watched.len()));
        for kind in watched {
            tasks.spawn(follow_metadata(feed.clone(), client.clone(), kind.info));
        }
    }

    fn tell(&self, kind: &'static KindInfo, change: ObjectChange<'_>) {
        for handler in &self.handlers {
            handler(kind, change);
        }
    }

    /// An object of that name has changed, or was replaced by another.
    fn tell_update(&self, kind: &'static KindInfo, old: &ObjectMeta, new: &ObjectMeta) {
        if old.uid != new.uid {
            self.tell(kind, ObjectChange::Gone(old));
        }
        self.tell(kind, ObjectChange::Present(new));
    }

    fn listed(&self) {
        self.unlisted.send_modify(|unlisted| {
            if let Some(n) = unlisted {
                *n = n.saturating_sub(1);
            }
        });
    }
}

/// Passes on what a shared cache sees; returns the kind's resource name.
fn follow_cache<K>(feed: &Arc<Objects>, informer: &mut Informer<K>) -> &'static str
where
    K: kube::Resource<DynamicType = ()>
        + k8s_openapi::Resource
        + serde::de::DeserializeOwned
        + Clone
        + std::fmt::Debug
        + Send
        + Sync
        + 'static,
{
    if let Some(kind) = api::kinds::by_resource(K::GROUP, K::VERSION, K::URL_PATH_SEGMENT) {
        let feed = feed.clone();
        informer.on_change(move |change| match change {
            Change::Added(object) => feed.tell(kind.info, ObjectChange::Present(object.meta())),
            Change::Updated { old, new } => feed.tell_update(kind.info, old.meta(), new.meta()),
            Change::Deleted(object) => feed.tell(kind.info, ObjectChange::Gone(object.meta())),
        });
    }
    K::URL_PATH_SEGMENT
}

/// The same for pods, of whose metadata not all is kept.
fn follow_pods(feed: &Arc<Objects>, informer: &mut Informer<Pod, PodInfo>) -> &'static str {
    let kind: &'static KindInfo = &<Pod as api::Resource>::INFO;
    let feed = feed.clone();
    informer.on_change(move |change| match change {
        Change::Added(pod) => feed.tell(kind, ObjectChange::Present(&pod.metadata())),
        Change::Updated { old, new } => feed.tell_update(kind, &old.metadata(), &new.metadata()),
        Change::Deleted(pod) => feed.tell(kind, ObjectChange::Gone(&pod.metadata())),
    });
    kind.plural
}

/// Follows the metadata of a kind without a cache, remembering only what a relist needs to notice deletions.
async fn follow_metadata(feed: Arc<Objects>, client: Client, kind: &'static KindInfo) {
    let resource = ApiResource {
        group: kind.group.to_owned(),
        version: kind.version.to_owned(),
        api_version: kind.api_version(),
        kind: kind.kind.to_owned(),
        plural: kind.plural.to_owned(),
    };
    let api = Api::<PartialObjectMeta<DynamicObject>>::all_with(client, &resource);
    let mut events = watcher(api, watcher::Config::default()).default_backoff().boxed();
    let mut known = Known::default();
    let mut first = true;
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => {
                let done = matches!(event, watcher::Event::InitDone);
                known.step(event, |change| feed.tell(kind, change));
                if done && std::mem::take(&mut first) {
                    feed.listed();
                }
            }
            Err(error) => tracing::debug!(resource = kind.plural, %error, "metadata watch interrupted"),
        }
    }
}

/// The objects of one kind by UID.
#[derive(Default)]
struct Known {
    objects: HashMap<String, ObjectMeta>,
    listing: HashMap<String, ObjectMeta>,
}

impl Known {
    fn step(&mut self, event: watcher::Event<PartialObjectMeta<DynamicObject>>, tell: impl Fn(ObjectChange<'_>)) {
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(object) => {
                self.listing.insert(object.metadata.uid.clone().unwrap_or_default(), lean(object.metadata));
            }
            watcher::Event::InitDone => {
                let before = std::mem::replace(&mut self.objects, std::mem::take(&mut self.listing));
                before.iter().filter(|(uid, _)| !self.objects.contains_key(*uid)).for_each(|(_, metadata)| {
                    tell(ObjectChange::Gone(metadata));
                });
                self.objects.values().for_each(|metadata| tell(ObjectChange::Present(metadata)));
            }
            watcher::Event::Apply(object) => {
                let metadata = lean(object.metadata);
                tell(ObjectChange::Present(&metadata));
                self.objects.insert(metadata.uid.clone().unwrap_or_default(), metadata);
            }
            watcher::Event::Delete(object) => {
                self.objects.remove(object.metadata.uid.as_deref().unwrap_or_default());
                tell(ObjectChange::Gone(&object.metadata));
            }
        }
    }
}

/// Metadata without what nobody here reads: annotations may be large.
fn lean(metadata: ObjectMeta) -> ObjectMeta {
    ObjectMeta { annotations: None, managed_fields: None, labels: None, ..metadata }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn object(uid: &str) -> PartialObjectMeta<DynamicObject> {
        let metadata = ObjectMeta { uid: Some(uid.to_owned()), ..ObjectMeta::default() };
        PartialObjectMeta { types: None, metadata, _phantom: std::marker::PhantomData }
    }

    #[test]
    fn a_relist_tells_of_what_is_gone() {
        let told = RefCell::new(Vec::new());
        let tell = |change: ObjectChange<'_>| match change {
            ObjectChange::Present(m) => told.borrow_mut().push(format!("+{}", m.uid.as_deref().unwrap())),
            ObjectChange::Gone(m) => told.borrow_mut().push(format!("-{}", m.uid.as_deref().unwrap())),
        };
        let mut known = Known::default();
        known.step(watcher::Event::Apply(object("a")), tell);
        known.step(watcher::Event::Init, tell);
        known.step(watcher::Event::InitApply(object("b")), tell);
        known.step(watcher::Event::InitDone, tell);
        known.step(watcher::Event::Delete(object("b")), tell);
        assert_eq!(told.into_inner(), ["+a", "-a", "+b", "-b"]);
    }
}
