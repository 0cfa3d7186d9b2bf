//! Pieces of Table cells that several kinds share, as `pkg/printers/internalversion` upstream prints them.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// `a=b,c=d`, `<none>` without any.
pub(super) fn labels(map: Option<&BTreeMap<String, String>>) -> Value {
    match map {
        Some(map) if !map.is_empty() => {
            json!(map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
        }
        _ => json!("<none>"),
    }
}

/// At most `max` items joined by commas, and how many are left out.
pub(super) fn at_most(max: usize, items: &[String]) -> Value {
    if items.is_empty() {
        return json!("<none>");
    }
    let shown = items[..items.len().min(max)].join(",");
    match items.len().saturating_sub(max) {
        0 => json!(shown),
        more => json!(format!("{shown} + {more} more...")),
    }
}
