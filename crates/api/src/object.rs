//! The two faces of an object: typed for those who know its kind ([`Resource`]), erased for the verbs, which are
//! written once for all kinds ([`Object`]).

use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::field::ErrorList;
use crate::kinds::{Kind, KindInfo, Subresource};

/// What is particular to one kind: its names and the few decisions that differ from kind to kind. Everything has a
/// sensible default, so that a kind without behaviour is [`Resource::INFO`] and nothing else.
///
/// The order in which the API server calls these on a write is: `set_defaults`, `prepare_create` or
/// `prepare_update`/`prepare_status_update`, admission, `set_defaults` again, `validate` (and `validate_update`).
/// Compare `RESTCreateStrategy`/`RESTUpdateStrategy` in `k8s.io/apiserver/pkg/registry/rest`.
pub trait Resource:
    k8s_openapi::Metadata<Ty = ObjectMeta>
    + serde::Serialize
    + serde::de::DeserializeOwned
    + schemars::JsonSchema
    + Clone
    + Default
    + Send
    + Sync
    + 'static
{
    /// Names, scope, subresources, columns, selectable fields.
    const INFO: KindInfo;

    /// Other `apiVersion`s whose objects are read as this one's, as they have the same fields (`AcceptsGroupVersion`).
    const ALSO_READ: &'static [&'static str] = &[];

    /// Whether a new object without a name, and without the beginning of one, gets one all the same: a UUID.
    const MAKES_UP_NAMES: bool = false;

    /// Why an object of this name is never deleted by it, be it there or not.
    fn stays(_name: &str) -> Option<&'static str> {
        None
    }

    /// Fills what the client left out, as `SetDefaults_*` does upstream. Calling it twice changes nothing.
    fn set_defaults(&mut self) {}

    /// Clears what a client may not set at creation (status) and sets what every new object of the kind has.
    fn prepare_create(&mut self) {}

    /// Takes over from `old` what a write to the main resource may not change (status).
    fn prepare_update(&mut self, _old: &Self) {}

    /// Takes over from `old` what a write to `/status` may not change (everything but status). Metadata is kept by
    /// the caller, except labels and annotations handling particular to the kind.
    fn prepare_status_update(&mut self, _old: &Self) {}

    /// Takes over from `old` what a write to `subresource` may not change. Kinds with subresources that store a part
    /// of the object (`finalize`, `approval`) say which part.
    fn prepare_subresource_update(&mut self, subresource: Subresource, old: &Self) {
        if subresource == Subresource::Status {
            self.prepare_status_update(old);
        }
    }

    /// Whether `self` and `old` mean different things to those who act on them; if so `metadata.generation` grows.
    /// The default compares nothing and leaves generation alone (kinds without generation).
    fn generation_changed(&self, _old: &Self) -> bool {
        false
    }

    /// Whether new objects start with `metadata.generation: 1`.
    const HAS_GENERATION: bool = false;

    /// Everything wrong with the object on its own, without metadata (which is checked once for all kinds).
    fn validate(&self, _errors: &mut ErrorList) {}

    /// Everything wrong with the object as a new one, beyond [`Resource::validate`] (which runs too).
    fn validate_create(&self, _errors: &mut ErrorList) {}

    /// Everything wrong with the step from `old` to `self`, beyond [`Resource::validate`] (which runs too).
    fn validate_update(&self, _old: &Self, _errors: &mut ErrorList) {}

    /// Everything wrong with the step from `old` to `self` through `/status`.
    fn validate_status_update(&self, _old: &Self, _errors: &mut ErrorList) {}

    /// Everything wrong with the step from `old` to `self` through `subresource`.
    fn validate_subresource_update(&self, subresource: Subresource, old: &Self, errors: &mut ErrorList) {
        if subresource == Subresource::Status {
            self.validate_status_update(old, errors);
        }
    }

    /// What is accepted and still worth a word to whoever wrote it; `old` is what it replaces (`WarningsOnCreate`,
    /// `WarningsOnUpdate`).
    fn warnings(&self, _old: Option<&Self>) -> Vec<String> {
        Vec::new()
    }

    /// Values of the kind's selectable fields other than `metadata.name` and `metadata.namespace`, in the order of
    /// [`KindInfo::selectable_fields`].
    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        Vec::new()
    }

    /// One cell per [`KindInfo::columns`], as the server prints them (`kubectl get`). `now` gives ages.
    fn cells(&self, now: Timestamp) -> Vec<Value>;
}

