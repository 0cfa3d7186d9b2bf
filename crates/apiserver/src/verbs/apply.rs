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
use crate::query::FieldValidation;
use crate::respond::ApiResponse;
use crate::status::ApiError;
use crate::storage::{Current, Written};
use crate::tracking::{Tracking, writer};

/// How often an apply starts over because its object comes or goes meanwhile.
const MAX_ATTEMPTS: usize = 8;

/// A configuration, and what its text is warned of.
pub(crate) struct Config {
    pub(crate) value: Value,
    pub(crate) warnings: Vec<String>,
}

/// What a client wants an object to be.
struct Wanted<'a> {
    call: &'a Call,
    config: Config,
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
            outcome => return Ok(call.wrote(StatusCode::OK, outcome?, &wanted.config.warnings)),
        }
        match wanted.create().await {
            Err(ApiError::AlreadyExists(_)) => {}
            outcome => return Ok(call.wrote(StatusCode::CREATED, outcome?, &wanted.config.warnings)),
        }
    }
    Err(ApiError::Conflict(call.info.subject(), "the object keeps coming and going; try again".into()))
}

/// Reads a configuration. It must be one of `kind`, with nothing in it that kind does not have.
pub(crate) async fn read(call: &Call, kind: &Kind, request_body: Body) -> Result<Config, ApiError> {
    let bytes = body::read(&call.headers, request_body).await?;
    let first = api::yaml::parse_first(&bytes);
    let first = first.map_err(|e| ApiError::BadRequest(format!("error decoding YAML: {e}")))?;
    let (strict_error, config) = (first.strict_error(), first.value);
    let writer = writer(kind.info, call.query.get("fieldManager").unwrap_or(""), call.info.subresource);
    if let Some(error) = writer.config_error(&config) {
        return Err(ApiError::BadRequest(error));
    }
    let not_typed = |why: &str| ApiError::BadRequest(writer.not_typed(&config, why));
    let decoded = (kind.decode)(config.to_string().as_bytes()).map_err(|e| not_typed(&e.to_string()))?;
    match decoded.strict_errors.as_slice() {
        [] => decoded.checked().map_err(|e| ApiError::BadRequest(e.to_string()))?,
        [one] => return Err(not_typed(&undeclared(one))),
        many => {
            let lines: Vec<String> = many.iter().map(|e| format!("  {}", undeclared(e))).collect();
            return Err(not_typed(&format!("errors:\n{}", lines.join("\n"))));
        }
    };
    let warnings = repeated(call.query.field_validation()?, strict_error)?;
    Ok(Config { value: config, warnings })
}

/// What is told of keys that are there again, unless it is a refusal.
fn repeated(mode: FieldValidation, strict_error: Option<String>) -> Result<Vec<String>, ApiError> {
    let Some(error) = strict_error else { return Ok(Vec::new()) };
    match mode {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(body::each(&error).map(str::to_owned).collect()),
        FieldValidation::Strict => {
            let why = format!("error strict decoding YAML: error converting YAML to JSON: {error}");
            Err(ApiError::BadRequest(why))
        }
    }
}

impl Wanted<'_> {
    fn decode(&self, object: &Value) -> Result<Decoded, api::decode::DecodeError> {
        let kind = self.call.info.kind;
        (kind.decode)(&api::written::complete(kind.info, object.to_string().into_bytes().into()))
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
        if self.config.value["metadata"]["name"] == "" {
            return Err(undeterminable(self.call.name()));
        }
        let live = current.map(|c| std::str::from_utf8(&c.plain)).transpose();
        let live = live.map_err(|e| ApiError::Internal(e.to_string()))?;
        let managed = current.map_or("", |c| &c.managed);
        let applied = writer(info.kind.info, self.manager, info.subresource)
            .apply(live, &self.config.value, managed, self.force)
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
