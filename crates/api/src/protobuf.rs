//! Protobuf to JSON: what Go's typed clients send, as the JSON the same clients would have sent.
//!
//! ```text
//!  "k8s\0" runtime.Unknown{apiVersion, kind, raw} ──wire──▶ numbered fields ──table──▶ names, types ──▶ JSON
//! ```
//!
//! The envelope and its messages are those of `k8s.io/apimachinery/pkg/runtime/serializer/protobuf` and of the
//! `generated.proto` beside each API group. Go writes every field that is no pointer, set or not; such a field that is
//! empty is left out here as Go's JSON encoder leaves it out (`omitempty`), so that defaults apply to it.
//!
//! Fields that are not known are skipped, as protobuf has it. Nesting is bounded because no message contains itself, and
//! the size of the result by the caller. Nothing here writes protobuf.

mod special;
mod table;
mod wire;

use std::collections::HashSet;

use serde_json::{Map, Value};

use table::Field;
pub(crate) use table::{Holds, Many, Type, field, fields, fields_with_amounts, messages};
use wire::{Reader, Wire};

/// The media type of these bodies.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// What every body starts with.
const MAGIC: &[u8] = b"k8s\0";

/// About what JSON adds to a name or an element: quotes, colon and comma, or braces and comma.
const PUNCTUATION: usize = 4;

/// Why bytes are not an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// Something else than protobuf under its media type.
    #[error("provided data does not appear to be a protobuf message, expected prefix {MAGIC:?}")]
    Magic,
    /// The body is compressed or otherwise encoded once more.
    #[error("the content encoding {0:?} is not supported")]
    ContentEncoding(String),
    /// An object that cannot be in a request body.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    Kind {
        /// `apiVersion` of the envelope.
        api_version: String,
        /// `kind` of the envelope.
        kind: String,
    },
    /// The bytes are cut short or no protobuf.
    #[error("proto: {0}")]
    Wire(&'static str),
    /// A field is not what its type says.
    #[error("proto: cannot decode field {field}: {problem}")]
    Field {
        /// Message and field: `core.v1.Volume.name`.
        field: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// More JSON than the caller takes.
    #[error("the object is larger than {0} bytes as JSON")]
    TooLarge(usize),
}

/// Why a value does not fit its field.
type Problem = &'static str;

/// Names of fields that are maps wherever they are.
pub(crate) fn map_fields() -> HashSet<&'static str> {
    table::names(Many::Map)
}

/// Names of fields that are lists wherever they are.
pub(crate) fn list_fields() -> HashSet<&'static str> {
    table::names(Many::List)
}

/// The object in `bytes` as JSON of about `limit` bytes at most.
pub fn to_json(bytes: &[u8], limit: usize) -> Result<Vec<u8>, ProtobufError> {
    let envelope = Envelope::read(bytes.strip_prefix(MAGIC).ok_or(ProtobufError::Magic)?)?;
    if !envelope.content_encoding.is_empty() {
        return Err(ProtobufError::ContentEncoding(envelope.content_encoding));
    }
    let (api_version, kind) = (envelope.api_version, envelope.kind);
    let name = message_name(&api_version, &kind);
    let Some(message) = table::message(&name) else { return Err(ProtobufError::Kind { api_version, kind }) };
    let mut object = Map::from_iter([("apiVersion".to_owned(), api_version.into()), ("kind".to_owned(), kind.into())]);
    Decoder { limit, left: limit }.message(message, envelope.raw, &mut object)?;
    Ok(Value::Object(object).to_string().into_bytes())
}

/// The message of a kind: `rbac.v1.Role`. `DeleteOptions` are the same in every group.
pub fn message_name(api_version: &str, kind: &str) -> String {
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("core", api_version));
    let package = group.split('.').next().unwrap_or(group);
    match (kind, api_version) {
        ("DeleteOptions", _) => "meta.v1.DeleteOptions".to_owned(),
        // The beta is the same.
        ("Eviction", "policy/v1beta1") => "policy.v1.Eviction".to_owned(),
        _ => format!("{package}.{version}.{kind}"),
    }
}

/// The same, if the table has it.
pub(crate) fn known_message(api_version: &str, kind: &str) -> Option<&'static str> {
    table::message(&message_name(api_version, kind)).map(table::Message::name)
}

/// `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'a> {
    api_version: String,
    kind: String,
    raw: &'a [u8],
    content_encoding: String,
}

