//! Any object of any kind, as long as its fields are of the right types, passes through everything a write does: it is
//! decoded, completed, validated, printed and encoded, without a panic, and comes back from the store as it went.
//! Then come patches, from any object to any other.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::any::Any;
use super::*;
use crate::Object;
use crate::apply::{Writer, split};
use crate::patch::Patch;

/// Decodes what should decode.
fn decoded(kind: &Kind, value: &Value) -> Box<dyn Object> {
    match (kind.decode)(value.to_string().as_bytes()) {
        Ok(decoded) => decoded.object,
        Err(error) => panic!("{error}: {value}"),
    }
}

/// Everything a creation does.
fn created(kind: &'static Kind, value: &Value) -> Result<Box<dyn Object>, TestCaseError> {
    let mut object = decoded(kind, value);
    object.set_defaults();
    let once = object.to_value();
    object.set_defaults();
    prop_assert_eq!(&object.to_value(), &once, "defaults again change something");
    object.prepare_create();
    object.set_defaults();
    let mut errors = object.validate();
    crate::metadata::validate_metadata(kind.stored().info, object.metadata(), &mut errors);
    errors.iter().for_each(|error| drop(error.to_string()));
    prop_assert_eq!(object.cells(Timestamp::UNIX_EPOCH).len(), object.info().columns.len());
    prop_assert_eq!(object.selectable_fields().len(), object.info().selectable_fields.len());
    let bytes = object.encode();
    let again = (kind.stored().decode)(&bytes).map_err(|e| TestCaseError::fail(e.to_string()))?;
    prop_assert_eq!(again.strict_errors.len(), 0);
    prop_assert_eq!(again.object.encode(), bytes, "what is stored comes back as it went");
    if let Some(shown) = kind.show(&object.encode()) {
        prop_assert!((kind.decode)(&shown).is_ok());
    }
    Ok(object)
}

/// Everything an update does, by every way there is.
fn updated(old: &dyn Object, new: &dyn Object) -> Result<(), TestCaseError> {
    let mut object = new.clone_object();
    object.set_defaults();
    object.prepare_update(old);
    object.validate_update(old);
    for subresource in old.info().subresources {
        let mut object = new.clone_object();
        object.prepare_subresource_update(*subresource, old);
        object.validate_subresource_update(*subresource, old);
    }
    let mut errors = crate::field::ErrorList::new();
    crate::metadata::validate_metadata_update(new.info(), new.metadata(), old.metadata(), &mut errors);
    Ok(())
}

fn patched(kind: &Kind, media_type: &str, patch: &Value, object: &Value) -> Option<Value> {
    let patch = Patch::parse(media_type, patch.to_string().as_bytes())?.ok()?;
    let patched = patch.apply(kind.info, object.clone()).ok()?;
    let _ = (kind.decode)(patched.to_string().as_bytes());
    Some(patched)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn any_object_passes_through_a_write(seed: u64) {
        for kind in kinds() {
            let mut any = Any::of(kind, seed);
            for _ in 0..4 {
                let (old, new) = (created(kind, &any.object())?, created(kind, &any.object())?);
                updated(&*old, &*new)?;
                updated(&*old, &*old)?;
            }
        }
    }

    #[test]
    fn any_damaged_object_is_decoded_or_refused(seed: u64) {
        for kind in kinds() {
            let mut any = Any::of(kind, seed);
            for _ in 0..10 {
                let object = any.object();
                let damaged = any.mutated(&object);
                if (kind.decode)(damaged.to_string().as_bytes()).is_ok() {
                    created(kind, &damaged)?;
                }
            }
        }
    }

    #[test]
    fn any_patch_is_applied_or_refused(seed: u64) {
        for kind in kinds() {
            let mut any = Any::of(kind, seed);
            let object = any.object();
            for _ in 0..6 {
                let patch = any.object();
                let patch = any.mutated(&patch);
                if let Some(once) = patched(kind, "application/merge-patch+json", &patch, &object) {
                    prop_assert_eq!(patched(kind, "application/merge-patch+json", &patch, &once), Some(once));
                }
                patched(kind, "application/strategic-merge-patch+json", &patch, &object);
                let operations = operations(&mut any, &object);
                patched(kind, "application/json-patch+json", &operations, &object);
            }
        }
    }

    #[test]
    fn any_configuration_is_applied_or_refused(seed: u64) {
        for kind in kinds().filter(|kind| kind.info.is_stored() && kind.view.is_none()) {
            let mut any = Any::of(kind, seed);
            let by = |manager| Writer { info: kind.info, manager, subresource: None, now: Timestamp::UNIX_EPOCH };
            let mut live: Option<(String, String)> = None;
            for manager in ["a", "b", "a", "b", "c"] {
                let config = any.object();
                let config = if manager == "c" { any.mutated(&config) } else { config };
                if by(manager).config_error(&config).is_some() {
                    continue;
                }
                let (object, managed) = live.clone().unzip();
                let managed = managed.unwrap_or_default();
                let applied = by(manager).apply(object.as_deref(), &config, &managed, true);
                let Ok(applied) = applied else { continue };
                let object = applied.object.to_string();
                let again = by(manager).apply(Some(&object), &config, &applied.managed, false);
                prop_assert!(again.is_ok_and(|again| again.object == applied.object), "applying again changes something");
                split(kind.info, object.as_bytes());
                live = Some((object, applied.managed));
            }
            if let Some((object, managed)) = live {
                let other = any.object().to_string();
                by("d").track(Some(&object), &other, &managed);
            }
        }
    }
}

/// Operations on places that are there, or nearly.
fn operations(any: &mut Any, object: &Value) -> Value {
    let places = [
        "",
        "/metadata",
        "/spec",
        "/spec/containers/0",
        "/data/a",
        "/metadata/labels/a~1b",
        "/status",
        "/rules/-",
        "/subsets/0/ports/1",
        "/kind",
    ];
    let pick = |n: usize| places[n % places.len()];
    let (from, at) = (any.number(), any.number());
    let (set, carry) = (["add", "replace", "test"][from % 3], ["copy", "move"][at % 2]);
    let value = any.mutated(object);
    json!([
        {"op": set, "path": pick(at), "value": value["spec"]},
        {"op": carry, "from": pick(from), "path": pick(at / 7)},
        {"op": "remove", "path": pick(from / 11)},
    ])
}
