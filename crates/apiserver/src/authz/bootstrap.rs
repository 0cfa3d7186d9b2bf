//! What the holder of a join token may do: ask for a certificate, and see what becomes of the request.

use std::sync::Arc;

use serde_json::Value;

use super::Resource;
use crate::server::Shared;
use crate::status::ApiError;
use crate::user::User;

/// The group of certificate signing requests.
pub(super) const CERTIFICATES: &str = "certificates.k8s.io";

pub(super) async fn allows(
    shared: &Arc<Shared>,
    user: &User,
    verb: &str,
    target: &Resource<'_>,
) -> Result<bool, ApiError> {
    match (target.group, target.resource, target.subresource, verb) {
        (CERTIFICATES, "certificatesigningrequests", "", "create") => Ok(true),
        (CERTIFICATES, "certificatesigningrequests", "", "get" | "list" | "watch") => {
            owns_request(shared, user, target).await
        }
        _ => Ok(false),
    }
}

/// Whether the one request it is about was made by `user`.
pub(super) async fn owns_request(shared: &Arc<Shared>, user: &User, target: &Resource<'_>) -> Result<bool, ApiError> {
    let Some(kind) = api::kinds::by_resource(CERTIFICATES, "v1", "certificatesigningrequests") else {
        return Ok(false);
    };
    shared.cache.catch_up().await?;
    let key = kind.info.registry_key(None, &target.name);
    let Some(entry) = shared.cache.of(kind).get(&key) else { return Ok(false) };
    let object: Value = serde_json::from_slice(entry.json()).unwrap_or_default();
    Ok(object["spec"]["username"].as_str() == Some(&user.name))
}