impl<'a> Envelope<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, ProtobufError> {
        let mut envelope = Envelope::default();
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.next().map_err(ProtobufError::Wire)? {
            match number {
                1 => envelope.read_type_meta(wire.bytes().map_err(ProtobufError::Wire)?)?,
                2 => envelope.raw = wire.bytes().map_err(ProtobufError::Wire)?,
                3 => envelope.content_encoding = wire.text().map_err(ProtobufError::Wire)?.to_owned(),
                _ => {}
            }
        }
        Ok(envelope)
    }

    fn read_type_meta(&mut self, bytes: &[u8]) -> Result<(), ProtobufError> {
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.next().map_err(ProtobufError::Wire)? {
            match number {
                1 => wire.text().map_err(ProtobufError::Wire)?.clone_into(&mut self.api_version),
                2 => wire.text().map_err(ProtobufError::Wire)?.clone_into(&mut self.kind),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Decodes messages as long as there is room for their JSON.
struct Decoder {
    limit: usize,
    left: usize,
}

impl Decoder {
    /// Adds the fields of a message to `object`.
    fn message(
        &mut self,
        message: &'static table::Message,
        bytes: &[u8],
        object: &mut Map<String, Value>,
    ) -> Result<(), ProtobufError> {
        let mut reader = Reader::new(bytes);
        while let Some((number, wire)) = reader.next().map_err(ProtobufError::Wire)? {
            if let Some(field) = message.field(number) {
                let problem = |problem| ProtobufError::Field { field: message.path(field), problem };
                match field.many {
                    Many::One => self.one(field, wire, object, &problem)?,
                    Many::List => self.list(field, wire, object, &problem)?,
                    Many::Map => self.entry(field, wire, object, &problem)?,
                }
            }
        }
        Ok(())
    }

    /// A single field: the last value counts, and messages are merged, as protobuf has it.
    fn one(
        &mut self,
        field: &'static Field,
        wire: Wire<'_>,
        object: &mut Map<String, Value>,
        problem: &dyn Fn(Problem) -> ProtobufError,
    ) -> Result<(), ProtobufError> {
        self.charge(field.name.len() + PUNCTUATION)?;
        if let Type::Message(of) = field.of {
            let bytes = wire.bytes().map_err(problem)?;
            let message = table::message(of).ok_or_else(|| problem("its type is not known"))?;
            if field.is_embedded() {
                return self.message(message, bytes, object);
            }
            let known = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
            return known.as_object_mut().map_or(Ok(()), |inner| self.message(message, bytes, inner));
        }
        let value = self.scalar(field, wire, problem)?;
        if value.is_null() || (!field.keeps_zero && is_zero(&value)) {
            object.remove(field.name);
        } else {
            object.insert(field.name.to_owned(), value);
        }
        Ok(())
    }

    fn list(
        &mut self,
        field: &'static Field,
        wire: Wire<'_>,
        object: &mut Map<String, Value>,
        problem: &dyn Fn(Problem) -> ProtobufError,
    ) -> Result<(), ProtobufError> {
        let mut values = Vec::new();
        match (field.of, wire) {
            (Type::Int | Type::Bool, Wire::Bytes(packed)) => {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() {
                    let element = Wire::Varint(reader.varint().map_err(problem)?);
                    values.push(self.value(field, element, problem)?);
                }
            }
            (_, wire) => values.push(self.value(field, wire, problem)?),
        }
        let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
        list.as_array_mut().into_iter().for_each(|list| list.append(&mut values));
        Ok(())
    }

    /// An entry of a map: a message of key and value, either of which may be left out.
    fn entry(
        &mut self,
        field: &'static Field,
        wire: Wire<'_>,
        object: &mut Map<String, Value>,
        problem: &dyn Fn(Problem) -> ProtobufError,
    ) -> Result<(), ProtobufError> {
        let (mut key, mut value) = ("", Wire::Bytes(&[]));
        let mut reader = Reader::new(wire.bytes().map_err(problem)?);
        while let Some((number, wire)) = reader.next().map_err(problem)? {
            match number {
                1 => key = wire.text().map_err(problem)?,
                2 => value = wire,
                _ => {}
            }
        }
        self.charge(key.len() + PUNCTUATION)?;
        let value = self.value(field, value, problem)?;
        let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
        map.as_object_mut().and_then(|map| map.insert(key.to_owned(), value));
        Ok(())
    }

    /// An element of a list or map.
    fn value(
        &mut self,
        field: &'static Field,
        wire: Wire<'_>,
        problem: &dyn Fn(Problem) -> ProtobufError,
    ) -> Result<Value, ProtobufError> {
        self.charge(PUNCTUATION)?;
        let Type::Message(of) = field.of else { return self.scalar(field, wire, problem) };
        let message = table::message(of).ok_or_else(|| problem("its type is not known"))?;
        let mut object = Map::new();
        self.message(message, wire.bytes().map_err(problem)?, &mut object)?;
        Ok(Value::Object(object))
    }

    fn scalar(
        &mut self,
        field: &'static Field,
        wire: Wire<'_>,
        problem: &dyn Fn(Problem) -> ProtobufError,
    ) -> Result<Value, ProtobufError> {
        self.charge(wire.len())?;
        special::value(field.of, wire).map_err(problem)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), ProtobufError> {
        self.left = self.left.checked_sub(bytes).ok_or(ProtobufError::TooLarge(self.limit))?;
        Ok(())
    }
}

/// What Go's JSON encoder leaves out of what is one value and no pointer.
pub(crate) fn is_zero(value: &Value) -> bool {
    match value {
        Value::String(text) => text.is_empty(),
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

#[cfg(test)]
mod tests;
