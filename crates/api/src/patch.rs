//! Patches: RFC 6902 JSON patch, RFC 7386 merge patch, and Kubernetes' strategic merge patch.

mod json;
mod order;
mod strategic;
mod three_way;

use serde_json::{Map, Value};

use crate::decode::{go_error, go_type};
use crate::kinds::KindInfo;
use crate::merge_keys;

/// The most operations one JSON patch may hold (`MaxJSONPatchOperations` upstream).
pub const MAX_JSON_PATCH_OPERATIONS: usize = 10_000;

/// A patch as it arrived, told apart by its media type.
#[derive(Clone, Debug)]
pub enum Patch {
    /// `application/json-patch+json`.
    Json(json_patch::Patch),
    /// `application/merge-patch+json`.
    Merge(Value),
    /// `application/strategic-merge-patch+json`.
    Strategic(Value),
}

/// Why a patch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed, or names an element of a list without its merge key: 400, and the client is told
    /// what.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed and does not fit the object (a failed `test`, a missing path): 422.
    #[error("{0}")]
    NotApplicable(String),
    /// More operations than allowed: 413.
    #[error(
        "Request entity too large: The allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {0}"
    )]
    TooManyOperations(usize),
}

impl Patch {
    /// Reads a patch body. `media_type` is without parameters; `None` when it is no patch type we know.
    pub fn parse(media_type: &str, body: &[u8]) -> Option<Result<Patch, PatchError>> {
        match media_type {
            "application/json-patch+json" => Some(json::parse(body).map(Patch::Json)),
            "application/merge-patch+json" => Some(object(body).map(Patch::Merge)),
            "application/strategic-merge-patch+json" => Some(strategic_object(body).map(Patch::Strategic)),
            _ => None,
        }
    }

    /// Applies the patch to an object of kind `info`.
    pub fn apply(&self, info: &KindInfo, mut object: Value) -> Result<Value, PatchError> {
        match self {
            Patch::Json(patch) => json::apply(patch, object),
            Patch::Merge(patch) => {
                json_patch::merge(&mut object, patch);
                Ok(object)
            }
            Patch::Strategic(patch) => {
                let map = |value| if let Value::Object(map) = value { map } else { Map::new() };
                let of = merge_keys::of_kind(info);
                // What an object is, is not among what such a patch is laid over: upstream has a type by then.
                let is = ["apiVersion", "kind"].map(|key| object.get(key).cloned());
                let mut patched = strategic::merge_map(map(object), map(patch.clone()), of)?;
                for (key, was) in ["apiVersion", "kind"].into_iter().zip(is) {
                    match was {
                        // What is not even a text is found out by whoever reads the object.
                        _ if patched.get(key).is_some_and(|now| !now.is_string()) => None,
                        Some(was) => patched.insert(key.to_owned(), was),
                        None => patched.remove(key),
                    };
                }
                Ok(Value::Object(patched))
            }
        }
    }
}

/// The JSON object in a strategic patch, for which nothing is one without fields.
fn strategic_object(body: &[u8]) -> Result<Value, PatchError> {
    match serde_json::from_slice(body) {
        Ok(Value::Null) => Ok(Value::Object(Map::new())),
        _ => object(body),
    }
}

/// The JSON object in a patch body.
fn object(body: &[u8]) -> Result<Value, PatchError> {
    match serde_json::from_slice(body) {
        Ok(object @ Value::Object(_)) => Ok(object),
        Ok(Value::Null) => Err(PatchError::Malformed("Invalid JSON Patch".to_owned())),
        Ok(_) => Err(unreadable(&not_of_type(body, "map[string]interface {}"))),
        Err(error) => Err(unreadable(&go_error(body, &error))),
    }
}

fn unreadable(why: &str) -> PatchError {
    PatchError::Malformed(format!("error decoding patch: {why}"))
}

/// What Go says of JSON that is something else.
fn not_of_type(json: &[u8], wanted: &str) -> String {
    format!("json: cannot unmarshal {} into Go value of type {wanted}", go_type(json))
}

/// The patch that turns `original` into `modified` while leaving alone what others changed since: client-side
/// three-way apply, as `kubectl apply` makes it (`CreateThreeWayMergePatch`). `{}` when nothing is to be done.
pub fn three_way_strategic(
    info: &KindInfo,
    original: &Value,
    modified: &Value,
    current: &Value,
) -> Result<Value, PatchError> {
    three_way::diff(original, modified, current, merge_keys::of_kind(info))
}

/// The same as a JSON merge patch, for kinds whose types nobody knows.
pub fn three_way_merge(original: &Value, modified: &Value, current: &Value) -> Value {
    three_way::diff(original, modified, current, None).unwrap_or_else(|_| Value::Object(Map::new()))
}

#[cfg(test)]
mod tests;
