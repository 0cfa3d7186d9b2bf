//! Media types: what a body is in, and what the client wants back.

use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};

use crate::status::ApiError;

/// What is read.
const BODIES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";
/// The version of `meta.k8s.io` today, and the one before, which is still served.
const META: &str = "meta.k8s.io/v1";
const META_BETA: &str = "meta.k8s.io/v1beta1";
/// What is written.
const ANSWERS: &str = "application/json, application/yaml";

/// How a request's body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BodyEncoding {
    Json,
    Yaml,
    /// Go's typed clients take no other way from 1.32 on.
    Protobuf,
}

/// How an answer is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
}

/// Which shape of an object or list the client asked for. Those that are not the object itself are of `meta.k8s.io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// As it is.
    Object,
    Table,
    /// PartialObjectMetadata: of one object.
    Metadata,
    /// PartialObjectMetadataList: of a list.
    MetadataList,
}

/// The answer's form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    pub(crate) encoding: Encoding,
    pub(crate) shape: Shape,
    /// `apiVersion` of the shapes of `meta.k8s.io`.
    pub(crate) meta: &'static str,
}

impl Output {
    pub(crate) const JSON: Output = Output { encoding: Encoding::Json, shape: Shape::Object, meta: META };

    /// Whether stored bytes can be sent as they are.
    pub(crate) fn is_plain(self) -> bool {
        self == Output::JSON
    }
}

/// A media type without parameters, in lower case, and its parameters.
pub(crate) fn split(media_type: &str) -> (String, impl Iterator<Item = (&str, &str)>) {
    let mut parts = media_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or("").to_ascii_lowercase();
    (essence, parts.filter_map(|p| p.split_once('=')).map(|(k, v)| (k.trim(), v.trim().trim_matches('"'))))
}

/// The media type of a request's body, without parameters; empty only where it is not told.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    match headers.get(CONTENT_TYPE).map(|value| value.to_str().map(|text| (text, split(text).0))) {
        None | Some(Ok(("", _))) => String::new(),
        Some(Ok((_, essence))) if essence.contains('/') => essence,
        Some(_) => "unknown".to_owned(),
    }
}

/// How the body of a create, update or delete is encoded; 415 for what is not read here.
pub(crate) fn body_encoding(headers: &HeaderMap) -> Result<BodyEncoding, ApiError> {
    match content_type(headers).as_str() {
        "" | "application/json" => Ok(BodyEncoding::Json),
        "application/yaml" => Ok(BodyEncoding::Yaml),
        api::protobuf::MEDIA_TYPE => Ok(BodyEncoding::Protobuf),
        _ => Err(ApiError::UnsupportedMediaType(BODIES)),
    }
}

/// The most forms a client may name.
const MAX_CLAUSES: usize = 64;

/// The form the client likes best of those there are; the first of equals; 406 when there is none.
pub(crate) fn accept(headers: &HeaderMap) -> Result<Output, ApiError> {
    first(headers, |_| true)
}

/// The same of what is no object of a kind, and has no other shapes.
pub(crate) fn accept_object(headers: &HeaderMap) -> Result<Output, ApiError> {
    first(headers, |output| output.shape == Shape::Object)
}

fn first(headers: &HeaderMap, fits: impl Fn(&Output) -> bool) -> Result<Output, ApiError> {
    let values = headers.get_all(ACCEPT).into_iter().filter_map(|value| value.to_str().ok());
    let clauses = values.flat_map(|v| v.split(',')).filter(|c| !c.trim().is_empty());
    let mut sorted: Vec<Clause<'_>> = Vec::new();
    for clause in clauses.take(MAX_CLAUSES).map(Clause::of) {
        let place = sorted.iter().rposition(|other| !clause.is_before(other)).map_or(0, |last| last + 1);
        sorted.insert(place, clause);
    }
    if sorted.is_empty() {
        return Ok(Output::JSON);
    }
    let mut outputs = sorted.into_iter().filter_map(|clause| clause_output(clause.text));
    outputs.find(fits).ok_or(ApiError::NotAcceptable(ANSWERS))
}

/// Whether a refusal is to be written as YAML. Most clients never name it.
pub(crate) fn wants_yaml(headers: &HeaderMap) -> bool {
    let names_it = |value: &http::HeaderValue| value.as_bytes().windows(4).any(|w| w.eq_ignore_ascii_case(b"yaml"));
    headers.get_all(ACCEPT).iter().any(names_it) && accept(headers).is_ok_and(|o| o.encoding == Encoding::Yaml)
}

/// One form, and how much the client likes it.
struct Clause<'a> {
    text: &'a str,
    quality: f32,
    is_any: bool,
    is_any_of_type: bool,
}

