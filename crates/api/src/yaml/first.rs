//! What is sent to a server: one document, as `sigs.k8s.io/yaml` reads it there (`YAMLToJSON`, `YAMLToJSONStrict`).

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::options::DuplicateKeyPolicy;

use super::lines::repeated_keys;
use super::{YamlError, documents};

/// The first document of a text.
#[derive(Clone, Debug, PartialEq)]
pub struct First {
    /// What it says; of a key that is there again the last value counts. Nothing is `null`.
    pub value: Value,
    /// `line 3: key "a" already set in map` of each such key.
    pub repeated: Vec<String>,
}

impl First {
    /// What strict reading says of the keys that are there again.
    pub fn strict_error(&self) -> Option<String> {
        if self.repeated.is_empty() {
            return None;
        }
        Some(format!("yaml: unmarshal errors:\n  {}", self.repeated.join("\n  ")))
    }
}

/// Reads the first document of a text that is bytes yet, JSON or YAML. What follows is not even looked at.
pub fn parse_first(text: &[u8]) -> Result<First, YamlError> {
    if let Ok(Unrepeated(value)) = serde_json::from_slice(text) {
        return Ok(First { value, repeated: Vec::new() });
    }
    let text = std::str::from_utf8(text).map_err(|e| YamlError(format!("yaml: {e}")))?;
    let text = first_document(text);
    let (found, repeated) = match documents(text, DuplicateKeyPolicy::Error) {
        Ok(found) => (found, Vec::new()),
        Err(_) => (documents(text, DuplicateKeyPolicy::LastWins)?, repeated_keys(text)),
    };
    Ok(First { value: found.into_iter().next().unwrap_or_default(), repeated })
}

/// The text as far as its first document goes. At the start of a line three hyphens or dots are always a border.
fn first_document(text: &str) -> &str {
    let (mut end, mut has_begun) = (0, false);
    for line in text.split_inclusive('\n') {
        let is_start = is_border(line, "---");
        if has_begun && (is_start || is_border(line, "...")) {
            return &text[..end];
        }
        let says_nothing = line.trim().is_empty() || line.starts_with(['#', '%']);
        has_begun |= is_start || !says_nothing;
        end += line.len();
    }
    text
}

fn is_border(line: &str, border: &str) -> bool {
    line.strip_prefix(border).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// JSON in which no key is there twice; anything else fails.
struct Unrepeated(Value);

impl<'de> Deserialize<'de> for Unrepeated {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Unrepeated, D::Error> {
        deserializer.deserialize_any(UnrepeatedVisitor).map(Unrepeated)
    }
}

struct UnrepeatedVisitor;

impl<'de> Visitor<'de> for UnrepeatedVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some((key, Unrepeated(value))) = map.next_entry::<String, Unrepeated>()? {
            if fields.insert(key, value).is_some() {
                return Err(A::Error::custom("a key is there twice"));
            }
        }
        Ok(Value::Object(fields))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Unrepeated(item)) = list.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn first(text: &str) -> Value {
        let First { value, repeated } = parse_first(text.as_bytes()).unwrap();
        assert_eq!(repeated, [""; 0], "{text}");
        value
    }

    #[test]
    fn the_first_document_is_read_and_nothing_after_it() {
        for (text, expected) in [
            ("a: 1\n---\na: 2\n", json!({"a": 1})),
            ("# one\n\n--- # two\na: 1\n--- [", json!({"a": 1})),
            ("%YAML 1.1\n---\na: 1\n...\n\tno: YAML", json!({"a": 1})),
            ("--- {a: 1}\n---\n", json!({"a": 1})),
            ("a: |\n  ---\n  x\nb: ---x\n", json!({"a": "---\nx\n", "b": "---x"})),
            ("---\n---\na: 1\n", Value::Null),
            ("---\n# nothing\n", Value::Null),
            ("# nothing", Value::Null),
            ("", Value::Null),
            ("{\"a\": 1}", json!({"a": 1})),
            ("null", Value::Null),
        ] {
            assert_eq!(first(text), expected, "{text:?}");
        }
    }

    #[test]
    fn of_a_repeated_key_the_last_value_counts_and_each_is_told() {
        // The lines are those that Go tells (`TestStrictDecoding` in `goyaml.v2`).
        for (text, expected, repeated) in [
            ("a: 1\na: 2\n", json!({"a": 2}), vec!["line 2: key \"a\" already set in map"]),
            (
                "m:\n  a:\n    b: 1\n  a:\n    b: 2\n    b: 3\nm: [{c: 1,\n  c: 2}]\n",
                json!({"m": [{"c": 2}]}),
                vec![
                    "line 6: key \"b\" already set in map",
                    "line 5: key \"a\" already set in map",
                    "line 8: key \"c\" already set in map",
                    "line 7: key \"m\" already set in map",
                ],
            ),
            ("{\"a\": 1,\n\"a\": {}}", json!({"a": {}}), vec!["line 2: key \"a\" already set in map"]),
        ] {
            let found = parse_first(text.as_bytes()).unwrap();
            assert_eq!(
                (&found.value, &found.repeated),
                (&expected, &repeated.into_iter().map(str::to_owned).collect())
            );
        }
        let error = parse_first(b"a: 1\na: 2\na: 3\n").unwrap().strict_error().unwrap();
        assert_eq!(
            error,
            "yaml: unmarshal errors:\n  line 2: key \"a\" already set in map\n  line 3: key \"a\" already set in map"
        );
    }

    #[test]
    fn what_is_no_yaml_is_refused() {
        for text in ["a: [1\n", "a: b: c\n", "a:\n\tb: 1\n", "a: 1\na: 2\nb: [\n", "a: *b\n"] {
            assert!(parse_first(text.as_bytes()).is_err(), "{text}");
        }
        assert!(parse_first(b"a: \xff\n").is_err());
    }
}
