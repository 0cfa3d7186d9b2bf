//! The messages: which number is which field.
//!
//! The table, `wire_fields.txt`, is made by `examples/wire_fields.rs`. A line that is not indented names a message; an
//! indented one is a field: its number, its name in JSON (`-`: the message is embedded, its fields stand in its parent), its
//! type (after `[]` a list of it, after `map:` a map from strings to it), and `zero` if 0, `false` or an empty string is
//! something else there than nothing.

use std::collections::{HashMap, HashSet};
use std::sync::LazyLock;

static TABLE: LazyLock<HashMap<&'static str, Message>> = LazyLock::new(|| parse(include_str!("wire_fields.txt")));

/// A message in the table.
pub(super) fn message(name: &str) -> Option<&'static Message> {
    TABLE.get(name)
}

/// The names of all messages.
pub(crate) fn messages() -> impl Iterator<Item = &'static str> {
    TABLE.keys().copied()
}

/// Of each message the fields by their names in JSON, with those of the messages embedded in it.
static NAMES: LazyLock<HashMap<&'static str, HashMap<&'static str, &'static Field>>> =
    LazyLock::new(|| TABLE.keys().map(|message| (*message, fields_by_name(message))).collect());

/// The field with this name in JSON, of a message or of one that is embedded in it.
pub(crate) fn field(message: &str, name: &str) -> Option<&'static Field> {
    NAMES.get(message)?.get(name).copied()
}

/// All fields of a message: how they are called in JSON, how many values they have, and of which type.
pub(crate) fn fields(message: &str) -> impl Iterator<Item = (&'static str, Many, Type)> {
    let fields = NAMES.get(message).into_iter().flat_map(HashMap::values);
    fields.map(|field| (field.name, field.many, field.of))
}

fn fields_by_name(message: &str) -> HashMap<&'static str, &'static Field> {
    let mut found = HashMap::new();
    for field in TABLE.get(message).into_iter().flat_map(|message| message.fields.values()) {
        match field.of {
            Type::Message(of) if field.is_embedded() => found.extend(fields_by_name(of)),
            _ => {
                found.insert(field.name, field);
            }
        }
    }
    found
}

/// Names in JSON of all fields that hold this many values, and never stand for anything else.
pub(super) fn names(many: Many) -> HashSet<&'static str> {
    let fields = || TABLE.values().flat_map(|message| message.fields.values());
    let others: HashSet<&str> = fields().filter(|field| field.many != many).map(|field| field.name).collect();
    fields().filter(|field| field.many == many && !others.contains(field.name)).map(|field| field.name).collect()
}

/// What of a field leads to amounts, or to times with microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holds {
    /// It is one.
    Amount,
    /// It is a time with microseconds.
    MicroTime,
    /// A message that holds some.
    Message(&'static str),
}

/// The messages that hold some, with the fields these are in. (No message contains itself.)
pub(crate) fn fields_with_amounts() -> HashMap<&'static str, Vec<(&'static str, Many, Holds)>> {
    let mut found = HashMap::new();
    TABLE.keys().for_each(|name| note_amounts(name, &mut found));
    found.retain(|_, fields| !fields.is_empty());
    found
}

