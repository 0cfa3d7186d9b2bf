//! PUT: the object becomes what the client sent, if it meant the version that is there.

use axum::body::Body;
use http::StatusCode;

use super::step::step;
use crate::body;
use crate::call::Call;
use crate::metadata::check_identity;
use crate::respond::ApiResponse;
use crate::status::ApiError;

pub(super) async fn update(call: &Call, request_body: Body) -> Result<ApiResponse, ApiError> {
    let json = call.json_body(request_body).await?;
    let mut decoded = body::decode(call.info.kind, &json, &call.query)?;
    check_identity(decoded.object.metadata_mut(), call.info.namespace.as_deref(), call.name())?;
    let dry_run = call.query.dry_run()?;
    let tracking = call.tracking();
    let (subject, key) = (call.info.subject(), call.info.key());
    let written = call
        .shared
        .modify(call.info.kind, &subject, &key, dry_run, |current, taken| {
            step(call, &tracking, current, decoded.object.clone_object(), taken)
        })
        .await?;
    Ok(call.wrote(StatusCode::OK, written, &decoded.warnings))
}
