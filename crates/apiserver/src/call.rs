//! One request on its way through the verbs.

use std::sync::Arc;

use api::{Object, Verb};
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use parking_lot::Mutex;

use crate::admission::{Attributes, Operation};
use crate::audit::Annotations;
use crate::negotiate::Output;
use crate::query::Query;
use crate::request::RequestInfo;
use crate::respond::{self, ApiResponse};
use crate::server::Shared;
use crate::status::ApiError;
use crate::storage::Written;
use crate::tracking::Tracking;
use crate::user::User;
use crate::{admission, authz, body};

/// An authenticated and authorised request.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) user: Arc<User>,
    pub(crate) info: RequestInfo,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) output: Output,
    pub(crate) annotations: Arc<Annotations>,
    /// What is remarkable about the body, told whatever becomes of it.
    pub(crate) remarks: Arc<Mutex<Vec<String>>>,
}

impl Call {
    /// The body as JSON.
    pub(crate) async fn json_body(&self, body: Body) -> Result<body::Text, ApiError> {
        let bytes = body::read(&self.headers, body).await?;
        body::to_json(&self.headers, bytes)
    }

    /// Warns of what is in the body, also if the request is refused.
    pub(crate) fn remark(&self, warnings: &[String]) {
        if !warnings.is_empty() {
            self.remarks.lock().extend_from_slice(warnings);
        }
    }

    /// The object the request names; its URL always names one where this is called.
    pub(crate) fn name(&self) -> &str {
        self.info.name.as_deref().unwrap_or("")
    }

    /// What can be no name of anything, as it is no part of a path, is refused before it is looked for
    /// (`NamespaceKeyFunc`); where an object is sent, once its name is known to be that.
    pub(crate) fn check_name(&self) -> Result<(), ApiError> {
        let name = self.name();
        let problems = if name.is_empty() { Vec::new() } else { api::names::is_path_segment(name) };
        if problems.is_empty() {
            return Ok(());
        }
        Err(ApiError::BadRequest(format!("Name parameter invalid: {name:?}: {}", problems.join(";"))))
    }

    /// Who writes.
    pub(crate) fn tracking(&self) -> Tracking {
        Tracking::of(&self.query, &self.headers)
    }

    /// Whether the client may create what it wants to change, where that is not there.
    pub(crate) async fn may_also_create(&self) -> Result<(), ApiError> {
        let info = RequestInfo { verb: Verb::Create, ..self.info.clone() };
        let asked = authz::Attributes::of_request(&self.user, &info, &self.query);
        authz::authorize(&self.shared, &asked).await.map(|_| ())
    }

    /// The answer to a write.
    pub(crate) fn wrote(&self, code: StatusCode, written: Written, warnings: &[String]) -> ApiResponse {
        let kind = self.info.kind;
        let json = kind.show(&written.json).map_or(written.json, Bytes::from);
        let mut response = respond::object(code, kind, json, self.output);
        respond::warn(&mut response, warnings);
        respond::warn(&mut response, &written.warnings);
        response
    }

    /// Whether the namespace is there and does not end: nothing new is made below its objects otherwise, either. A refusal
    /// counts if the cache is not behind.
    pub(crate) async fn namespace_takes_new(&self) -> Result<(), ApiError> {
        let asked = || admission::takes_new(&self.attributes(Operation::Create, None));
        if asked().is_ok() {
            return Ok(());
        }
        self.shared.cache.catch_up().await?;
        asked()
    }

    /// What admission is told of `operation` on the object the request names.
    pub(crate) fn attributes<'a>(&'a self, operation: Operation, old: Option<&'a dyn Object>) -> Attributes<'a> {
        let place = (self.info.namespace.as_deref(), self.name());
        let plain = Attributes::new(&self.shared.cache, &self.user, operation, self.info.kind, place);
        Attributes { subresource: self.info.subresource, old, annotations: Some(&self.annotations), ..plain }
    }
}
