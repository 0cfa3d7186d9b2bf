//! `metadata.managedFields` as a value: who manages what, since when.
//!
//! Compare `managedfields/internal/{managedfields,capmanagers}.go` in `k8s.io/apimachinery`. The list is kept as JSON text
//! beside the object; of an entry only what a write touches is ever taken apart.

use std::borrow::Cow;

use super::fields_v1;
use super::path::PathElement;
use super::scan;
use super::set::Set;

/// The most entries of updates; the oldest of more become one (`DefaultMaxUpdateManagers`).
pub(super) const MAX_UPDATE_MANAGERS: usize = 10;
/// The manager of what entries were joined to (`DefaultMaxUpdateManagers`, `ancient-changes`).
const ANCIENT_CHANGES: &str = "ancient-changes";

/// How a manager writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Operation {
    Apply,
    Update,
}

impl Operation {
    fn as_str(self) -> &'static str {
        match self {
            Operation::Apply => "Apply",
            Operation::Update => "Update",
        }
    }
}

/// The fields of an entry: as text until somebody looks.
#[derive(Clone, Debug)]
enum Fields<'a> {
    Text(&'a str),
    Set(Set<'a>),
}

/// One manager and its fields.
#[derive(Clone, Debug)]
pub(super) struct Entry<'a> {
    pub(super) manager: Cow<'a, str>,
    pub(super) operation: Operation,
    pub(super) api_version: Cow<'a, str>,
    pub(super) subresource: Cow<'a, str>,
    /// RFC 3339 in UTC, which sorts as text.
    pub(super) time: Option<Cow<'a, str>>,
    fields: Fields<'a>,
}

