//! Merging a configuration into an object, and taking fields out of it (`typed/merge.go` and `typed/remove.go` of
//! structured-merge-diff).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::path::PathElement;
use super::place::Place;
use super::scan::{Level, level};
use super::set::Set;

/// `live` with what `config` says.
pub(super) fn merge(live: Value, config: &Value, place: Place) -> Value {
    match (live, config) {
        (Value::Object(live), Value::Object(config)) if !place.is_atomic_map() => {
            Value::Object(merge_maps(live, config, place))
        }
        (Value::Array(live), Value::Array(config)) if !place.is_atomic_list() => {
            Value::Array(merge_lists(live, config, place))
        }
        // Nothing is said about what is in there.
        (live @ Value::Object(_), Value::Null) if !place.is_atomic_map() => live,
        (live @ Value::Array(_), Value::Null) if !place.is_atomic_list() => live,
        (_, config) => config.clone(),
    }
}

fn merge_maps(mut live: Map<String, Value>, config: &Map<String, Value>, place: Place) -> Map<String, Value> {
    for (name, wanted) in config {
        let merged = match live.remove(name) {
            Some(present) => merge(present, wanted, place.field(name)),
            None => wanted.clone(),
        };
        live.insert(name.clone(), merged);
    }
    live
}

/// Elements of both keep the order of `config`; those it does not name stay where they stood between the others.
fn merge_lists(live: Vec<Value>, config: &[Value], place: Place) -> Vec<Value> {
    let live_names: Vec<String> = live.iter().map(|item| name_of(item, place)).collect();
    let names: Vec<String> = config.iter().map(|item| name_of(item, place)).collect();
    let wanted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let (mut others, mut shared) = (Vec::new(), BTreeMap::new());
    for (name, item) in live_names.iter().map(String::as_str).zip(live) {
        if wanted.contains(name) {
            others.push((name, None));
            shared.entry(name).or_insert(item);
        } else {
            others.push((name, Some(item)));
        }
    }
    let mut out = Vec::with_capacity(others.len() + config.len());
    let mut others = others.into_iter().peekable();
    // The first of both that is still to come.
    let mut next = 0;
    for (index, (name, item)) in names.iter().map(String::as_str).zip(config).enumerate() {
        next = next.max(index);
        while names.get(next).is_some_and(|name| !shared.contains_key(name.as_str())) {
            next += 1;
        }
        // What stands before it in `live` comes first; what `config` names elsewhere is taken there.
        let until = names.get(next).map(String::as_str);
        while let Some((_, other)) = others.next_if(|(other, item)| item.is_some() || Some(*other) != until) {
            out.extend(other);
        }
        others.next_if(|(other, _)| *other == name);
        out.push(match shared.remove(name) {
            Some(present) => merge(present, item, place.element()),
            None => item.clone(),
        });
    }
    out.extend(others.filter_map(|(_, other)| other));
    out
}

fn name_of(item: &Value, place: Place) -> String {
    let json = item.to_string();
    place.element_of(&json).to_string()
}

/// `value` without the fields in `set`.
pub(super) fn remove(value: Value, set: &Set<'_>, place: Place) -> Value {
    match value {
        Value::Object(map) if !place.is_atomic_map() => {
            let was_empty = map.is_empty();
            let kept: Map<String, Value> = map
                .into_iter()
                .filter_map(|(name, value)| {
                    let element = PathElement::Field(name.as_str().into());
                    let value = remove_below(value, set.child(&element), place.field(&name))?;
                    Some((name, value))
                })
                .collect();
            if kept.is_empty() && !was_empty { Value::Null } else { Value::Object(kept) }
        }
        Value::Array(list) if !place.is_atomic_list() => {
            let was_empty = list.is_empty();
            let kept: Vec<Value> = list
                .into_iter()
                .filter_map(|item| {
                    let json = item.to_string();
                    remove_below(item, set.child(&place.element_of(&json)), place.element())
                })
                .collect();
            if kept.is_empty() && !was_empty { Value::Null } else { Value::Array(kept) }
        }
        other => other,
    }
}

/// What is left of a value; `None` when it goes.
fn remove_below(value: Value, set: Option<&Set<'_>>, place: Place) -> Option<Value> {
    match set {
        None => Some(value),
        Some(set) if set.member => None,
        Some(set) => Some(remove(value, set, place)),
    }
}

/// What makes a configuration ambiguous: elements that have the same key.
pub(super) fn ambiguity(json: &str, place: Place, path: &str) -> Option<String> {
    match level(json) {
        Level::Map(fields) if !place.is_atomic_map() => {
            fields.iter().find_map(|(name, value)| ambiguity(value, place.field(name), &format!("{path}.{name}")))
        }
        Level::List(items) if !place.is_atomic_list() => {
            let mut seen = BTreeSet::new();
            items.iter().find_map(|item| {
                let element = place.element_of(item);
                let below = ambiguity(item, place.element(), &format!("{path}{element}"));
                let message = format!("{path}: duplicate entries for key {element}");
                if seen.insert(element) { below } else { Some(message) }
            })
        }
        _ => None,
    }
}
