//! What the holder of a join token may do: ask for a certificate, and see what becomes of the request.

use std::sync::Arc;

use api::Verb;
use serde_json::Value;

use crate::query::Query;
use crate::request::RequestInfo;
use crate::server::Shared;
use crate::status::ApiError;
use crate::user::User;

pub(super) async fn allows(
    shared: &Arc<Shared>,
    user: &User,
    info: &RequestInfo,
    query: &Query,
) -> Result<bool, ApiError> {
    if info.kind.info.plural != "certificatesigningrequests" || info.subresource.is_some() {
        return Ok(false);
    }
    match info.verb {
        Verb::Create => Ok(true),
        Verb::Get | Verb::List | Verb::Watch => owns_request(shared, user, info, query).await,
        _ => Ok(false),
    }
}

/// Whether the one request named by URL or field selector was made by `user`.
pub(super) async fn owns_request(
    shared: &Arc<Shared>,
    user: &User,
    info: &RequestInfo,
    query: &Query,
) -> Result<bool, ApiError> {
    let Some(name) = named(info, query) else { return Ok(false) };
    shared.cache.catch_up().await?;
    let key = info.kind.info.registry_key(None, &name);
    let Some(entry) = shared.cache.of(info.kind).get(&key) else { return Ok(false) };
    let object: Value = serde_json::from_slice(entry.json()).unwrap_or_default();
    Ok(object["spec"]["username"].as_str() == Some(&user.name))
}

/// The one object a request is about: by its URL, or by `fieldSelector=metadata.name=x`.
pub(super) fn named(info: &RequestInfo, query: &Query) -> Option<String> {
    if let Some(name) = &info.name {
        return Some(name.clone());
    }
    exact_field(query, "metadata.name")
}

/// The value `fieldSelector` demands of a field.
pub(super) fn exact_field(query: &Query, field: &str) -> Option<String> {
    let selector = api::selector::FieldSelector::parse(query.get("fieldSelector")?).ok()?;
    let requirement = selector.requirements().iter().find(|r| r.equal && r.field == field)?;
    Some(requirement.value.clone())
}
