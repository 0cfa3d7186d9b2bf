//! How the fields of the built-in types merge: by which key lists merge, what is replaced as a whole.
//!
//! The types themselves do not say it, so it is a table, `merge_keys.txt`, made by `examples/merge_keys.rs` from the
//! markers in the comments of the upstream types. A line that is not indented names a type; an indented one is a field:
//! its name, its type (`-`: nothing to say about it) and flags:
//!
//! | flag | upstream marker | meaning |
//! | --- | --- | --- |
//! | `merge=KEY` | `patchStrategy=merge`, `patchMergeKey` | strategic merge: elements with the same KEY are one |
//! | `merge` | `patchStrategy=merge` | strategic merge of a list of scalars: a set |
//! | `replace`, `retainKeys` | `patchStrategy` | replaced as a whole; fields not named are cleared |
//! | `map=K1,K2=V` | `listType=map`, `listMapKey`, `default` | server-side apply: elements with the same keys are one; K2 is V where it is left out |
//! | `set` | `listType=set` | server-side apply: a set of scalars |
//! | `atomic` | `mapType=atomic`, `structType=atomic` | server-side apply: one owner for the whole |
//! | `granular` | `structType=granular` | server-side apply: an owner for each of its fields, though its type is atomic |
//!
//! Everything else behaves as JSON does: maps merge key by key, lists are replaced.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::kinds::KindInfo;

/// What is particular to the fields of one type.
#[derive(Debug, Default)]
pub struct Type {
    /// Whether server-side apply takes objects of this type as one value.
    pub atomic: bool,
    fields: HashMap<&'static str, Field>,
}

/// How one field merges.
#[derive(Debug, Default)]
pub struct Field {
    of: Option<&'static str>,
    /// Whether strategic merge merges this list instead of replacing it.
    pub merge: bool,
    /// The key by which it does; `None` for lists of scalars.
    pub merge_key: Option<&'static str>,
    /// Whether strategic merge replaces this map instead of merging it.
    pub replace: bool,
    /// Whether patches of this field name the keys that stay.
    pub retain_keys: bool,
    /// How server-side apply sees the field if it is a list.
    pub list_type: ListType,
    /// Whether server-side apply takes the field as one value.
    pub atomic: bool,
    /// Whether server-side apply takes the field as many values although its type is atomic.
    pub granular: bool,
}

/// A key of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListKey {
    /// The field of the elements.
    pub name: &'static str,
    /// Its value where an element leaves it out.
    pub default: Option<&'static str>,
}

/// What server-side apply calls a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    /// One value.
    #[default]
    Atomic,
    /// A set of scalars.
    Set,
    /// Objects told apart by these keys.
    Map(Vec<ListKey>),
}

static TABLE: LazyLock<HashMap<&'static str, Type>> = LazyLock::new(|| parse(include_str!("merge_keys.txt")));

/// The type of objects of kind `info`; `None` where nothing is particular to it.
pub fn of_kind(info: &KindInfo) -> Option<&'static Type> {
    let group = info.group.split('.').next().filter(|g| !g.is_empty()).unwrap_or("core");
    TABLE.get(format!("{group}.{}.{}", info.version, info.kind).as_str())
}

/// The type of this name, as OpenAPI calls it: `io.k8s.api.core.v1.PodSpec`; `None` where nothing is particular to it.
pub fn of_schema(name: &str) -> Option<&'static Type> {
    let start = name.rmatch_indices('.').nth(2).map_or(0, |(index, _)| index + 1);
    TABLE.get(&name[start..])
}

impl Type {
    /// How the field `name` merges; `None` where nothing is particular to it.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.get(name)
    }
}

impl Field {
    /// The type of the field, or of its elements.
    pub fn of(&self) -> Option<&'static Type> {
        TABLE.get(self.of?)
    }
}

fn parse(text: &'static str) -> HashMap<&'static str, Type> {
    let mut table: HashMap<&'static str, Type> = HashMap::new();
    let mut current = "";
    for line in text.lines().filter(|l| !l.starts_with('#')) {
        let mut words = line.split_whitespace();
        let Some(name) = words.next() else { continue };
        if line.starts_with(' ') {
            table.entry(current).or_default().fields.insert(name, parse_field(words));
        } else {
            current = name;
            table.entry(name).or_default().atomic = words.next() == Some("atomic");
        }
    }
    table
}

fn parse_field(mut words: impl Iterator<Item = &'static str>) -> Field {
    let mut field = Field { of: words.next().filter(|of| *of != "-"), ..Field::default() };
    for word in words {
        match word.split_once('=').unwrap_or((word, "")) {
            ("merge", key) => {
                field.merge = true;
                field.merge_key = Some(key).filter(|k| !k.is_empty());
            }
            ("replace", _) => field.replace = true,
            ("retainKeys", _) => field.retain_keys = true,
            ("map", keys) => field.list_type = ListType::Map(keys.split(',').map(parse_key).collect()),
            ("set", _) => field.list_type = ListType::Set,
            ("atomic", _) => field.atomic = true,
            ("granular", _) => field.granular = true,
            // The test below proves that the committed table holds no other word.
            _ => {}
        }
    }
    field
}

fn parse_key(word: &'static str) -> ListKey {
    match word.split_once('=') {
        Some((name, default)) => ListKey { name, default: Some(default) },
        None => ListKey { name: word, default: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_and_flag_in_the_table_is_known() {
        let text = include_str!("merge_keys.txt");
        for line in text.lines().filter(|l| l.starts_with(' ')) {
            let words: Vec<&str> = line.split_whitespace().collect();
            assert!(words[1] == "-" || TABLE.contains_key(words[1]), "{line}");
            for flag in &words[2..] {
                let name = flag.split('=').next().unwrap();
                let known = ["merge", "replace", "retainKeys", "map", "set", "atomic", "granular"];
                assert!(known.contains(&name), "{line}");
            }
        }
    }

    #[test]
    fn containers_merge_by_name_from_a_pods_root() {
        let pod = &TABLE["core.v1.Pod"];
        let containers = pod.field("spec").unwrap().of().unwrap().field("containers").unwrap();
        assert_eq!((containers.merge, containers.merge_key), (true, Some("name")));
        let ports = containers.of().unwrap().field("ports").unwrap();
        assert_eq!(ports.merge_key, Some("containerPort"));
        let keys = [("containerPort", None), ("protocol", Some("TCP"))];
        let keys = keys.map(|(name, default)| ListKey { name, default }).to_vec();
        assert_eq!(ports.list_type, ListType::Map(keys));
        assert!(pod.field("metadata").unwrap().of().unwrap().field("finalizers").unwrap().merge);
        assert!(pod.field("nothing").is_none());
    }

    #[test]
    fn every_stored_kind_is_in_the_table() {
        for kind in crate::kinds().filter(|kind| kind.info.is_stored()) {
            assert!(of_kind(kind.info).is_some_and(|t| t.field("metadata").is_some()), "{}", kind.info.kind);
        }
    }
}
