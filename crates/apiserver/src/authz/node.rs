//! What a node may do: read what it needs to run its pods, and write about itself and them.
//!
//! Compare upstream's Node authorizer (`plugin/pkg/auth/authorizer/node`) and NodeRestriction.

use std::sync::Arc;

use api::well_known::NAMESPACE_NODE_LEASE;

use super::bootstrap::{CERTIFICATES, owns_request};
use super::{Resource, references};
use crate::server::Shared;
use crate::status::ApiError;
use crate::user::User;

pub(super) async fn allows(
    shared: &Arc<Shared>,
    user: &User,
    node: &str,
    verb: &str,
    target: &Resource<'_>,
) -> Result<bool, ApiError> {
    let reads = matches!(verb, "get" | "list" | "watch");
    let is_own = target.name == node;
    let allowed = match (target.group, target.resource, verb, target.subresource) {
        ("", "nodes" | "services" | "endpoints", _, "") if reads => true,
        ("discovery.k8s.io", "endpointslices", _, "") if reads => true,
        // The name of a new object is in its body: NodeRestriction looks there, see `admission`.
        ("", "nodes", "create", "") => true,
        ("", "nodes", "update" | "patch", "" | "status") => is_own,
        ("coordination.k8s.io", "leases", "get" | "create" | "update" | "patch" | "delete", "") => {
            target.namespace == NAMESPACE_NODE_LEASE && (is_own || verb == "create")
        }
        ("" | "events.k8s.io", "events", "create" | "update" | "patch", "") => true,
        ("", "pods", "create", "") => true,
        ("", "pods", "get" | "delete", "") => runs(shared, target, node).await?,
        ("", "pods", "list" | "watch", "") => target.exact_field("spec.nodeName") == Some(node),
        ("", "pods", "update" | "patch", "status") => runs(shared, target, node).await?,
        ("", "secrets" | "configmaps", _, "") if reads => references::needs(shared, node, target),
        ("", "persistentvolumeclaims", "get", "") => references::claims(shared, node, target.namespace, &target.name),
        ("", "persistentvolumes", "get", "") => references::mounts(shared, node, &target.name).await?,
        ("", "serviceaccounts", "create", "token") => references::runs_as(shared, node, target).await?,
        ("", "namespaces", "get", "") => true,
        // To let the API server decide who may ask its own port what.
        ("authentication.k8s.io", "tokenreviews", "create", "") => true,
        ("authorization.k8s.io", "subjectaccessreviews" | "localsubjectaccessreviews", "create", "") => true,
        (CERTIFICATES, "certificatesigningrequests", "create", "") => true,
        (CERTIFICATES, "certificatesigningrequests", "get" | "list" | "watch", "") => {
            !target.name.is_empty() && owns_request(shared, user, target).await?
        }
        _ => false,
    };
    Ok(allowed)
}

/// Whether the pod it is about is bound to the node. A pod that is gone is for the verb to say so.
async fn runs(shared: &Shared, target: &Resource<'_>, node: &str) -> Result<bool, ApiError> {
    let Some(pods) = api::kinds::by_kind("v1", "Pod") else { return Ok(false) };
    let cache = shared.cache.of(pods);
    let key = pods.info.registry_key(Some(target.namespace), &target.name);
    if cache.get(&key).is_none() {
        // Perhaps it is only too new for the cache.
        shared.cache.catch_up().await?;
    }
    let known = cache.get(&key);
    Ok(known.is_none() || cache.with_indexed_value(node).iter().any(|e| *e.key == *key))
}
