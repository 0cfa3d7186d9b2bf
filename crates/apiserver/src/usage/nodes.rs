//! Asking nodes what they use. A rate needs two answers: the one before is kept while it is worth anything, else the
//! node is asked twice, a moment apart.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use k8s_openapi::api::core::v1::Node;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::scrape::{Pair, Scrape};
use crate::subresources::kubelet::KubeletClient;

/// A rate over less than this is noise.
const WINDOW_MIN: Duration = Duration::from_secs(1);
/// A rate over more than this says nothing about now.
const WINDOW_MAX: Duration = Duration::from_secs(60);
/// How long a node may take to say everything.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How much a node may say.
const MAX_ANSWER_BYTES: usize = 16 << 20;

/// What each node said last.
#[derive(Default)]
pub(crate) struct Usages(Mutex<HashMap<String, Arc<Asked>>>);

/// Of one node; those who ask together wait for one answer.
#[derive(Default)]
struct Asked(tokio::sync::Mutex<Option<(Instant, Arc<Pair>)>>);

impl Usages {
    /// Forgets the nodes that are no more.
    pub(super) fn retain<'a>(&self, present: impl Iterator<Item = &'a str>) {
        let present: BTreeSet<&str> = present.collect();
        self.0.lock().retain(|name, _| present.contains(name.as_str()));
    }

    /// Two answers of the node, the second just now or a moment ago.
    pub(super) async fn pair(&self, kubelets: &KubeletClient, node: &Node) -> Result<Arc<Pair>, String> {
        let name = node.metadata.name.clone().unwrap_or_default();
        let asked = self.0.lock().entry(name).or_default().clone();
        let mut last = asked.0.lock().await;
        let before = match &*last {
            Some((at, pair)) if at.elapsed() < WINDOW_MIN => return Ok(pair.clone()),
            Some((at, pair)) if at.elapsed() < WINDOW_MAX => pair.now.clone(),
            _ => {
                let first = ask(kubelets, node).await?;
                tokio::time::sleep(WINDOW_MIN).await;
                first
            }
        };
        let pair = Arc::new(Pair { before, now: ask(kubelets, node).await? });
        *last = Some((Instant::now(), pair.clone()));
        Ok(pair)
    }
}

async fn ask(kubelets: &KubeletClient, node: &Node) -> Result<Arc<Scrape>, String> {
    let answer = async {
        let answer = kubelets.get(node, "/metrics/resource").await.map_err(|error| error.to_string())?;
        if answer.status() != StatusCode::OK {
            return Err(format!("the kubelet answered {}", answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| error.to_string())
    };
    let body =
        tokio::time::timeout(ANSWER_MAX, answer).await.map_err(|_| "the kubelet does not answer".to_owned())??;
    Ok(Arc::new(Scrape::parse(&String::from_utf8_lossy(&body))))
}