fn note_amounts(name: &'static str, found: &mut HashMap<&'static str, Vec<(&'static str, Many, Holds)>>) {
    if found.contains_key(name) {
        return;
    }
    let mut fields = Vec::new();
    for field in TABLE.get(name).into_iter().flat_map(|message| message.fields.values()) {
        match field.of {
            Type::Quantity => fields.push((field.name, field.many, Holds::Amount)),
            Type::MicroTime => fields.push((field.name, field.many, Holds::MicroTime)),
            Type::Message(of) => {
                note_amounts(of, found);
                let below = found.get(of).cloned().unwrap_or_default();
                if field.is_embedded() {
                    fields.extend(below);
                } else if !below.is_empty() {
                    fields.push((field.name, field.many, Holds::Message(of)));
                }
            }
            _ => {}
        }
    }
    found.insert(name, fields);
}

/// The fields of a message.
#[derive(Debug)]
pub(super) struct Message {
    name: &'static str,
    fields: HashMap<u32, Field>,
}

/// What a number stands for.
#[derive(Debug)]
pub(crate) struct Field {
    /// The name in JSON.
    pub(super) name: &'static str,
    pub(crate) many: Many,
    pub(crate) of: Type,
    /// Whether a zero is kept.
    pub(crate) keeps_zero: bool,
}

/// How many values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Many {
    One,
    List,
    Map,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    String,
    Bytes,
    Bool,
    Int,
    Quantity,
    IntOrString,
    Time,
    MicroTime,
    /// A message around a list of strings.
    Strings,
    /// A message around JSON.
    Json,
    Message(&'static str),
}

impl Message {
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        self.fields.get(&number)
    }

    /// `core.v1.Volume.name`.
    pub(super) fn path(&self, field: &Field) -> String {
        format!("{}.{}", self.name, field.name)
    }
}

impl Field {
    /// Whether the fields of this message stand in its parent.
    pub(super) fn is_embedded(&self) -> bool {
        self.name == "-"
    }
}

fn parse(text: &'static str) -> HashMap<&'static str, Message> {
    let mut table: HashMap<&'static str, Message> = HashMap::new();
    let mut current = "";
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        if line.starts_with(' ') {
            let message = table.get_mut(current);
            message.into_iter().for_each(|message| message.fields.extend(parse_field(line)));
        } else {
            current = line;
            table.insert(line, Message { name: line, fields: HashMap::new() });
        }
    }
    table
}

/// The tests below prove that every line of the committed table is one.
fn parse_field(line: &'static str) -> Option<(u32, Field)> {
    let mut words = line.split_whitespace();
    let (number, name, of) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
    let (many, of) = match (of.strip_prefix("[]"), of.strip_prefix("map:")) {
        (Some(of), _) => (Many::List, of),
        (_, Some(of)) => (Many::Map, of),
        _ => (Many::One, of),
    };
    Some((number, Field { name, many, of: parse_type(of), keeps_zero: words.next() == Some("zero") }))
}

fn parse_type(word: &'static str) -> Type {
    match word {
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "quantity" => Type::Quantity,
        "int-or-string" => Type::IntOrString,
        "time" => Type::Time,
        "micro-time" => Type::MicroTime,
        "strings" => Type::Strings,
        "json" => Type::Json,
        message => Type::Message(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_field_of_a_known_type() {
        let text = include_str!("wire_fields.txt");
        for line in text.lines().filter(|l| l.starts_with(' ')) {
            let (_, field) = parse_field(line).unwrap();
            if let Type::Message(of) = field.of {
                assert!(message(of).is_some(), "{line}");
            }
        }
        let fields: usize = TABLE.values().map(|message| message.fields.len()).sum();
        assert_eq!(fields, text.lines().filter(|l| l.starts_with(' ')).count(), "a number stands for one field");
    }

    #[test]
    fn every_kind_that_can_be_sent_has_a_message() {
        let subresources = [&crate::eviction::KIND, &crate::scale::KIND, &crate::token_request::KIND];
        // Nobody sends what can only be looked at.
        let sent = crate::kinds().filter(|kind| kind.info.verbs != crate::Verb::READ_ONLY);
        for kind in sent.chain(subresources) {
            let name = crate::protobuf::message_name(&kind.info.api_version(), kind.info.kind);
            assert!(message(&name).is_some(), "{name}");
        }
        assert!(message(&crate::protobuf::message_name("apps/v1", "DeleteOptions")).is_some());
    }

    #[test]
    fn no_message_contains_itself() {
        fn descend(name: &'static str, above: &mut Vec<&'static str>) {
            assert!(!above.contains(&name), "{above:?} contain {name}");
            above.push(name);
            for field in message(name).unwrap().fields.values() {
                if let Type::Message(of) = field.of {
                    descend(of, above);
                }
            }
            above.pop();
        }
        TABLE.keys().for_each(|name| descend(name, &mut Vec::new()));
    }
}
