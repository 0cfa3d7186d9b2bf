//! Virtual kinds: rows of the table whose objects are not stored. Each has a function here that answers it.

use api::{KindInfo, Object, Scope, Verb};
use axum::body::Body;
use futures::future::BoxFuture;
use http::StatusCode;

use crate::call::Call;
use crate::metadata::check_namespace;
use crate::respond::{self, ApiResponse};
use crate::status::ApiError;
use crate::subresources::binding;
use crate::{body, component_status, reviews, usage, verbs};

/// Answers a request for a virtual kind, whichever of its verbs it has.
type Handler = for<'a> fn(&'a Call, Body) -> BoxFuture<'a, Result<ApiResponse, ApiError>>;

const AUTHORIZATION: &str = "authorization.k8s.io";
const METRICS: &str = "metrics.k8s.io";

/// Group and resource of every virtual kind, and what answers it.
static HANDLERS: &[(&str, &str, Handler)] = &[
    ("", "bindings", |call, body| Box::pin(binding::create(call, body))),
    ("", "componentstatuses", |call, _| Box::pin(component_status::respond(call))),
    ("authentication.k8s.io", "selfsubjectreviews", |call, body| Box::pin(reviews::who_am_i(call, body))),
    ("authentication.k8s.io", "tokenreviews", |call, body| Box::pin(reviews::whose_is_it(call, body))),
    (AUTHORIZATION, "localsubjectaccessreviews", |call, body| Box::pin(reviews::may_they_here(call, body))),
    (AUTHORIZATION, "selfsubjectaccessreviews", |call, body| Box::pin(reviews::may_i(call, body))),
    (AUTHORIZATION, "selfsubjectrulesreviews", |call, body| Box::pin(reviews::what_may_i(call, body))),
    (AUTHORIZATION, "subjectaccessreviews", |call, body| Box::pin(reviews::may_they(call, body))),
    (METRICS, "nodes", |call, _| Box::pin(usage::of_nodes(call))),
    (METRICS, "pods", |call, _| Box::pin(usage::of_pods(call))),
];

fn handler(info: &KindInfo) -> Option<Handler> {
    HANDLERS.iter().find(|(group, plural, _)| info.group == *group && info.plural == *plural).map(|(.., h)| *h)
}

/// Answers a request for a virtual kind.
pub(crate) async fn run(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let info = call.info.kind.info;
    if call.info.verb == Verb::Create && info.scope == Scope::Namespaced && call.info.namespace.is_none() {
        return Err(ApiError::BadRequest("an empty namespace may not be set during creation".into()));
    }
    let handler = handler(info).ok_or_else(|| ApiError::Internal(format!("nothing answers {}", info.plural)))?;
    handler(call, request_body).await
}

/// Answers GET with the one object found, and LIST with all.
pub(crate) fn show<T: Object>(call: &Call, found: &[T]) -> Result<ApiResponse, ApiError> {
    let (kind, metadata) = (call.info.kind, "{}");
    let encoded: Vec<Vec<u8>> = found.iter().map(Object::encode).collect();
    if call.info.verb == Verb::Get {
        let object = encoded.into_iter().next().ok_or_else(|| ApiError::NotFound(call.info.subject()))?;
        return Ok(respond::object(StatusCode::OK, kind, object.into(), call.output));
    }
    let objects = encoded.iter().map(Vec::as_slice);
    let json = verbs::list::in_one_piece(call, metadata, objects)?;
    Ok(respond::encoded(StatusCode::OK, json.into(), call.output.encoding))
}

/// A question: what the client sent, completed and checked.
pub(crate) struct Question {
    object: Box<dyn Object>,
    warnings: Vec<String>,
}

impl Question {
    /// Reads the body of a request to create an object of a virtual kind.
    pub(crate) async fn read(call: &Call, request_body: Body) -> Result<Question, ApiError> {
        let json = call.json_body(request_body).await?;
        let decoded = body::decode(call.info.kind, &json, &call.query)?;
        call.query.dry_run()?;
        let mut object = decoded.object;
        check_namespace(object.metadata(), call.info.namespace.as_deref())?;
        if call.info.kind.info.scope == Scope::Namespaced {
            object.metadata_mut().namespace.clone_from(&call.info.namespace);
        }
        object.set_defaults();
        let errors = object.validate();
        if !errors.is_empty() {
            let mut subject = call.info.subject();
            if subject.group == AUTHORIZATION {
                // Upstream names no kind here (`authorizationapi.Kind("")`).
                subject.kind = "";
            }
            return Err(ApiError::Invalid(subject, errors));
        }
        Ok(Question { object, warnings: decoded.warnings })
    }

    /// Says something to whoever asks, beside the answer.
    pub(crate) fn warn(&mut self, warning: Option<&str>) {
        self.warnings.extend(warning.map(str::to_owned));
    }

    /// The question as what it is.
    pub(crate) fn typed<T: Object>(&mut self) -> Result<&mut T, ApiError> {
        let typed = self.object.as_any_mut().downcast_mut();
        typed.ok_or_else(|| ApiError::Internal("a question of another kind was decoded".into()))
    }

    /// The answer: the same object with its status.
    pub(crate) fn answer(self, call: &Call) -> ApiResponse {
        let json = self.object.encode().into();
        let mut response = respond::object(StatusCode::CREATED, call.info.kind, json, call.output);
        respond::warn(&mut response, &self.warnings);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_the_virtual_kinds_have_handlers() {
        for kind in api::kinds() {
            assert_eq!(handler(kind.info).is_some(), !kind.info.is_stored(), "{}", kind.info.kind);
        }
    }
}
