//! Names, paths and methods that lead nowhere.

use api::names::NameRule;
use api::{KindInfo, Scope};

use super::garbage::NAMES;
use super::request::Bad;

pub(super) fn wrong_methods(path: &str) -> Vec<Bad> {
    let methods = ["POST", "OPTIONS", "TRACE", "CONNECT", "BREW"];
    methods
        .into_iter()
        .map(|method| Bad::new(method, path, format!("{method} of an object")).codes(&[404, 405]))
        .collect()
}

/// Paths that are nearly right.
pub(super) fn wrong_places(info: &KindInfo, path: &str) -> Vec<Bad> {
    let plural = info.plural;
    let swapped = match info.scope {
        Scope::Namespaced => path.replace("/namespaces/default", ""),
        Scope::Cluster => path.replace(plural, &format!("namespaces/default/{plural}")),
    };
    let mut paths = vec![
        path.replace("/v1", "/v0"),
        path.replace("/v1", "/v1beta1"),
        path.replace("/v1", "/V1"),
        path.replace(plural, &plural.to_uppercase()),
        path.replace(plural, info.kind),
        path.replace("/api", "/ipa"),
        format!("{path}/x/y/z"),
        format!("{path}/status/x"),
        format!("{path}%2f"),
        format!("{path}/%2e%2e"),
    ];
    if info.plural != "namespaces" && (swapped.matches('/').count() > 3 || info.scope == Scope::Cluster) {
        // The collection of a namespaced kind without its namespace is that of all namespaces.
        let named = info.scope == Scope::Cluster || !path.ends_with(plural);
        paths.extend(named.then_some(swapped));
    }
    let bad = |path: String| Bad::new("GET", path.clone(), format!("the path {path}")).codes(&[400, 404, 405]);
    paths.into_iter().map(bad).collect()
}

/// Names that the kind's rule does not have.
pub(super) fn names(info: &KindInfo) -> Vec<String> {
    let mut names: Vec<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    names.push(String::new());
    if info.name_rule != NameRule::PathSegment {
        let more = ["A", "a_b", "-a", "a-", "a b", "ä", "a..b", ".a", "a.", "💥", "a\tb", "a:b", "*", "a,b"];
        names.extend(more.map(str::to_owned));
        names.push("x".repeat(254));
    }
    names
}

/// Escapes what does not belong into a path segment or a query.
pub(super) fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() || b == b'-' || b == b'.' {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}
