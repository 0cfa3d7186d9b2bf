//! Making a patch out of three states: what was applied last, what is wanted now, and what is there.
//!
//! The same walk makes a strategic merge patch (where types say how lists merge) and a JSON merge patch (where they say
//! nothing). Compare `CreateThreeWayMergePatch` and `jsonmergepatch.CreateThreeWayJSONMergePatch`, which make two diffs
//! and merge them; the outcome is the same.

use serde_json::{Map, Value, json};

use super::PatchError;
use super::order::{identity, is_subsequence, positions};
use super::strategic::{DELETE_FROM_LIST, DIRECTIVE, RETAIN_KEYS, SET_ELEMENT_ORDER};
use crate::merge_keys::{Field, Type};

type Object = Map<String, Value>;

/// One field in its three states.
struct Three<'a, T: ?Sized> {
    original: &'a T,
    modified: &'a T,
    current: &'a T,
}

/// The patch between three objects of type `of`.
pub(super) fn diff(
    original: &Value,
    modified: &Value,
    current: &Value,
    of: Option<&Type>,
) -> Result<Value, PatchError> {
    let empty = Object::new();
    let object = |value| as_object(value, &empty);
    let three = Three { original: object(original), modified: object(modified), current: object(current) };
    diff_maps(&three, of, false).map(Value::Object)
}

fn as_object<'a>(value: &'a Value, empty: &'a Object) -> &'a Object {
    value.as_object().unwrap_or(empty)
}

fn diff_maps(three: &Three<'_, Object>, of: Option<&Type>, retain_keys: bool) -> Result<Object, PatchError> {
    let mut patch = Object::new();
    for (key, modified) in three.modified.iter().filter(|(_, v)| !v.is_null()) {
        let field = of.and_then(|t| t.field(key));
        let original = three.original.get(key).unwrap_or(&Value::Null);
        match three.current.get(key) {
            Some(current) if current == modified => {}
            Some(current) => diff_field(key, &Three { original, modified, current }, field, &mut patch)?,
            None => drop(patch.insert(key.clone(), modified.clone())),
        }
    }
    let absent = |map: &Object, key: &str| map.get(key).is_none_or(Value::is_null);
    let given_up = three.original.keys().chain(three.modified.keys());
    for key in given_up.filter(|key| absent(three.modified, key) && !absent(three.current, key)) {
        patch.insert(key.clone(), Value::Null);
    }
    let foreign = || three.current.iter().any(|(key, value)| !value.is_null() && !three.modified.contains_key(key));
    let mut kept: Vec<&String> = three.modified.iter().filter(|(_, v)| !v.is_null()).map(|(k, _)| k).collect();
    if retain_keys && !kept.is_empty() && (!patch.is_empty() || foreign()) {
        kept.sort();
        patch.insert(RETAIN_KEYS.to_owned(), json!(kept));
    }
    Ok(patch)
}

/// A field that is there and differs.
fn diff_field(
    key: &str,
    three: &Three<'_, Value>,
    field: Option<&Field>,
    patch: &mut Object,
) -> Result<(), PatchError> {
    let empty = Object::new();
    match (three.modified, three.current) {
        (Value::Object(modified), Value::Object(current)) if !field.is_some_and(|f| f.replace) => {
            let original = as_object(three.original, &empty);
            let retain_keys = field.is_some_and(|f| f.retain_keys);
            let changes = diff_maps(&Three { original, modified, current }, field.and_then(Field::of), retain_keys)?;
            if !changes.is_empty() {
                patch.insert(key.to_owned(), Value::Object(changes));
            }
        }
        (Value::Array(modified), Value::Array(current)) if field.is_some_and(|f| f.merge) => {
            let original = three.original.as_array().map_or(&[][..], Vec::as_slice);
            if let Some(field) = field {
                diff_lists(key, &Three { original, modified, current }, field, patch)?;
            }
        }
        (modified, _) => drop(patch.insert(key.to_owned(), modified.clone())),
    }
    Ok(())
}

fn diff_lists(name: &str, three: &Three<'_, [Value]>, field: &Field, patch: &mut Object) -> Result<(), PatchError> {
    let key = field.merge_key;
    let all = || three.original.iter().chain(three.modified).chain(three.current);
    if let Some(nameless) = all().find(|item| identity(item, key).is_none()) {
        let key = key.unwrap_or("");
        return Err(PatchError::NotApplicable(format!("map: {nameless} does not contain declared merge key: {key}")));
    }
    let (wanted, present) = (positions(three.modified, key), positions(three.current, key));
    let gone = three
        .original
        .iter()
        .filter(|item| identity(item, key).is_some_and(|i| !wanted.contains_key(&i) && present.contains_key(&i)));
    let mut changes = changed_elements(three, field)?;
    let mut deleted = Vec::new();
    for item in gone {
        match key {
            Some(key) => changes.push(json!({key: item[key], DIRECTIVE: "delete"})),
            None => deleted.push(item.clone()),
        }
    }
    if changes.is_empty() && deleted.is_empty() && is_subsequence(three.modified, three.current, key) {
        return Ok(());
    }
    let order = three.modified.iter().map(|item| key.map_or_else(|| item.clone(), |key| json!({key: item[key]})));
    patch.insert(format!("{SET_ELEMENT_ORDER}{name}"), order.collect());
    if !changes.is_empty() {
        patch.insert(name.to_owned(), Value::Array(changes));
    }
    if !deleted.is_empty() {
        patch.insert(format!("{DELETE_FROM_LIST}{name}"), Value::Array(deleted));
    }
    Ok(())
}

/// Elements that are new, and what changes in those that are not.
fn changed_elements(three: &Three<'_, [Value]>, field: &Field) -> Result<Vec<Value>, PatchError> {
    let empty = Object::new();
    let key = field.merge_key;
    let (before, present) = (positions(three.original, key), positions(three.current, key));
    let mut changes = Vec::new();
    for modified in three.modified {
        let identity = identity(modified, key).unwrap_or_default();
        let Some(&place) = present.get(&identity) else {
            changes.push(modified.clone());
            continue;
        };
        let (Some(key), Value::Object(modified), Value::Object(current)) = (key, modified, &three.current[place])
        else {
            continue;
        };
        let original = before.get(&identity).map_or(&empty, |&i| as_object(&three.original[i], &empty));
        let mut change = diff_maps(&Three { original, modified, current }, field.of(), field.retain_keys)?;
        if !change.is_empty() {
            change.insert(key.to_owned(), modified[key].clone());
            changes.push(Value::Object(change));
        }
    }
    Ok(changes)
}
