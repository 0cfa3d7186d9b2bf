//! What Go's JSON says though nothing is in it: an empty struct, a time or a list that is `null`, a text that has to be
//! there.
//!
//! The typed encoder knows no difference between such a field and one that may be missing, and leaves out both. So an
//! encoded object is completed, in one pass over its text: `written.txt` says which fields of which messages, and the
//! table of protobuf fields where the messages are. It happens where objects are encoded, so that they are stored, shown,
//! watched and compared in one form; what was stored without is completed when it is read to be changed.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use crate::apply::scan::{blank, string_end, value_end};
use crate::kinds::KindInfo;
use crate::protobuf::{self, Many, Type};

static MESSAGES: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(messages);

/// The fields at the root that come before all others.
const HEAD: [&[u8]; 3] = [b"apiVersion", b"kind", b"metadata"];

/// What is to be looked at in a message.
#[derive(Default)]
struct Message {
    /// Sorted by name.
    always: Vec<Always>,
    /// Fields in which there is something, too.
    below: Vec<(&'static str, Many, &'static str)>,
    /// A text that is left out where it is empty.
    left_out: Option<&'static str>,
}

impl Message {
    fn is_plain(&self) -> bool {
        self.always.is_empty() && self.below.is_empty() && self.left_out.is_none()
    }
}

/// A field that is always written.
struct Always {
    name: &'static str,
    is_list: bool,
    /// `"name":null`, or what else nothing is.
    field: String,
}

impl Always {
    /// How it is said that nothing is in it.
    fn nothing(&self) -> &str {
        &self.field[self.name.len() + 3..]
    }
}

fn table() -> impl Iterator<Item = (&'static str, impl Iterator<Item = &'static str> + Clone)> {
    let lines = include_str!("written.txt").lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(' ')).map(|(message, fields)| (message, fields.split(' ')))
}

fn messages() -> HashMap<&'static str, Message> {
    let always: HashMap<&str, Vec<&str>> = table().map(|(message, fields)| (message, fields.collect())).collect();
    let mut found = HashMap::new();
    protobuf::messages().for_each(|name| note(name, &always, &mut found));
    found.retain(|_, message| !message.is_plain());
    found
}

/// Notes what is to be looked at in a message, and first in those below it. (No message contains itself.)
fn note(name: &'static str, always: &HashMap<&str, Vec<&'static str>>, found: &mut HashMap<&'static str, Message>) {
    if found.contains_key(name) {
        return;
    }
    let mut message = Message::default();
    for (field, many, of) in protobuf::fields(name) {
        let Type::Message(of) = of else { continue };
        note(of, always, found);
        if found.get(of).is_some_and(|of| !of.is_plain()) {
            message.below.push((field, many, of));
        }
    }
    for field in always.get(name).into_iter().flatten() {
        let (field, mark) = named(field);
        let Some(known) = protobuf::field(name, field) else { continue };
        let nothing = match (known.many, known.of) {
            _ if mark == Some('-') => {
                message.left_out = Some(field);
                continue;
            }
            _ if mark == Some('*') => "null".to_owned(),
            (Many::One, Type::Message(of)) => nothing_in(found.get(of)),
            (Many::One, Type::String) => "\"\"".to_owned(),
            (Many::One, Type::Int) => "0".to_owned(),
            (Many::One, Type::Bool) => "false".to_owned(),
            (Many::One, Type::Quantity) => "\"0\"".to_owned(),
            _ => "null".to_owned(),
        };
        let is_list = known.many == Many::List;
        message.always.push(Always { name: field, is_list, field: format!("\"{field}\":{nothing}") });
    }
    message.always.sort_by_key(|always| always.name);
    found.insert(name, message);
}

/// A field in the table: its name, and the mark after it.
fn named(word: &'static str) -> (&'static str, Option<char>) {
    let name = word.trim_end_matches(['*', '-']);
    (name, word[name.len()..].chars().next())
}

/// A message without anything.
fn nothing_in(message: Option<&Message>) -> String {
    let fields = message.into_iter().flat_map(|message| &message.always).map(|always| &*always.field);
    format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
}

/// The encoded object with all that Go writes. What is no such object stays as it is.
pub fn complete<'a>(info: &KindInfo, json: Cow<'a, [u8]>) -> Cow<'a, [u8]> {
    let name = protobuf::known_message(&info.api_version(), info.kind);
    let Some(message) = name.and_then(|name| MESSAGES.get(name)) else { return json };
    let mut walk = Walk { json: &json, edits: Vec::new() };
    if json.first() != Some(&b'{') || walk.object(message, 0, true).is_none() || walk.edits.is_empty() {
        return json;
    }
    let edits = walk.edits;
    Cow::Owned(edited(&json, edits))
}

