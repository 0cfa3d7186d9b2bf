//! Pieces of Table cells that several kinds share, as `pkg/printers/internalversion` upstream prints them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::well_known::ANNOTATION_STORAGE_CLASS;

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

/// The ways a volume may be mounted, in short and without repetitions (`GetAccessModesAsString`).
pub(super) fn access_modes(modes: Option<&Vec<String>>) -> String {
    let has = |mode: &str| modes.is_some_and(|m| m.iter().any(|m| m == mode));
    let all =
        [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
    all.into_iter().filter(|(mode, _)| has(mode)).map(|(_, short)| short).collect::<Vec<_>>().join(",")
}

/// The storage class, which was an annotation once (`GetPersistentVolumeClass`).
pub(super) fn storage_class<'a>(metadata: &'a ObjectMeta, class: Option<&'a String>) -> &'a str {
    let annotation = metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_STORAGE_CLASS));
    annotation.or(class).map_or("", String::as_str)
}

/// The phase of what has a life of its own, unless it is being deleted.
pub(super) fn phase(metadata: &ObjectMeta, phase: Option<&String>) -> Value {
    if metadata.deletion_timestamp.is_some() { json!("Terminating") } else { json!(phase.map_or("", String::as_str)) }
}

/// The text, or `<unset>`.
pub(super) fn or_unset(text: Option<&String>) -> Value {
    json!(text.map_or("<unset>", String::as_str))
}
