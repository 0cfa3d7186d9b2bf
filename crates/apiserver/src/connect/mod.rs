//! What passes through the API server to where it is served: exec, attach and port-forward to the pod's kubelet, and
//! `/proxy` to kubelets, pods and services. The bytes of sessions are not looked at: a client and a kubelet that agree on a
//! protocol speak it through here, whichever it is.
//!
//! - [`find`]: the pod, the node, the container.
//! - [`pod`]: which path of a kubelet a request for a pod's streams becomes; [`target`]: where a proxy leads.
//! - [`proxy`]: an HTTP exchange passed on, and upgraded connections joined.
//! - [`rewrite`]: addresses in the answers of proxies; [`links`] which, [`html`] where in a page.
//! - [`http1`], [`insecure`]: connections to backends.
//!
//! Compare `pkg/registry/core/pod/rest/subresources.go` and `k8s.io/apimachinery/pkg/util/proxy`.

pub(crate) mod find;
mod html;
pub(crate) mod http1;
mod insecure;
mod links;
mod pod;
mod proxy;
mod rewrite;
mod target;

use std::sync::Arc;

use api::{Subresource, Verb};
use axum::body::Body;
use http::request::Parts;

use crate::authz::{self, Attributes};
use crate::query::Query;
use crate::request::RequestInfo;
use crate::respond::ApiResponse;
use crate::server::Shared;
use crate::status::ApiError;
use crate::user::User;

pub(crate) use proxy::{Session, Tunnels, note_forwarded};

/// Does what an authorised request asks for.
pub(crate) async fn run(
    shared: &Arc<Shared>,
    user: &User,
    info: RequestInfo,
    query: Query,
    parts: Parts,
    body: Body,
) -> Result<ApiResponse, ApiError> {
    if info.subresource == Some(Subresource::Proxy) {
        return target::run(shared, &info, parts, body).await;
    }
    if info.verb == Verb::Get {
        // Whoever opens a session changes something, also where a WebSocket makes a GET of it
        // (`AuthorizePodWebsocketUpgradeCreatePermission`, on since 1.35).
        let creates = RequestInfo { verb: Verb::Create, ..info.clone() };
        authz::authorize(shared, &Attributes::of_request(user, &creates, &query)).await?;
    }
    pod::run(shared, &info, &query, parts, body).await
}
