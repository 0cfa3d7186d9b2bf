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
        // Which object it is NodeRestriction sees, see `admission`; and says so.
        ("", "nodes", "create", "") | ("", "nodes", "update" | "patch", "" | "status") => true,
        ("coordination.k8s.io", "leases", "get" | "create" | "update" | "patch" | "delete", "") => {
            target.namespace == NAMESPACE_NODE_LEASE && (is_own || verb == "create")
        }
        ("" | "events.k8s.io", "events", "create" | "update" | "patch", "") => true,
        ("", "pods", "create" | "delete", "") | ("", "pods", "update" | "patch", "status") => true,
        ("", "pods", "create", "eviction") => true,
        ("", "pods", "get", "") => runs(shared, target, node).await?,
        ("", "pods", "list" | "watch", "") => target.exact_field("spec.nodeName") == Some(node),
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

/// Why a node may not do what it may not, in upstream's words.
pub(super) fn reason(node: &str, verb: &str, target: &Resource<'_>) -> String {
    let below = target.subresource;
    let reads = matches!(verb, "get" | "list" | "watch");
    let unrelated = || match &*target.name {
        "" => "No Object name found".to_owned(),
        _ => format!("no relationship found between node '{node}' and this object"),
    };
    let said = match (target.group, target.resource) {
        ("", "secrets" | "configmaps") if !reads => "can only read resources of this type",
        ("", "secrets" | "configmaps") if !below.is_empty() => "cannot read subresource",
        ("", "secrets" | "configmaps") if target.namespace.is_empty() => "can only read namespaced object of this type",
        ("", "secrets" | "configmaps") => return unrelated(),
        ("", "persistentvolumeclaims" | "persistentvolumes") if verb != "get" => {
            "can only get individual resources of this type"
        }
        ("", "persistentvolumeclaims" | "persistentvolumes") if !below.is_empty() => "cannot get subresource",
        ("", "persistentvolumeclaims" | "persistentvolumes") => return unrelated(),
        ("", "serviceaccounts") if verb != "create" || target.name.is_empty() => {
            "can only create tokens for individual service accounts"
        }
        ("", "serviceaccounts") if below != "token" => "can only create token subresource of serviceaccount",
        ("", "serviceaccounts") => return unrelated(),
        ("", "pods") if below.is_empty() && matches!(verb, "list" | "watch") && target.name.is_empty() => {
            "can only list/watch pods with spec.nodeName field selector"
        }
        ("", "pods") if below.is_empty() && reads => return unrelated(),
        ("coordination.k8s.io", "leases") => return lease_reason(verb, target),
        _ => "",
    };
    said.to_owned()
}

fn lease_reason(verb: &str, target: &Resource<'_>) -> String {
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return "can only get, create, update, patch, or delete a node lease".to_owned();
    }
    if target.namespace != NAMESPACE_NODE_LEASE {
        return format!("can only access leases in the {NAMESPACE_NODE_LEASE:?} system namespace");
    }
    "can only access node lease with the same name as the requesting node".to_owned()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_why() {
        let unrelated = "no relationship found between node 'n1' and this object";
        for (verb, group, resource, subresource, namespace, name, expected) in [
            ("get", "", "secrets", "", "a", "x", unrelated),
            ("list", "", "secrets", "", "a", "", "No Object name found"),
            ("list", "", "configmaps", "", "", "", "can only read namespaced object of this type"),
            ("delete", "", "secrets", "", "a", "x", "can only read resources of this type"),
            ("list", "", "persistentvolumes", "", "", "", "can only get individual resources of this type"),
            ("create", "", "serviceaccounts", "token", "a", "x", unrelated),
            ("create", "", "serviceaccounts", "", "a", "", "can only create tokens for individual service accounts"),
            ("get", "", "pods", "", "a", "x", unrelated),
            ("watch", "", "pods", "", "", "", "can only list/watch pods with spec.nodeName field selector"),
            (
                "get",
                "coordination.k8s.io",
                "leases",
                "",
                "a",
                "x",
                "can only access leases in the \"kube-node-lease\" system namespace",
            ),
            ("delete", "", "nodes", "", "", "n2", ""),
        ] {
            let target = Resource { group, resource, subresource, namespace, name: name.into(), ..Resource::default() };
            assert_eq!(reason("n1", verb, &target), expected, "{verb} {resource}");
        }
    }
}
