//! Reads JSON text one level at a time, without building a tree: what is equal as text is never looked into.
//!
//! The text comes from an encoder; on anything else the result is meaningless, never a panic.

use std::borrow::Cow;

/// One level of a JSON text.
#[derive(Debug)]
pub(super) enum Level<'a> {
    Null,
    Scalar,
    /// Fields and their values, sorted by name.
    Map(Vec<(Cow<'a, str>, &'a str)>),
    List(Vec<&'a str>),
}

/// The outermost level of `text`.
pub(super) fn level(text: &str) -> Level<'_> {
    match text.as_bytes().first() {
        Some(b'{') => Level::Map(fields(text)),
        Some(b'[') => Level::List(items(text)),
        Some(b'n') | None => Level::Null,
        Some(_) => Level::Scalar,
    }
}

/// The fields of an object, sorted by name; nothing for what is no object.
pub(super) fn fields(text: &str) -> Vec<(Cow<'_, str>, &str)> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = blank(bytes, 1);
    while bytes.first() == Some(&b'{') && bytes.get(at) == Some(&b'"') {
        let end = string_end(bytes, at);
        let name = text.get(at..end).map(string).unwrap_or_default();
        let start = blank(bytes, blank(bytes, end) + 1);
        let end = value_end(bytes, start);
        let Some(value) = text.get(start..end) else { break };
        out.push((name, value));
        at = blank(bytes, end);
        if bytes.get(at) == Some(&b',') {
            at = blank(bytes, at + 1);
        }
    }
    if !out.is_sorted_by(|a, b| a.0 <= b.0) {
        out.sort_by(|a, b| a.0.cmp(&b.0));
    }
    out
}

fn items(text: &str) -> Vec<&str> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut at = blank(bytes, 1);
    while at < bytes.len() && bytes[at] != b']' {
        let end = value_end(bytes, at);
        let Some(value) = text.get(at..end).filter(|v| !v.is_empty()) else { break };
        out.push(value);
        at = blank(bytes, end);
        if bytes.get(at) == Some(&b',') {
            at = blank(bytes, at + 1);
        }
    }
    out
}

/// The text of a JSON string, quotes included, as it reads.
pub(super) fn string(quoted: &str) -> Cow<'_, str> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    match inner.contains('\\') {
        false => Cow::Borrowed(inner),
        true => Cow::Owned(serde_json::from_str(quoted).unwrap_or_default()),
    }
}

/// The first position from `at` that is not white space.
pub(crate) fn blank(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The position after the string that begins at `at`.
pub(crate) fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// The position after the value that begins at `at`.
pub(crate) fn value_end(bytes: &[u8], at: usize) -> usize {
    match bytes.get(at) {
        Some(b'"') => string_end(bytes, at),
        Some(b'{' | b'[') => nested_end(bytes, at),
        _ => {
            let rest = bytes.get(at..).unwrap_or_default();
            at + rest
                .iter()
                .position(|b| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace())
                .unwrap_or(rest.len())
        }
    }
}

fn nested_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'"' => {
                at = string_end(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_read_whatever_it_holds() {
        let Level::Map(fields) = level(r#"{"b":{"x":"}\"]"},"a":[1,[2]],"c\n":null , "d": -1.5e3}"#) else { panic!() };
        let expected = [("a", "[1,[2]]"), ("b", r#"{"x":"}\"]"}"#), ("c\n", "null"), ("d", "-1.5e3")];
        assert_eq!(fields.iter().map(|(k, v)| (&**k, *v)).collect::<Vec<_>>(), expected);
        let Level::List(items) = level(r#"[1, "a,]" ,{"b":[]},[]]"#) else { panic!() };
        assert_eq!(items, ["1", r#""a,]""#, r#"{"b":[]}"#, "[]"]);
        assert!(matches!(level("null"), Level::Null) && matches!(level("true"), Level::Scalar));
        assert!(fields_of("{}").is_empty() && matches!(level("[]"), Level::List(l) if l.is_empty()));
    }

    fn fields_of(text: &str) -> Vec<(Cow<'_, str>, &str)> {
        fields(text)
    }

    proptest::proptest! {
        #[test]
        fn no_text_is_a_panic(text: String, json in r#"[\[\]{}",:0-9a\\ ]{0,40}"#) {
            let _ = (level(&text), level(&json));
        }
    }
}
