//! Values, and the messages that are no object in JSON.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;

use super::Problem;
use super::table::Type;
use super::wire::{Reader, Wire};

/// The value in JSON; `null` stands for nothing.
pub(super) fn value(of: Type, wire: Wire<'_>) -> Result<Value, Problem> {
    match of {
        Type::String => wire.text().map(Value::from),
        Type::Bytes => wire.bytes().map(|bytes| STANDARD.encode(bytes).into()),
        Type::Bool => wire.varint().map(|value| Value::Bool(value != 0)),
        Type::Int => wire.varint().map(|value| value.cast_signed().into()),
        Type::Quantity => quantity(wire.bytes()?),
        Type::IntOrString => int_or_string(wire.bytes()?),
        Type::Time => time(wire.bytes()?, |seconds, _| Some(Timestamp::from_second(seconds).ok()?.to_string())),
        Type::MicroTime => time(wire.bytes()?, |seconds, nanoseconds| {
            Some(format!("{:.6}", Timestamp::new(seconds, nanoseconds).ok()?))
        }),
        Type::Strings => strings(wire.bytes()?),
        Type::Json => json(wire.bytes()?),
        Type::Message(_) => Err("a message is no value"),
    }
}

/// `Quantity{1: string}`: one that says nothing is 0.
fn quantity(bytes: &[u8]) -> Result<Value, Problem> {
    let mut text = "0";
    for field in fields(bytes) {
        if let (1, wire) = field? {
            text = wire.text()?;
        }
    }
    Ok(text.into())
}

/// `IntOrString{1: type, 2: intVal, 3: strVal}`, where type 1 is a string.
fn int_or_string(bytes: &[u8]) -> Result<Value, Problem> {
    let (mut kind, mut number, mut text) = (0, 0, "");
    for field in fields(bytes) {
        match field? {
            (1, wire) => kind = wire.varint()?,
            (2, wire) => number = wire.varint()?.cast_signed(),
            (3, wire) => text = wire.text()?,
            _ => {}
        }
    }
    match kind {
        0 => Ok(number.into()),
        1 => Ok(text.into()),
        _ => Err("impossible IntOrString.Type"),
    }
}

/// `Timestamp{1: seconds, 2: nanos}`: an empty one is none. (`Time` and `MicroTime` in `apimachinery/pkg/apis/meta/v1`.)
fn time(bytes: &[u8], print: impl FnOnce(i64, i32) -> Option<String>) -> Result<Value, Problem> {
    const OUT_OF_RANGE: Problem = "the time is out of range";
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanoseconds) = (0, 0);
    for field in fields(bytes) {
        match field? {
            (1, wire) => seconds = wire.varint()?.cast_signed(),
            (2, wire) => nanoseconds = i32::try_from(wire.varint()?.cast_signed()).map_err(|_| OUT_OF_RANGE)?,
            _ => {}
        }
    }
    print(seconds, nanoseconds).map(Value::from).ok_or(OUT_OF_RANGE)
}

/// `ExtraValue{1: items}`.
fn strings(bytes: &[u8]) -> Result<Value, Problem> {
    let mut list = Vec::new();
    for field in fields(bytes) {
        if let (1, wire) = field? {
            list.push(Value::from(wire.text()?));
        }
    }
    Ok(list.into())
}

/// `FieldsV1{1: raw}`, where raw is JSON.
fn json(bytes: &[u8]) -> Result<Value, Problem> {
    let mut raw: &[u8] = b"null";
    for field in fields(bytes) {
        if let (1, wire) = field? {
            raw = wire.bytes()?;
        }
    }
    serde_json::from_slice(raw).map_err(|_| "the bytes in it are no JSON")
}

fn fields(bytes: &[u8]) -> impl Iterator<Item = Result<(u32, Wire<'_>), Problem>> {
    let mut reader = Reader::new(bytes);
    std::iter::from_fn(move || reader.next().transpose())
}