/// An object of any served kind. Implemented once, for every [`Resource`].
pub trait Object: Any + Send + Sync {
    /// The row of the table of kinds that describes this object.
    fn info(&self) -> &'static KindInfo;
    /// Standard metadata.
    fn metadata(&self) -> &ObjectMeta;
    /// Standard metadata, to be changed.
    fn metadata_mut(&mut self) -> &mut ObjectMeta;
    /// Canonical JSON: `apiVersion` and `kind` first, then `metadata`; no trailing newline.
    fn encode(&self) -> Vec<u8>;
    /// The same as a JSON tree.
    fn to_value(&self) -> Value;
    /// A deep copy.
    fn clone_object(&self) -> Box<dyn Object>;
    /// For downcasting to the typed object: `object.as_any().downcast_ref::<Pod>()`.
    fn as_any(&self) -> &dyn Any;
    /// For downcasting to the typed object, to be changed.
    fn as_any_mut(&mut self) -> &mut dyn Any;

    /// See [`Resource::set_defaults`].
    fn set_defaults(&mut self);
    /// See [`Resource::prepare_create`]. Also sets `metadata.generation` where the kind has one.
    fn prepare_create(&mut self);
    /// See [`Resource::prepare_update`]. Also grows `metadata.generation`. `old` is of the same kind.
    fn prepare_update(&mut self, old: &dyn Object);
    /// See [`Resource::prepare_status_update`].
    fn prepare_status_update(&mut self, old: &dyn Object);
    /// See [`Resource::prepare_subresource_update`].
    fn prepare_subresource_update(&mut self, subresource: Subresource, old: &dyn Object);
    /// See [`Resource::validate`].
    fn validate(&self) -> ErrorList;
    /// See [`Resource::validate_create`].
    fn validate_create(&self) -> ErrorList;
    /// See [`Resource::validate_update`].
    fn validate_update(&self, old: &dyn Object) -> ErrorList;
    /// See [`Resource::validate_status_update`].
    fn validate_status_update(&self, old: &dyn Object) -> ErrorList;
    /// See [`Resource::validate_subresource_update`].
    fn validate_subresource_update(&self, subresource: Subresource, old: &dyn Object) -> ErrorList;
    /// See [`Resource::warnings`].
    fn warnings(&self, old: Option<&dyn Object>) -> Vec<String>;
    /// See [`Resource::selectable_fields`].
    fn selectable_fields(&self) -> Vec<Cow<'_, str>>;
    /// See [`Resource::cells`].
    fn cells(&self, now: Timestamp) -> Vec<Value>;
}

/// Brings an encoded object into the order every stored object has: [`KindInfo::metadata_prefix`] first. Most kinds are
/// encoded so already; those with fields that sort before `metadata` (ConfigMap, Event) are not.
fn metadata_first(info: &KindInfo, encoded: Vec<u8>) -> Vec<u8> {
    if encoded.starts_with(info.metadata_prefix().as_bytes()) {
        return encoded;
    }
    let Ok(mut fields) = serde_json::from_slice::<BTreeMap<String, &RawValue>>(&encoded) else { return encoded };
    let mut ordered = Vec::with_capacity(encoded.len());
    let first = ["apiVersion", "kind", "metadata"].map(|name| (name.to_owned(), fields.remove(name)));
    let all = first.into_iter().filter_map(|(name, value)| Some((name, value?))).chain(fields);
    for (index, (name, value)) in all.enumerate() {
        ordered.push(if index == 0 { b'{' } else { b',' });
        ordered.extend_from_slice(format!("{name:?}:").as_bytes());
        ordered.extend_from_slice(value.get().as_bytes());
    }
    ordered.push(b'}');
    ordered
}

/// The typed object behind an erased one of a kind the caller has checked.
fn downcast<T: Resource>(object: &dyn Object) -> &T {
    object.as_any().downcast_ref().expect("the verbs compare objects of one kind only")
}