impl<'a> Entry<'a> {
    pub(super) fn new(manager: &'a str, operation: Operation, api_version: &'a str, subresource: &'a str) -> Entry<'a> {
        Entry {
            manager: Cow::Borrowed(manager),
            operation,
            api_version: Cow::Borrowed(api_version),
            subresource: Cow::Borrowed(subresource),
            time: None,
            fields: Fields::Set(Set::default()),
        }
    }

    pub(super) fn with(self, set: Set<'a>) -> Entry<'a> {
        Entry { fields: Fields::Set(set), ..self }
    }

    /// Whether both are the same manager (`BuildManagerIdentifier`). One that applies is the same at every version.
    pub(super) fn is_same_manager(&self, other: &Entry<'_>) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The fields, taken apart if they were text.
    pub(super) fn set(&mut self) -> &mut Set<'a> {
        if let Fields::Text(text) = self.fields {
            self.fields = Fields::Set(fields_v1::parse(text).unwrap_or_default());
        }
        let Fields::Set(set) = &mut self.fields else { unreachable!("it has just become a set") };
        set
    }

    /// Takes fields away; not even looked at when they are elsewhere.
    pub(super) fn subtract(&mut self, other: &Set<'_>) {
        if self.may_meet(other) {
            self.set().subtract(other);
        }
    }

    /// Whether something in `other` may be among the fields.
    pub(super) fn may_meet(&self, other: &Set<'_>) -> bool {
        let Fields::Text(text) = &self.fields else { return true };
        let named = |name: &str| {
            let is = |e: &PathElement<'_>| matches!(e, PathElement::Field(f) if name.strip_prefix("f:") == Some(f));
            other.children().iter().any(|(element, _)| is(element))
        };
        scan::fields(text).iter().any(|(name, _)| named(name))
    }

    fn is_empty(&self) -> bool {
        match &self.fields {
            Fields::Text(text) => *text == "{}",
            Fields::Set(set) => set.is_empty(),
        }
    }

    /// As messages name it.
    pub(super) fn describe(&self) -> String {
        let subresource = match self.subresource.is_empty() {
            true => String::new(),
            false => format!(" with subresource {:?}", self.subresource),
        };
        match self.operation {
            Operation::Apply => format!("{:?}{subresource}", self.manager),
            Operation::Update => format!("{:?}{subresource} using {}", self.manager, self.api_version),
        }
    }

    fn parse(json: &'a str) -> Option<Entry<'a>> {
        let fields = scan::fields(json);
        let text = |name: &str| fields.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
        let string = |name: &str| text(name).map(scan::string).unwrap_or_default();
        let operation = match &*string("operation") {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return None,
        };
        Some(Entry {
            manager: string("manager"),
            operation,
            api_version: string("apiVersion"),
            subresource: string("subresource"),
            time: text("time").map(scan::string),
            fields: Fields::Text(text("fieldsV1").unwrap_or("{}")),
        })
    }

    fn write(&self, out: &mut Vec<u8>) {
        let field = |out: &mut Vec<u8>, name: &str, value: &str| {
            out.extend_from_slice(name.as_bytes());
            if value.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
                out.push(b'"');
                out.extend_from_slice(value.as_bytes());
                out.push(b'"');
            } else {
                out.extend_from_slice(serde_json::Value::from(value).to_string().as_bytes());
            }
        };
        field(out, r#"{"apiVersion":"#, &self.api_version);
        out.extend_from_slice(br#","fieldsType":"FieldsV1","fieldsV1":"#);
        match &self.fields {
            Fields::Text(text) => out.extend_from_slice(text.as_bytes()),
            Fields::Set(set) => fields_v1::write(set, out),
        }
        if !self.manager.is_empty() {
            field(out, r#","manager":"#, &self.manager);
        }
        field(out, r#","operation":"#, self.operation.as_str());
        if !self.subresource.is_empty() {
            field(out, r#","subresource":"#, &self.subresource);
        }
        if let Some(time) = &self.time {
            field(out, r#","time":"#, time);
        }
        out.push(b'}');
    }
}

/// Reads the list; an empty text is an empty list.
pub(super) fn parse(text: &str) -> Vec<Entry<'_>> {
    match scan::level(text) {
        scan::Level::List(items) => items.into_iter().filter_map(Entry::parse).collect(),
        _ => Vec::new(),
    }
}

/// Writes the list in upstream's order, without entries that manage nothing; an empty text for an empty list.
pub(super) fn write(mut entries: Vec<Entry<'_>>) -> String {
    entries.retain(|e| !e.is_empty());
    if entries.is_empty() {
        return String::new();
    }
    entries.sort_by(|a, b| order(a).cmp(&order(b)));
    let mut out = vec![b'['];
    for (index, entry) in entries.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        entry.write(&mut out);
    }
    out.push(b']');
    String::from_utf8(out).expect("it is made of strings and ASCII")
}

fn order<'e>(entry: &'e Entry<'_>) -> (Operation, Option<&'e str>, &'e str, &'e str, &'e str) {
    (entry.operation, entry.time.as_deref(), &entry.manager, &entry.api_version, &entry.subresource)
}

/// Joins the oldest updates of each version when there are too many.
pub(super) fn cap(entries: &mut Vec<Entry<'_>>) {
    entries.retain(|e| !e.is_empty());
    let mut updates: Vec<usize> = (0..entries.len()).filter(|i| entries[*i].operation == Operation::Update).collect();
    let mut excess = updates.len().saturating_sub(MAX_UPDATE_MANAGERS);
    updates.sort_by(|a, b| order(&entries[*a]).cmp(&order(&entries[*b])));
    // The entry of each version that the others are joined to: the first one seen.
    let mut buckets: Vec<usize> = Vec::new();
    for index in updates {
        if excess == 0 {
            break;
        }
        let Some(bucket) = buckets.iter().copied().find(|b| entries[*b].api_version == entries[index].api_version)
        else {
            buckets.push(index);
            continue;
        };
        let joined = std::mem::take(entries[index].set());
        let set = std::mem::take(entries[bucket].set());
        *entries[bucket].set() = set.union(joined);
        entries[bucket].manager = Cow::Borrowed(ANCIENT_CHANGES);
        entries[bucket].subresource = Cow::Borrowed("");
        entries[bucket].time = entries[index].time.clone();
        excess -= 1;
    }
    entries.retain(|e| !e.is_empty());
}

/// Whether two lists say the same but for when.
pub fn equal_but_times(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    let (a, b) = (parse(a), parse(b));
    a.len() == b.len()
        && a.into_iter().all(|mut entry| {
            b.iter().any(|other| {
                entry.is_same_manager(other) && entry.api_version == other.api_version && {
                    let mut other = other.clone();
                    entry.set() == other.set()
                }
            })
        })
}
