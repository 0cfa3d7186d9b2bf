//! One step of a field's path (`fieldpath.PathElement` of structured-merge-diff) and its spelling in FieldsV1.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

use serde_json::Value;

/// A step from a value to one inside it. Upstream's order: fields, keys, values, indexes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PathElement<'a> {
    /// `f:`: a field of an object.
    Field(Cow<'a, str>),
    /// `k:`: the element of a list with these keys: JSON, names sorted.
    Key(Cow<'a, str>),
    /// `v:`: the element of a set with this value: JSON.
    Value(Cow<'a, str>),
    /// `i:`: the element of a list at this place. Nothing makes these any more; they are kept.
    Index(i64),
}

impl<'a> PathElement<'a> {
    /// Reads `f:name`, `k:{"name":"x"}`, `v:1` or `i:0`.
    pub(super) fn parse(text: Cow<'a, str>) -> Option<PathElement<'a>> {
        match text.as_bytes().get(..2)? {
            b"f:" => Some(PathElement::Field(skip_prefix(text))),
            b"k:" => Some(PathElement::Key(canonical(skip_prefix(text), true)?)),
            b"v:" => Some(PathElement::Value(canonical(skip_prefix(text), false)?)),
            b"i:" => text[2..].parse().ok().map(PathElement::Index),
            _ => None,
        }
    }

    /// Writes it as a JSON string.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let (prefix, text) = match self {
            PathElement::Field(name) => ("\"f:", name),
            PathElement::Key(key) => ("\"k:", key),
            PathElement::Value(value) => ("\"v:", value),
            PathElement::Index(index) => return out.extend_from_slice(format!("\"i:{index}\"").as_bytes()),
        };
        out.extend_from_slice(prefix.as_bytes());
        if text.bytes().any(|b| b < 0x20) {
            let escaped = Value::from(&**text).to_string();
            out.extend_from_slice(&escaped.as_bytes()[1..]);
            return;
        }
        for byte in text.bytes() {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
}

fn skip_prefix(text: Cow<'_, str>) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(&text[2..]),
        Cow::Owned(mut text) => Cow::Owned(text.split_off(2)),
    }
}

/// The JSON as our encoder prints it: no white space, names sorted. `None` for what is no JSON.
fn canonical(json: Cow<'_, str>, object: bool) -> Option<Cow<'_, str>> {
    let value: Value = serde_json::from_str(&json).ok()?;
    if object && !value.is_object() {
        return None;
    }
    let printed = value.to_string();
    Some(if printed == *json { json } else { Cow::Owned(printed) })
}

/// As error messages name a field: `.spec.containers[name="web"].image`.
impl Display for PathElement<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Value(value) => write!(f, "[={value}]"),
            PathElement::Index(index) => write!(f, "[{index}]"),
            PathElement::Key(json) => {
                let keys: serde_json::Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
        }
    }
}
