//! Answers: bytes, objects in the shape the client asked for, errors.

use axum::body::Body;
use bytes::Bytes;
use http::header::{
    CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, RETRY_AFTER, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;

use api::Kind;

use crate::negotiate::{Encoding, Output, Shape};
use crate::status::{ApiError, RETRY_AFTER_SECONDS, status_of, success};
use crate::table;

pub(crate) type ApiResponse = Response<Body>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const YAML: HeaderValue = HeaderValue::from_static("application/yaml");
/// Answers are for who asked, and soon old (`WithCacheControl` upstream).
pub(crate) const NOT_KEPT: HeaderValue = HeaderValue::from_static("no-cache, private");
/// What is text is no page (`X-Content-Type-Options`).
pub(crate) const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const WARNING: HeaderName = HeaderName::from_static("warning");

/// Bytes that are JSON.
pub(crate) fn json_bytes(code: StatusCode, bytes: Bytes) -> ApiResponse {
    with_type(code, JSON, Body::from(bytes))
}

/// A body of a known media type.
pub(crate) fn with_type(code: StatusCode, media_type: HeaderValue, body: Body) -> ApiResponse {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}

/// A JSON stream of unknown length.
pub(crate) fn json_body(body: Body) -> ApiResponse {
    with_type(StatusCode::OK, JSON, body)
}

/// A JSON tree.
pub(crate) fn json(code: StatusCode, value: &Value) -> ApiResponse {
    json_bytes(code, value.to_string().into())
}

/// A short text that is no page, whatever is in it.
pub(crate) fn plain(code: StatusCode, text: impl Into<Bytes>) -> ApiResponse {
    let mut response = self::text(code, text);
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    response
}

/// A short text.
pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> ApiResponse {
    with_type(code, HeaderValue::from_static("text/plain; charset=utf-8"), Body::from(text.into()))
}

/// JSON bytes in the encoding asked for.
pub(crate) fn encoded(code: StatusCode, json: Bytes, encoding: Encoding) -> ApiResponse {
    match encoding {
        Encoding::Json => json_bytes(code, json),
        Encoding::Yaml => {
            let tree = serde_json::from_slice(&json).unwrap_or(Value::Null);
            with_type(code, YAML, Body::from(api::yaml::to_string(&tree)))
        }
    }
}

/// An object of `kind` in the form asked for.
pub(crate) fn object(code: StatusCode, kind: &'static Kind, json: Bytes, output: Output) -> ApiResponse {
    let json = match output.shape {
        Shape::Object => json,
        Shape::Metadata => table::partial_metadata(&json, output.meta).into(),
        Shape::MetadataList => {
            let name = api::decode::internal_name(kind.info);
            let why =
                format!("you requested PartialObjectMetadataList, but the requested object is not a list (*{name})");
            return error(&ApiError::NotOfThatShape(why), output.encoding);
        }
        Shape::Table => table::Table::new(kind, table::IncludeObject::Metadata, output.meta).of_one(&json).into(),
    };
    encoded(code, json, output.encoding)
}

/// A request that succeeded and has no object to show.
pub(crate) fn succeeded(code: StatusCode, details: Value, encoding: Encoding) -> ApiResponse {
    encoded(code, success(details).to_string().into(), encoding)
}

/// An answer under a tag that names its content; 304 and no content for a client that has it. Clients ask for the same
/// path in several forms, and keep one of each.
pub(crate) fn tagged(headers: &HeaderMap, mut response: ApiResponse, tag: &str) -> ApiResponse {
    let quoted = format!("\"{tag}\"");
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let mut tags = values.flat_map(|v| v.split(',')).map(|t| t.trim().trim_start_matches("W/"));
    if tags.any(|known| known == "*" || known == quoted) {
        response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    response.headers_mut().extend(HeaderValue::try_from(quoted).ok().map(|quoted| (ETAG, quoted)));
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// The `Status` of an error.
pub(crate) fn error(error: &ApiError, encoding: Encoding) -> ApiResponse {
    let (code, status) = status_of(error);
    if matches!(error, ApiError::PageNotFound) {
        return plain(code, format!("{error}\n"));
    }
    if code.is_server_error() {
        tracing::warn!(%error, "request failed");
    }
    let mut response = encoded(code, status.to_string().into(), encoding);
    if matches!(error, ApiError::TooManyRequests | ApiError::TooLargeResourceVersion { .. }) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(RETRY_AFTER_SECONDS));
    }
    if matches!(error, ApiError::Unauthorized) {
        response.headers_mut().insert(http::header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    response
}

/// The most warnings one answer carries.
const MAX_WARNINGS: usize = 64;
/// The most characters of warnings an answer carries whole (`truncateAtTotalRunes` upstream).
const MAX_SAID: usize = 4096;
/// What is left of each where all are more (`truncateItemRunes`).
const MAX_OF_EACH: usize = 256;

/// What is said beside an answer, by whomever, each once.
#[derive(Clone, Default)]
struct Warnings(Vec<String>);

/// Adds `Warning` headers (`299 - "text"`, RFC 7234).
pub(crate) fn warn<T: AsRef<str>>(response: &mut ApiResponse, warnings: &[T]) {
    if warnings.is_empty() {
        return;
    }
    let said = &mut response.extensions_mut().get_or_insert_default::<Warnings>().0;
    for warning in warnings {
        // Of what is longer no more is shown than of this.
        let text: String = warning.as_ref().chars().take(MAX_SAID + 1).collect();
        let is_new = !text.is_empty() && !text.chars().any(char::is_control) && !said.contains(&text);
        if is_new && said.len() < MAX_WARNINGS {
            said.push(text);
        }
    }
    let values = warning_values(said);
    response.headers_mut().remove(WARNING);
    for value in values {
        response.headers_mut().append(WARNING, value);
    }
}

/// The headers of warnings, cut where they are too long together
/// (`staging/src/k8s.io/apiserver/pkg/endpoints/filters/warning.go`).
fn warning_values(said: &[String]) -> Vec<HeaderValue> {
    let all: usize = said.iter().map(|text| text.chars().count()).sum();
    let of_each = if all > MAX_SAID { MAX_OF_EACH } else { MAX_SAID };
    let (mut written, mut values) = (0, Vec::new());
    for text in said {
        if written >= MAX_SAID {
            break;
        }
        let text: String = text.chars().take(of_each).collect();
        written += text.chars().count();
        let quoted = text.replace('\\', r"\\").replace('"', "\\\"");
        values.extend(HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes()));
    }
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(calls: &[&[&str]]) -> Vec<String> {
        let mut response = text(StatusCode::OK, "");
        calls.iter().for_each(|warnings| warn(&mut response, warnings));
        let values = response.headers().get_all(WARNING).iter();
        let texts = values.map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap());
        texts.map(|text| text.strip_prefix("299 - \"").unwrap().strip_suffix('"').unwrap().to_owned()).collect()
    }

    #[test]
    fn each_warning_is_said_once_and_as_it_is() {
        assert_eq!(said(&[&["a", "b", "a"], &["b", "c"]]), ["a", "b", "c"]);
        assert_eq!(said(&[&["say \"b\\\"", "grüße", "", "a\nb", "t\tu"]]), ["say \\\"b\\\\\\\"", "grüße"]);
    }

    #[test]
    fn many_and_long_warnings_are_cut() {
        let (long, fits) = ("ä".repeat(MAX_SAID + 7), "x".repeat(MAX_SAID - 1));
        assert_eq!(said(&[&[&fits], &["y"]]), [fits.as_str(), "y"], "what fits is whole");
        let cut = said(&[&[&fits], &["y"], &["z", &long]]);
        assert_eq!(cut, ["x".repeat(MAX_OF_EACH), "y".into(), "z".into(), "ä".repeat(MAX_OF_EACH)]);
        let many: Vec<String> = (0..100).map(|n| format!("{n}{fits}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(said(&[&many]).len(), MAX_SAID / MAX_OF_EACH);
        let short: Vec<String> = (0..100).map(|n| n.to_string()).collect();
        let short: Vec<&str> = short.iter().map(String::as_str).collect();
        assert_eq!(said(&[&short[..50], &short[50..]]), &short[..MAX_WARNINGS], "one count for all who say something");
    }
}
