//! One quick pass over JSON text for what typed decoders do not tell: duplicate keys, which kind it claims to be, whether
//! every amount is one, and whether there are zeros that Go's decoder takes for something else.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::amounts::Below;
use super::zeros::Spot;
use super::{DecodeError, MAX_STRICT_ERRORS, failure};
use crate::kinds::KindInfo;

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
    /// What is wrong with the first text that should be an amount or a time and is none.
    pub(super) misread: Option<String>,
    blank: bool,
    unsettled: bool,
}

impl Scan {
    /// Whether `apiVersion` or `kind` is there and says nothing.
    pub(super) fn is_blank(&self) -> bool {
        self.blank
    }

    /// Whether there is anything for [`super::zeros`] to do.
    pub(super) fn is_unsettled(&self) -> bool {
        self.unsettled
    }
}

/// Reads the whole text of what is to be an object of this kind; what is not JSON is refused here.
pub(super) fn scan(info: &KindInfo, bytes: &[u8]) -> Result<Scan, DecodeError> {
    let mut scan = Scan::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let walk = Walk { info, scan: &mut scan, place: &Place::Root, amounts: Below::of(info) };
    walk.deserialize(&mut json).and_then(|()| json.end()).map_err(|e| failure(None, bytes, &e))?;
    Ok(scan)
}

/// The way from the root to a value, as a list that lives on the stack.
enum Place<'p> {
    Root,
    Key(&'p Place<'p>, &'p str),
    Index(&'p Place<'p>, usize),
}

impl Place<'_> {
    /// What stands here, as far as the table of messages knows. Asked of zeros only, so that nobody else pays for it.
    fn spot(&self, info: &KindInfo) -> Option<Spot> {
        match self {
            Place::Root => Spot::root(info),
            Place::Key(parent, key) => parent.spot(info)?.in_field(key),
            Place::Index(parent, _) => parent.spot(info)?.in_list(),
        }
    }
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
    info: &'p KindInfo,
    scan: &'w mut Scan,
    place: &'p Place<'p>,
    amounts: Below,
}

impl Walk<'_, '_> {
    /// Takes note of a top-level `apiVersion` or `kind`, and of an amount that is none.
    fn text(self, value: &str) {
        if self.scan.misread.is_none() {
            self.scan.misread = self.amounts.problem(value);
        }
        let slot = match self.place {
            Place::Key(Place::Root, "apiVersion") => &mut self.scan.api_version,
            Place::Key(Place::Root, "kind") => &mut self.scan.kind,
            _ => return,
        };
        value.clone_into(slot);
        self.scan.blank |= value.is_empty();
    }

    /// Takes note of a zero, unless it stays what it is.
    fn zero(&mut self, is_unsettled: fn(Spot) -> bool) {
        if !self.scan.unsettled {
            self.scan.unsettled = self.place.spot(self.info).is_some_and(is_unsettled);
        }
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

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        if !value {
            self.zero(Spot::is_left_out_if_zero);
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        if value == 0 {
            self.zero(Spot::is_left_out_if_zero);
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.zero(Spot::is_filled);
        // An amount or a time may be null.
        Walk { amounts: Below::default(), ..self }.text("");
        Ok(())
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        if value.is_empty() {
            self.zero(Spot::is_left_out_if_zero);
        }
        self.text(value);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        let (mut index, amounts) = (0, self.amounts.in_list());
        while seq
            .next_element_seed(Walk {
                info: self.info,
                scan: self.scan,
                place: &Place::Index(self.place, index),
                amounts,
            })?
            .is_some()
        {
            index += 1;
        }
        if index == 0 {
            self.zero(Spot::is_left_out_if_empty);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        let mut keys: Vec<Cow<'de, str>> = Vec::new();
        while let Some(key) = map.next_key_seed(Key)? {
            let amounts = self.amounts.in_field(&key);
            let place = &Place::Key(self.place, &key);
            map.next_value_seed(Walk { info: self.info, scan: self.scan, place, amounts })?;
            keys.push(key);
        }
        if keys.is_empty() {
            self.zero(Spot::is_left_out_if_empty);
        }
        self.note_duplicates(keys);
        Ok(())
    }
}

/// Reads a key without copying it where the text allows.
struct Key;

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
