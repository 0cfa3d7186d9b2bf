//! One quick pass over JSON text for what typed decoders do not tell: duplicate keys, and which kind it claims to be.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::{DecodeError, MAX_STRICT_ERRORS, failure};

/// Objects of up to this many keys are searched for duplicates pair by pair, larger ones by sorting.
const FEW_KEYS: usize = 16;

/// What the pass found.
#[derive(Debug, Default)]
pub(super) struct Scan {
    /// `apiVersion` where it is a string, else empty.
    pub(super) api_version: String,
    /// `kind` where it is a string, else empty.
    pub(super) kind: String,
    /// `duplicate field "spec.bar"`.
    pub(super) duplicates: Vec<String>,
    blank: bool,
}

impl Scan {
    /// Whether `apiVersion` or `kind` is there and says nothing.
    pub(super) fn is_blank(&self) -> bool {
        self.blank
    }
}

/// Reads the whole text; what is not JSON is refused here.
pub(super) fn scan(bytes: &[u8]) -> Result<Scan, DecodeError> {
    let mut scan = Scan::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let walk = Walk { scan: &mut scan, place: &Place::Root };
    walk.deserialize(&mut json).and_then(|()| json.end()).map_err(|e| failure(None, bytes, &e))?;
    Ok(scan)
}

/// The way from the root to a value, as a list that lives on the stack.
enum Place<'p> {
    Root,
    Key(&'p Place<'p>, &'p str),
    Index(&'p Place<'p>, usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Root => Ok(()),
            Place::Key(Place::Root, key) => f.write_str(key),
            Place::Key(parent, key) => write!(f, "{parent}.{key}"),
            Place::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

struct Walk<'w, 'p> {
    scan: &'w mut Scan,
    place: &'p Place<'p>,
}

impl Walk<'_, '_> {
    /// Takes note of a top-level `apiVersion` or `kind`.
    fn text(self, value: &str) {
        let slot = match self.place {
            Place::Key(Place::Root, "apiVersion") => &mut self.scan.api_version,
            Place::Key(Place::Root, "kind") => &mut self.scan.kind,
            _ => return,
        };
        value.clone_into(slot);
        self.scan.blank |= value.is_empty();
    }

    fn note_duplicates(&mut self, mut keys: Vec<Cow<'_, str>>) {
        let mut note = |key: &str| {
            let text = format!("duplicate field {:?}", Place::Key(self.place, key).to_string());
            if self.scan.duplicates.len() < MAX_STRICT_ERRORS && !self.scan.duplicates.contains(&text) {
                self.scan.duplicates.push(text);
            }
        };
        if keys.len() <= FEW_KEYS {
            keys.iter().enumerate().filter(|(i, key)| keys[..*i].contains(key)).for_each(|(_, key)| note(key));
        } else {
            keys.sort_unstable();
            keys.windows(2).filter(|pair| pair[0] == pair[1]).for_each(|pair| note(&pair[0]));
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    pass_over!(visit_bool(bool), visit_i64(i64), visit_u64(u64), visit_f64(f64));

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.text("");
        Ok(())
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.text(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut index = 0;
        while seq.next_element_seed(Walk { scan: self.scan, place: &Place::Index(self.place, index) })?.is_some() {
            index += 1;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut keys: Vec<Cow<'de, str>> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            map.next_value_seed(Walk { scan: self.scan, place: &Place::Key(self.place, &key) })?;
            keys.push(key);
        }
        self.note_duplicates(keys);
        Ok(())
    }
}

/// Reads a key without copying it where the text allows.
pub(super) struct Key;

impl<'de> DeserializeSeed<'de> for Key {
    type Value = Cow<'de, str>;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(key))
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(key.to_owned()))
    }
}
