//! From client-side to server-side apply: what the annotation of the one says belongs to the applier of the other
//! (`managedfields/internal/{lastappliedmanager,lastappliedupdater}.go` in `k8s.io/apimachinery`).

use serde_json::Value;

use super::compare::{compare, fields_of};
use super::place::Place;
use super::set::Set;
use crate::metadata::TOTAL_ANNOTATION_SIZE_LIMIT;

/// Where client-side apply keeps what it last applied.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The only manager the annotation is respected for and kept up to date by.
pub(super) const KUBECTL: &str = "kubectl";

/// The annotation's text.
pub(super) fn annotation(live: &Value) -> Option<&str> {
    live["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())
}

/// The fields an applier may take without force: those the annotation names and that are still what it says.
pub(super) fn allowed<'a>(annotation: &'a str, live: &'a str, place: Place) -> Set<'a> {
    if !serde_json::from_str::<Value>(annotation).is_ok_and(|v| v.is_object()) {
        return Set::default();
    }
    let mut allowed = fields_of(annotation, place);
    let diff = compare(Some(annotation), Some(live), place);
    allowed.subtract(&diff.modified);
    allowed.subtract(&diff.added);
    allowed.subtract(&diff.removed);
    allowed
}

/// Writes down what has been applied now, where the annotation is in use.
pub(super) fn renew(object: &mut Value, config: &Value) {
    if annotation(object).is_none() {
        return;
    }
    let Some(annotations) = object["metadata"]["annotations"].as_object_mut() else { return };
    annotations.insert(LAST_APPLIED.to_owned(), Value::String(format!("{config}\n")));
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > TOTAL_ANNOTATION_SIZE_LIMIT {
        annotations.remove(LAST_APPLIED);
    }
}
