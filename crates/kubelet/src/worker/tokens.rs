//! The tokens a pod's volumes show: got before the first container, renewed at their deadline.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::Worker;
use crate::clock::after;
use crate::tokens::{self, Tokens};

/// What the worker has.
#[derive(Default)]
pub(super) struct Held {
    tokens: Tokens,
    /// When the first of them is to be renewed, or tried again.
    pub(super) next: Option<Timestamp>,
}

impl Held {
    /// Whether one is to be renewed.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        self.next.is_some_and(|next| next <= now)
    }
}

impl Worker {
    /// Every token the pod's volumes project, new ones where they are missing or due. One that cannot be renewed is kept
    /// while it counts, and tried again after a back-off.
    pub(super) async fn tokens(&mut self, pod: &Pod) -> Result<Tokens, String> {
        let wanted = pod.spec.as_ref().map(tokens::wanted).unwrap_or_default();
        if wanted.is_empty() || !self.kubelet.runtime.uses_files() {
            return Ok(Tokens::new());
        }
        let mut problem = None;
        for wanted in &wanted {
            let now = self.kubelet.config.clock.now();
            let known = self.tokens.tokens.get(wanted);
            if known.is_some_and(|token| token.refresh_at > now) {
                continue;
            }
            let is_usable = known.is_some_and(|token| token.expires_at > now);
            match tokens::fetch(&self.kubelet.client, pod, wanted, now).await {
                Ok(token) => drop(self.tokens.tokens.insert(wanted.clone(), token.into())),
                Err(error) => {
                    tracing::warn!(pod = crate::pod::full_name(pod), usable = is_usable, %error, "cannot get a token");
                    problem = Some((is_usable, error));
                }
            }
        }
        let retry_at = problem.is_some().then(|| after(self.kubelet.config.clock.now(), self.failed("tokens")));
        let due = self.tokens.tokens.values().map(|token| token.refresh_at).min();
        self.tokens.next = retry_at.or(due);
        match problem {
            Some((false, error)) => Err(format!("failed to fetch token: {error}")),
            Some((true, _)) => Ok(self.tokens.tokens.clone()),
            None => {
                self.failures.remove("tokens");
                Ok(self.tokens.tokens.clone())
            }
        }
    }
}
