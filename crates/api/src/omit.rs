//! What Go's JSON leaves out: a map or list that is there and empty (`omitempty`).
//!
//! An encoded object is searched for `:{}` and `:[]`; most have a few, nearly all of them structs, which stay. Which names
//! stand for maps and lists is in the table of protobuf fields.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::LazyLock;

use memchr::memmem;

use crate::protobuf::{list_fields, map_fields};

static MAPS: LazyLock<HashSet<&'static str>> = LazyLock::new(map_fields);
static LISTS: LazyLock<HashSet<&'static str>> = LazyLock::new(|| {
    let mut lists = list_fields();
    lists.retain(|name| !ALWAYS.contains(name));
    lists
});

/// Lists that are written empty, too: fields without `omitempty` upstream.
pub(crate) const ALWAYS: [&str; 8] =
    ["containers", "endpoints", "items", "nodeSelectorTerms", "nonResourceRules", "resourceRules", "rules", "verbs"];

/// The longest name of a field, generously.
const MAX_NAME: usize = 64;

/// Encoded JSON without its empty maps and lists.
pub(crate) fn empty(json: Vec<u8>) -> Vec<u8> {
    let mut cuts: Vec<Range<usize>> = Vec::new();
    for (needle, names) in [(b":{}", &MAPS), (b":[]", &LISTS)] {
        for at in memmem::find_iter(&json, needle) {
            cuts.extend(field(&json, at, names).map(|start| start..at + needle.len()));
        }
    }
    if cuts.is_empty() { json } else { without(&json, cuts) }
}

/// Where the field begins whose colon is at `at`, if it has one of these names. Inside a string a quote has a backslash
/// before it, so that nothing there looks like a field.
fn field(json: &[u8], at: usize, names: &HashSet<&str>) -> Option<usize> {
    let before = json[..at].strip_suffix(b"\"")?;
    let name = &before[before.len().saturating_sub(MAX_NAME)..];
    let name = &name[name.iter().rposition(|byte| *byte == b'"')? + 1..];
    let start = before.len() - name.len() - 1;
    let follows = matches!(start.checked_sub(1).and_then(|i| json.get(i)), Some(b'{' | b','));
    (follows && std::str::from_utf8(name).is_ok_and(|name| names.contains(name))).then_some(start)
}

/// The text without these pieces, and without a comma for each.
fn without(json: &[u8], mut cuts: Vec<Range<usize>>) -> Vec<u8> {
    cuts.sort_by_key(|cut| cut.start);
    let (mut out, mut kept) = (Vec::with_capacity(json.len()), 0);
    for cut in cuts {
        out.extend_from_slice(&json[kept..cut.start]);
        kept = cut.end;
        if json.get(kept) == Some(&b',') {
            kept += 1;
        } else if out.last() == Some(&b',') {
            out.pop();
        }
    }
    out.extend_from_slice(&json[kept..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_maps_and_lists_go_and_everything_else_stays() {
        let cases = [
            (r#"{"metadata":{"labels":{},"annotations":{},"name":"a"}}"#, r#"{"metadata":{"name":"a"}}"#),
            (r#"{"metadata":{"name":"a","labels":{},"finalizers":[]}}"#, r#"{"metadata":{"name":"a"}}"#),
            (r#"{"metadata":{"labels":{}},"data":{}}"#, r#"{"metadata":{}}"#),
            (
                r#"{"spec":{"volumes":[{"emptyDir":{},"name":"v"}],"tolerations":[]}}"#,
                r#"{"spec":{"volumes":[{"emptyDir":{},"name":"v"}]}}"#,
            ),
            (r#"{"rules":[],"spec":{"securityContext":{}},"status":{"loadBalancer":{}}}"#, ""),
            (
                r#"{"spec":{"selector":{},"resources":{"limits":{},"requests":{}}}}"#,
                r#"{"spec":{"selector":{},"resources":{"limits":{}}}}"#,
            ),
            (r#"{"data":{"labels":"\"labels\":{},","a":",\"data\":{}","b":"{\"finalizers\":[]"}}"#, ""),
            (r#"{"data":{"labels\\":"x"},"status":{}}"#, ""),
        ];
        for (json, expected) in cases {
            let expected = if expected.is_empty() { json } else { expected };
            assert_eq!(String::from_utf8(empty(json.as_bytes().to_vec())).unwrap(), expected);
        }
    }

    #[test]
    fn the_names_are_those_of_maps_and_lists() {
        for name in
            ["labels", "annotations", "data", "binaryData", "nodeSelector", "matchLabels", "allocatable", "hard"]
        {
            assert!(MAPS.contains(name), "{name}");
        }
        for name in ["selector", "emptyDir", "securityContext", "status", "spec", "metadata"] {
            assert!(!MAPS.contains(name), "{name}");
        }
        for name in ["finalizers", "ownerReferences", "tolerations", "volumes", "env", "secrets"] {
            assert!(LISTS.contains(name), "{name}");
        }
    }
}
