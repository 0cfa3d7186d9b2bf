//! Where in an object's types a walk is: what the table of merge keys says of the value there.

use std::borrow::Cow;

use super::path::PathElement;
use super::scan;
use crate::kinds::KindInfo;
use crate::merge_keys::{self, Field, ListKey, ListType, Type};

/// A place in the types. Where nothing is particular, maps merge key by key and lists are one value.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    field: Option<&'static Field>,
    of: Option<&'static Type>,
}

impl Place {
    /// The root of objects of kind `info`.
    pub(super) fn root(info: &KindInfo) -> Place {
        Place { field: None, of: merge_keys::of_kind(info) }
    }

    /// The field `name` of an object here.
    pub(super) fn field(self, name: &str) -> Place {
        let field = self.of.and_then(|t| t.field(name));
        Place { field, of: field.and_then(Field::of) }
    }

    /// The elements of a list here.
    pub(super) fn element(self) -> Place {
        Place { field: None, of: self.of }
    }

    /// Whether an object here has one owner.
    pub(super) fn is_atomic_map(self) -> bool {
        self.field.is_some_and(|f| f.atomic)
            || self.of.is_some_and(|t| t.atomic) && !self.field.is_some_and(|f| f.granular)
    }

    /// Whether a list here has one owner.
    pub(super) fn is_atomic_list(self) -> bool {
        self.field.is_none_or(|f| f.list_type == ListType::Atomic)
    }

    /// The name of `item` among the elements of the list here.
    pub(super) fn element_of<'a>(self, item: &'a str) -> PathElement<'a> {
        let Some(ListType::Map(keys)) = self.field.map(|f| &f.list_type) else {
            return PathElement::Value(Cow::Borrowed(item));
        };
        let fields = scan::fields(item);
        let mut json = String::from("{");
        for (index, key) in keys.iter().enumerate() {
            let found = fields.binary_search_by(|(name, _)| (**name).cmp(key.name)).ok().map(|place| fields[place].1);
            let value = value_of(key, found);
            let comma = if index > 0 { "," } else { "" };
            json.push_str(comma);
            json.push('"');
            json.push_str(key.name);
            json.push_str("\":");
            json.push_str(&value);
        }
        json.push('}');
        PathElement::Key(Cow::Owned(json))
    }
}

/// Keys that are numbers.
const NUMBERS: [&str; 2] = ["containerPort", "port"];

/// What an element has as a key. Of one that is left out it is the default, in the schema of a field that must be there too: the
/// zero of its type.
fn value_of<'a>(key: &ListKey, found: Option<&'a str>) -> Cow<'a, str> {
    match (found, key.default) {
        (Some(value), _) if value != "null" => Cow::Borrowed(value),
        (_, Some(default)) => Cow::Owned(format!("\"{default}\"")),
        _ if NUMBERS.contains(&key.name) => Cow::Borrowed("0"),
        _ => Cow::Borrowed("\"\""),
    }
}
