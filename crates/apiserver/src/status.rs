//! Errors of the API, and the one function that turns an error into a `Status`.
//!
//! Reasons, codes and texts follow `k8s.io/apimachinery/pkg/api/errors`, because clients decide by them.

use std::borrow::Cow;

use api::KindInfo;
use api::field::ErrorList;
use http::StatusCode;
use serde_json::{Map, Value, json};

/// Which object an error is about.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) group: Cow<'static, str>,
    pub(crate) kind: &'static str,
    /// `pods`, or `pods/binding`.
    pub(crate) resource: Cow<'static, str>,
    pub(crate) name: String,
}

impl Subject {
    pub(crate) fn new(info: &KindInfo, name: &str) -> Subject {
        Subject { group: info.group.into(), kind: info.kind, resource: info.plural.into(), name: name.to_owned() }
    }

    /// Whatever object a client names, served or not.
    pub(crate) fn named(group: &str, resource: &str, name: &str) -> Subject {
        Subject {
            group: group.to_owned().into(),
            kind: "",
            resource: resource.to_owned().into(),
            name: name.to_owned(),
        }
    }

    /// The options of a request, which have no name.
    pub(crate) fn options(kind: &'static str) -> Subject {
        Subject { group: Cow::Borrowed("meta.k8s.io"), kind, resource: Cow::Borrowed(""), name: String::new() }
    }

    /// The same object, seen through one of its subresources.
    pub(crate) fn sub(mut self, subresource: &str) -> Subject {
        self.resource = format!("{}/{subresource}", self.resource).into();
        self
    }

    fn qualified(&self) -> String {
        if self.group.is_empty() { self.resource.to_string() } else { format!("{}.{}", self.resource, self.group) }
    }

    /// The group of the kind that is stored: a view is no kind of its own to those who look at what is wrong.
    pub(crate) fn group_of_kind(&self) -> &str {
        let shown = api::kinds().find(|kind| kind.info.group == self.group && kind.info.kind == self.kind);
        shown.and_then(|kind| kind.view).map_or(&*self.group, |view| view.group)
    }

    fn qualified_kind(&self) -> String {
        let group = self.group_of_kind();
        if group.is_empty() { self.kind.to_owned() } else { format!("{}.{group}", self.kind) }
    }
}

