//! From a request to its handler, after authentication and authorisation.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use http::header::ACCEPT_ENCODING;
use jiff::SignedDuration;
use tokio::time::Instant;

use crate::audit::Trail;
use crate::authn::{Caller, impersonate};
use crate::authz::Attributes;
use crate::call::Call;
use crate::metrics::Observed;
use crate::negotiate::{self, Encoding};
use crate::query::Query;
use crate::request::{Asked, RequestInfo};
use crate::respond::ApiResponse;
use crate::server::Shared;
use crate::status::ApiError;
use crate::user::User;
use crate::{
    authz, compress, connect, deprecation, discovery, health, held, openapi, openid, options, pretty, request, respond,
    swagger_ui, verbs,
};

pub(crate) async fn route(
    shared: &Arc<Shared>,
    caller: &Caller,
    request: Request<Body>,
    observed: &mut Observed,
    trail: &mut Trail,
) -> Result<ApiResponse, ApiError> {
    let (mut parts, body) = request.into_parts();
    let query = Query::parse(parts.uri.query());
    let mut used = None;
    let user = shared.authenticator.authenticate(caller, &parts.headers, &mut used).await;
    if let Some(used) = used {
        shared.metrics.tokens.count(&used);
        used.annotate(&trail.annotations());
        observed.warnings.extend(used.warning().map(Into::into));
    }
    let mut user: Arc<User> = user?.unwrap_or_else(|| Arc::new(User::anonymous()));
    let path = parts.uri.path();
    let info = request::is_resource(path).then(|| request::parse(&parts.method, path, &query));
    let asked = info.as_ref().and_then(|info| info.as_ref().ok());
    let verb = parts.method.as_str().to_ascii_lowercase();
    // What is not served is asked for all the same, and refused first to who may not have it.
    let unserved = matches!(info, Some(Err(_))).then(|| Asked::of(&parts.method, path, &query));
    let target = (asked, unserved.as_ref());
    trail.identify(&attributes(&user, target, (&verb, path), &query), asked);
    // Whoever is stopped at the door is told so in an answer that is no page (`responsewriters.Forbidden`).
    let at_door = |observed: &mut Observed, error: ApiError| {
        observed.is_barred = matches!(error, ApiError::Forbidden(..) | ApiError::ForbiddenPath { .. });
        error
    };
    let other = impersonate(shared, &user, &mut parts.headers).await.map_err(|error| at_door(observed, error))?;
    if let Some(other) = other {
        trail.impersonated(&other);
        user = Arc::new(other);
    }
    let decision = authz::authorize(shared, &attributes(&user, target, (&verb, path), &query)).await;
    trail.decided(&decision);
    decision.map_err(|error| at_door(observed, error))?;
    let info = info.transpose().map_err(|error| not_found(path, error))?;
    let is_for_people = pretty::is_always(parts.uri.path()) || pretty::is_wanted(parts.uri.query(), &parts.headers);
    let dressed = |response| if is_for_people { pretty::respond(response) } else { response };
    let Some(info) = info else {
        let page = not_a_resource(shared, &parts, &query).await;
        return page.map(dressed).map_err(|error| not_found(parts.uri.path(), error));
    };
    observed.resource(&info);
    if let Some(warning) = deprecation::warning(info.kind.info) {
        observed.deprecated(warning);
        trail.annotations().note(deprecation::ANNOTATION, "true".to_owned());
    }
    if info.connects() {
        connect::note_forwarded(&mut parts.headers, caller.address());
        return connect::run(shared, &user, info, query, parts, body).await;
    }
    let output = negotiate::accept(&parts.headers)?;
    options::check(info.verb, &query, &negotiate::content_type(&parts.headers))?;
    let place = shared.in_flight.enter(&user, &info)?;
    let connection = parts.extensions.remove::<held::Connection>();
    let encodings = parts.headers.get_all(ACCEPT_ENCODING).iter().cloned().collect::<Vec<_>>();
    let deadline = if info.is_long_running() { None } else { Some(Instant::now() + time_allowed(shared, &query)?) };
    let (annotations, remarks) = (trail.annotations(), Arc::default());
    let call = Call { shared: shared.clone(), user, info, query, headers: parts.headers, output, annotations, remarks };
    let remarks = call.remarks.clone();
    let response = answer(call, trail, body, deadline).await;
    let response = response.inspect_err(|_| observed.warnings.extend(remarks.lock().drain(..).map(Into::into)))?;
    let response = compress::respond(&encodings, dressed(response));
    Ok(match deadline {
        None => response,
        Some(deadline) => held::hold(response, place, deadline, connection),
    })
}

