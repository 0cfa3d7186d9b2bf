//! Managed fields as a text between the object's other bytes: first among its metadata, so that they are found and left
//! out without reading the rest.

use std::borrow::Cow;

use super::scan;
use crate::kinds::KindInfo;

const FIELD: &[u8] = br#""managedFields":"#;
const VERSION: &[u8] = br#""resourceVersion":"#;

/// An encoded object with its managed fields.
pub fn join(info: &KindInfo, object: Vec<u8>, managed: &str) -> Vec<u8> {
    let prefix = info.metadata_prefix();
    if managed.is_empty() || !object.starts_with(prefix.as_bytes()) {
        return object;
    }
    let (head, rest) = object.split_at(prefix.len());
    let comma: &[u8] = if rest.first() == Some(&b'}') { b"" } else { b"," };
    [head, FIELD, managed.as_bytes(), comma, rest].concat()
}

/// An encoded object without its managed fields, and these. Found where [`join`] and the resourceVersion before them put
/// them; elsewhere they are part of the object.
pub fn split<'a>(info: &KindInfo, json: &'a [u8]) -> (Cow<'a, [u8]>, &'a str) {
    let prefix = info.metadata_prefix();
    let Some(start) = start(json, prefix.as_bytes()) else { return (Cow::Borrowed(json), "") };
    let list = start + FIELD.len();
    let end = scan::value_end(json, list);
    let managed = json.get(list..end).and_then(|text| std::str::from_utf8(text).ok()).unwrap_or("");
    let rest = json.get(end..).unwrap_or_default();
    let object = match rest.strip_prefix(b",") {
        Some(rest) => [&json[..start], rest].concat(),
        // It was the last one: the comma before it goes.
        None => [json[..start].strip_suffix(b",").unwrap_or(&json[..start]), rest].concat(),
    };
    (Cow::Owned(object), managed)
}

/// Where the field begins.
fn start(json: &[u8], prefix: &[u8]) -> Option<usize> {
    let rest = json.strip_prefix(prefix)?;
    let mut start = prefix.len();
    if rest.starts_with(VERSION) {
        start = scan::value_end(json, start + VERSION.len());
        start += usize::from(json.get(start) == Some(&b','));
    }
    json.get(start..)?.starts_with(FIELD).then_some(start)
}
