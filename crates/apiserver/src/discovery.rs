//! Discovery: which groups, versions and resources there are, in the older and the aggregated form, all from the table of
//! kinds.

use std::sync::Arc;

use api::{KindInfo, Scope, Verb, kinds};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::negotiate::{accept_object, split};
use crate::respond::{self, ApiResponse};
use crate::server::Shared;
use crate::status::ApiError;

const AGGREGATED: HeaderValue =
    HeaderValue::from_static("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList");

/// The answer if the path is one of discovery's; `None` if it is a resource's.
pub(crate) fn respond(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    segments: &[&str],
) -> Result<Option<ApiResponse>, ApiError> {
    let aggregated = wants_aggregated(headers);
    let document = match segments {
        [] => return Ok(Some(respond::json(StatusCode::OK, &json!({"paths": paths()})))),
        ["api" | "apis"] if aggregated => {
            let body = aggregated_list(segments == ["api"]).to_string();
            let tag = ring::digest::digest(&ring::digest::SHA512, body.as_bytes());
            let tag: String = tag.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
            let response = respond::with_type(StatusCode::OK, AGGREGATED, body.into());
            let mut response = respond::tagged(headers, response, &tag);
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
            return Ok(Some(response));
        }
        ["api"] => api_versions(shared),
        ["apis"] => {
            json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups().map(in_list).collect::<Vec<_>>()})
        }
        ["apis", name] => group(groups().find(|g| g == name).ok_or(ApiError::PathNotFound)?),
        ["api", version] => resource_list("", version)?,
        ["apis", name, version] => resource_list(name, version)?,
        _ => return Ok(None),
    };
    let encoding = accept_object(headers)?.encoding;
    Ok(Some(respond::encoded(StatusCode::OK, document.to_string().into(), encoding)))
}

fn paths() -> Vec<String> {
    let mut paths = vec!["/api".to_owned(), "/api/v1".to_owned(), "/apis".to_owned()];
    for group in groups() {
        paths.push(format!("/apis/{group}"));
        paths.extend(versions(group).into_iter().map(|v| format!("/apis/{group}/{v}")));
    }
    let rest = [
        "/.well-known/openid-configuration",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
    ];
    paths.extend(rest.map(str::to_owned));
    paths
}

/// Named groups, in the order of the table.
fn groups() -> impl Iterator<Item = &'static str> {
    let all: Vec<&str> = kinds().map(|k| k.info.group).filter(|g| !g.is_empty()).collect();
    let mut seen = std::collections::HashSet::new();
    all.into_iter().filter(move |g| seen.insert(*g))
}

fn versions(group: &str) -> Vec<&'static str> {
    let mut versions: Vec<&str> = Vec::new();
    for kind in kinds().filter(|k| k.info.group == group) {
        if !versions.contains(&kind.info.version) {
            versions.push(kind.info.version);
        }
    }
    versions
}

fn kinds_of<'a>(group: &'a str, version: &'a str) -> impl Iterator<Item = &'static KindInfo> + use<'a> {
    kinds().map(|k| k.info).filter(move |i| i.group == group && i.version == version)
}

fn api_versions(shared: &Shared) -> Value {
    let address = format!("{}:{}", shared.config.advertise_address, shared.config.secure_port);
    json!({
        "kind": "APIVersions", "versions": versions(""),
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    })
}

fn group(name: &str) -> Value {
    let mut group = in_list(name);
    group["kind"] = json!("APIGroup");
    group["apiVersion"] = json!("v1");
    group
}

/// A group as the list of all shows it, which says once what they are.
fn in_list(name: &str) -> Value {
    let versions: Vec<Value> =
        versions(name).iter().map(|v| json!({"groupVersion": format!("{name}/{v}"), "version": v})).collect();
    json!({"name": name, "versions": versions, "preferredVersion": versions[0]})
}

fn resource_list(group: &str, version: &str) -> Result<Value, ApiError> {
    let kinds: Vec<&KindInfo> = kinds_of(group, version).collect();
    let first = kinds.first().ok_or(ApiError::PathNotFound)?;
    let resources: Vec<Value> = kinds.iter().flat_map(|info| resource(info)).collect();
    let mut list = json!({"kind": "APIResourceList", "groupVersion": first.api_version(), "resources": resources});
    // As upstream, which keeps the form of the first clients for the core.
    if !group.is_empty() {
        list["apiVersion"] = json!("v1");
    }
    Ok(list)
}

