//! Server-side apply (KEP-555): PATCH with a configuration, which is merged into the object that is there or becomes one.

use api::decode::Decoded;
use api::{Kind, Object};
use axum::body::Body;
use http::StatusCode;
use serde_json::Value;

use super::create::Author;
use super::step::step;
use crate::body;
use crate::call::Call;
use crate::metadata::{check_applied, undeterminable};
use crate::respond::ApiResponse;
use crate::status::ApiError;
use crate::storage::{Current, Written};
use crate::tracking::{Tracking, writer};

/// How often an apply starts over because its object comes or goes meanwhile.
const MAX_ATTEMPTS: usize = 8;

/// What a client wants an object to be.
struct Wanted<'a> {
    call: &'a Call,
    config: Value,
    manager: &'a str,
    force: bool,
    dry_run: bool,
}

pub(super) async fn apply(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    if call.info.kind.view.is_some() {
        // Managers are told by the fields of what is stored.
        return Err(ApiError::NoSuchPatch);
    }
    let wanted = Wanted {
        call,
        config: read(call, call.info.kind, request_body).await?,
        manager: call.query.get("fieldManager").unwrap_or(""),
        force: call.query.flag("force"),
        dry_run: call.query.dry_run()?,
    };
    for _ in 0..MAX_ATTEMPTS {
        match wanted.modify().await {
            Err(ApiError::NotFound(_)) if call.info.subresource.is_none() => {}
            outcome => return Ok(call.wrote(StatusCode::OK, outcome?, &[])),
        }
        match wanted.create().await {
            Err(ApiError::AlreadyExists(_)) => {}
            outcome => return Ok(call.wrote(StatusCode::CREATED, outcome?, &[])),
        }
    }
    Err(ApiError::Conflict(call.info.subject(), "the object keeps coming and going; try again".into()))
}

/// Reads a configuration. It must be one of `kind`, with nothing in it that kind does not have.
pub(crate) async fn read(call: &Call, kind: &Kind, request_body: Body) -> Result<Value, ApiError> {
    let bytes = body::read(&call.headers, request_body).await?;
    let config = api::yaml::parse_one(&bytes).map_err(|e| ApiError::BadRequest(format!("error decoding YAML: {e}")))?;
    let writer = writer(kind.info, call.query.get("fieldManager").unwrap_or(""), call.info.subresource);
    if let Some(error) = writer.config_error(&config) {
        return Err(ApiError::BadRequest(error));
    }
    let not_typed = |why: &str| ApiError::BadRequest(writer.not_typed(&config, why));
    let decoded = (kind.decode)(config.to_string().as_bytes()).map_err(|e| not_typed(&e.to_string()))?;
    match decoded.strict_errors.as_slice() {
        [] => decoded.checked().map(|_| config).map_err(|e| ApiError::BadRequest(e.to_string())),
        [one] => Err(not_typed(&undeclared(one))),
        many => {
            let lines: Vec<String> = many.iter().map(|e| format!("  {}", undeclared(e))).collect();
            Err(not_typed(&format!("errors:\n{}", lines.join("\n"))))
        }
    }
}

impl Wanted<'_> {
    fn decode(&self, object: &Value) -> Result<Decoded, api::decode::DecodeError> {
        (self.call.info.kind.decode)(object.to_string().as_bytes())
    }

    async fn modify(&self) -> Result<Written, ApiError> {
        let (call, info) = (self.call, &self.call.info);
        let (subject, key) = (info.subject(), info.key());
        let change = |current: &Current, taken: &_| {
            let (object, tracking) = self.apply_to(Some(current))?;
            step(call, &tracking, current, object, taken)
        };
        call.shared.modify(info.kind, &subject, &key, self.dry_run, change).await
    }

    /// Applying to nothing creates, for which the client needs another permission.
    async fn create(&self) -> Result<Written, ApiError> {
        let call = self.call;
        call.may_also_create().await?;
        let (mut object, tracking) = self.apply_to(None)?;
        // Which version was meant does not matter where there is none.
        object.metadata_mut().resource_version = None;
        if let Some(uid) = object.metadata().uid.as_deref().filter(|uid| !uid.is_empty()) {
            let message =
                format!("uid mismatch: the provided object specified uid {uid}, and no existing object was found");
            return Err(ApiError::Conflict(call.info.subject(), message));
        }
        let author = Author { user: &call.user, tracking, annotations: Some(&call.annotations) };
        call.shared.create_as(author, call.info.kind, call.info.namespace.as_deref(), object, self.dry_run).await
    }

    /// What the configuration makes of an object, and who manages what then.
    fn apply_to(&self, current: Option<&Current>) -> Result<(Box<dyn Object>, Tracking), ApiError> {
        let info = &self.call.info;
        if self.config["metadata"]["name"] == "" {
            return Err(undeterminable(self.call.name()));
        }
        let live = current.map(|c| std::str::from_utf8(&c.plain)).transpose();
        let live = live.map_err(|e| ApiError::Internal(e.to_string()))?;
        let managed = current.map_or("", |c| &c.managed);
        let applied = writer(info.kind.info, self.manager, info.subresource)
            .apply(live, &self.config, managed, self.force)
            .map_err(ApiError::ApplyConflict)?;
        let mut object = self.decode(&applied.object).map_err(|e| ApiError::BadRequest(e.to_string()))?.object;
        check_applied(object.metadata_mut(), info.namespace.as_deref(), self.call.name())?;
        Ok((object, Tracking::Applied(applied.managed)))
    }
}

/// `unknown field "spec.foo"` in the words of a schema.
fn undeclared(error: &str) -> String {
    match error.strip_prefix("unknown field ") {
        Some(path) => format!(".{}: field not declared in schema", path.trim_matches('"')),
        None => error.to_owned(),
    }
}
