//! Follows the API and keeps the sink in step: observe → ruleset → apply. One apply at a time; what changes meanwhile is
//! in the next one, so a burst of changes costs two.

use std::sync::Arc;
use std::time::Duration;

use client::{Informer, Lister, Tasks};
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::runtime::watcher;
use tokio::sync::Notify;

use crate::services::LABEL_SERVICE_PROXY_NAME;
use crate::{Config, RuleSink, SinkError, routes, ruleset};

/// The first pause after a failed apply; it doubles.
const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest pause after a failed apply.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// Starts the proxy: from now on until `tasks` stop, `sink` has what the services in the API need. Rules stay when it
/// stops, so that a restart interrupts nobody; [`crate::cleanup`] removes them.
pub fn start(client: kube::Client, config: Config, sink: Arc<dyn RuleSink>, tasks: &Tasks) {
    let changed = Arc::new(Notify::new());
    let not_ours = format!("!{LABEL_SERVICE_PROXY_NAME}");
    let with_address = format!("{not_ours},!{}", api::well_known::LABEL_HEADLESS_SERVICE);
    let view = View {
        services: follow(&client, &not_ours, &changed, tasks),
        slices: follow(&client, &with_address, &changed, tasks),
        nodes: follow(&client, "", &changed, tasks),
        config,
    };
    tasks.spawn(run(view, sink, changed));
}

/// What the proxy sees of the cluster.
struct View {
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
    nodes: Lister<Node>,
    config: Config,
}

/// Watches every object of a kind that `labels` select; each change notifies `changed`.
fn follow<K>(client: &kube::Client, labels: &str, changed: &Arc<Notify>, tasks: &Tasks) -> Lister<K>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let mut config = watcher::Config::default();
    if !labels.is_empty() {
        config = config.labels(labels);
    }
    let mut informer = Informer::new(Api::<K>::all(client.clone()), config);
    let changed = changed.clone();
    informer.on_change(move |_| changed.notify_one());
    let lister = informer.lister();
    informer.run(tasks);
    lister
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
    let rules = ruleset(services.iter().map(Arc::as_ref), slices.iter().map(Arc::as_ref), &view.config);
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