fn edited(json: &[u8], mut edits: Vec<(Range<usize>, Cow<'static, str>)>) -> Vec<u8> {
    // Those at one place stay in their order.
    edits.sort_by_key(|(place, _)| place.start);
    let added: usize = edits.iter().map(|(_, text)| text.len()).sum();
    let (mut out, mut kept) = (Vec::with_capacity(json.len() + added), 0);
    for (place, text) in edits {
        out.extend_from_slice(&json[kept..place.start]);
        out.extend_from_slice(text.as_bytes());
        kept = place.end;
    }
    out.extend_from_slice(&json[kept..]);
    out
}

struct Walk<'j> {
    json: &'j [u8],
    edits: Vec<(Range<usize>, Cow<'static, str>)>,
}

impl Walk<'_> {
    /// Looks at what is here, and gives where it ends; nothing where the text is no JSON.
    fn value(&mut self, many: Many, message: &'static Message, at: usize) -> Option<usize> {
        match (many, self.json.get(at)?) {
            (Many::One, b'{') => self.object(message, at, false),
            (Many::List, b'[') => self.list(message, at),
            _ => Some(value_end(self.json, at)).filter(|end| *end > at),
        }
    }

    fn list(&mut self, message: &'static Message, at: usize) -> Option<usize> {
        let mut at = blank(self.json, at + 1);
        loop {
            match self.json.get(at)? {
                b']' => return Some(at + 1),
                b',' => at = blank(self.json, at + 1),
                _ => at = blank(self.json, self.value(Many::One, message, at)?),
            }
        }
    }

    fn object(&mut self, message: &'static Message, at: usize, is_root: bool) -> Option<usize> {
        let json = self.json;
        let mut keys: Vec<(usize, &[u8])> = Vec::new();
        let (mut at, mut before) = (blank(json, at + 1), at + 1);
        loop {
            match json.get(at)? {
                b'}' => break,
                b',' => (before, at) = (at, blank(json, at + 1)),
                b'"' => {
                    let (key, end) = (at, string_end(json, at));
                    let name = json.get(at + 1..end - 1)?;
                    keys.push((at, name));
                    let colon = blank(json, end);
                    let start = blank(json, (json.get(colon)? == &b':').then_some(colon + 1)?);
                    at = blank(json, self.field(message, name, start)?);
                    if json.get(start..at) == Some(br#""""#) && message.left_out.map(str::as_bytes) == Some(name) {
                        let is_last = json.get(at) != Some(&b',');
                        self.edits.push((if is_last { before..at } else { key..blank(json, at + 1) }, "".into()));
                    }
                }
                _ => return None,
            }
        }
        self.add_missing(message, &keys, at, is_root);
        Some(at + 1)
    }

    /// Looks at the value of a field. One that is always written has one way to say that nothing is in it.
    fn field(&mut self, message: &'static Message, name: &[u8], start: usize) -> Option<usize> {
        let end = match message.below.iter().find(|(field, ..)| field.as_bytes() == name) {
            Some((_, many, of)) => self.value(*many, MESSAGES.get(of)?, start)?,
            None => Some(value_end(self.json, start)).filter(|end| *end > start)?,
        };
        let value = self.json.get(start..end)?;
        if matches!(value, b"null" | b"[]") {
            let always = message.always.iter().find(|always| always.name.as_bytes() == name);
            let nothing = always.filter(|always| always.is_list || value == b"null").map(Always::nothing);
            self.edits.extend(nothing.filter(|nothing| nothing.as_bytes() != value).map(|n| (start..end, n.into())));
        }
        Some(end)
    }

    /// Adds what is always written and not there, each before the first field that sorts after it: where the typed encoder
    /// writes it as well.
    fn add_missing(&mut self, message: &'static Message, keys: &[(usize, &[u8])], end: usize, is_root: bool) {
        let mut is_empty = keys.is_empty();
        for always in &message.always {
            let name = always.name.as_bytes();
            if keys.iter().any(|(_, key)| *key == name) {
                continue;
            }
            let mut others = keys.iter().filter(|(_, key)| !is_root || !HEAD.contains(key));
            let (place, text) = match others.find(|(_, key)| *key > name) {
                Some((place, _)) => (*place, format!("{},", always.field).into()),
                None if is_empty => (end, Cow::Borrowed(&*always.field)),
                None => (end, format!(",{}", always.field).into()),
            };
            is_empty = false;
            self.edits.push((place..place, text));
        }
    }
}

#[cfg(test)]
mod tests;
