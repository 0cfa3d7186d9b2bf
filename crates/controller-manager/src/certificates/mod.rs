//! Certificates of nodes: approves the requests that nodes may make for themselves, and signs what is approved.
//!
//! ```text
//!  request ─▶ is it what the signer signs? ─▶ may this user have it? ─▶ approve ─▶ sign ─▶ an hour later: delete
//!                    └ no: leave it to a human    └ no: leave it to a human
//! ```
//!
//! Behaviour follows `pkg/controller/certificates/{approver,signer,cleaner}`: whether a user may have a node's client
//! certificate is a right that the API server is asked about. Upstream leaves serving certificates to a human, here a
//! node gets one for exactly its own names and addresses.
//! - [`request`]: what a request asks for. [`policy`]: what may be signed, and for whom. [`ask`]: whether a user has a
//!   right to it. [`sign`]: signing.
//! - [`plan`]: the next step for a request.

mod ask;
mod plan;
mod policy;
mod request;
mod sign;
#[cfg(test)]
mod testing;

use std::sync::Arc;
use std::time::Duration;

use api::well_known::USER_NODE_PREFIX;
use client::{Change, Lister, Outcome, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestCondition, CertificateSigningRequestStatus,
};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Error;

use crate::Config;
use crate::context::{BACKOFF_MAX, Context, outcome};
use crate::informers::BY_USER;
use crate::rest::{self, Rest};
use plan::{Action, plan};
use policy::Verdict;

const NAME: &str = "certificate-controller";
const WORKERS: usize = 2;
/// First back-off of a request: each look at one without right to its certificate is a question to the API server.
const BACKOFF_MIN: Duration = Duration::from_millis(200);

struct Controller {
    requests: Lister<CertificateSigningRequest>,
    nodes: Lister<Node>,
    config: Arc<Config>,
    queue: WorkQueue<String>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller {
        requests: caches.certificate_signing_requests.clone(),
        nodes: caches.nodes.clone(),
        config: context.config.clone(),
        queue: WorkQueue::new(BACKOFF_MIN, BACKOFF_MAX),
        rest: context.rest.clone(),
    });
    let queue = controller.queue.clone();
    context.informers.certificate_signing_requests.on_change(move |change| {
        if let Change::Added(request) | Change::Updated { new: request, .. } = change {
            queue.add(request.metadata.name.clone().unwrap_or_default());
        }
    });
    let c = controller.clone();
    context.informers.nodes.on_change(move |change| c.node_changed(change.object()));
    let synced = async move {
        caches.certificate_signing_requests.synced().await;
        caches.nodes.synced().await;
    };
    let queue = controller.queue.clone();
    context.run_workers(synced, &queue, WORKERS, move |name: String| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&name).await;
            outcome(NAME, &name, result)
        }
    });
}

impl Controller {
    /// A node may now have the address that it wants certified.
    fn node_changed(&self, node: &Node) {
        let user = format!("{USER_NODE_PREFIX}{}", node.metadata.name.as_deref().unwrap_or_default());
        let undecided = self.requests.by_index(BY_USER, &user).into_iter().filter(|csr| plan::is_undecided(csr));
        undecided.filter_map(|csr| csr.metadata.name.clone()).for_each(|name| self.queue.add(name));
    }

    async fn sync(&self, name: &str) -> Result<Outcome, Error> {
        let Some(csr) = self.requests.get(None, name) else { return Ok(Outcome::Done) };
        let user = csr.spec.username.as_deref().unwrap_or_default();
        let node = user.strip_prefix(USER_NODE_PREFIX).and_then(|node| self.nodes.get(None, node));
        let verdict = match policy::judge(&csr, node.as_deref()) {
            Verdict::Recognized(rights) if plan::is_undecided(&csr) => ask::verdict(&self.rest, &csr, rights).await?,
            verdict => verdict,
        };
        let is_refused = matches!(verdict, Verdict::Refused(_));
        let planned = plan(&csr, verdict, Timestamp::now());
        if let Some(action) = planned.action {
            self.execute(&csr, action).await?;
        }
        // No change of the request would tell that its user has been given the right.
        let next = planned.next.map_or(Outcome::Done, Outcome::After);
        Ok(if is_refused && next != Outcome::Done { Outcome::Retry } else { next })
    }

    async fn execute(&self, csr: &CertificateSigningRequest, action: Action) -> Result<(), Error> {
        let name = csr.metadata.name.as_deref().unwrap_or_default();
        let path = rest::path::<CertificateSigningRequest>(None);
        let written = match action {
            Action::Leave { reason } => {
                tracing::info!(object = name, signer = csr.spec.signer_name, reason, "request is left to a human");
                return Ok(());
            }
            Action::Delete { reason } => {
                tracing::info!(object = name, reason, "deleting request");
                let uid = csr.metadata.uid.as_deref().unwrap_or_default();
                return self.rest.delete(&path, name, &rest::only_uid(uid)).await;
            }
            Action::Approve { message } => {
                tracing::info!(object = name, user = csr.spec.username, reason = message, "approving request");
                let approved = with_condition(csr, "Approved", "AutoApproved", message);
                self.rest.replace(&path, name, Some("approval"), rest::encode(&approved)).await
            }
            Action::Sign => {
                let signed = match sign::sign(csr, &self.config).await {
                    Ok(pem) => with_certificate(csr, pem),
                    Err(error) if error.is_ours() => {
                        // The CA's files are missing or broken: an operator's matter, not the request's.
                        tracing::error!(object = name, error = &error as &dyn std::error::Error, "cannot sign");
                        return Err(Error::Service(Box::new(error)));
                    }
                    Err(error) => with_condition(csr, "Failed", "SigningError", error.to_string()),
                };
                tracing::info!(object = name, signer = csr.spec.signer_name, "signing request");
                self.rest.replace(&path, name, Some("status"), rest::encode(&signed)).await
            }
            Action::Fail { message } => {
                tracing::warn!(object = name, reason = message, "approved request cannot be signed");
                let failed = with_condition(csr, "Failed", "SignerValidationFailure", message);
                self.rest.replace(&path, name, Some("status"), rest::encode(&failed)).await
            }
        };
        rest::ignore_not_found(written.map(|_| ()))
    }
}

fn with_condition(
    csr: &CertificateSigningRequest,
    type_: &str,
    reason: &str,
    message: String,
) -> CertificateSigningRequest {
    let mut csr = csr.clone();
    let now = Time(Timestamp::now());
    let conditions = csr.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.push(CertificateSigningRequestCondition {
        type_: type_.to_owned(),
        status: "True".to_owned(),
        reason: Some(reason.to_owned()),
        message: Some(message),
        last_update_time: Some(now.clone()),
        last_transition_time: Some(now),
    });
    csr
}

fn with_certificate(csr: &CertificateSigningRequest, pem: String) -> CertificateSigningRequest {
    let conditions = csr.status.as_ref().and_then(|status| status.conditions.clone());
    let status = CertificateSigningRequestStatus { certificate: Some(ByteString(pem.into_bytes())), conditions };
    CertificateSigningRequest { status: Some(status), ..csr.clone() }
}