impl<T: Resource> Object for T {
    fn info(&self) -> &'static KindInfo {
        &T::INFO
    }

    fn metadata(&self) -> &ObjectMeta {
        k8s_openapi::Metadata::metadata(self)
    }

    fn metadata_mut(&mut self) -> &mut ObjectMeta {
        k8s_openapi::Metadata::metadata_mut(self)
    }

    fn encode(&self) -> Vec<u8> {
        let encoded = serde_json::to_vec(self).expect("objects have string keys only, so they always encode");
        let ordered = metadata_first(&T::INFO, crate::omit::empty(encoded));
        crate::written::complete(&T::INFO, ordered.into()).into_owned()
    }

    fn to_value(&self) -> Value {
        serde_json::from_slice(&self.encode()).expect("what is encoded is JSON")
    }

    fn clone_object(&self) -> Box<dyn Object> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn set_defaults(&mut self) {
        Resource::set_defaults(self);
    }

    fn prepare_create(&mut self) {
        Resource::prepare_create(self);
        k8s_openapi::Metadata::metadata_mut(self).generation = T::HAS_GENERATION.then_some(1);
    }

    fn prepare_update(&mut self, old: &dyn Object) {
        let old = downcast::<T>(old);
        Resource::prepare_update(self, old);
        let before = k8s_openapi::Metadata::metadata(old).generation;
        let grown = self.generation_changed(old);
        k8s_openapi::Metadata::metadata_mut(self).generation =
            if grown { Some(before.unwrap_or(0) + 1) } else { before };
    }

    fn prepare_status_update(&mut self, old: &dyn Object) {
        let old = downcast::<T>(old);
        Resource::prepare_status_update(self, old);
        k8s_openapi::Metadata::metadata_mut(self).generation = k8s_openapi::Metadata::metadata(old).generation;
    }

    fn prepare_subresource_update(&mut self, subresource: Subresource, old: &dyn Object) {
        let old = downcast::<T>(old);
        Resource::prepare_subresource_update(self, subresource, old);
        k8s_openapi::Metadata::metadata_mut(self).generation = k8s_openapi::Metadata::metadata(old).generation;
    }

    fn validate(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        Resource::validate(self, &mut errors);
        errors
    }

    fn validate_create(&self) -> ErrorList {
        let mut errors = ErrorList::new();
        Resource::validate_create(self, &mut errors);
        errors
    }

    fn validate_update(&self, old: &dyn Object) -> ErrorList {
        let mut errors = ErrorList::new();
        Resource::validate_update(self, downcast(old), &mut errors);
        errors
    }

    fn validate_status_update(&self, old: &dyn Object) -> ErrorList {
        let mut errors = ErrorList::new();
        Resource::validate_status_update(self, downcast(old), &mut errors);
        errors
    }

    fn validate_subresource_update(&self, subresource: Subresource, old: &dyn Object) -> ErrorList {
        let mut errors = ErrorList::new();
        Resource::validate_subresource_update(self, subresource, downcast(old), &mut errors);
        errors
    }

    fn warnings(&self, old: Option<&dyn Object>) -> Vec<String> {
        Resource::warnings(self, old.map(downcast))
    }

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        Resource::selectable_fields(self)
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        Resource::cells(self, now)
    }
}

impl Kind {
    /// The row for `T`, with the one decoder of its type.
    pub const fn of<T: Resource>() -> Kind {
        Kind {
            info: &T::INFO,
            decode: &crate::decode::decode::<T>,
            schema: &|generator| generator.subschema_for::<T>(),
            makes_up_names: T::MAKES_UP_NAMES,
            stays: T::stays,
            view: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_encoded_with_its_metadata_first() {
        for kind in crate::kinds() {
            let fields = r#""addressType":"IPv4","data":{"a":"YQ=="},"endpoints":[],"metadata":{"name":"x"},"spec":{}"#;
            let decoded = (kind.decode)(format!("{{{fields}}}").as_bytes());
            let Ok(decoded) = decoded else { panic!("{} decodes", kind.info.kind) };
            let encoded = String::from_utf8(decoded.object.encode()).unwrap();
            let prefix = kind.stored().info.metadata_prefix();
            assert!(encoded.starts_with(&prefix), "{encoded}");
            let tree: Value = serde_json::from_str(&encoded).unwrap();
            assert_eq!(tree, decoded.object.to_value());
        }
    }
}
