//! JSON patch (RFC 6902) with bounds: on the number of operations, the depth of paths and the growth by copies.

use json_patch::PatchOperation;
use serde_json::Value;

use super::{MAX_JSON_PATCH_OPERATIONS, PatchError, not_of_type, unreadable};
use crate::decode::go_error;

/// The deepest path an operation may have; no object of ours is deeper.
const MAX_PATH_DEPTH: usize = 128;
/// How many bytes all `copy` operations of a patch may add together, the same as a request body may have
/// (`jsonpatch.AccumulatedCopySizeLimit` upstream).
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// Reads and bounds a patch.
pub(super) fn parse(body: &[u8]) -> Result<json_patch::Patch, PatchError> {
    let mut operations = match serde_json::from_slice(body) {
        Ok(Value::Array(operations)) => operations,
        // Nothing is no operations.
        Ok(Value::Null) => Vec::new(),
        Ok(_) => return Err(unreadable(&not_of_type(body, "[]handlers.jsonPatchOp"))),
        Err(error) => return Err(unreadable(&go_error(body, &error))),
    };
    if operations.len() > MAX_JSON_PATCH_OPERATIONS {
        return Err(PatchError::TooManyOperations(operations.len()));
    }
    // A value that is left out is null, as in `evanphx/json-patch`.
    for operation in operations.iter_mut().filter_map(Value::as_object_mut) {
        if matches!(operation.get("op").and_then(Value::as_str), Some("add" | "replace" | "test")) {
            operation.entry("value").or_insert(Value::Null);
        }
    }
    // An object that is no operation is found out by upstream when it is to be done.
    let are_objects = operations.iter().all(Value::is_object);
    let patch: json_patch::Patch = serde_json::from_value(Value::Array(operations)).map_err(|e| {
        let why = format!("error decoding patch: {e}");
        if are_objects { PatchError::NotApplicable(why) } else { PatchError::Malformed(why) }
    })?;
    if patch.0.iter().any(|operation| depth(operation) > MAX_PATH_DEPTH) {
        return Err(PatchError::Malformed(format!("paths in a JSON patch may be at most {MAX_PATH_DEPTH} deep")));
    }
    Ok(patch)
}

fn depth(operation: &PatchOperation) -> usize {
    let from = match operation {
        PatchOperation::Move(o) => o.from.count(),
        PatchOperation::Copy(o) => o.from.count(),
        _ => 0,
    };
    operation.path().count().max(from)
}

/// Applies all operations or fails.
pub(super) fn apply(patch: &json_patch::Patch, mut object: Value) -> Result<Value, PatchError> {
    let mut copied = 0;
    for operation in &patch.0 {
        if let PatchOperation::Copy(copy) = operation {
            copied += object.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            if copied > MAX_COPIED_BYTES {
                return Err(PatchError::NotApplicable(format!(
                    "Unable to complete the copy, the accumulated size increase of JSON copy is {copied}, exceeding \
                     the limit {MAX_COPIED_BYTES}"
                )));
            }
        }
        if expects_nothing(operation, &object) {
            continue;
        }
        json_patch::patch(&mut object, std::slice::from_ref(operation))
            .map_err(|e| PatchError::NotApplicable(describe(operation, &e)))?;
    }
    Ok(object)
}

/// Whether this tests for null a member that an object does not have: that holds, as in `evanphx/json-patch`. kube-rs adds its
/// finalizers so.
fn expects_nothing(operation: &PatchOperation, object: &Value) -> bool {
    let PatchOperation::Test(test) = operation else { return false };
    let parent = test.path.parent().and_then(|parent| object.pointer(parent.as_str()));
    test.value.is_null() && parent.is_some_and(Value::is_object) && object.pointer(test.path.as_str()).is_none()
}

/// What failed, in the words clients know where there are such words.
fn describe(operation: &PatchOperation, error: &json_patch::PatchError) -> String {
    let path = operation.path();
    match operation {
        PatchOperation::Test(_) => format!("testing value {path} failed"),
        PatchOperation::Remove(_) => {
            format!("remove operation does not apply: doc is missing path: {path}: {}", error.kind)
        }
        PatchOperation::Replace(_) => {
            format!("replace operation does not apply: doc is missing path: {path}: {}", error.kind)
        }
        PatchOperation::Add(_) => format!("add operation does not apply: doc is missing path: {path}: {}", error.kind),
        PatchOperation::Move(_) => format!("move operation does not apply: {path}: {}", error.kind),
        PatchOperation::Copy(_) => format!("copy operation does not apply: {path}: {}", error.kind),
    }
}
