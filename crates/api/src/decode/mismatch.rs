//! A field of the wrong type in the words of Go's decoder: which Go struct it is in, and of which Go type it should have been
//! (`json.UnmarshalTypeError`).

use super::zeros::Spot;
use crate::kinds::KindInfo;
use crate::protobuf::{Many, Type};

/// What Go reads the version and kind of an object into.
const HEAD: &str =
    r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// What Go says of a value at the root, which is no object, or of a kind or version that is no text.
pub(super) fn head(path: &str, text: &str) -> Option<String> {
    let value = found(text)?.0;
    let value = value.split(' ').next().unwrap_or_default();
    match path {
        "" => Some(format!("json: cannot unmarshal {value} into Go value of type {HEAD}")),
        "kind" | "apiVersion" => {
            Some(format!("json: cannot unmarshal {value} into Go struct field .{path} of type string"))
        }
        _ => None,
    }
}

/// What Go says of the value at `path` (`spec.containers[0].name`) of an object of this kind, where our decoder says `text`;
/// `None` where only that knows what is wrong.
pub(super) fn mismatch(info: &KindInfo, path: &str, text: &str) -> Option<String> {
    let (value, expected) = found(text)?;
    let mut spot = Spot::root(info)?;
    let (mut owner, mut fields) = (info.kind, Vec::new());
    for step in path.split('.') {
        let (name, indexes) = step.split_once('[').map_or((step, 0), |(name, rest)| (name, rest.matches(']').count()));
        // A key of a map is no field.
        if let Some(message) = spot.message() {
            owner = message.rsplit('.').next().unwrap_or(message);
            fields.push(name);
        }
        spot = spot.in_field(name)?;
        for _ in 0..indexes {
            spot = spot.in_list()?;
        }
    }
    let wanted = go_type(spot, fields.last(), expected)?;
    let is_more_than_text = matches!(spot.of(), Type::Time | Type::MicroTime | Type::Quantity | Type::Bytes);
    if value == "string" && is_more_than_text && spot.many() == Many::One {
        return None;
    }
    // Which number it is matters only where another one would have done.
    let value = if wanted.starts_with("int") { &value } else { value.split(' ').next()? };
    Some(format!("json: cannot unmarshal {value} into Go struct field {owner}.{} of type {wanted}", fields.join(".")))
}

/// What was found, in Go's words, and what was expected, in ours.
fn found(text: &str) -> Option<(String, &str)> {
    let rest = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "))?;
    let (value, expected) = rest.rsplit_once(", expected ")?;
    let value = match value.split(' ').next()? {
        "string" => "string".to_owned(),
        "boolean" => "bool".to_owned(),
        "map" => "object".to_owned(),
        "sequence" => "array".to_owned(),
        "integer" | "floating" => format!("number {}", value.split('`').nth(1)?),
        _ => return None,
    };
    Some((value, expected))
}

fn go_type(spot: Spot, name: Option<&&str>, expected: &str) -> Option<String> {
    let one = match spot.of() {
        Type::String if name == Some(&"uid") => "types.UID".to_owned(),
        Type::String | Type::Time | Type::MicroTime | Type::Strings => "string".to_owned(),
        Type::Bytes => "[]uint8".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int if expected == "i64" => "int64".to_owned(),
        Type::Int | Type::IntOrString => "int32".to_owned(),
        Type::Quantity if spot.many() == Many::Map => return Some("v1.ResourceList".to_owned()),
        Type::Quantity | Type::Json => return None,
        // `core.v1.Container` is in package v1.
        Type::Message(message) => message.split_once('.')?.1.to_owned(),
    };
    Some(match spot.many() {
        Many::One => one,
        Many::List => format!("[]{one}"),
        Many::Map => format!("map[string]{one}"),
    })
}
