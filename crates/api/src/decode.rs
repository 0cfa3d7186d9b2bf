//! Bytes to objects: strict where asked, with every unknown and duplicate field named.

use crate::object::{Object, Resource};

/// A decoded object and what the decoder did not know.
pub struct Decoded {
    /// The object.
    pub object: Box<dyn Object>,
    /// Paths of unknown fields (`unknown field "spec.foo"`) and duplicate keys (`duplicate field "spec.bar"`), in
    /// upstream's words, for `fieldValidation`.
    pub strict_errors: Vec<String>,
}

/// Why bytes are not an object of the kind.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON at all, or cut short: answered as 400.
    #[error("{0}")]
    Syntax(String),
    /// JSON, but a field has the wrong type: answered as 400 with the field's path.
    #[error("{message}")]
    Type {
        /// Path of the field.
        path: String,
        /// What was found and what was wanted.
        message: String,
    },
}

/// Decodes JSON into `T`; the one place where a kind's serde code is instantiated.
pub fn decode<T: Resource>(_bytes: &[u8]) -> Result<Decoded, DecodeError> {
    todo!()
}
