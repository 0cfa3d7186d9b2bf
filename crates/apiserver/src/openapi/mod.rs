//! OpenAPI v2 and v3, made from the table of kinds and the schemas of its types when someone asks.
//!
//! Stock kubectl reads from it which fields there are (`explain`) and that the server validates them itself
//! (`fieldValidation` of PATCH).

mod operations;
mod protobuf;
mod schemas;

use std::sync::LazyLock;

use http::header::{ACCEPT, CACHE_CONTROL, EXPIRES, LOCATION};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use api::kinds;

use crate::negotiate::split;
use crate::query::Query;
use crate::respond::{self, ApiResponse};
use crate::status::ApiError;

/// The answer to a path below `/openapi`.
pub(crate) fn respond(headers: &HeaderMap, segments: &[&str], query: &Query) -> Result<Option<ApiResponse>, ApiError> {
    let tag = &**HASH;
    if segments == ["openapi", "v2"] && !accepts(headers, JSON) && accepts(headers, &PROTOBUF_V2) {
        let media_type = HeaderValue::from_static(PROTOBUF_V2[1]);
        let response = respond::with_type(StatusCode::OK, media_type, protobuf::document().into());
        return Ok(Some(respond::tagged(headers, response, tag)));
    }
    if !accepts(headers, JSON) {
        return Err(ApiError::NotAcceptable("application/json"));
    }
    let document = match segments {
        ["openapi", "v2"] => v2(),
        ["openapi", "v3"] => index(),
        ["openapi", "v3", path @ ..] => {
            let path = path.join("/");
            let document = v3(&path).ok_or(ApiError::PathNotFound)?;
            if query.get("hash").is_some_and(|hash| !hash.is_empty() && hash != tag) {
                return Ok(Some(moved(&url(&path, tag))));
            }
            document
        }
        _ => return Err(ApiError::PathNotFound),
    };
    let mut response = respond::tagged(headers, respond::json(StatusCode::OK, &document), tag);
    if query.get("hash").is_some_and(|h| h == tag) {
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public, immutable"));
        response.headers_mut().extend(in_a_year().map(|date| (EXPIRES, date)));
    }
    Ok(Some(response))
}

/// To the document as it is now, from one that a client remembers.
fn moved(location: &str) -> ApiResponse {
    let mut response = respond::text(StatusCode::MOVED_PERMANENTLY, "");
    response.headers_mut().extend(HeaderValue::try_from(location).ok().map(|location| (LOCATION, location)));
    response
}

/// The furthest `Expires` there is, for what never changes (RFC 2616, 14.21).
fn in_a_year() -> Option<HeaderValue> {
    let date = jiff::Timestamp::now().checked_add(jiff::SignedDuration::from_hours(365 * 24)).ok()?;
    let date = date.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::try_from(date).ok()
}

const JSON: &[&str] = &["application/json", "*/*", "application/*"];
/// What kubectl up to 1.29 asks for, in both of its spellings.
const PROTOBUF_V2: [&str; 2] = [
    "application/com.github.proto-openapi.spec.v2@v1.0+protobuf",
    "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
];

/// Whether a client takes one of these media types; one that says nothing takes all.
fn accepts(headers: &HeaderMap, types: &[&str]) -> bool {
    let values = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let mut clauses = values.flat_map(|v| v.split(',')).map(|c| split(c.trim()).0).peekable();
    clauses.peek().is_none() || clauses.any(|c| types.contains(&c.as_str()))
}

/// Changes when a document does.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for document in documents().iter().filter_map(|path| v3(path)).chain([v2()]) {
        context.update(document.to_string().as_bytes());
    }
    context.finish().as_ref().iter().take(16).map(|b| format!("{b:02X}")).collect()
});

/// `api/v1`, `apis/discovery.k8s.io/v1`: one document each.
fn documents() -> Vec<String> {
    let mut all = Vec::new();
    for kind in kinds() {
        let path = operations::root(kind.info);
        if !all.contains(&path) {
            all.push(path);
        }
    }
    all
}

fn index() -> Value {
    let entries = documents().into_iter().map(|path| {
        let url = url(&path, &HASH);
        (path, json!({"serverRelativeURL": url}))
    });
    json!({"paths": entries.collect::<serde_json::Map<_, _>>()})
}

fn url(path: &str, hash: &str) -> String {
    format!("/openapi/v3/{path}?hash={hash}")
}

