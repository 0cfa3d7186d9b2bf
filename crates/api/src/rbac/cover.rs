//! Whether somebody's rules cover others: nobody grants what he does not hold.

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{ALL, list};

/// How many combinations of verb, group, resource and name are compared at most for one grant.
const MAX_COMBINATIONS: usize = 20_000;

/// A grant is too large to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the rules have more than {MAX_COMBINATIONS} combinations of verb, group, resource and name")]
pub struct TooManyCombinations;

/// The smallest grant there is: one verb on one resource or path. The texts say what a request would say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Atom<'a> {
    Resource { group: &'a str, resource: &'a str, name: Option<&'a str>, verb: &'a str },
    Path { url: &'a str, verb: &'a str },
}

/// What of `wanted` is not covered by `held`, put together again to as few rules as its verbs allow. The verbs stand as
/// they are wanted, one that is wanted twice stands there twice.
pub fn uncovered(held: &[&PolicyRule], wanted: &[PolicyRule]) -> Result<Vec<PolicyRule>, TooManyCombinations> {
    if wanted.iter().map(combinations).fold(0, usize::saturating_add) > MAX_COMBINATIONS {
        return Err(TooManyCombinations);
    }
    let missing = wanted.iter().flat_map(atoms).filter(|atom| !held.iter().any(|rule| covers(rule, atom)));
    Ok(compact(missing))
}

fn combinations(rule: &PolicyRule) -> usize {
    let names = list(&rule.resource_names).len().max(1);
    let resources = list(&rule.api_groups).len().saturating_mul(list(&rule.resources).len()).saturating_mul(names);
    resources.saturating_add(list(&rule.non_resource_urls).len()).saturating_mul(rule.verbs.len())
}

fn atoms(rule: &PolicyRule) -> Vec<Atom<'_>> {
    let mut atoms = Vec::new();
    let names: Vec<Option<&str>> = match list(&rule.resource_names) {
        [] => vec![None],
        names => names.iter().map(|n| Some(n.as_str())).collect(),
    };
    for verb in &rule.verbs {
        for group in list(&rule.api_groups) {
            for resource in list(&rule.resources) {
                atoms.extend(names.iter().map(|name| Atom::Resource { group, resource, name: *name, verb }));
            }
        }
        atoms.extend(list(&rule.non_resource_urls).iter().map(|url| Atom::Path { url, verb }));
    }
    atoms
}

fn covers(rule: &PolicyRule, atom: &Atom<'_>) -> bool {
    let has = |list: &[String], one: &str| list.iter().any(|item| item == ALL || item == one);
    match atom {
        Atom::Resource { group, resource, name, verb } => {
            let names = list(&rule.resource_names);
            has(&rule.verbs, verb)
                && has(list(&rule.api_groups), group)
                && list(&rule.resources).iter().any(|r| resource_covers(r, resource))
                && (names.is_empty() || name.is_some_and(|name| names.iter().any(|n| n == name)))
        }
        Atom::Path { url, verb } => {
            has(&rule.verbs, verb) && list(&rule.non_resource_urls).iter().any(|u| url_covers(u, url))
        }
    }
}

fn resource_covers(held: &str, wanted: &str) -> bool {
    let below_all = || held.strip_prefix("*/").is_some_and(|sub| wanted.split_once('/').is_some_and(|(_, s)| s == sub));
    held == ALL || held == wanted || below_all()
}

fn url_covers(held: &str, wanted: &str) -> bool {
    held == wanted || held.ends_with('*') && wanted.starts_with(held.trim_end_matches('*'))
}

/// One rule for each resource, with all its verbs, and one for each verb on a path (`CompactRules`).
fn compact<'a>(atoms: impl Iterator<Item = Atom<'a>>) -> Vec<PolicyRule> {
    let mut verbs: BTreeMap<Atom<'a>, Vec<String>> = BTreeMap::new();
    for atom in atoms {
        match atom {
            Atom::Resource { group, resource, name, verb } => {
                let key = Atom::Resource { group, resource, name, verb: "" };
                verbs.entry(key).or_default().push(verb.to_owned());
            }
            Atom::Path { verb, .. } => verbs.entry(atom).or_default().push(verb.to_owned()),
        }
    }
    let one = |text: &str| Some(vec![text.to_owned()]);
    let rules = verbs.into_iter().flat_map(|(atom, verbs)| match atom {
        Atom::Resource { group, resource, name, .. } => vec![PolicyRule {
            api_groups: one(group),
            resources: one(resource),
            resource_names: name.and_then(one),
            verbs,
            ..PolicyRule::default()
        }],
        Atom::Path { url, .. } => {
            let rule = |verb| PolicyRule { non_resource_urls: one(url), verbs: vec![verb], ..PolicyRule::default() };
            verbs.into_iter().map(rule).collect()
        }
    });
    rules.collect()
}

