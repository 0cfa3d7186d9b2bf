//! Follows the API and keeps the sink in step: observe → ruleset → apply. One apply at a time; what changes meanwhile is
//! in the next one, so a burst of changes costs two.

use std::sync::Arc;
use std::time::Duration;

use api::well_known::{LABEL_HEADLESS_SERVICE, LABEL_SERVICE_PROXY_NAME};
use client::{Change, Informer, Lister, Tasks};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::Notify;

use crate::{Config, RuleSink, SinkError, dns, routes, ruleset};

/// The first pause after a failed apply; it doubles.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest pause after a failed apply.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Starts the proxy: from now on until `tasks` stop, `sink` has what the services in the API need. Rules stay when it
/// stops, so that a restart interrupts nobody; [`crate::cleanup`] removes them.
pub fn start(client: kube::Client, config: Config, sink: Arc<dyn RuleSink>, tasks: &Tasks) {
    let changed = Arc::new(Notify::new());
    let mut services = informer(&client, &changed, is_ours);
    let mut slices = informer(&client, &changed, |slice: &EndpointSlice| is_ours(slice) && !is_headless(slice));
    let nodes = informer(&client, &changed, |_: &Node| true);
    let view = View { services: services.lister(), slices: slices.lister(), nodes: nodes.lister(), config };
    if let Some(config) = &view.config.dns {
        dns::start(config.clone(), dns::view::Caches::of(&mut services, &mut slices), tasks);
    }
    services.run(tasks);
    slices.run(tasks);
    nodes.run(tasks);
    tasks.spawn(run(view, sink, changed));
}

/// What the proxy sees of the cluster.
struct View {
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
    nodes: Lister<Node>,
    config: Config,
}

/// An informer of every object of a kind; a change of one that `matters` notifies `changed`. What makes no rules is kept
/// as well: it has names.
fn informer<K>(client: &kube::Client, changed: &Arc<Notify>, matters: fn(&K) -> bool) -> Informer<K>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let mut informer = Informer::new(Api::<K>::all(client.clone()), watcher::Config::default());
    let changed = changed.clone();
    informer.on_change(move |change| {
        let before = matches!(change, Change::Updated { old, .. } if matters(old));
        if before || matters(change.object()) {
            changed.notify_one();
        }
    });
    informer
}

/// Whether no other proxy serves it.
fn is_ours<K: kube::Resource>(object: &K) -> bool {
    !has_label(object, LABEL_SERVICE_PROXY_NAME)
}

/// Whether it belongs to a service without an address.
fn is_headless(slice: &EndpointSlice) -> bool {
    has_label(slice, LABEL_HEADLESS_SERVICE)
}

fn has_label<K: kube::Resource>(object: &K, label: &str) -> bool {
    object.meta().labels.as_ref().is_some_and(|labels| labels.contains_key(label))
}

async fn run(view: View, sink: Arc<dyn RuleSink>, changed: Arc<Notify>) {
    // Rules made of half the cluster would refuse connections that worked until now.
    tokio::join!(view.services.synced(), view.slices.synced(), view.nodes.synced());
    let mut backoff = BACKOFF_MIN;
    loop {
        let result = sync(&view, sink.as_ref()).await;
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
            () = changed.notified() => {}
            () = sink.disturbed() => tracing::info!("someone else changed the firewall: looking after our rules"),
            () = retry => {}
        }
        backoff = if result.is_ok() { BACKOFF_MIN } else { (backoff * 2).min(BACKOFF_MAX) };
    }
}

/// Observe, decide, apply.
async fn sync(view: &View, sink: &dyn RuleSink) -> Result<(), SinkError> {
    let (services, slices, nodes) = (view.services.list(), view.slices.list(), view.nodes.list());
    let ours = slices.iter().map(Arc::as_ref).filter(|slice| is_ours(*slice) && !is_headless(slice));
    let rules = ruleset(services.iter().map(Arc::as_ref), ours, &view.config);
    // A route that cannot be set keeps no service from being served.
    let routed = sink.apply_routes(&routes::routes(nodes.iter().map(Arc::as_ref), &view.config)).await;
    sink.apply(&rules).await?;
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
