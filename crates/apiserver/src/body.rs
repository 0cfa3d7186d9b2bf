//! Request bodies: read within bounds, and turned into objects.

use api::decode::DecodeError;
use api::protobuf::ProtobufError;
use api::{Kind, Object};
use axum::body::Body;
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, EXPECT};
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
        if !headers.contains_key(EXPECT) {
            discard(body).await;
        }
        return Err(too_large());
    }
    match Limited::new(body, MAX_BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(error) => Err(ApiError::BadRequest(format!("error reading the request's body: {error}"))),
    }
}

/// Takes what a client sends before it listens: it would not hear the refusal otherwise. No more than would have been read,
/// and what Go's server reads after that.
async fn discard(mut body: Body) {
    let mut left = MAX_BODY_BYTES + MAX_DISCARDED_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            break;
        }
    }
}

/// How much of a body is taken that nobody reads (`maxPostHandlerReadBytes` of Go's `net/http`).
const MAX_DISCARDED_BYTES: usize = 256 << 10;

fn too_large() -> ApiError {
    ApiError::TooLarge(format!("Request entity too large: limit is {MAX_BODY_BYTES}"))
}

/// A body as JSON.
#[derive(Clone, Debug)]
pub(crate) struct Text {
    pub(crate) json: Bytes,
    /// What only the text it was made of said, for `fieldValidation`: keys that were there twice.
    strict_errors: Vec<String>,
}

impl From<Bytes> for Text {
    fn from(json: Bytes) -> Text {
        Text { json, strict_errors: Vec::new() }
    }
}

impl From<String> for Text {
    fn from(json: String) -> Text {
        Bytes::from(json).into()
    }
}

/// A body as JSON, whatever it was written in.
pub(crate) fn to_json(headers: &HeaderMap, body: Bytes) -> Result<Text, ApiError> {
    match body_encoding(headers)? {
        BodyEncoding::Json => Ok(body.into()),
        BodyEncoding::Yaml => yaml_to_json(&body),
        BodyEncoding::Protobuf => protobuf_to_json(&body),
    }
}

/// What comes as protobuf may be as large as what comes as JSON, once it is JSON.
fn protobuf_to_json(body: &[u8]) -> Result<Text, ApiError> {
    match api::protobuf::to_json(body, MAX_BODY_BYTES) {
        Ok(json) => Ok(Bytes::from(json).into()),
        Err(ProtobufError::TooLarge(_)) => Err(too_large()),
        Err(error) => Err(ApiError::BadRequest(error.to_string())),
    }
}

/// What stands in a body after the first document is not looked at, and one without any says nothing.
fn yaml_to_json(body: &[u8]) -> Result<Text, ApiError> {
    let first = api::yaml::parse_first(body).map_err(|e| ApiError::BadRequest(e.to_string()))?;
    let strict_errors = first.strict_error().into_iter().collect();
    Ok(Text { json: first.value.to_string().into(), strict_errors })
}

/// An object and the warnings its unknown fields earned.
pub(crate) struct Decoded {
    pub(crate) object: Box<dyn Object>,
    pub(crate) warnings: Vec<String>,
}

/// Decodes an object of `kind`; unknown and duplicate fields are refused, warned of or dropped as the query says.
pub(crate) fn decode(kind: &'static Kind, text: &Text, query: &Query) -> Result<Decoded, ApiError> {
    let mode = query.field_validation()?;
    // For Go's decoder this is nothing said.
    let json = if text.json.trim_ascii() == b"null" { b"{}" } else { &*text.json };
    // For Go there is no difference between what is always written and what was.
    let complete = api::written::complete(kind.info, json.into());
    let decoded = (kind.decode)(&complete).and_then(api::decode::Decoded::checked);
    let decoded = decoded.map_err(|e| not_decoded(kind, json, &e))?;
    let strict_errors: Vec<String> = text.strict_errors.iter().cloned().chain(decoded.strict_errors).collect();
    let mut object = decoded.object;
    let repeated_owners = api::metadata::drop_repeated_owners(object.metadata_mut());
    match mode {
        FieldValidation::Warn => {
            let told = strict_errors.iter().flat_map(|error| each(error)).map(str::to_owned);
            let warnings = told.chain(repeated_owners).collect();
            Ok(Decoded { object, warnings })
        }
        FieldValidation::Strict if !strict_errors.is_empty() => Err(strict(kind, &strict_errors)),
        FieldValidation::Strict | FieldValidation::Ignore => {
            Ok(Decoded { object, warnings: repeated_owners.into_iter().collect() })
        }
    }
}

/// Each of what a strict error says: what is wrong in YAML is told line by line (`parseYAMLWarnings`).
pub(crate) fn each(error: &str) -> impl Iterator<Item = &str> {
    error.strip_prefix("yaml: unmarshal errors:\n").unwrap_or(error).lines().map(str::trim)
}

fn strict(kind: &Kind, errors: &[String]) -> ApiError {
    ApiError::BadRequest(format!(
        "{0} in version {1:?} cannot be handled as a {0}: strict decoding error: {2}",
        kind.info.kind,
        kind.info.version,
        errors.join(", ")
    ))
}

/// How much of a body that is no object is shown to its sender, who may have meant to send something else.
const SUMMARY_BYTES: usize = 30;

/// What is not even JSON is shown (`transformDecodeError` in `k8s.io/apiserver/pkg/endpoints/handlers`); what is JSON of
/// another kind or with a field of another type has been explained.
fn not_decoded(kind: &Kind, json: &[u8], error: &DecodeError) -> ApiError {
    let DecodeError::Syntax(reason) = error else { return ApiError::BadRequest(error.to_string()) };
    let kind = kind.info.kind;
    let summary = summary(json);
    ApiError::BadRequest(format!("the object provided is unrecognized (must be of type {kind}): {reason} ({summary})"))
}

/// The beginning of a body: as it is, where it looks like JSON (`summarizeData`).
fn summary(body: &[u8]) -> String {
    let (start, more) = match body.get(..SUMMARY_BYTES) {
        Some(start) if body.len() > SUMMARY_BYTES => (start, " ..."),
        _ => (body, ""),
    };
    match start.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => format!("{}{more}", String::from_utf8_lossy(start)),
        Some(_) => start.iter().map(|byte| format!("{byte:02x}")).chain([more.to_owned()]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_body_is_shown() {
        assert_eq!(summary(b""), "<empty>");
        assert_eq!(summary(b"{\"a\""), "{\"a\"");
        assert_eq!(summary(&[b'{'; 40]), format!("{} ...", "{".repeat(30)));
        assert_eq!(summary(b"kind"), "6b696e64");
        assert_eq!(summary(&[0; 31]), format!("{} ...", "00".repeat(30)));
    }
}
