//! Request bodies: read within bounds, and turned into objects.

use api::Kind;
use api::Object;
use api::protobuf::ProtobufError;
use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::{BodyExt, LengthLimitError, Limited};

use crate::negotiate::{BodyEncoding, body_encoding};
use crate::query::{FieldValidation, Query};
use crate::status::ApiError;

/// The most bytes a body may have (`MaxRequestBodyBytes` upstream).
pub(crate) const MAX_BODY_BYTES: usize = 3 * 1024 * 1024;

/// Reads a body, refusing one that is too large as early as that is known.
pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, ApiError> {
    let announced = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|n| n > MAX_BODY_BYTES as u64) {
        return Err(too_large());
    }
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(ApiError::BadRequest(format!("error reading the request's body: {error}"))),
    }
}

fn too_large() -> ApiError {
    ApiError::TooLarge(format!("Request entity too large: limit is {MAX_BODY_BYTES}"))
}

/// A body as JSON, whatever it was written in.
pub(crate) fn to_json(headers: &HeaderMap, body: Bytes) -> Result<Bytes, ApiError> {
    match body_encoding(headers)? {
        BodyEncoding::Json => Ok(body),
        BodyEncoding::Yaml => yaml_to_json(&body),
        // A DELETE has nothing to say without options.
        BodyEncoding::Protobuf if body.is_empty() => Ok(body),
        BodyEncoding::Protobuf => protobuf_to_json(&body),
    }
}

/// What comes as protobuf may be as large as what comes as JSON, once it is JSON.
fn protobuf_to_json(body: &[u8]) -> Result<Bytes, ApiError> {
    match api::protobuf::to_json(body, MAX_BODY_BYTES) {
        Ok(json) => Ok(json.into()),
        Err(ProtobufError::TooLarge(_)) => Err(too_large()),
        Err(error) => Err(ApiError::BadRequest(error.to_string())),
    }
}

fn yaml_to_json(body: &[u8]) -> Result<Bytes, ApiError> {
    let text = std::str::from_utf8(body).map_err(|e| ApiError::BadRequest(format!("yaml: {e}")))?;
    let documents = api::yaml::parse_all(text).map_err(|e| ApiError::BadRequest(e.to_string()))?;
    match documents.as_slice() {
        [one] => Ok(one.to_string().into()),
        [] => Ok(Bytes::new()),
        _ => Err(ApiError::BadRequest("the body holds more than one document".into())),
    }
}

/// An object and the warnings its unknown fields earned.
pub(crate) struct Decoded {
    pub(crate) object: Box<dyn Object>,
    pub(crate) warnings: Vec<String>,
}

/// Decodes an object of `kind`; unknown and duplicate fields are refused, warned of or dropped as the query says.
pub(crate) fn decode(kind: &'static Kind, json: &[u8], query: &Query) -> Result<Decoded, ApiError> {
    let mode = query.field_validation()?;
    let info = kind.info;
    let context = |detail: String| {
        ApiError::BadRequest(format!(
            "{0} in version {1:?} cannot be handled as a {0}: {detail}",
            info.kind, info.version
        ))
    };
    if json.is_empty() {
        return Err(ApiError::BadRequest("the body of the request is empty".into()));
    }
    let decoded = (kind.decode)(json).map_err(|e| context(e.to_string()))?;
    match mode {
        FieldValidation::Ignore => Ok(Decoded { object: decoded.object, warnings: Vec::new() }),
        FieldValidation::Warn => Ok(Decoded { object: decoded.object, warnings: decoded.strict_errors }),
        FieldValidation::Strict if decoded.strict_errors.is_empty() => {
            Ok(Decoded { object: decoded.object, warnings: Vec::new() })
        }
        FieldValidation::Strict => Err(context(format!("strict decoding error: {}", decoded.strict_errors.join(", ")))),
    }
}
