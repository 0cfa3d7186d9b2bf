//! Applying a strategic merge patch (`mergeMap` and `mergeSlice` in `k8s.io/apimachinery/pkg/util/strategicpatch`).
//!
//! Maps merge, `null` deletes, lists are replaced, except where [`merge_keys`](crate::merge_keys) says that a list
//! merges. Directives inside the patch say more: `$patch` (`replace`, `delete`, `merge`), `$retainKeys`,
//! `$setElementOrder/<list>` and `$deleteFromPrimitiveList/<list>`.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::PatchError;
use super::order::{identity, is_subsequence, ordered, positions};
use crate::merge_keys::{Field, Type};

/// How to treat a map or an element: `replace`, `delete` or `merge`.
pub(super) const DIRECTIVE: &str = "$patch";
/// The keys of a map that stay.
pub(super) const RETAIN_KEYS: &str = "$retainKeys";
/// Prefix: the order of a list's elements.
pub(super) const SET_ELEMENT_ORDER: &str = "$setElementOrder/";
/// Prefix: elements to be removed from a list of scalars.
pub(super) const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";

type Object = Map<String, Value>;

/// Merges `patch` into `original`, an object of type `of`.
pub(super) fn merge_map(mut original: Object, mut patch: Object, of: Option<&Type>) -> Result<Object, PatchError> {
    match patch.remove(DIRECTIVE) {
        None => {}
        Some(Value::String(directive)) => match directive.as_str() {
            "merge" => {}
            "replace" => return Ok(plain_map(patch)),
            "delete" => return Ok(Object::new()),
            other => return Err(PatchError::Malformed(format!("unknown patch type: {other:?} in map"))),
        },
        Some(other) => return Err(PatchError::Malformed(format!("unknown patch type: {other} in map"))),
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered_lists(&mut original, &mut patch, of)?;
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_FROM_LIST) {
            delete_from_list(&mut original, list, &value)?;
            continue;
        }
        let merged = match (original.remove(&key), value) {
            (_, Value::Null) => continue,
            (None, value) if is_directed(&value) => continue,
            (Some(Value::Object(before)), Value::Object(patch)) => {
                let field = of.and_then(|t| t.field(&key));
                match field {
                    Some(field) if field.replace => Value::Object(plain_map(patch)),
                    field => Value::Object(merge_map(before, patch, field.and_then(Field::of))?),
                }
            }
            (Some(Value::Array(before)), Value::Array(patch)) => {
                match of.and_then(|t| t.field(&key)).filter(|f| f.merge) {
                    Some(field) => Value::Array(merge_list(before, patch, field)?),
                    None => Value::Array(patch),
                }
            }
            (_, value) => plain(value),
        };
        original.insert(key, merged);
    }
    Ok(original)
}

/// Whether a map or element says itself how it is to be treated. Where there is nothing to treat, it is left out whole,
/// even if it says `replace` (`dropDirectives`).
fn is_directed(value: &Value) -> bool {
    value.get(DIRECTIVE).is_some_and(|directive| directive != "merge")
}

/// What a patch means where there is nothing to patch: no nulls, no directives.
fn plain(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(plain_map(map)),
        Value::Array(list) => Value::Array(list.into_iter().filter(|item| !is_directed(item)).map(plain).collect()),
        other => other,
    }
}

fn plain_map(map: Object) -> Object {
    let is_directive = |key: &str| {
        [DIRECTIVE, RETAIN_KEYS].contains(&key)
            || key.starts_with(SET_ELEMENT_ORDER)
            || key.starts_with(DELETE_FROM_LIST)
    };
    let stays = |key: &str, value: &Value| !value.is_null() && !is_directed(value) && !is_directive(key);
    map.into_iter().filter(|(k, v)| stays(k, v)).map(|(k, v)| (k, plain(v))).collect()
}

/// `$retainKeys`: clears what it does not name; the patch must not set anything else.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), PatchError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let malformed = || PatchError::Malformed("invalid patch format of retainKeys".to_owned());
    let keys: HashSet<&str> = directive.as_array().ok_or_else(malformed)?.iter().filter_map(Value::as_str).collect();
    let unnamed = |(key, value): (&String, &Value)| {
        let directive = key.starts_with(SET_ELEMENT_ORDER) || key.starts_with(DELETE_FROM_LIST);
        !value.is_null() && !directive && !keys.contains(key.as_str())
    };
    if patch.iter().any(unnamed) {
        return Err(malformed());
    }
    original.retain(|key, _| keys.contains(key.as_str()));
    Ok(())
}

fn delete_from_list(original: &mut Object, list: &str, gone: &Value) -> Result<(), PatchError> {
    let malformed = || PatchError::Malformed("invalid patch format of primitive list".to_owned());
    let gone: HashSet<String> = gone.as_array().ok_or_else(malformed)?.iter().map(Value::to_string).collect();
    if let Some(Value::Array(list)) = original.get_mut(list) {
        list.retain(|item| !gone.contains(&item.to_string()));
    }
    Ok(())
}

