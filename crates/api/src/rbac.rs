//! What a rule of a role allows, and which rules cover which.
//!
//! Compare `pkg/apis/rbac/v1/evaluation_helpers.go` and `component-helpers/auth/rbac/validation/policy_comparator.go`
//! upstream.

mod cover;

use k8s_openapi::api::rbac::v1::PolicyRule;

pub use cover::{TooManyCombinations, describe, uncovered};

/// Stands for every verb, group, resource or path.
pub const ALL: &str = "*";

/// What a request for a resource asks a rule. Empty texts stand for what it does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResourceRequest<'a> {
    /// `get`, `impersonate`, `bind` ...
    pub verb: &'a str,
    /// The API group, empty for core.
    pub group: &'a str,
    /// `pods`.
    pub resource: &'a str,
    /// `log`.
    pub subresource: &'a str,
    /// The one object it is about.
    pub name: &'a str,
}

/// Whether `rule` allows a request for a resource.
pub fn allows(rule: &PolicyRule, request: &ResourceRequest<'_>) -> bool {
    has(&rule.verbs, request.verb)
        && has(list(&rule.api_groups), request.group)
        && list(&rule.resources).iter().any(|r| resource_matches(r, request.resource, request.subresource))
        && name_matches(list(&rule.resource_names), request.name)
}

/// Whether `rule` allows `verb` on a path that is no resource.
pub fn allows_path(rule: &PolicyRule, verb: &str, path: &str) -> bool {
    has(&rule.verbs, verb) && list(&rule.non_resource_urls).iter().any(|url| url_matches(url, path))
}

fn list(list: &Option<Vec<String>>) -> &[String] {
    list.as_deref().unwrap_or_default()
}

fn has(list: &[String], one: &str) -> bool {
    list.iter().any(|item| item == ALL || item == one)
}

/// `pods`, `pods/log`, `*/scale` for the scale of everything, `*` for everything.
fn resource_matches(rule: &str, resource: &str, subresource: &str) -> bool {
    match rule.split_once('/') {
        None => rule == ALL || (subresource.is_empty() && rule == resource),
        Some((of, below)) => !subresource.is_empty() && below == subresource && (of == ALL || of == resource),
    }
}

fn name_matches(names: &[String], name: &str) -> bool {
    names.is_empty() || names.iter().any(|n| n == name)
}

/// `/healthz`, or `/healthz/*` for everything below.
fn url_matches(rule: &str, path: &str) -> bool {
    rule == path || rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rule(value: serde_json::Value) -> PolicyRule {
        serde_json::from_value(value).unwrap()
    }

    /// `verb group resource/subresource name`, `-` for what is absent.
    fn request(text: &str) -> ResourceRequest<'_> {
        let parts: Vec<&str> = text.split(' ').map(|p| if p == "-" { "" } else { p }).collect();
        let (resource, subresource) = parts[2].split_once('/').unwrap_or((parts[2], ""));
        ResourceRequest { verb: parts[0], group: parts[1], resource, subresource, name: parts[3] }
    }

    #[test]
    fn rules_match_as_upstream_does() {
        let pods = json!({"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]});
        let log = json!({"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]});
        let scales = json!({"apiGroups": ["*"], "resources": ["*/scale"], "verbs": ["*"]});
        let everything = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]});
        let one = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]});
        let paths = json!({"nonResourceURLs": ["*"], "verbs": ["get"]});
        let cases = [
            (&pods, "get - pods x", true),
            (&pods, "list - pods -", true),
            (&pods, "delete - pods x", false),
            (&pods, "get apps pods x", false),
            (&pods, "get - pods/log x", false),
            (&log, "get - pods/log x", true),
            (&log, "get - pods x", false),
            (&log, "get - nodes/log x", false),
            (&scales, "update apps deployments/scale x", true),
            (&scales, "update apps deployments x", false),
            (&scales, "update apps deployments/status x", false),
            (&everything, "impersonate authentication.k8s.io userextras/scopes x", true),
            (&one, "get - secrets a", true),
            (&one, "get - secrets b", false),
            (&one, "get - secrets -", false),
            (&paths, "get - pods x", false),
        ];
        for (value, asked, expected) in cases {
            assert_eq!(allows(&rule(value.clone()), &request(asked)), expected, "{value} {asked}");
        }
    }

    #[test]
    fn paths_match_wholly_or_by_their_beginning() {
        let cases = [
            ("/healthz", "/healthz", true),
            ("/healthz", "/healthz/ping", false),
            ("/healthz/*", "/healthz/ping", true),
            ("/healthz/*", "/healthz", false),
            ("/heal*", "/healthz", true),
            ("*", "/anything", true),
        ];
        for (url, path, expected) in cases {
            let rule = rule(json!({"nonResourceURLs": [url], "verbs": ["get"]}));
            assert_eq!(allows_path(&rule, "get", path), expected, "{url} {path}");
            assert!(!allows_path(&rule, "post", path));
        }
    }
}