fn resource(info: &KindInfo) -> Vec<Value> {
    let namespaced = info.scope == Scope::Namespaced;
    let mut main = json!({
        "name": info.plural, "singularName": info.singular, "namespaced": namespaced, "kind": info.kind, "verbs": verbs(info.verbs),
    });
    if !info.short_names.is_empty() {
        main["shortNames"] = json!(info.short_names);
    }
    if !info.categories.is_empty() {
        main["categories"] = json!(info.categories);
    }
    if info.is_stored() {
        main["storageVersionHash"] = json!(storage_version_hash(info));
    }
    let mut all = vec![main];
    for sub in info.subresources {
        let (group, version, kind) = sub.speaks(info);
        let mut row = json!({
            "name": format!("{}/{}", info.plural, sub.as_str()), "singularName": "", "namespaced": namespaced,
            "kind": kind, "verbs": verbs(sub.info().verbs),
        });
        if (group, version) != (info.group, info.version) {
            row["group"] = json!(group);
            row["version"] = json!(version);
        }
        all.push(row);
    }
    all
}

/// Names what objects of a kind are stored as, so that migrators see when that changes (`StorageVersionHash` in
/// `k8s.io/apiserver/pkg/endpoints/discovery`).
fn storage_version_hash(info: &KindInfo) -> String {
    let view = api::kinds::by_resource(info.group, info.version, info.plural).and_then(|kind| kind.view.as_ref());
    let stored = format!("{}/{}/{}", view.map_or(info.group, |view| view.group), info.version, info.kind);
    STANDARD.encode(&ring::digest::digest(&ring::digest::SHA256, stored.as_bytes()).as_ref()[..8])
}

fn verbs(verbs: &[Verb]) -> Vec<&'static str> {
    verbs.iter().map(|v| v.as_str()).collect()
}

/// Whoever takes everything in one document gets it, whatever else he takes (`DiscoveryEndpointRestrictions`).
fn wants_aggregated(headers: &HeaderMap) -> bool {
    let mut clauses = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    clauses.any(|clause| {
        let (essence, parameters) = split(clause.trim());
        let parameters: Vec<(&str, &str)> = parameters.collect();
        let has = |key, value| parameters.contains(&(key, value));
        let is_json = matches!(essence.as_str(), "application/json" | "application/*" | "*/*");
        is_json && has("g", "apidiscovery.k8s.io") && has("v", "v2") && has("as", "APIGroupDiscoveryList")
    })
}

/// `apidiscovery.k8s.io/v2` APIGroupDiscoveryList: everything in one document.
fn aggregated_list(core: bool) -> Value {
    let names: Vec<&str> = if core { vec![""] } else { groups().collect() };
    let items: Vec<Value> = names.into_iter().map(aggregated_group).collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_group(name: &str) -> Value {
    let versions: Vec<Value> = versions(name)
        .into_iter()
        .map(|version| {
            let resources: Vec<Value> = kinds_of(name, version).map(aggregated_resource).collect();
            json!({"version": version, "freshness": "Current", "resources": resources})
        })
        .collect();
    let metadata = if name.is_empty() { json!({}) } else { json!({"name": name}) };
    json!({"metadata": metadata, "versions": versions})
}

/// Group and version are said where they are others than those of the list.
fn response_kind(info: &KindInfo, (group, version, kind): (&str, &str, &str)) -> Value {
    let is_own = (group, version) == (info.group, info.version);
    let (group, version) = if is_own { ("", "") } else { (group, version) };
    json!({"group": group, "version": version, "kind": kind})
}

fn aggregated_resource(info: &KindInfo) -> Value {
    let mut row = json!({
        "resource": info.plural, "singularResource": info.singular, "verbs": verbs(info.verbs),
        "responseKind": response_kind(info, (info.group, info.version, info.kind)),
        "scope": if info.scope == Scope::Namespaced { "Namespaced" } else { "Cluster" },
    });
    if !info.short_names.is_empty() {
        row["shortNames"] = json!(info.short_names);
    }
    if !info.categories.is_empty() {
        row["categories"] = json!(info.categories);
    }
    let subresources: Vec<Value> = info
        .subresources
        .iter()
        .map(|sub| {
            json!({
                "subresource": sub.as_str(), "responseKind": response_kind(info, sub.speaks(info)),
                "verbs": verbs(sub.info().verbs),
            })
        })
        .collect();
    if !subresources.is_empty() {
        row["subresources"] = json!(subresources);
    }
    row
}