/// `{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}`, as upstream prints a rule (`CompactString`).
pub fn describe(rule: &PolicyRule) -> String {
    let parts = [
        ("APIGroups", list(&rule.api_groups)),
        ("Resources", list(&rule.resources)),
        ("NonResourceURLs", list(&rule.non_resource_urls)),
        ("ResourceNames", list(&rule.resource_names)),
        ("Verbs", &rule.verbs),
    ];
    let given = parts.into_iter().filter(|(_, values)| !values.is_empty());
    let shown = given.map(|(name, values)| {
        let quoted: Vec<String> = values.iter().map(|v| format!("{v:?}")).collect();
        format!("{name}:[{}]", quoted.join(" "))
    });
    format!("{{{}}}", shown.collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rules(value: Value) -> Vec<PolicyRule> {
        serde_json::from_value(value).unwrap()
    }

    fn missing(held: Value, wanted: Value) -> Vec<String> {
        let held = rules(held);
        uncovered(&held.iter().collect::<Vec<_>>(), &rules(wanted)).unwrap().iter().map(describe).collect()
    }

    #[test]
    fn what_is_not_held_is_named() {
        let pods = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]);
        let all = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
        let scales = json!([{"apiGroups": ["apps"], "resources": ["*/scale"], "verbs": ["get"]}]);
        let scale = json!([{"apiGroups": ["apps"], "resources": ["deployments/scale"], "verbs": ["get"]}]);
        let named = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["a"], "verbs": ["get"]}]);
        let any = json!([{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]);
        let paths = json!([{"nonResourceURLs": ["/a/*"], "verbs": ["get"]}]);
        let path = json!([{"nonResourceURLs": ["/a/b", "/c"], "verbs": ["get"]}]);
        let more = json!([{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["list", "get", "delete"]}]);
        let cases: Vec<(&str, Value, Value, Vec<&str>)> = vec![
            ("the same", pods.clone(), pods.clone(), vec![]),
            ("everything covers all", all.clone(), more.clone(), vec![]),
            (
                "and nothing less covers everything",
                pods.clone(),
                all,
                vec![r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#],
            ),
            ("a subresource of all", scales, scale, vec![]),
            ("all covers one by name", any.clone(), named.clone(), vec![]),
            (
                "one by name does not cover all",
                named,
                any,
                vec![r#"{APIGroups:[""], Resources:["secrets"], Verbs:["get"]}"#],
            ),
            ("paths by their beginning", paths, path, vec![r#"{NonResourceURLs:["/c"], Verbs:["get"]}"#]),
            (
                "what is missing is put together by verbs",
                pods,
                more,
                vec![
                    r#"{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}"#,
                    r#"{APIGroups:[""], Resources:["secrets"], Verbs:["list" "get" "delete"]}"#,
                ],
            ),
            (
                "what is wanted twice is missing twice",
                json!([]),
                json!([
                    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "*"]},
                    {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]},
                ]),
                vec![r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "*" "list"]}"#],
            ),
            (
                "each verb on a path by itself",
                json!([]),
                json!([{"nonResourceURLs": ["/a"], "verbs": ["post", "get"]}]),
                vec![r#"{NonResourceURLs:["/a"], Verbs:["get"]}"#, r#"{NonResourceURLs:["/a"], Verbs:["post"]}"#],
            ),
        ];
        for (sentence, held, wanted, expected) in cases {
            assert_eq!(missing(held, wanted), expected, "{sentence}");
        }
    }

    #[test]
    fn rules_that_would_take_too_long_are_refused() {
        let many: Vec<String> = (0..200).map(|n| n.to_string()).collect();
        let wanted = rules(json!([{"apiGroups": many, "resources": many, "verbs": many}]));
        assert_eq!(uncovered(&[], &wanted), Err(TooManyCombinations));
    }
}
