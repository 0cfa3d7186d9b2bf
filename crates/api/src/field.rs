//! Field paths and field errors: what is wrong with an object, where, and what is allowed.
//!
//! The wording is Kubernetes' own (`k8s.io/apimachinery/pkg/util/validation/field`), because clients print it and
//! people search for it: `spec.containers[0].name: Required value`.

use std::fmt;

/// The way from the root of an object to one field, rendered as `spec.containers[0].ports[1].name` or
/// `metadata.labels[a/b]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(String);

impl Path {
    /// A path that starts at the field `name` of the object's root.
    pub fn new(name: &str) -> Path {
        Path(name.to_owned())
    }

    /// The field `name` below this one.
    pub fn child(&self, name: &str) -> Path {
        if self.0.is_empty() { Path(name.to_owned()) } else { Path(format!("{}.{name}", self.0)) }
    }

    /// The `index`th element of this list.
    pub fn index(&self, index: usize) -> Path {
        Path(format!("{}[{index}]", self.0))
    }

    /// The value under `key` of this map.
    pub fn key(&self, key: &str) -> Path {
        Path(format!("{}[{key}]", self.0))
    }

    /// The path as text, as it stands in a Status cause's `field`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What kind of wrong a field is; the names are the `reason`s of a Status cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// A reference to something that does not exist.
    NotFound,
    /// A value that must be given is not.
    Required,
    /// Two values that must differ are equal.
    Duplicate,
    /// The value has the wrong form.
    Invalid,
    /// The value is not one of a known set.
    NotSupported,
    /// The value is well formed and still not allowed here.
    Forbidden,
    /// The value is longer than allowed.
    TooLong,
    /// The list has more elements than allowed.
    TooMany,
    /// The value has the wrong type.
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of the Status cause.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
        }
    }
}

/// One wrong field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What kind of wrong.
    pub error_type: ErrorType,
    /// Where.
    pub field: Path,
    /// The text after `field: `, as a Status cause carries it.
    pub message: String,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl std::error::Error for Error {}

/// Every wrong field of one object, in the order they were found.
pub type ErrorList = Vec<Error>;

fn error(error_type: ErrorType, field: &Path, message: String) -> Error {
    Error { error_type, field: field.clone(), message }
}

/// `field: Required value: detail`.
pub fn required(field: &Path, detail: &str) -> Error {
    error(ErrorType::Required, field, with_detail("Required value", detail))
}

/// `field: Invalid value: "value": detail`. Strings are quoted, numbers and booleans are not.
pub fn invalid(field: &Path, value: impl Into<serde_json::Value>, detail: &str) -> Error {
    error(ErrorType::Invalid, field, with_detail(&format!("Invalid value: {}", value.into()), detail))
}

/// `field: Unsupported value: "value": supported values: "a", "b"`.
pub fn not_supported(field: &Path, value: impl Into<serde_json::Value>, supported: &[&str]) -> Error {
    let quoted: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
    let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
    error(ErrorType::NotSupported, field, with_detail(&format!("Unsupported value: {}", value.into()), &detail))
}

/// `field: Duplicate value: "value"`.
pub fn duplicate(field: &Path, value: impl Into<serde_json::Value>) -> Error {
    error(ErrorType::Duplicate, field, format!("Duplicate value: {}", value.into()))
}

/// `field: Not found: "value"`.
pub fn not_found(field: &Path, value: impl Into<serde_json::Value>) -> Error {
    error(ErrorType::NotFound, field, format!("Not found: {}", value.into()))
}

/// `field: Forbidden: detail`.
pub fn forbidden(field: &Path, detail: &str) -> Error {
    error(ErrorType::Forbidden, field, with_detail("Forbidden", detail))
}

/// `field: Too long: may not be more than N bytes`.
pub fn too_long(field: &Path, max_length: usize) -> Error {
    error(ErrorType::TooLong, field, format!("Too long: may not be more than {max_length} bytes"))
}

/// `field: Too many: N: must have at most M items`.
pub fn too_many(field: &Path, actual: usize, max: usize) -> Error {
    error(ErrorType::TooMany, field, format!("Too many: {actual}: must have at most {max} items"))
}

fn with_detail(text: &str, detail: &str) -> String {
    if detail.is_empty() { text.to_owned() } else { format!("{text}: {detail}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_read_as_upstream_prints_them() {
        let name = Path::new("spec").child("containers").index(0).child("name");
        assert_eq!(required(&name, "").to_string(), "spec.containers[0].name: Required value");
        assert_eq!(
            not_supported(&name, "x", &["a", "b"]).to_string(),
            r#"spec.containers[0].name: Unsupported value: "x": supported values: "a", "b""#
        );
        let label = Path::new("metadata").child("labels").key("a/b");
        assert_eq!(
            invalid(&label, 7, "must be a string").to_string(),
            "metadata.labels[a/b]: Invalid value: 7: must be a string"
        );
    }
}
