//! What a node may do: read what it needs to run its pods, and write about itself and them.
//!
//! Compare upstream's Node authorizer (`plugin/pkg/auth/authorizer/node`) and NodeRestriction.

use std::sync::Arc;

use api::well_known::NAMESPACE_NODE_LEASE;
use api::{Subresource, Verb};

use super::bootstrap::{exact_field, named, owns_request};
use super::references;
use crate::query::Query;
use crate::request::RequestInfo;
use crate::server::Shared;
use crate::status::ApiError;
use crate::user::User;

pub(super) async fn allows(
    shared: &Arc<Shared>,
    user: &User,
    node: &str,
    info: &RequestInfo,
    query: &Query,
) -> Result<bool, ApiError> {
    use Verb::{Create, Delete, Get, List, Patch, Update, Watch};
    let reads = matches!(info.verb, Get | List | Watch);
    let is_own = info.name.as_deref() == Some(node);
    let kind = info.kind.info;
    let allowed = match (kind.group, kind.plural, info.verb, info.subresource) {
        ("", "nodes" | "services" | "endpoints", _, None) if reads => true,
        ("discovery.k8s.io", "endpointslices", _, None) if reads => true,
        // The name of a new object is in its body: NodeRestriction looks there, see `admission`.
        ("", "nodes", Create, None) => true,
        ("", "nodes", Update | Patch, None | Some(Subresource::Status)) => is_own,
        ("coordination.k8s.io", "leases", Get | Create | Update | Patch | Delete, None) => {
            info.namespace.as_deref() == Some(NAMESPACE_NODE_LEASE) && (is_own || info.verb == Create)
        }
        ("" | "events.k8s.io", "events", Create | Update | Patch, None) => true,
        ("", "pods", Create, None) => true,
        ("", "pods", Get | Delete, None) => runs(shared, info, node).await?,
        ("", "pods", List | Watch, None) => exact_field(query, "spec.nodeName").as_deref() == Some(node),
        ("", "pods", Update | Patch, Some(Subresource::Status)) => runs(shared, info, node).await?,
        ("", "secrets" | "configmaps", _, None) if reads => references::needs(shared, node, info, query),
        ("", "serviceaccounts", Create, Some(Subresource::Token)) => references::runs_as(shared, node, info).await?,
        ("", "namespaces", Get, None) => true,
        ("certificates.k8s.io", "certificatesigningrequests", Create, None) => true,
        ("certificates.k8s.io", "certificatesigningrequests", Get | List | Watch, None) => {
            named(info, query).is_some() && owns_request(shared, user, info, query).await?
        }
        _ => false,
    };
    Ok(allowed)
}

/// Whether the pod of the request is bound to the node. A pod that is gone is for the verb to say so.
async fn runs(shared: &Shared, info: &RequestInfo, node: &str) -> Result<bool, ApiError> {
    let cache = shared.cache.of(info.kind);
    let key = info.key();
    if cache.get(&key).is_none() {
        // Perhaps it is only too new for the cache.
        shared.cache.catch_up().await?;
    }
    let known = cache.get(&key);
    Ok(known.is_none() || cache.with_indexed_value(node).iter().any(|e| *e.key == *key))
}
