//! Loads: many requests from a number of connections, and what they took.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use http::Method;
use tokio::task::JoinSet;

use crate::http::{Connection, Target};
use crate::report::Samples;
use crate::stream::Accepts;

/// How many requests may be needed to delete the pods of a namespace.
const DELETES_MAX: usize = 20;

/// What a load took.
pub(crate) struct Outcome {
    /// Requests answered.
    pub(crate) requests: usize,
    /// From the first to the last.
    pub(crate) elapsed: Duration,
    /// Of single requests.
    pub(crate) latencies: Samples,
}

impl Outcome {
    /// Requests a second.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.elapsed.as_secs_f64()
    }
}

/// Runs `requests` requests from `clients` connections; `request` gets the connection and the request's number.
pub(crate) async fn run<F>(target: &Target, clients: usize, requests: usize, request: F) -> Result<Outcome>
where
    F: for<'a> Fn(&'a mut Connection, usize) -> futures::future::BoxFuture<'a, Result<()>>
        + Clone
        + Send
        + Sync
        + 'static,
{
    let mut connections = Vec::new();
    for _ in 0..clients {
        connections.push(target.connect().await?);
    }
    let next = Arc::new(AtomicUsize::new(0));
    let begun = Instant::now();
    let mut workers = JoinSet::new();
    for mut connection in connections {
        let (next, request) = (next.clone(), request.clone());
        workers.spawn(async move {
            let mut latencies = Vec::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= requests {
                    return anyhow::Ok(latencies);
                }
                let sent = Instant::now();
                request(&mut connection, number).await?;
                latencies.push(sent.elapsed());
            }
        });
    }
    let mut latencies = Vec::new();
    while let Some(worker) = workers.join_next().await {
        latencies.extend(worker??);
    }
    Ok(Outcome { requests, elapsed: begun.elapsed(), latencies: Samples::new(latencies) })
}

/// A pod of about 2 kB once defaults are applied, bound to no node and to no scheduler that would touch it.
pub(crate) fn pod(name: &str, scheduler: &str) -> Bytes {
    let pod = serde_json::json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "bench", "tier": "load" }, "annotations": { "note": "x".repeat(256) } },
        "spec": {
            "schedulerName": scheduler,
            "containers": [{
                "name": "web", "image": "coracle/demo-web:1", "command": ["sh", "-c", "sleep 1000000"],
                "env": [{ "name": "A", "value": "1" }, { "name": "B", "value": "2" }],
                "ports": [{ "containerPort": 80, "name": "http" }],
                "resources": { "requests": { "cpu": "1m", "memory": "1Mi" } }
            }]
        }
    });
    Bytes::from(pod.to_string())
}

/// Makes the account pods run as, where no controller did so before.
pub(crate) async fn ensure_account(target: &Target) -> Result<()> {
    let mut connection = target.connect().await?;
    let account = Bytes::from_static(br#"{"metadata": {"name": "default"}}"#);
    match connection.call(Method::POST, "/api/v1/namespaces/default/serviceaccounts", account).await {
        Err(error) if !error.to_string().starts_with("409") => Err(error),
        _ => Ok(()),
    }
}

/// Creates pods `prefix-0` to `prefix-(count-1)` in namespace `default`.
pub(crate) async fn create_pods(
    target: &Target,
    clients: usize,
    count: usize,
    prefix: &'static str,
) -> Result<Outcome> {
    run(target, clients, count, move |connection, number| {
        let body = pod(&format!("{prefix}-{number}"), "nobody");
        Box::pin(async move {
            connection.call(Method::POST, "/api/v1/namespaces/default/pods", body).await?;
            Ok(())
        })
    })
    .await
}

/// Deletes every pod of namespace `default` and waits until none is left.
pub(crate) async fn delete_pods(target: &Target) -> Result<()> {
    let mut connection = target.connect().await?;
    let path = "/api/v1/namespaces/default/pods?gracePeriodSeconds=0";
    // kube-apiserver gives a request half a minute, and goes on with the next one where it was.
    for _ in 0..DELETES_MAX {
        match connection.call(Method::DELETE, path, Bytes::new()).await {
            Err(error) if error.to_string().starts_with("504") => {}
            outcome => return outcome.map(drop),
        }
    }
    bail!("the pods of a namespace are still not deleted after {DELETES_MAX} requests");
}

/// Watches pods of namespace `default` with `watchers` streams and shows what arrives, and when.
pub(crate) async fn watchers<F>(
    target: &Target,
    watchers: usize,
    accepts: Accepts,
    on_data: F,
) -> Result<JoinSet<Result<()>>>
where
    F: Fn(Instant, &[u8]) + Clone + Send + Sync + 'static,
{
    let mut connection = target.connect().await?;
    let list = connection.call(Method::GET, "/api/v1/namespaces/default/pods?limit=1", Bytes::new()).await?;
    let list: serde_json::Value = serde_json::from_slice(&list)?;
    let version = list["metadata"]["resourceVersion"].as_str().context("a list has a resourceVersion")?.to_owned();
    let path = format!("/api/v1/namespaces/default/pods?watch=1&resourceVersion={version}");
    let mut streams = JoinSet::new();
    for _ in 0..watchers {
        let (mut stream, on_data) = (target.watch(&path, accepts).await?, on_data.clone());
        streams.spawn(async move {
            while stream.read(|data| on_data(Instant::now(), data)).await? {}
            Ok(())
        });
    }
    Ok(streams)
}
