//! Patches: RFC 6902 JSON patch, RFC 7386 merge patch, and Kubernetes' strategic merge patch.

use serde_json::Value;

use crate::kinds::KindInfo;

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
    /// The patch itself is malformed: 400.
    #[error("{0}")]
    Malformed(String),
    /// The patch is well formed and does not fit the object (a failed `test`, a missing path, a merge key that is
    /// not there): 422.
    #[error("{0}")]
    NotApplicable(String),
    /// More operations than allowed: 413.
    #[error("the allowed maximum operations in a JSON patch is {MAX_JSON_PATCH_OPERATIONS}, got {0}")]
    TooManyOperations(usize),
}

impl Patch {
    /// Reads a patch body. `media_type` is without parameters; `None` when it is no patch type we know.
    pub fn parse(_media_type: &str, _body: &[u8]) -> Option<Result<Patch, PatchError>> {
        todo!()
    }

    /// Applies the patch to an object of kind `info`.
    pub fn apply(&self, _info: &KindInfo, _object: Value) -> Result<Value, PatchError> {
        todo!()
    }
}

/// The patch that turns `original` into `modified` while leaving alone what others changed since: client-side
/// three-way apply, as `kubectl apply` makes it (`CreateThreeWayMergePatch`).
pub fn three_way_strategic(
    _info: &KindInfo,
    _original: &Value,
    _modified: &Value,
    _current: &Value,
) -> Result<Value, PatchError> {
    todo!()
}
