//! From a request to its handler, after authentication and authorisation.

use std::sync::Arc;

use axum::body::Body;
use http::Request;
use http::header::ACCEPT_ENCODING;

use crate::authn::Caller;
use crate::authz::Attributes;
use crate::call::Call;
use crate::metrics::Observed;
use crate::negotiate;
use crate::query::Query;
use crate::respond::ApiResponse;
use crate::server::Shared;
use crate::status::ApiError;
use crate::user::User;
use crate::{authz, compress, connect, discovery, health, openapi, openid, options, request, verbs};

pub(crate) async fn route(
    shared: &Arc<Shared>,
    caller: &Caller,
    request: Request<Body>,
    observed: &mut Observed,
) -> Result<ApiResponse, ApiError> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path();
    let query = Query::parse(parts.uri.query());
    let user = shared.authenticator.authenticate(caller, &parts.headers).await?;
    let user: Arc<User> = user.unwrap_or_else(|| Arc::new(User::anonymous()));
    if !request::is_resource(path) {
        return not_a_resource(shared, &user, &parts, &query).await;
    }
    let info = request::parse(&parts.method, path, &query)?;
    observed.resource(&info);
    authz::authorize(shared, &Attributes::of_request(&user, &info, &query)).await?;
    if info.connects() {
        return connect::run(shared, &user, info, query, parts, body).await;
    }
    let output = negotiate::accept(&parts.headers)?;
    options::check(info.verb, &query, &negotiate::content_type(&parts.headers))?;
    let _permit = shared.in_flight.enter(&user, &info)?;
    let encodings = parts.headers.get_all(ACCEPT_ENCODING).iter().cloned().collect::<Vec<_>>();
    let call = Call { shared: shared.clone(), user, info, query, headers: parts.headers, output };
    Ok(compress::respond(&encodings, verbs::run(call, body).await?))
}

/// Paths that are about the API rather than in it.
async fn not_a_resource(
    shared: &Arc<Shared>,
    user: &User,
    parts: &http::request::Parts,
    query: &Query,
) -> Result<ApiResponse, ApiError> {
    let path = parts.uri.path();
    let verb = parts.method.as_str().to_ascii_lowercase();
    authz::authorize(shared, &Attributes::of_path(user, &verb, path)).await?;
    if let Some(response) = health::respond(shared, path, query).await {
        return response;
    }
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let is_get = matches!(parts.method, http::Method::GET | http::Method::HEAD);
    let response = match segments.as_slice() {
        ["metrics"] => Some(shared.metrics.respond(shared)),
        [".well-known", "openid-configuration"] | ["openid", "v1", "jwks"] => Some(openid::respond(shared, &segments)?),
        ["openapi", ..] => openapi::respond(&parts.headers, &segments, query)?,
        _ => discovery::respond(shared, &parts.headers, &segments)?,
    };
    match response {
        None => Err(ApiError::PathNotFound),
        Some(_) if !is_get => Err(ApiError::MethodNotAllowed),
        Some(response) => Ok(response),
    }
}