/// The answer of a verb, in time.
async fn answer(call: Call, trail: &mut Trail, body: Body, deadline: Option<Instant>) -> Result<ApiResponse, ApiError> {
    let answer = async {
        let body = trail.look_at_body(&call.headers, body).await?;
        Ok(trail.look_at_answer(verbs::run(call, body).await?).await)
    };
    match deadline {
        None => answer.await,
        Some(deadline) => tokio::time::timeout_at(deadline, answer).await.unwrap_or(Err(ApiError::Timeout)),
    }
}

/// How long a request may take: as long as the server allows any, or less if the client says so (`WithRequestDeadline`).
fn time_allowed(shared: &Shared, query: &Query) -> Result<Duration, ApiError> {
    let most = shared.config.request_timeout;
    // Go reads a lone zero as a duration.
    let Some(text) = query.get("timeout").filter(|text| *text != "0") else { return Ok(most) };
    let invalid = |why: &str| ApiError::BadRequest(format!("invalid timeout specified in the request URL - {why}"));
    let has_no_unit = text.bytes().all(|byte| byte.is_ascii_digit());
    let problem = if has_no_unit { "missing unit in duration" } else { "invalid duration" };
    let span: SignedDuration = text.parse().map_err(|_| invalid(&format!("time: {problem} {text:?}")))?;
    // No time, or less, is none asked for.
    let asked = Duration::try_from(span).ok().filter(|asked| !asked.is_zero());
    Ok(asked.map_or(most, |asked| asked.min(most)))
}

/// What is not found below something that is served is told in a Status.
fn not_found(path: &str, error: ApiError) -> ApiError {
    let mut segments = path.split('/').filter(|s| !s.is_empty());
    let is_below = match (segments.next(), segments.next()) {
        (Some("api" | "version"), _) => true,
        (Some("apis"), Some(group)) => api::kinds().any(|kind| kind.info.group == group),
        _ => false,
    };
    if matches!(error, ApiError::PathNotFound) && !is_below { ApiError::PageNotFound } else { error }
}

/// What authorizers and audit are told of a request for a resource, for one that is not served, or for another path.
fn attributes<'a>(
    user: &'a User,
    target: (Option<&'a RequestInfo>, Option<&'a Asked>),
    (verb, path): (&'a str, &'a str),
    query: &Query,
) -> Attributes<'a> {
    match target {
        (Some(info), _) => Attributes::of_request(user, info, query),
        (None, Some(asked)) => Attributes::of_asked(user, asked, query),
        (None, None) => Attributes::of_path(user, verb, path),
    }
}

/// Paths that are about the API rather than in it.
async fn not_a_resource(
    shared: &Arc<Shared>,
    parts: &http::request::Parts,
    query: &Query,
) -> Result<ApiResponse, ApiError> {
    let path = parts.uri.path();
    if let Some(response) = health::respond(shared, path, query).await {
        return response;
    }
    let segments: Vec<&str> = path.split('/').filter(|s| !s.is_empty()).collect();
    let is_get = parts.method == http::Method::GET;
    let response = match segments.as_slice() {
        ["version"] if negotiate::accept_object(&parts.headers)?.encoding != Encoding::Json => {
            return Err(ApiError::NotAcceptable("application/json"));
        }
        ["version"] => Some(respond::json(http::StatusCode::OK, &health::version(shared))),
        ["metrics"] => Some(shared.metrics.respond(shared)),
        ["configz"] => Some(respond::json(http::StatusCode::OK, &shared.config.configz)),
        [".well-known", "openid-configuration"] | ["openid", "v1", "jwks"] => Some(openid::respond(shared, &segments)?),
        ["swagger-ui", ..] => Some(swagger_ui::respond(path).await),
        ["openapi", ..] => openapi::respond(&parts.headers, &segments, query)?,
        _ => discovery::respond(shared, &parts.headers, &segments)?,
    };
    match response {
        None => Err(ApiError::PathNotFound),
        Some(_) if !is_get => Err(ApiError::MethodNotAllowed),
        Some(response) => Ok(response),
    }
}
