//! From one valid object of a kind to all the ways of asking for it wrongly.

use api::{KindInfo, Scope, Subresource, Verb};
use serde_json::{Value, json};

use super::bodies::*;
use super::fields::{Field, Step, Type};
use super::garbage::*;
use super::places::*;
use super::request::*;

/// How many fields of a new object are given a wrong type, of the thousands of values that do not fit.
const WRONG_FIELDS: usize = 150;

/// What there is to ask for.
pub(super) struct Target<'a> {
    pub(super) info: &'static KindInfo,
    /// Where the kind's objects are.
    pub(super) collection: String,
    /// A valid object to be created, of a name that is free.
    pub(super) new: Value,
    /// One that is there, as the server shows it; nothing where objects are not kept.
    pub(super) live: Value,
    pub(super) fields: &'a [Field],
}

impl Target<'_> {
    pub(super) fn path(&self) -> String {
        format!("{}/{}", self.collection, self.live["metadata"]["name"].as_str().unwrap_or("x"))
    }

    /// What is wrong for `verb`.
    pub(super) fn verb(&self, verb: Verb, chance: &mut Chance) -> Vec<Bad> {
        let path = self.path();
        match verb {
            Verb::Create => self.create(chance),
            Verb::Update => self.update(&path, chance),
            Verb::Patch => self.patch(&path, chance),
            Verb::Get => self.get(chance),
            Verb::List => self.list(chance),
            Verb::Watch => self.watch(),
            Verb::Delete => [self.delete(chance), options(&path, chance)].concat(),
            Verb::DeleteCollection => {
                let collection = &self.collection;
                let selected = self.selections().into_iter().map(|query| {
                    Bad::new("DELETE", format!("{collection}?dryRun=All&{query}"), format!("selected by {query}"))
                        .codes(&[400, 422])
                });
                selected.chain(options(collection, chance)).collect()
            }
        }
    }

    /// What is wrong for a subresource's verbs of reading and writing.
    pub(super) fn sub(&self, sub: Subresource, verb: Verb, chance: &mut Chance) -> Vec<Bad> {
        let path = format!("{}/{}", self.path(), sub.as_str());
        match verb {
            Verb::Update => self.update(&path, chance),
            Verb::Patch => self.patch(&path, chance),
            Verb::Create => bodies_for("POST", &path, &self.live, self.info, chance),
            _ => Vec::new(),
        }
    }

    fn create(&self, chance: &mut Chance) -> Vec<Bad> {
        let path = &self.collection;
        let mut bad = bodies_for("POST", path, &self.new, self.info, chance);
        bad.extend(self.wrong_fields("POST", path, &self.new, WRONG_FIELDS, chance));
        if self.info.is_stored() {
            bad.extend(self.metadata("POST", path, &self.new));
            // A limit range that has no name gets one.
            let wrong =
                names(self.info).into_iter().filter(|name| !name.is_empty() || self.info.plural != "limitranges");
            bad.extend(wrong.map(|name| {
                let object = with(&self.new, "/metadata/name", json!(name));
                Bad::new("POST", path, format!("the name {name:?}")).json(&object).codes(&[422])
            }));
            bad.push(
                Bad::new("POST", path, "a name that is taken").json(&without_identity(&self.live)).codes(&[409, 422]),
            );
            let object = with(&self.new, "/metadata/resourceVersion", json!("7"));
            bad.push(Bad::new("POST", path, "a resourceVersion").json(&object).codes(&[400]));
        }
        bad
    }

    fn update(&self, path: &str, chance: &mut Chance) -> Vec<Bad> {
        let mut bad = bodies_for("PUT", path, &self.live, self.info, chance);
        bad.extend(self.wrong_fields("PUT", path, &self.live, 60, chance));
        let stale =
            [("1", &[409][..]), ("x", &[400, 422]), ("-7", &[400, 409, 422]), ("99999999999999999999", &[400, 422])];
        for (revision, codes) in stale {
            let object = with(&self.live, "/metadata/resourceVersion", json!(revision));
            bad.push(Bad::new("PUT", path, format!("resourceVersion {revision}")).json(&object).codes(codes));
        }
        let identity = [
            ("/metadata/uid", "00000000-0000-0000-0000-000000000000", &[409][..]),
            ("/metadata/name", "other", &[400]),
        ];
        for (pointer, value, codes) in identity {
            let object = with(&self.live, pointer, json!(value));
            bad.push(Bad::new("PUT", path, format!("{pointer} {value}")).json(&object).codes(codes));
        }
        bad
    }

    /// Every field that can be of a wrong type is, in turn; and every object has a field too many, strictly.
    fn wrong_fields(
        &self,
        method: &'static str,
        path: &str,
        object: &Value,
        most: usize,
        chance: &mut Chance,
    ) -> Vec<Bad> {
        let typed =
            self.fields.iter().flat_map(|field| field.wrong_values().into_iter().map(move |value| (field, value)));
        let typed: Vec<_> = typed.collect();
        let mut bad = Vec::new();
        for (field, value) in chance.some(typed, most) {
            let sentence = format!("{} is {value}", field.path());
            bad.push(Bad::new(method, path, sentence).json(&field.put(object, value)).codes(&[400]));
        }
        let objects: Vec<_> = self.fields.iter().filter(|f| f.of == Type::Object).collect();
        for field in chance.some(objects, most) {
            let inner =
                Field { way: [field.way.clone(), vec![Step::Key("noSuchField".into())]].concat(), of: Type::Anything };
            let strict = format!("{path}?fieldValidation=Strict");
            let sentence = format!("{} is unknown", inner.path());
            bad.push(Bad::new(method, strict, sentence).json(&inner.put(object, json!(1))).codes(&[400]));
        }
        bad
    }

    /// What no object's metadata may say.
    fn metadata(&self, method: &'static str, path: &str, object: &Value) -> Vec<Bad> {
        let mut bad = Vec::new();
        let mut say = |sentence: String, metadata: Value, codes: &'static [u16]| {
            let mut object = object.clone();
            object["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
            bad.push(Bad::new(method, path, sentence).json(&object).codes(codes));
        };
        for key in KEYS {
            say(format!("the label {key:?}"), json!({"labels": {*key: "x"}}), &[422]);
            say(format!("the annotation {key:?}"), json!({"annotations": {*key: "x"}}), &[422]);
            say(format!("the finalizer {key:?}"), json!({"finalizers": [key]}), &[422]);
        }
        for value in LABEL_VALUES {
            say(format!("the label value {value:?}"), json!({"labels": {"a": value}}), &[422]);
        }
        say("a long label".into(), json!({"labels": {"a": "x".repeat(64)}}), &[422]);
        say("a long annotation".into(), json!({"annotations": {"a": "x".repeat(257 * 1024)}}), &[422]);
        // Upstream asks that of all kinds but these.
        if !matches!(self.info.kind, "Event" | "Lease") {
            say("a finalizer of nobody".into(), json!({"finalizers": ["mine"]}), &[422]);
        }
        say("both ways of deletion".into(), json!({"finalizers": ["orphan", "foregroundDeletion"]}), &[422]);
        say("an owner of nothing".into(), json!({"ownerReferences": [{}]}), &[400, 422]);
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u", "controller": true});
        say("two controllers".into(), json!({"ownerReferences": [owner, with(&owner, "/uid", json!("w"))]}), &[422]);
        say("a number as label".into(), json!({"labels": {"a": 1}}), &[400]);
        if self.info.scope == Scope::Namespaced {
            say("another namespace".into(), json!({"namespace": "elsewhere"}), &[400]);
        }
        bad
    }

    fn patch(&self, path: &str, chance: &mut Chance) -> Vec<Bad> {
        let mut bad = Vec::new();
        let manager = format!("{path}?fieldManager=m");
        for (media_type, path) in [(MERGE, path), (STRATEGIC, path), (JSON_PATCH, path), (APPLY, &*manager)] {
            let patch = || Bad::new("PATCH", path, "").header("content-type", media_type);
            let damaged = damaged_bodies(media_type);
            bad.extend(
                damaged.into_iter().map(|(sentence, body)| Bad {
                    sentence: format!("{media_type}: {sentence}"),
                    ..patch().body(body)
                }),
            );
            bad.push(Bad {
                sentence: format!("{media_type}: too much"),
                ..patch().body(vec![b' '; TOO_MUCH]).codes(if media_type == APPLY { &[413, 415] } else { &[413] })
            });
        }
        for operations in json_patches() {
            let sentence = format!("the operations {operations}");
            bad.push(
                Bad::new("PATCH", path, sentence)
                    .header("content-type", JSON_PATCH)
                    .json(&operations)
                    .codes(&[400, 413, 422]),
            );
        }
        for media_type in MEDIA_TYPES {
            bad.push(
                Bad::new("PATCH", path, format!("a patch in {media_type}"))
                    .header("content-type", media_type)
                    .body("{}")
                    .codes(&[415]),
            );
        }
        bad.push(Bad::new("PATCH", path, "a patch in nothing").body("{}").codes(&[415]));
        let queries = [
            "dryRun=x",
            "fieldValidation=x",
            "fieldManager=%0A",
            "force=true",
            &format!("fieldManager={}", "x".repeat(200)),
        ];
        for query in queries {
            let path = format!("{path}?{query}");
            bad.push(Bad::new("PATCH", path, query).header("content-type", MERGE).body("{}").codes(&[400, 422]));
        }
        bad.push(
            Bad::new("PATCH", path, "an apply by nobody").header("content-type", APPLY).json(&self.live).codes(&[422]),
        );
        let typed = self.fields.iter().filter(|f| !f.way.contains(&Step::First));
        let typed: Vec<_> = typed.flat_map(|f| f.wrong_values().into_iter().map(move |value| (f, value))).collect();
        for (field, value) in chance.some(typed, 60) {
            let sentence = format!("{} becomes {value}", field.path());
            let patch = field.put(&json!({}), value);
            for media_type in [MERGE, STRATEGIC] {
                bad.push(
                    Bad::new("PATCH", path, &sentence)
                        .header("content-type", media_type)
                        .json(&patch)
                        .codes(&[400, 422]),
                );
            }
        }
        bad
    }

    fn get(&self, chance: &mut Chance) -> Vec<Bad> {
        let (path, collection) = (self.path(), &self.collection);
        let missing = (0..40)
            .map(|_| chance.word())
            .map(|name| Bad::new("GET", format!("{collection}/{name}"), "a missing name").codes(&[404]));
        let mut bad: Vec<Bad> = missing.collect();
        for name in NAMES {
            let name = escape(name);
            bad.push(
                Bad::new("GET", format!("{collection}/{name}"), format!("the name {name}")).codes(&[400, 404, 405]),
            );
            bad.push(Bad::new("GET", format!("{path}/{name}"), format!("below, {name}")).codes(&[400, 404, 405]));
        }
        if self.info.is_stored() {
            for revision in REVISIONS {
                let path = format!("{path}?resourceVersion={}", escape(revision));
                bad.push(Bad::new("GET", path, format!("at {revision:?}")).codes(&[400]));
            }
        }
        bad.extend(not_acceptable("GET", &path));
        bad.extend(wrong_methods(&path));
        bad.extend(wrong_places(self.info, &path));
        bad
    }

    fn list(&self, chance: &mut Chance) -> Vec<Bad> {
        let collection = &self.collection;
        let list = |query: &str| {
            Bad::new("GET", format!("{collection}?{query}"), format!("listed with {query}")).codes(&[400, 422])
        };
        let mut bad: Vec<Bad> = not_acceptable("GET", collection);
        bad.extend(wrong_places(self.info, collection));
        bad.extend(
            (0..20)
                .map(|_| Bad::new("GET", format!("{collection}{}", chance.word()), "another resource").codes(&[404])),
        );
        if !self.info.is_stored() {
            return bad;
        }
        bad.extend(self.selections().iter().map(|query| list(query)));
        bad.extend(NUMBERS.iter().map(|number| list(&format!("limit={}", escape(number)))));
        bad.extend(NUMBERS.iter().map(|number| list(&format!("timeoutSeconds={}", escape(number)))));
        bad.extend(REVISIONS.iter().map(|revision| list(&format!("resourceVersion={}", escape(revision)))));
        bad.extend(CONTINUES.iter().map(|token| list(&format!("limit=1&continue={}", escape(token)))));
        let together = [
            "resourceVersionMatch=Exact",
            "resourceVersionMatch=x&resourceVersion=1",
            "resourceVersionMatch=Exact&resourceVersion=0",
            "sendInitialEvents=true",
            "continue=x&resourceVersion=1",
            "continue=x&resourceVersionMatch=Exact&resourceVersion=1",
        ];
        bad.extend(together.iter().map(|query| list(query)));
        bad
    }

    fn watch(&self) -> Vec<Bad> {
        let collection = &self.collection;
        let watch = |query: &str| {
            Bad::new("GET", format!("{collection}?watch=1&{query}"), format!("watched with {query}")).codes(&[400, 422])
        };
        let mut bad: Vec<Bad> = self.selections().iter().map(|query| watch(query)).collect();
        bad.extend(NUMBERS.iter().map(|number| watch(&format!("timeoutSeconds={}", escape(number)))));
        bad.extend(REVISIONS.iter().map(|revision| watch(&format!("resourceVersion={}", escape(revision)))));
        let together = [
            "sendInitialEvents=true",
            "resourceVersionMatch=NotOlderThan",
            "resourceVersionMatch=Exact&sendInitialEvents=true",
            "resourceVersionMatch=x",
            "resourceVersionMatch=NotOlderThan&sendInitialEvents=true&continue=x",
        ];
        bad.extend(together.iter().map(|query| watch(query)));
        bad.extend(not_acceptable("GET", &format!("{collection}?watch=1")));
        bad
    }

    /// Selections of nothing that can be.
    fn selections(&self) -> Vec<String> {
        let labels = SELECTORS.iter().map(|text| format!("labelSelector={}", escape(text)));
        let fields = FIELD_SELECTORS.iter().map(|text| format!("fieldSelector={}", escape(text)));
        labels.chain(fields).collect()
    }

    fn delete(&self, chance: &mut Chance) -> Vec<Bad> {
        let (path, collection) = (self.path(), &self.collection);
        let missing = (0..20)
            .map(|_| chance.word())
            .map(|name| Bad::new("DELETE", format!("{collection}/{name}"), "a missing name").codes(&[404]));
        let mut bad: Vec<Bad> = missing.collect();
        for name in NAMES {
            let name = escape(name);
            bad.push(Bad::new("DELETE", format!("{path}/{name}"), format!("below, {name}")).codes(&[400, 404, 405]));
            bad.push(
                Bad::new("DELETE", format!("{collection}/{name}"), format!("the name {name}")).codes(&[400, 404, 405]),
            );
        }
        let stale = [("uid", "00000000-0000-0000-0000-000000000000"), ("resourceVersion", "1")];
        for (precondition, value) in stale {
            let options = json!({"preconditions": {precondition: value}, "dryRun": ["All"]});
            bad.push(Bad::new("DELETE", &path, format!("a stale {precondition}")).json(&options).codes(&[409]));
        }
        bad
    }
}

/// `object` with one field changed by chance.
pub(super) fn mutated(
    target: &Target<'_>,
    object: &Value,
    method: &'static str,
    path: &str,
    chance: &mut Chance,
) -> Bad {
    let field = &target.fields[chance.below(target.fields.len())];
    let value = chance.value();
    let sentence = format!("{} is {value}", field.path());
    Bad::new(method, format!("{path}?dryRun=All"), sentence).json(&field.put(object, value)).damaged()
}

pub(super) fn with(object: &Value, pointer: &str, value: Value) -> Value {
    let way = pointer.split('/').skip(1).map(|key| Step::Key(key.to_owned())).collect();
    Field { way, of: Type::Anything }.put(object, value)
}

/// An object as a client would create it again.
fn without_identity(object: &Value) -> Value {
    let mut object = object.clone();
    for field in ["resourceVersion", "uid", "creationTimestamp", "managedFields", "generation"] {
        object["metadata"].as_object_mut().unwrap().remove(field);
    }
    object
}
