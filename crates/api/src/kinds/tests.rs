//! What holds for every kind of the table.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::Object;

mod any;
mod examples;
mod fuzz;

/// The examples, with names where objects are stored.
fn examples() -> Vec<Value> {
    let mut examples = examples::examples();
    for example in examples.iter_mut().filter(|e| row_of(e).info.is_stored()) {
        example["metadata"] = json!({"name": "web", "namespace": "default"});
    }
    examples
}

fn row_of(example: &Value) -> &'static Kind {
    by_kind(example["apiVersion"].as_str().unwrap(), example["kind"].as_str().unwrap()).unwrap()
}

/// The example as it would be stored.
fn stored(example: &Value) -> Box<dyn Object> {
    let decoded = (row_of(example).decode)(example.to_string().as_bytes()).unwrap();
    assert_eq!(decoded.strict_errors, [""; 0], "{example}");
    let mut object = decoded.object;
    object.set_defaults();
    object.prepare_create();
    object
}

#[test]
fn every_kind_has_an_example() {
    let mut kinds: Vec<&str> = kinds().map(|k| k.info.kind).collect();
    let examples = examples();
    let mut shown: Vec<&str> = examples.iter().map(|e| row_of(e).info.kind).collect();
    kinds.sort_unstable();
    shown.sort_unstable();
    assert_eq!(kinds, shown);
}

#[test]
fn defaults_applied_again_change_nothing() {
    for example in examples() {
        let object = stored(&example);
        let mut again = object.clone_object();
        again.set_defaults();
        assert_eq!(again.to_value(), object.to_value(), "{example}");
    }
}

#[test]
fn valid_objects_stay_valid_through_the_store() {
    for example in examples() {
        let object = stored(&example);
        assert_eq!(object.validate(), [], "{example}");
        let bytes = object.encode();
        let read = (row_of(&example).stored().decode)(&bytes).unwrap();
        assert_eq!(read.strict_errors, [""; 0], "{example}");
        assert_eq!(read.object.encode(), bytes, "{example}");
        assert_eq!(read.object.validate(), [], "{example}");
    }
}

#[test]
fn update_without_change_is_allowed_and_changes_nothing() {
    for example in examples() {
        let old = stored(&example);
        let mut new = old.clone_object();
        new.prepare_update(old.as_ref());
        assert_eq!(new.to_value(), old.to_value(), "{example}");
        assert_eq!(new.validate_update(old.as_ref()), [], "{example}");
        for subresource in old.info().subresources {
            new.prepare_subresource_update(*subresource, old.as_ref());
            assert_eq!(new.to_value(), old.to_value(), "{example} {subresource:?}");
            assert_eq!(new.validate_subresource_update(*subresource, old.as_ref()), [], "{example} {subresource:?}");
        }
    }
}

#[test]
fn cells_and_selectable_fields_fit_their_rows() {
    for example in examples() {
        let object = stored(&example);
        let info = object.info();
        assert_eq!(object.cells(Timestamp::UNIX_EPOCH).len(), info.columns.len(), "{}", info.kind);
        assert_eq!(object.selectable_fields().len(), info.selectable_fields.len(), "{}", info.kind);
    }
}

#[test]
fn empty_objects_are_refused_and_nothing_panics() {
    for kind in kinds() {
        let mut object = (kind.decode)(b"{}").unwrap().object;
        object.set_defaults();
        object.prepare_create();
        object.validate();
        object.cells(Timestamp::UNIX_EPOCH);
    }
}

#[test]
fn names_lead_to_their_rows() {
    for kind in kinds() {
        let info = kind.info;
        assert!(std::ptr::eq(by_resource(info.group, info.version, info.plural).unwrap().info, info), "{}", info.kind);
        assert!(std::ptr::eq(by_kind(&info.api_version(), info.kind).unwrap().info, info), "{}", info.kind);
    }
    assert!(by_resource("", "v1", "wishes").is_none());
}