impl Clause<'_> {
    /// What is no quality is none (RFC 9110, 12.4.2).
    fn of(text: &str) -> Clause<'_> {
        let (essence, mut parameters) = split(text);
        let quality = parameters.find(|(key, _)| *key == "q");
        let quality =
            quality.map_or(1.0, |(_, value)| value.parse().ok().filter(|q: &f32| q.is_finite()).unwrap_or(0.0));
        Clause { text, quality, is_any: essence.starts_with('*'), is_any_of_type: essence.ends_with("/*") }
    }

    /// Go's clients count on the order of `goautoneg`: what is named comes before what is not, however much it is liked.
    fn is_before(&self, other: &Clause<'_>) -> bool {
        self.quality > other.quality || !self.is_any && other.is_any || !self.is_any_of_type && other.is_any_of_type
    }
}

fn clause_output(clause: &str) -> Option<Output> {
    let (essence, parameters) = split(clause);
    let encoding = match essence.as_str() {
        "application/json" | "*/*" | "application/*" | "text/json" => Encoding::Json,
        "application/yaml" => Encoding::Yaml,
        _ => return None,
    };
    let (mut kind, mut group, mut version) = ("", "", "");
    for (key, value) in parameters {
        match key {
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    if [kind, group, version].iter().all(|part| part.is_empty()) {
        return Some(Output { encoding, ..Output::JSON });
    }
    let meta = match (group, version) {
        ("meta.k8s.io", "v1") => META,
        ("meta.k8s.io", "v1beta1") => META_BETA,
        _ => return None,
    };
    let shape = match kind {
        "Table" => Shape::Table,
        "PartialObjectMetadata" => Shape::Metadata,
        "PartialObjectMetadataList" => Shape::MetadataList,
        _ => return None,
    };
    Some(Output { encoding, shape, meta })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(value: &'static str) -> Option<Output> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, http::HeaderValue::from_static(value));
        accept(&headers).ok()
    }

    #[test]
    fn the_first_acceptable_clause_wins() {
        let table = Output { shape: Shape::Table, ..Output::JSON };
        let older = Output { meta: META_BETA, ..table };
        let yaml = Output { encoding: Encoding::Yaml, ..Output::JSON };
        let metadata = Output { shape: Shape::MetadataList, ..Output::JSON };
        let cases = [
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Some(table)),
            ("application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json", Some(older)),
            ("application/json;as=Table;v=v1alpha1;g=meta.k8s.io,application/json", Some(Output::JSON)),
            ("application/json;as=Chart;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io", Some(table)),
            ("application/vnd.kubernetes.protobuf, application/json; q=0.9", Some(Output::JSON)),
            ("application/json;q=0.5, application/yaml", Some(yaml)),
            ("application/yaml;q=0.1,application/json;q=0.8,*/*;q=x", Some(Output::JSON)),
            ("application/vnd.kubernetes.protobuf", None),
            ("application/cbor, application/cbor-seq", None),
            ("application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1", Some(metadata)),
            ("application/yaml", Some(yaml)),
            ("*/*", Some(Output::JSON)),
            ("*/*,application/yaml", Some(yaml)),
            ("application/*;q=0.9,application/yaml;q=0.1", Some(yaml)),
            ("*/*,application/json;as=Table;v=v1;g=meta.k8s.io", Some(table)),
            ("application/json;q=x,application/yaml", Some(yaml)),
            ("application/json;v=v1;g=meta.k8s.io", None),
            ("application/json;q=0", Some(Output::JSON)),
        ];
        for (header, expected) in cases {
            assert_eq!(accepted(header), expected, "{header}");
        }
        assert_eq!(accept(&HeaderMap::new()).unwrap(), Output::JSON);
        for (header, expected) in [
            ("application/json;as=Table;v=v1;g=meta.k8s.io", None),
            ("application/json;as=Table;v=v1;g=meta.k8s.io, application/yaml", Some(Encoding::Yaml)),
            ("text/html", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, http::HeaderValue::from_static(header));
            assert_eq!(accept_object(&headers).ok().map(|output| output.encoding), expected, "{header}");
        }
    }

    #[test]
    fn a_refusal_is_yaml_only_for_who_wants_that() {
        for (header, expected) in [
            ("application/yaml", true),
            ("application/json", false),
            ("application/json, application/yaml", false),
            ("text/yaml", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, http::HeaderValue::from_static(header));
            assert_eq!(wants_yaml(&headers), expected, "{header}");
        }
    }

    #[test]
    fn bodies_are_json_yaml_or_protobuf() {
        let cases = [
            ("application/json; charset=utf-8", Some(BodyEncoding::Json)),
            ("application/yaml", Some(BodyEncoding::Yaml)),
            ("application/vnd.kubernetes.protobuf", Some(BodyEncoding::Protobuf)),
            ("application/vnd.kubernetes.protobuf;type=x", Some(BodyEncoding::Protobuf)),
            ("", Some(BodyEncoding::Json)),
            ("application/cbor", None),
            ("text/json", None),
            ("text/yaml", None),
            ("application/x-yaml", None),
            ("application/*", None),
            ("*/*", None),
        ];
        assert_eq!(body_encoding(&HeaderMap::new()).ok(), Some(BodyEncoding::Json), "nothing said");
        for (media_type, expected) in cases {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, http::HeaderValue::from_static(media_type));
            assert_eq!(body_encoding(&headers).ok(), expected, "{media_type}");
        }
    }
}
