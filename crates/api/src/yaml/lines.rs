//! Where in a text the field stands that a path names, and where keys are that were there before.

use std::collections::HashSet;
use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;
use serde_saphyr::options::DuplicateKeyPolicy;

use crate::decode::MAX_STRICT_ERRORS;

/// A text as its places.
enum Node {
    /// Keys with their lines, in order.
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
    List(Vec<Spanned<Node>>),
    Leaf,
}

/// A line, and what stands there.
type Place<'a> = (usize, &'a Node);

/// The line on which the field at `path` stands in the only document of `text`: `spec.containers[0].image`,
/// `metadata.labels[a.b/c]`. Of a field that is not there, the line of the innermost that is and would have it.
pub fn line_of(text: &str, path: &str) -> Option<usize> {
    let root: Node = super::documents(text, DuplicateKeyPolicy::Error).ok()?.into_iter().next()?;
    let (mut node, mut line, mut rest) = (&root, None, path);
    loop {
        let (next, after) = step(node, rest)?;
        let Some((at, child)) = next else { return line };
        line = Some(at);
        if after.is_empty() {
            return line;
        }
        (node, rest) = (child, after);
    }
}

/// `line 3: key "a" already set in map`, as Go's YAML library says of each key in the only document of `text` that was there
/// before: the line is that of the value, and what is inside that comes first (`setMapIndex` in `sigs.k8s.io/yaml/goyaml.v2`).
pub(super) fn repeated_keys(text: &str) -> Vec<String> {
    let roots: Vec<Node> = super::documents(text, DuplicateKeyPolicy::PassThrough).unwrap_or_default();
    let mut found = Vec::new();
    roots.iter().for_each(|root| note_repeated(root, &mut found));
    found
}

fn note_repeated(node: &Node, found: &mut Vec<String>) {
    match node {
        Node::Map(fields) => {
            let mut seen = HashSet::new();
            for (key, value) in fields {
                note_repeated(&value.value, found);
                if !seen.insert(&key.value) && found.len() < MAX_STRICT_ERRORS {
                    found.push(format!("line {}: key {:?} already set in map", line(&value.referenced), key.value));
                }
            }
        }
        Node::List(items) => items.iter().for_each(|item| note_repeated(&item.value, found)),
        Node::Leaf => {}
    }
}

fn line(place: &serde_saphyr::Location) -> usize {
    usize::try_from(place.line()).unwrap_or(usize::MAX)
}

/// One segment into `node`: the line of what is there and itself, and what is left of the path. `None` where the path ends.
fn step<'a, 'p>(node: &'a Node, path: &'p str) -> Option<(Option<Place<'a>>, &'p str)> {
    let path = path.strip_prefix('.').unwrap_or(path);
    let (name, rest) = match path.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None if path.is_empty() => return None,
        None => path.split_at(path.find(['.', '[']).unwrap_or(path.len())),
    };
    let next = match node {
        Node::Map(fields) => {
            let found = fields.iter().find(|(key, _)| key.value == name);
            found.map(|(key, n)| (line(&key.defined), &n.value))
        }
        Node::List(items) => {
            let index: Option<usize> = name.parse().ok();
            index.and_then(|index| items.get(index)).map(|item| (line(&item.referenced), &item.value))
        }
        Node::Leaf => None,
    };
    Some((next, rest))
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Node, D::Error> {
        struct Places;
        impl<'de> Visitor<'de> for Places {
            type Value = Node;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Node::Map(fields))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = list.next_element()? {
                    items.push(item);
                }
                Ok(Node::List(items))
            }

            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Node, D::Error> {
                Node::deserialize(inner)
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Node, D::Error> {
                IgnoredAny::deserialize(inner).map(|_| Node::Leaf)
            }

            fn visit_unit<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_none<E>(self) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Node, E> {
                Ok(Node::Leaf)
            }

            fn visit_str<E>(self, _: &str) -> Result<Node, E> {
                Ok(Node::Leaf)
            }
        }
        deserializer.deserialize_any(Places)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_paths() {
        let text = "# a pod\nkind: Pod\nmetadata:\n  labels:\n    a.b/c: d\nspec:\n  containers:\n  - name: c\n    image: i\n  \
             - {name: d,\n     ports: [{containerPort: 1}]}\n  colour: red\n";
        for (path, expected) in [
            ("kind", Some(2)),
            ("metadata.labels[a.b/c]", Some(5)),
            ("spec", Some(6)),
            ("spec.containers[0].image", Some(9)),
            ("spec.containers[1]", Some(10)),
            ("spec.containers[1].ports[0].containerPort", Some(11)),
            ("spec.colour", Some(12)),
            ("spec.containers[0].env[0].name", Some(8)),
            ("spec.nothing", Some(6)),
            ("nothing", None),
            ("", None),
            ("spec[", None),
        ] {
            assert_eq!(line_of(text, path), expected, "{path}");
        }
        assert_eq!(line_of("{\n\"a\": {\"b\": 1,\n\"c\": 2}}", "a.c"), Some(3), "JSON is YAML");
        assert_eq!(line_of("a: [", "a"), None);
    }
}
