//! From nodes and an object to values and text.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::Error;
use super::parse::{Comparison, Node, Operand, Slice};

/// Values found so far: parts of the object, or literals.
type Found<'a> = Vec<Cow<'a, Value>>;

/// An evaluation in one object.
pub(super) struct Walk<'a> {
    root: &'a Value,
}

impl<'a> Walk<'a> {
    pub(super) fn new(root: &'a Value) -> Walk<'a> {
        Walk { root }
    }

    /// Appends what `nodes` of a template say about `current`.
    pub(super) fn render(&self, nodes: &[Node], current: &Value, text: &mut String) -> Result<(), Error> {
        for node in nodes {
            match node {
                Node::Text(literal) => text.push_str(literal),
                Node::Range(list, body) => {
                    for item in self.list(list, current)? {
                        self.render(body, &item, text)?;
                    }
                }
                Node::List(list) => {
                    let words: Vec<String> = self.list(list, current)?.iter().map(|value| printed(value)).collect();
                    text.push_str(&words.join(" "));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The values that `nodes` of a template find in `current`.
    pub(super) fn find(&self, nodes: &[Node], current: &Value) -> Result<Vec<Value>, Error> {
        let mut found = Vec::new();
        for node in nodes {
            match node {
                Node::Range(list, body) => {
                    for item in self.list(list, current)? {
                        found.extend(self.find(body, &item)?);
                    }
                }
                Node::List(list) => found.extend(self.list(list, current)?.into_iter().map(Cow::into_owned)),
                _ => {}
            }
        }
        Ok(found)
    }

    /// Follows the steps of one expression.
    fn list<'v>(&'v self, nodes: &[Node], current: &'v Value) -> Result<Found<'v>, Error> {
        let mut found = vec![Cow::Borrowed(current)];
        for node in nodes {
            found = self.step(node, found)?;
        }
        Ok(found)
    }

    fn step<'v>(&'v self, node: &Node, found: Found<'v>) -> Result<Found<'v>, Error> {
        Ok(match node {
            Node::Text(literal) => vec![Cow::Owned(Value::String(literal.clone()))],
            Node::Root => vec![Cow::Borrowed(self.root)],
            Node::Field(name) => each(found, |value| Ok(value.get(name).into_iter().collect()))?,
            Node::Wildcard => each(found, |value| Ok(children(value)))?,
            Node::Recursive => each(found, |value| {
                let mut all = Vec::new();
                descend(value, &mut all);
                Ok(all)
            })?,
            Node::Slice(slice) => each(found, |value| elements(*slice, value))?,
            Node::Union(branches) => {
                let mut union = Vec::new();
                for branch in branches {
                    let mut part = found.clone();
                    for node in branch {
                        part = self.step(node, part)?;
                    }
                    union.extend(part);
                }
                union
            }
            Node::Filter(left, comparison, right) => each(found, |value| {
                let mut kept = Vec::new();
                for item in value.as_array().into_iter().flatten() {
                    if self.holds(left, *comparison, right, item)? {
                        kept.push(item);
                    }
                }
                Ok(kept)
            })?,
            Node::List(_) | Node::Range(..) => found,
        })
    }

    fn holds(&self, left: &Operand, comparison: Comparison, right: &Operand, item: &Value) -> Result<bool, Error> {
        let left = self.operand(left, item)?;
        if comparison == Comparison::Exists {
            return Ok(!left.is_empty());
        }
        let right = self.operand(right, item)?;
        match (left.as_slice(), right.as_slice()) {
            ([left], [right]) => Ok(compare(left, comparison, right)),
            ([], _) | (_, []) => Ok(false),
            _ => Err(Error("can only compare one element at a time".to_owned())),
        }
    }

    fn operand(&self, operand: &Operand, item: &Value) -> Result<Vec<Value>, Error> {
        match operand {
            Operand::Literal(value) => Ok(vec![value.clone()]),
            Operand::Path(nodes) => Ok(self.list(nodes, item)?.into_iter().map(Cow::into_owned).collect()),
        }
    }
}

/// Replaces every value by what `step` finds in it. Literals have no parts.
fn each<'v>(found: Found<'v>, step: impl Fn(&'v Value) -> Result<Vec<&'v Value>, Error>) -> Result<Found<'v>, Error> {
    let mut next = Vec::new();
    for value in found {
        if let Cow::Borrowed(value) = value {
            next.extend(step(value)?.into_iter().map(Cow::Borrowed));
        }
    }
    Ok(next)
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(items) => items.iter().collect(),
        Value::Object(fields) => fields.values().collect(),
        _ => Vec::new(),
    }
}

/// The value and everything below it. Objects from a server are at most as deep as its decoder allows.
fn descend<'v>(value: &'v Value, all: &mut Vec<&'v Value>) {
    all.push(value);
    for child in children(value) {
        descend(child, all);
    }
}

fn elements(slice: Slice, value: &Value) -> Result<Vec<&Value>, Error> {
    let items = match value {
        Value::Array(items) => items,
        Value::Null => return Ok(Vec::new()),
        other => return Err(Error(format!("{other} is not array or slice"))),
    };
    let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
    let from_end = |index: i64| if index < 0 { index.saturating_add(length) } else { index };
    let out_of_bounds = |index: i64| Error(format!("array index out of bounds: index {index}, length {length}"));
    let start = from_end(slice.start.unwrap_or(0));
    if slice.single {
        let item = usize::try_from(start).ok().and_then(|i| items.get(i)).ok_or_else(|| out_of_bounds(start))?;
        return Ok(vec![item]);
    }
    let end = from_end(slice.end.unwrap_or(length));
    if start == end {
        return Ok(Vec::new());
    }
    for (index, most) in [(start, length - 1), (end, length)] {
        if index < 0 || index > most {
            return Err(out_of_bounds(index));
        }
    }
    if start > end {
        return Err(Error(format!("starting index {start} is greater than ending index {end}")));
    }
    // Checked against the length above.
    let (start, end) = (usize::try_from(start).unwrap_or(0), usize::try_from(end).unwrap_or(0));
    Ok(items[start..end].iter().step_by(usize::try_from(slice.step).unwrap_or(usize::MAX)).collect())
}

fn compare(left: &Value, comparison: Comparison, right: &Value) -> bool {
    let ordering = match (left, right) {
        (Value::String(a), Value::String(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()),
        _ => (left == right).then_some(Ordering::Equal),
    };
    match comparison {
        Comparison::Exists => true,
        Comparison::Equal => ordering == Some(Ordering::Equal),
        Comparison::NotEqual => ordering != Some(Ordering::Equal),
        Comparison::Less => ordering == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(ordering, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => ordering == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(ordering, Some(Ordering::Greater | Ordering::Equal)),
    }
}

/// Strings as they are, everything else as JSON.
fn printed(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