/// Merges every list that has a `$setElementOrder`, and takes it and its directive out of the patch.
fn merge_ordered_lists(original: &mut Object, patch: &mut Object, of: Option<&Type>) -> Result<(), PatchError> {
    let directives: Vec<String> = patch.keys().filter(|k| k.starts_with(SET_ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let name = &directive[SET_ELEMENT_ORDER.len()..];
        let Some(Value::Array(order)) = patch.remove(&directive) else {
            return Err(PatchError::Malformed("invalid patch format of setElementOrder list".to_owned()));
        };
        let field = of.and_then(|t| t.field(name));
        let key = field.and_then(|f| f.merge_key);
        let changes = match patch.get(name) {
            None => None,
            Some(Value::Array(_)) => patch.remove(name).and_then(into_list),
            // A list that is deleted or replaced by something else has no order.
            Some(_) => continue,
        };
        check_order(changes.as_deref().unwrap_or_default(), &order, key, name)?;
        let (before, merged) = match (original.remove(name).and_then(into_list), changes) {
            (None, None) => continue,
            (Some(before), None) => (before.clone(), before),
            (None, Some(changes)) => (Vec::new(), into_list(plain(Value::Array(changes))).unwrap_or_default()),
            (Some(before), Some(changes)) => match field.filter(|f| f.merge) {
                Some(field) => (before.clone(), merge_list(before, changes, field)?),
                None => (before, changes),
            },
        };
        original.insert(name.to_owned(), Value::Array(ordered(merged, &order, &before, key)));
    }
    Ok(())
}

fn into_list(value: Value) -> Option<Vec<Value>> {
    if let Value::Array(list) = value { Some(list) } else { None }
}

/// Every element the patch sets must be in the order, and in that order.
fn check_order(changes: &[Value], order: &[Value], key: Option<&str>, name: &str) -> Result<(), PatchError> {
    let set: Vec<Value> = changes.iter().filter(|c| c.get(DIRECTIVE).is_none()).cloned().collect();
    let places = positions(order, key);
    let named = set.iter().all(|item| identity(item, key).is_some_and(|i| places.contains_key(&i)));
    if named && is_subsequence(&set, order, key) {
        return Ok(());
    }
    let text =
        format!("The order in patch list:\n{set:?}\n doesn't match {SET_ELEMENT_ORDER}{name} list:\n{order:?}\n");
    Err(PatchError::Malformed(text))
}

/// Merges a list whose elements have an identity of their own.
fn merge_list(original: Vec<Value>, patch: Vec<Value>, field: &Field) -> Result<Vec<Value>, PatchError> {
    if original.iter().chain(&patch).any(Value::is_array) {
        return Err(PatchError::NotApplicable("lists of lists are not supported".to_owned()));
    }
    if !original.iter().chain(&patch).any(Value::is_object) {
        let mut seen = HashSet::new();
        let both = original.iter().chain(&patch).filter(|item| seen.insert(item.to_string())).cloned().collect();
        return Ok(ordered(both, &patch, &original, None));
    }
    let Some(key) = field.merge_key else {
        return Err(PatchError::NotApplicable("cannot merge lists without merge key".to_owned()));
    };
    let (original, patch) = apply_element_directives(original, patch, key)?;
    let merged = merge_elements(original.clone(), &patch, key, field)?;
    Ok(ordered(merged, &patch, &original, Some(key)))
}

/// Elements with `$patch`: deletes what they name, or everything; returns what is left to merge.
fn apply_element_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), PatchError> {
    let (mut rest, mut deleted, mut replace) = (Vec::new(), HashSet::new(), false);
    for item in patch {
        match item.get(DIRECTIVE).map(|d| d.as_str().unwrap_or("")) {
            None => rest.push(item),
            Some("delete") => drop(deleted.insert(merge_value(&item, key)?)),
            Some("replace") => replace = true,
            Some("merge") => {
                let text = "merging lists cannot yet be specified in the patch";
                return Err(PatchError::Malformed(text.to_owned()));
            }
            Some(other) => return Err(PatchError::Malformed(format!("unknown patch type: {other:?} in list"))),
        }
    }
    if replace {
        original.clear();
    }
    original.retain(|item| identity(item, Some(key)).is_none_or(|i| !deleted.contains(&i)));
    Ok((original, rest))
}

fn merge_elements(mut list: Vec<Value>, patch: &[Value], key: &str, field: &Field) -> Result<Vec<Value>, PatchError> {
    let mut places = positions(&list, Some(key));
    for item in patch {
        let identity = merge_value(item, key)?;
        let Value::Object(changes) = item else { continue };
        match places.get(&identity) {
            Some(&place) => {
                let before = list[place].as_object_mut().map(std::mem::take).unwrap_or_default();
                list[place] = Value::Object(merge_map(before, changes.clone(), field.of())?);
            }
            None => {
                places.insert(identity, list.len());
                list.push(plain(item.clone()));
            }
        }
    }
    Ok(list)
}

fn merge_value(item: &Value, key: &str) -> Result<String, PatchError> {
    identity(item, Some(key))
        .ok_or_else(|| PatchError::Malformed(format!("map: {item} does not contain declared merge key: {key}")))
}
