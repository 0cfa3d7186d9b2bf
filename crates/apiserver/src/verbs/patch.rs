//! PATCH: applied to the version that is there, again if that changed meanwhile.

use api::field::{Path, invalid};
use api::patch::{Patch, PatchError};
use api::{Kind, KindInfo};
use axum::body::Body;
use http::StatusCode;
use serde_json::Value;

use super::apply;
use super::step::step;
use crate::body::{self, Decoded};
use crate::call::Call;
use crate::metadata::check_identity;
use crate::negotiate;
use crate::options::APPLY_PATCH;
use crate::query::FieldValidation;
use crate::respond::ApiResponse;
use crate::status::{ApiError, Subject};
use crate::storage::Current;

/// Patches that do not name it leave it alone, and need not see it.
const MANAGED_FIELDS: &[u8] = b"managedFields";

/// A patch, and whether it may be about managed fields. What is wrong with it matters only where there is something to patch.
pub(crate) struct Sent {
    patch: Result<Patch, PatchError>,
    sees_managers: bool,
}

impl Sent {
    /// The object to be patched.
    pub(crate) fn subject<'a>(&self, current: &'a Current) -> &'a [u8] {
        if self.sees_managers { &current.json } else { &current.plain }
    }

    /// What the patch makes of an object.
    pub(crate) fn apply(&self, info: &KindInfo, object: Value) -> Result<Value, ApiError> {
        self.patch.as_ref().map_err(Clone::clone).and_then(|patch| patch.apply(info, object)).map_err(patch_error)
    }
}

/// Reads the patch in a request's body.
pub(crate) async fn read(call: &Call, request_body: Body) -> Result<Sent, ApiError> {
    let media_type = negotiate::content_type(&call.headers);
    let bytes = body::read(&call.headers, request_body).await?;
    let patch = Patch::parse(&media_type, &bytes).ok_or(ApiError::NoSuchPatch)?;
    let sees_managers = bytes.windows(MANAGED_FIELDS.len()).any(|w| w == MANAGED_FIELDS);
    Ok(Sent { patch, sees_managers })
}

fn patch_error(error: PatchError) -> ApiError {
    match error {
        PatchError::Malformed(message) => ApiError::BadRequest(message),
        PatchError::NotApplicable(message) => ApiError::NotApplicable(message),
        PatchError::TooManyOperations(_) => ApiError::TooLarge(error.to_string()),
    }
}

/// What became of an object. The patch is to blame if that is none any more.
pub(crate) fn decode(kind: &'static Kind, patched: &Value, call: &Call) -> Result<Decoded, ApiError> {
    let json = patched.to_string();
    body::decode(kind, &json.clone().into(), &call.query).map_err(|error| to_blame(kind, &json, error))
}

/// A patch that leaves no object is what is wrong.
fn to_blame(kind: &Kind, patched: &str, error: ApiError) -> ApiError {
    match error {
        ApiError::BadRequest(why) => {
            // Which kind it should have been need not be said.
            let why =
                why.split_once(&format!(" cannot be handled as a {}: ", kind.info.kind)).map_or(&*why, |(_, why)| why);
            let nothing = Subject { group: "".into(), kind: "", resource: "".into(), name: String::new() };
            ApiError::Invalid(nothing, vec![invalid(&Path::new("patch"), patched, why)])
        }
        other => other,
    }
}

pub(super) async fn patch(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    if negotiate::content_type(&call.headers) == APPLY_PATCH {
        return apply::apply(call, request_body).await;
    }
    let sent = read(call, request_body).await?;
    let tracking = call.tracking();
    let dry_run = call.query.dry_run()?;
    let validation = call.query.field_validation()?;
    let (subject, key) = (call.info.subject(), call.info.key());
    let mut warnings = Vec::new();
    let written = call
        .shared
        .modify(call.info.kind, &subject, &key, dry_run, |current, taken| {
            let shown = call.info.kind.show(sent.subject(current));
            let json = shown.as_deref().unwrap_or_else(|| sent.subject(current));
            let tree: Value = serde_json::from_slice(json).map_err(|e| ApiError::Internal(e.to_string()))?;
            let patched = sent.apply(call.info.kind.info, tree)?;
            let mut decoded = decode(call.info.kind, &patched, call)?;
            call.remark(&decoded.warnings);
            check_identity(decoded.object.metadata_mut(), call.info.namespace.as_deref(), call.name())?;
            warnings = decoded.warnings;
            step(call, &tracking, current, decoded.object, taken)
        })
        .await?;
    if validation != FieldValidation::Warn {
        warnings.clear();
    }
    Ok(call.wrote(StatusCode::OK, written, &warnings))
}
