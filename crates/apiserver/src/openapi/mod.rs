//! OpenAPI v2 and v3, made from the table of kinds and the schemas of its types when someone asks.
//!
//! Stock kubectl reads from it which fields there are (`explain`) and that the server validates them itself
//! (`fieldValidation` of PATCH).

mod operation;
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

/// How a client says who it is, as far as these documents can say it.
fn bearer_token() -> Value {
    json!({"BearerToken": {
        "type": "apiKey", "in": "header", "name": "authorization", "description": "Bearer Token authentication",
    }})
}

fn v3(path: &str) -> Option<Value> {
    let kinds: Vec<_> = kinds().filter(|k| operations::root(k.info) == path).collect();
    if kinds.is_empty() {
        return None;
    }
    let (names, schemas) = schemas::v3(&kinds);
    let mut paths = serde_json::Map::new();
    for (kind, name) in kinds.iter().zip(&names) {
        paths.extend(operations::paths(kind.info, name, operation::Form::V3));
    }
    let components = json!({"schemas": schemas, "securitySchemes": bearer_token()});
    Some(json!({"openapi": "3.0.0", "info": info(), "paths": paths, "components": components}))
}

fn v2() -> Value {
    let kinds: Vec<_> = kinds().collect();
    let (names, definitions) = schemas::v2(&kinds);
    let mut paths = serde_json::Map::new();
    for (kind, name) in kinds.iter().zip(&names) {
        paths.extend(operations::paths(kind.info, name, operation::Form::V2));
    }
    let security = json!([{"BearerToken": []}]);
    json!({
        "swagger": "2.0", "info": info(), "paths": paths, "definitions": definitions,
        "securityDefinitions": bearer_token(), "security": security,
    })
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
            "connectCoreV1GetNamespacedServiceProxyWithPath",
            "readCoreV1NamespacedReplicationControllerScale",
            "replaceCoreV1NamespaceFinalize",
            "listCoreV1Node",
            "deleteCoreV1CollectionNode",
            "watchCoreV1PodListForAllNamespaces",
            "watchCoreV1NamespacedPodList",
            "watchCoreV1NamespacedPod",
            "watchCoreV1NodeList",
            "watchCoreV1Node",
        ] {
            assert!(ids.contains(&id), "{id} of {ids:?}");
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "no two have the same name");
        let listed = &document["paths"]["/api/v1/pods"]["get"]["responses"]["200"]["content"]["application/json"];
        assert_eq!(listed["schema"]["$ref"], "#/components/schemas/io.k8s.api.core.v1.PodList");
        let watched = &document["paths"]["/api/v1/watch/namespaces/{namespace}/pods/{name}"];
        assert_eq!(
            (&watched["get"]["x-kubernetes-action"], watched["parameters"].as_array().unwrap().len()),
            (&json!("watch"), 2)
        );
        let roles = v3("apis/rbac.authorization.k8s.io/v1").unwrap()["paths"].to_string();
        assert!(roles.contains("\"readRbacAuthorizationV1ClusterRole\""), "{roles}");
    }

    /// openapi-generator makes a class of each tag, and says in it what its answers may be.
    #[test]
    fn operations_are_tagged_and_say_their_media_types() {
        for (path, tag) in [("api/v1", "core_v1"), ("apis/rbac.authorization.k8s.io/v1", "rbacAuthorization_v1")] {
            let document = v3(path).unwrap();
            let items = document["paths"].as_object().unwrap().values();
            let operations = items.flat_map(|item| item.as_object().unwrap().values()).filter(|o| o.is_object());
            let untagged: Vec<_> = operations.filter(|o| o["tags"] != json!([tag])).collect();
            assert!(untagged.is_empty(), "{untagged:?}");
        }
        let pods = &v2()["paths"]["/api/v1/namespaces/{namespace}/pods"];
        let media_types = json!(["application/json", "application/yaml", "application/json;stream=watch"]);
        assert_eq!((&pods["get"]["produces"], &pods["get"]["schemes"]), (&media_types, &json!(["https"])));
        assert_eq!(pods["post"]["responses"]["401"], json!({"description": "Unauthorized"}));
        let orphans = pods["delete"]["parameters"].as_array().unwrap().iter().find(|p| p["name"] == "orphanDependents");
        assert_eq!(orphans.unwrap()["type"], "boolean");
    }

    /// What a client that validates asks for must be what the server asks for.
    #[test]
    fn what_may_be_left_out_is_not_required() {
        let document = v2();
        let required = |name: &str| document["definitions"][format!("io.k8s.{name}")]["required"].clone();
        for (name, expected) in [
            ("api.core.v1.LocalObjectReference", json!(null)),
            ("api.core.v1.ConfigMapVolumeSource", json!(null)),
            ("api.core.v1.SecretKeySelector", json!(["key"])),
            ("api.core.v1.Event", json!(["involvedObject", "metadata"])),
            ("api.core.v1.Pod", json!(null)),
            ("api.events.v1.Event", json!(["eventTime"])),
            ("api.autoscaling.v1.Scale", json!(null)),
            ("api.policy.v1.Eviction", json!(null)),
            ("api.authentication.v1.TokenRequest", json!(["spec"])),
            ("apimachinery.pkg.apis.meta.v1.Status", json!(null)),
        ] {
            assert_eq!(required(name), expected, "{name}");
        }
        let reference = &v3("api/v1").unwrap()["components"]["schemas"]["io.k8s.api.core.v1.LocalObjectReference"];
        assert_eq!(reference["properties"]["name"]["default"], "");
    }

    #[test]
    fn whatever_has_a_kind_says_which() {
        let document = v2();
        let kinds =
            |name: &str| document["definitions"][format!("io.k8s.{name}")]["x-kubernetes-group-version-kind"].clone();
        let gvk = |group: &str, kind: &str| json!([{"group": group, "version": "v1", "kind": kind}]);
        assert_eq!(kinds("api.autoscaling.v1.Scale"), gvk("autoscaling", "Scale"));
        assert_eq!(kinds("api.authentication.v1.TokenRequest"), gvk("authentication.k8s.io", "TokenRequest"));
        assert_eq!(kinds("api.policy.v1.Eviction"), gvk("policy", "Eviction"));
        assert_eq!(kinds("apimachinery.pkg.apis.meta.v1.Status"), gvk("", "Status"));
        assert_eq!(kinds("api.core.v1.PodList"), gvk("", "PodList"));
        let options = kinds("apimachinery.pkg.apis.meta.v1.DeleteOptions");
        assert!(options.as_array().unwrap().contains(&gvk("coordination.k8s.io", "DeleteOptions")[0]), "{options}");
    }

    #[test]
    fn lists_say_by_which_key_they_merge() {
        let document = v3("api/v1").unwrap();
        let containers = &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
        assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
        assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
        let container = &document["components"]["schemas"]["io.k8s.api.core.v1.Container"]["properties"];
        let list_type = |name: &str| &container[name]["x-kubernetes-list-type"];
        assert_eq!((list_type("ports"), list_type("args")), (&json!("map"), &json!("atomic")));
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