fn info() -> Value {
    json!({"title": "Kubernetes", "version": "v1.35.0"})
}

fn v3(path: &str) -> Option<Value> {
    let kinds: Vec<_> = kinds().filter(|k| operations::root(k.info) == path).collect();
    if kinds.is_empty() {
        return None;
    }
    let (names, schemas) = schemas::v3(&kinds);
    let mut paths = serde_json::Map::new();
    for (kind, name) in kinds.iter().zip(&names) {
        paths.extend(operations::paths(kind.info, name, operations::Form::V3));
    }
    Some(json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": {"schemas": schemas}}))
}

fn v2() -> Value {
    let kinds: Vec<_> = kinds().collect();
    let (names, definitions) = schemas::v2(&kinds);
    let mut paths = serde_json::Map::new();
    for (kind, name) in kinds.iter().zip(&names) {
        paths.extend(operations::paths(kind.info, name, operations::Form::V2));
    }
    json!({"swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions})
}

#[cfg(test)]
mod tests {
    use api::Verb;

    use super::*;

    #[test]
    fn every_kind_has_a_patch_that_validates_fields() {
        for path in documents() {
            let document = v3(&path).unwrap();
            for kind in kinds().filter(|k| k.info.can(Verb::Patch) && operations::root(k.info) == path) {
                let gvk = json!({"group": kind.info.group, "version": kind.info.version, "kind": kind.info.kind});
                let patches = document["paths"].as_object().unwrap().values().map(|p| &p["patch"]);
                let own = patches.filter(|p| p["x-kubernetes-group-version-kind"] == gvk);
                let validates =
                    own.flat_map(|p| p["parameters"].as_array().unwrap()).any(|p| p["name"] == "fieldValidation");
                assert!(validates, "{}", kind.info.kind);
            }
        }
    }

    #[test]
    fn every_operation_has_upstreams_name_and_one_of_its_own() {
        let document = v3("api/v1").unwrap();
        let mut ids: Vec<&str> = Vec::new();
        for item in document["paths"].as_object().unwrap().values() {
            ids.extend(item.as_object().unwrap().values().filter_map(|o| o["operationId"].as_str()));
        }
        for id in [
            "listCoreV1PodForAllNamespaces",
            "listCoreV1NamespacedPod",
            "createCoreV1NamespacedPod",
            "deleteCoreV1CollectionNamespacedPod",
            "readCoreV1NamespacedPod",
            "replaceCoreV1NamespacedPodStatus",
            "patchCoreV1NamespacedPodEphemeralcontainers",
            "readCoreV1NamespacedPodLog",
            "createCoreV1NamespacedPodEviction",
            "createCoreV1NamespacedServiceAccountToken",
            "connectCoreV1GetNamespacedPodExec",
            "connectCoreV1PostNamespacedPodPortforward",
            "connectCoreV1PutNodeProxy",
            "readCoreV1NamespacedReplicationControllerScale",
            "replaceCoreV1NamespaceFinalize",
            "listCoreV1Node",
            "deleteCoreV1CollectionNode",
        ] {
            assert!(ids.contains(&id), "{id} of {ids:?}");
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "no two have the same name");
        let listed = &document["paths"]["/api/v1/pods"]["get"]["responses"]["200"]["content"]["application/json"];
        assert_eq!(listed["schema"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.PodList");
        let roles = v3("apis/rbac.authorization.k8s.io/v1").unwrap()["paths"].to_string();
        assert!(roles.contains("\"readRbacAuthorizationV1ClusterRole\""), "{roles}");
    }

    #[test]
    fn lists_say_by_which_key_they_merge() {
        let document = v3("api/v1").unwrap();
        let containers = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn check(document: &Value, value: &Value) {
            match value {
                Value::Object(map) => {
                    if let Some(reference) = map.get("$ref").and_then(Value::as_str) {
                        let pointer = reference.strip_prefix('#').unwrap();
                        assert!(document.pointer(pointer).is_some(), "{reference}");
                    }
                    map.values().for_each(|v| check(document, v));
                }
                Value::Array(list) => list.iter().for_each(|v| check(document, v)),
                _ => {}
            }
        }
        for document in documents().iter().map(|p| v3(p).unwrap()).chain([v2()]) {
            check(&document, &document);
        }
    }
}
