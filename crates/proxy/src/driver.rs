//! Follows the API and keeps the sink in step: observe → ruleset → apply, and beside it observe → paths → apply. One apply
//! of each at a time; what changes meanwhile is in the next one, so a burst of changes costs two. Only the services that
//! changed are decided anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::well_known::{LABEL_HEADLESS_SERVICE, LABEL_SERVICE_PROXY_NAME};
use client::{Change, Informer, Lister, Tasks};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::dns::view::{BY_SERVICE, Caches, index_by_service};
use crate::endpoints::owner;
use crate::ruleset::{RuleSet, ServiceKey, part};
use crate::{Config, RuleSink, SinkError, dns, routes};

/// The first pause after a failed apply; it doubles.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest pause after a failed apply.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The label that says in which zone a node is.
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

/// Starts the proxy: from now on until `tasks` stop, `sink` has what the services in the API need. Rules stay when it
/// stops, so that a restart interrupts nobody; [`crate::cleanup`] removes them.
pub fn start(client: kube::Client, config: Config, sink: Arc<dyn RuleSink>, tasks: &Tasks) {
    let changes = Arc::new(Changes::default());
    let mut services = informer(&client, &changes, |service: &Service, dirty| {
        dirty.services.extend(service.namespace().map(|namespace| (namespace, service.name_any())));
    });
    let mut slices = informer(&client, &changes, |slice: &EndpointSlice, dirty| {
        let owner = owner(slice).filter(|_| is_ours(slice) && !has_label(slice, LABEL_HEADLESS_SERVICE));
        dirty.services.extend(owner.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())));
    });
    let mut nodes = informer(&client, &changes, |_: &Node, dirty| dirty.nodes = true);
    match &config.dns {
        Some(config) => dns::start(config.clone(), Caches::of(&mut services, &mut slices), tasks),
        None => index_by_service(&mut slices),
    }
    let moved = Arc::new(Notify::new());
    let notify = moved.clone();
    nodes.on_change(move |_| notify.notify_one());
    let view = View { services: services.lister(), slices: slices.lister(), nodes: nodes.lister() };
    services.run(tasks);
    slices.run(tasks);
    nodes.run(tasks);
    tasks.spawn(keep_paths(view.nodes.clone(), config.clone(), sink.clone(), moved));
    tasks.spawn(run(view, config, sink, changes));
}

/// What the proxy sees of the cluster's services.
struct View {
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
    nodes: Lister<Node>,
}

/// What changed since it was last asked.
#[derive(Default)]
struct Changes {
    dirty: Mutex<Dirty>,
    raised: Notify,
}

#[derive(Default)]
struct Dirty {
    services: BTreeSet<ServiceKey>,
    nodes: bool,
}

impl Dirty {
    fn any(&self) -> bool {
        self.nodes || !self.services.is_empty()
    }
}

/// An informer of every object of a kind, whose changes are noted. What makes no rules is kept as well: it has names.
fn informer<K>(client: &kube::Client, changes: &Arc<Changes>, note: fn(&K, &mut Dirty)) -> Informer<K>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let mut informer = Informer::new(Api::<K>::all(client.clone()), watcher::Config::default());
    let changes = changes.clone();
    informer.on_change(move |change| {
        let mut dirty = changes.dirty.lock();
        if let Change::Updated { old, .. } = change {
            note(old, &mut dirty);
        }
        note(change.object(), &mut dirty);
        if dirty.any() {
            changes.raised.notify_one();
        }
    });
    informer
}

/// Whether no other proxy serves it.
fn is_ours<K: kube::Resource>(object: &K) -> bool {
    !has_label(object, LABEL_SERVICE_PROXY_NAME)
}

fn has_label<K: kube::Resource>(object: &K, label: &str) -> bool {
    object.meta().labels.as_ref().is_some_and(|labels| labels.contains_key(label))
}

async fn run(view: View, config: Config, sink: Arc<dyn RuleSink>, changes: Arc<Changes>) {
    // Rules made of half the cluster would refuse connections that worked until now.
    tokio::join!(view.services.synced(), view.slices.synced(), view.nodes.synced());
    let mut rules = RuleSet::empty(&config);
    let mut backoff = BACKOFF_MIN;
    loop {
        let dirty = std::mem::take(&mut *changes.dirty.lock());
        view.decide(&mut rules, dirty);
        let applied = sink.apply(&rules).await;
        tokio::select! {
            () = changes.raised.notified() => {}
            () = sink.disturbed() => tracing::info!("someone else changed the firewall: looking after our rules"),
            () = retry(&applied, "cannot apply the services' rules", backoff) => {}
        }
        backoff = if applied.is_ok() { BACKOFF_MIN } else { (backoff * 2).min(BACKOFF_MAX) };
    }
}

impl View {
    /// Decides anew what changed.
    fn decide(&self, rules: &mut RuleSet, mut dirty: Dirty) {
        if dirty.nodes {
            let node = self.nodes.get(None, &rules.config.node_name);
            let zone = node.and_then(|node| node.labels().get(LABEL_ZONE).cloned());
            if zone != rules.config.zone {
                // Which endpoints are near is another question now, for every service.
                rules.config.zone = zone;
                let all = self.services.list();
                dirty.services.extend(all.iter().filter_map(|s| Some((s.namespace()?, s.name_any()))));
            }
        }
        for key in dirty.services {
            let new = self.services.get(Some(&key.0), &key.1).and_then(|service| {
                let slices = self.slices.by_index(BY_SERVICE, &format!("{}/{}", key.0, key.1));
                part(&service, slices.iter().map(Arc::as_ref).filter(|slice| is_ours(*slice)), &rules.config)
            });
            match new {
                None => drop(rules.services.remove(&key)),
                // What is equal stays the same, and costs nothing further on.
                Some(new) if rules.services.get(&key).is_some_and(|old| **old == new) => {}
                Some(new) => drop(rules.services.insert(key, Arc::new(new))),
            }
        }
    }
}

/// The same for the ways to other nodes' pods.
async fn keep_paths(nodes: Lister<Node>, config: Config, sink: Arc<dyn RuleSink>, changed: Arc<Notify>) {
    nodes.synced().await;
    let mut backoff = BACKOFF_MIN;
    loop {
        let paths = routes::paths(nodes.list().iter().map(Arc::as_ref), &config);
        let applied = sink.apply_paths(&paths).await;
        tokio::select! {
            () = changed.notified() => {}
            () = sink.paths_disturbed() => tracing::debug!("routes or links changed: looking after our paths"),
            () = retry(&applied, "cannot lay every path to other nodes' pods", backoff) => {}
        }
        backoff = if applied.is_ok() { BACKOFF_MIN } else { (backoff * 2).min(BACKOFF_MAX) };
    }
}

/// Resolves when what failed is due again; never after success.
async fn retry(applied: &Result<(), SinkError>, failed: &str, backoff: Duration) {
    let Err(error) = applied else { return std::future::pending().await };
    tracing::warn!(error = %chain(error), retry_after = ?backoff, "{failed}");
    tokio::time::sleep(backoff).await;
}

/// The error with its causes.
fn chain(error: &SinkError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}
