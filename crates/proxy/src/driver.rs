//! Follows the API and keeps the sink in step: observe → ruleset → apply. One apply at a time; what changes meanwhile is
//! in the next one, so a burst of changes costs two. Only the services that changed are decided anew.

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
    let nodes = informer(&client, &changes, |_: &Node, dirty| dirty.nodes = true);
    match &config.dns {
        Some(config) => dns::start(config.clone(), Caches::of(&mut services, &mut slices), tasks),
        None => index_by_service(&mut slices),
    }
    let view = View { services: services.lister(), slices: slices.lister(), nodes: nodes.lister() };
    services.run(tasks);
    slices.run(tasks);
    nodes.run(tasks);
    tasks.spawn(run(view, config, sink, changes));
}

/// What the proxy sees of the cluster.
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

/// What was decided last.
struct State {
    rules: RuleSet,
    /// The routes are due: nodes changed, or someone may have changed the routes.
    routes: bool,
}

async fn run(view: View, config: Config, sink: Arc<dyn RuleSink>, changes: Arc<Changes>) {
    // Rules made of half the cluster would refuse connections that worked until now.
    tokio::join!(view.services.synced(), view.slices.synced(), view.nodes.synced());
    let mut state = State { rules: RuleSet::empty(&config), routes: true };
    let mut backoff = BACKOFF_MIN;
    loop {
        let dirty = std::mem::take(&mut *changes.dirty.lock());
        view.decide(&mut state, dirty);
        let result = sync(&view, &mut state, sink.as_ref()).await;
        let retry = async {
            match &result {
                Ok(()) => std::future::pending().await,
                Err(_) => tokio::time::sleep(backoff).await,
            }
        };
        if let Err(error) = &result {
            tracing::warn!(error = %chain(error), retry_after = ?backoff, "cannot apply the services' rules");
        }
        tokio::select! {
            () = changes.raised.notified() => {}
            () = sink.disturbed() => {
                tracing::info!("someone else changed the firewall: looking after our rules");
                state.routes = true;
            }
            () = retry => {}
        }
        backoff = if result.is_ok() { BACKOFF_MIN } else { (backoff * 2).min(BACKOFF_MAX) };
    }
}

impl View {
    /// Decides anew what changed.
    fn decide(&self, state: &mut State, mut dirty: Dirty) {
        if dirty.nodes {
            state.routes = true;
            let node = self.nodes.get(None, &state.rules.config.node_name);
            let zone = node.and_then(|node| node.labels().get(LABEL_ZONE).cloned());
            if zone != state.rules.config.zone {
                // Which endpoints are near is another question now, for every service.
                state.rules.config.zone = zone;
                let all = self.services.list();
                dirty.services.extend(all.iter().filter_map(|s| Some((s.namespace()?, s.name_any()))));
            }
        }
        for key in dirty.services {
            let new = self.services.get(Some(&key.0), &key.1).and_then(|service| {
                let slices = self.slices.by_index(BY_SERVICE, &format!("{}/{}", key.0, key.1));
                part(&service, slices.iter().map(Arc::as_ref).filter(|slice| is_ours(*slice)), &state.rules.config)
            });
            match new {
                None => drop(state.rules.services.remove(&key)),
                // What is equal stays the same, and costs nothing further on.
                Some(new) if state.rules.services.get(&key).is_some_and(|old| **old == new) => {}
                Some(new) => drop(state.rules.services.insert(key, Arc::new(new))),
            }
        }
    }
}

/// Applies what was decided.
async fn sync(view: &View, state: &mut State, sink: &dyn RuleSink) -> Result<(), SinkError> {
    // A route that cannot be set keeps no service from being served.
    let mut routed = Ok(());
    if state.routes {
        let nodes = view.nodes.list();
        routed = sink.apply_routes(&routes::routes(nodes.iter().map(Arc::as_ref), &state.rules.config)).await;
        state.routes = routed.is_err();
    }
    sink.apply(&state.rules).await?;
    routed
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
