//! Pieces of Table cells that several kinds share, as `pkg/printers/internalversion` upstream prints them.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

/// How long ago `time` was: `5m3s`, `<unknown>` without a time.
pub(super) fn since(time: Option<&Time>, now: Timestamp) -> String {
    let born = ObjectMeta { creation_timestamp: time.cloned(), ..ObjectMeta::default() };
    crate::printing::age(&born, now).as_str().unwrap_or("<unknown>").to_owned()
}

/// `a=b,c=d`, `<none>` without any.
pub(super) fn labels(map: Option<&BTreeMap<String, String>>) -> Value {
    match map {
        Some(map) if !map.is_empty() => {
            json!(map.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(","))
        }
        _ => json!("<none>"),
    }
}

/// The text, `<none>` when there is none.
pub(super) fn or_none(text: Option<&str>) -> Value {
    json!(text.filter(|t| !t.is_empty()).unwrap_or("<none>"))
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