/// Everything a request can be refused with; one variant per answer a client may act on differently.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("the server could not find the requested resource")]
    PathNotFound,
    /// A path below nothing that is served: a page without a Status, as Go's multiplexer answers.
    #[error("404 page not found")]
    PageNotFound,
    #[error("{} {:?} not found", .0.qualified(), .0.name)]
    NotFound(Subject),
    #[error("{} {:?} already exists", .0.qualified(), .0.name)]
    AlreadyExists(Subject),
    #[error("Operation cannot be fulfilled on {} {:?}: {}", .0.qualified(), .0.name, .1)]
    Conflict(Subject, String),
    /// An apply would take fields from their managers.
    #[error("{}", api::apply::message(.0))]
    ApplyConflict(Vec<api::apply::Conflict>),
    #[error("{} {:?} is invalid: {}", .0.qualified_kind(), .0.name, join(.1))]
    Invalid(Subject, ErrorList),
    /// A patch that does not fit the object. Upstream keeps the reason to itself, and so does the answer.
    #[error("the server rejected our request due to an error in our request")]
    NotApplicable(String),
    #[error("{}{} is forbidden: {}", .0.qualified(), quoted(&.0.name), .1)]
    Forbidden(Subject, String),
    #[error(
        "{}{} is forbidden: unable to create new content in namespace {namespace} because it is being terminated",
        subject.qualified(), quoted(&subject.name)
    )]
    NamespaceTerminating { subject: Subject, namespace: String },
    /// A pod's service account, `namespace/name`, is not there (yet).
    #[error(
        "{}{} is forbidden: error looking up service account {account}: serviceaccount {:?} not found",
        subject.qualified(), quoted(&subject.name), name_of(account)
    )]
    NoServiceAccount { subject: Subject, account: String },
    /// A path that is no resource, to someone who may not see it.
    #[error("forbidden: User {user:?} cannot {verb} path {path}")]
    /// `path` is quoted, and may be followed by a reason.
    ForbiddenPath { user: String, verb: String, path: String },
    #[error("{0}")]
    BadRequest(String),
    #[error("Unauthorized")]
    Unauthorized,
    #[error("the server does not allow this method on the requested resource")]
    MethodNotAllowed,
    #[error("only the following media types are accepted: {0}")]
    NotAcceptable(&'static str),
    /// One object was asked for as a list, or a list as one object.
    #[error("{0}")]
    NotOfThatShape(String),
    #[error("the body of the request was in an unknown format - accepted media types include: {0}")]
    UnsupportedMediaType(&'static str),
    /// A patch of another type than there are, which is found out before the media types are talked about.
    #[error("415: Unsupported Media Type")]
    NoSuchPatch,
    #[error("{0}")]
    TooLarge(String),
    /// The history a client asks for is gone: start over.
    #[error("{0}")]
    Expired(String),
    /// The same for a list that was read in pages: this token goes on with what there is now.
    #[error("{INCONSISTENT_CONTINUE}")]
    ExpiredContinue(String),
    /// The client has seen a future this server has not.
    #[error("Timeout: Too large resource version: {requested}, current: {current}")]
    TooLargeResourceVersion { requested: i64, current: i64 },
    /// The request took longer than it may.
    #[error("Timeout: request did not complete within the allotted timeout")]
    Timeout,
    #[error("Too many requests, please try again later.")]
    TooManyRequests,
    #[error("{0}")]
    Unavailable(String),
    /// What a request was passed on to is not there, or not what it should be: an error without a reason.
    #[error("{0}")]
    Backend(String),
    #[error("Internal error occurred: {0}")]
    Internal(String),
}

fn join(errors: &ErrorList) -> String {
    match errors.as_slice() {
        [one] => one.to_string(),
        many => format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn name_of(account: &str) -> &str {
    account.rsplit('/').next().unwrap_or(account)
}

fn quoted(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" {name:?}") }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> ApiError {
        match error {
            store::Error::Compacted { .. } => ApiError::Expired(EXPIRED.to_owned()),
            store::Error::Future { requested, current } => ApiError::TooLargeResourceVersion { requested, current },
            store::Error::TooLarge(message) => ApiError::TooLarge(message),
            store::Error::Unavailable(message) => ApiError::Unavailable(message),
            other => ApiError::Internal(other.to_string()),
        }
    }
}

/// Upstream's words for a continue token whose revision is gone, with another one.
const INCONSISTENT_CONTINUE: &str = "The provided continue parameter is too old to display a consistent list result. \
     You can start a new list without the continue parameter, or use the continue token in this response to retrieve \
     the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that \
     were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Upstream's words for a list at a revision that is gone.
const EXPIRED: &str = "The resourceVersion for the provided list is too old.";

/// The reason and the HTTP code of an error.
fn reason(error: &ApiError) -> (&'static str, StatusCode) {
    match error {
        ApiError::PathNotFound | ApiError::PageNotFound | ApiError::NotFound(_) => ("NotFound", StatusCode::NOT_FOUND),
        ApiError::AlreadyExists(_) => ("AlreadyExists", StatusCode::CONFLICT),
        ApiError::Conflict(..) | ApiError::ApplyConflict(_) => ("Conflict", StatusCode::CONFLICT),
        ApiError::Invalid(..) | ApiError::NotApplicable(_) => ("Invalid", StatusCode::UNPROCESSABLE_ENTITY),
        ApiError::Forbidden(..)
        | ApiError::NamespaceTerminating { .. }
        | ApiError::NoServiceAccount { .. }
        | ApiError::ForbiddenPath { .. } => ("Forbidden", StatusCode::FORBIDDEN),
        ApiError::BadRequest(_) => ("BadRequest", StatusCode::BAD_REQUEST),
        ApiError::Unauthorized => ("Unauthorized", StatusCode::UNAUTHORIZED),
        ApiError::MethodNotAllowed => ("MethodNotAllowed", StatusCode::METHOD_NOT_ALLOWED),
        ApiError::NotAcceptable(_) | ApiError::NotOfThatShape(_) => ("NotAcceptable", StatusCode::NOT_ACCEPTABLE),
        ApiError::UnsupportedMediaType(_) | ApiError::NoSuchPatch => {
            ("UnsupportedMediaType", StatusCode::UNSUPPORTED_MEDIA_TYPE)
        }
        ApiError::TooLarge(_) => ("RequestEntityTooLarge", StatusCode::PAYLOAD_TOO_LARGE),
        ApiError::Expired(_) | ApiError::ExpiredContinue(_) => ("Expired", StatusCode::GONE),
        ApiError::TooLargeResourceVersion { .. } | ApiError::Timeout => ("Timeout", StatusCode::GATEWAY_TIMEOUT),
        ApiError::TooManyRequests => ("TooManyRequests", StatusCode::TOO_MANY_REQUESTS),
        ApiError::Unavailable(_) => ("ServiceUnavailable", StatusCode::SERVICE_UNAVAILABLE),
        ApiError::Backend(_) => ("", StatusCode::INTERNAL_SERVER_ERROR),
        ApiError::Internal(_) => ("InternalError", StatusCode::INTERNAL_SERVER_ERROR),
    }
}

/// Seconds a client is told to wait before it tries again.
pub(crate) const RETRY_AFTER_SECONDS: u32 = 1;

fn details(error: &ApiError) -> Map<String, Value> {
    let mut details = Map::new();
    let subject = match error {
        ApiError::NotFound(s)
        | ApiError::AlreadyExists(s)
        | ApiError::Conflict(s, _)
        | ApiError::Invalid(s, _)
        | ApiError::Forbidden(s, _)
        | ApiError::NamespaceTerminating { subject: s, .. }
        | ApiError::NoServiceAccount { subject: s, .. } => Some(s),
        _ => None,
    };
    if let Some(subject) = subject {
        if !subject.name.is_empty() {
            details.insert("name".into(), json!(subject.name));
        }
        let (group, kind) = match error {
            ApiError::Invalid(..) => (subject.group_of_kind(), subject.kind),
            _ => (&*subject.group, &*subject.resource),
        };
        if !group.is_empty() {
            details.insert("group".into(), json!(group));
        }
        if !kind.is_empty() {
            details.insert("kind".into(), json!(kind));
        }
    }
    let causes = causes(error);
    if !causes.is_empty() {
        details.insert("causes".into(), Value::Array(causes));
    }
    if matches!(error, ApiError::TooLargeResourceVersion { .. } | ApiError::TooManyRequests) {
        details.insert("retryAfterSeconds".into(), json!(RETRY_AFTER_SECONDS));
    }
    details
}

fn causes(error: &ApiError) -> Vec<Value> {
    match error {
        ApiError::Invalid(_, errors) => errors
            .iter()
            .map(|e| json!({"reason": e.error_type.reason(), "message": e.message, "field": e.field.as_str()}))
            .collect(),
        ApiError::ApplyConflict(conflicts) => conflicts
            .iter()
            .map(|c| {
                let message = format!("conflict with {}", c.manager);
                json!({"reason": "FieldManagerConflict", "message": message, "field": c.field})
            })
            .collect(),
        ApiError::NamespaceTerminating { namespace, .. } => vec![json!({
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        })],
        ApiError::TooLargeResourceVersion { .. } => {
            vec![json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"})]
        }
        _ => Vec::new(),
    }
}

/// The `Status` of an error. The only place where an error becomes HTTP.
pub(crate) fn status_of(error: &ApiError) -> (StatusCode, Value) {
    let (reason, code) = reason(error);
    let mut status = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": error.to_string(),
        "code": code.as_u16(),
    });
    if !reason.is_empty() {
        status["reason"] = json!(reason);
    }
    if let ApiError::ExpiredContinue(token) = error {
        status["metadata"]["continue"] = json!(token);
    }
    let details = details(error);
    let bare = matches!(
        error,
        ApiError::PathNotFound
            | ApiError::MethodNotAllowed
            | ApiError::NoSuchPatch
            | ApiError::NotApplicable(_)
            | ApiError::Timeout
            | ApiError::Forbidden(..)
            | ApiError::ForbiddenPath { .. }
    );
    if !details.is_empty() || bare || matches!(error, ApiError::Invalid(..)) {
        status["details"] = Value::Object(details);
    }
    (code, status)
}

/// The `Status` of a request that succeeded and has no object to show.
pub(crate) fn success(details: Value) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Subject {
        Subject { group: "".into(), kind: "Pod", resource: "pods".into(), name: "web".into() }
    }

    #[test]
    fn errors_read_as_upstream_prints_them() {
        let required = api::field::required(&api::field::Path::new("spec").child("containers"), "");
        let cases = [
            (ApiError::NotFound(web()), 404, "NotFound", r#"pods "web" not found"#),
            (ApiError::AlreadyExists(web()), 409, "AlreadyExists", r#"pods "web" already exists"#),
            (
                ApiError::Conflict(web().sub("binding"), "no".into()),
                409,
                "Conflict",
                r#"Operation cannot be fulfilled on pods/binding "web": no"#,
            ),
            (
                ApiError::Invalid(web(), vec![required.clone(), required]),
                422,
                "Invalid",
                r#"Pod "web" is invalid: [spec.containers: Required value, spec.containers: Required value]"#,
            ),
        ];
        for (error, code, reason, message) in cases {
            let (http, status) = status_of(&error);
            assert_eq!((http.as_u16(), &status["reason"], &status["message"]), (code, &json!(reason), &json!(message)));
            assert_eq!(status["details"]["name"], "web");
        }
    }
}
