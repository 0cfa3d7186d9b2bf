//! The schemas of kinds and of all they are made of, under upstream's names.

use api::merge_keys::{ListType, Type};
use api::{Kind, Subresource, Verb};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::policy::v1::Eviction;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{DeleteOptions, ListMeta, Status};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

/// The names of the kinds' schemas, and every schema, for OpenAPI v3.
pub(super) fn v3(kinds: &[&Kind]) -> (Vec<String>, Map<String, Value>) {
    let settings = SchemaSettings::openapi3().with(|s| s.meta_schema = None);
    let (names, mut schemas) = collect(kinds, settings);
    let one_of = |types: [&str; 2]| json!(types.map(|t| json!({"type": t})));
    describe(&mut schemas, QUANTITY, &[("oneOf", one_of(["string", "number"]))]);
    describe(&mut schemas, INT_OR_STRING, &[("oneOf", one_of(["integer", "string"])), int_or_string_format()]);
    for name in REFERENCES {
        if let Some(schema) = schemas.get_mut(&format!("{CORE}{name}")) {
            schema["properties"]["name"]["default"] = json!("");
        }
    }
    (names, schemas)
}

/// The same for OpenAPI v2, where a reference stands alone.
pub(super) fn v2(kinds: &[&Kind]) -> (Vec<String>, Map<String, Value>) {
    let settings = SchemaSettings::draft07().with(|s| {
        s.meta_schema = None;
        s.definitions_path = "/definitions".into();
    });
    let (names, mut schemas) = collect(kinds, settings);
    schemas.values_mut().for_each(flatten_references);
    describe(&mut schemas, QUANTITY, &[("type", json!("string"))]);
    describe(&mut schemas, INT_OR_STRING, &[("type", json!("string")), int_or_string_format()]);
    (names, schemas)
}

/// The name of the schema of what is answered where there is no object to show.
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
/// The name of the schema of what a deletion may say.
pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
/// The name of the schema of what a watch tells.
pub(super) const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";
const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

const CORE: &str = "io.k8s.api.core.v1.";
/// What names another object, and may leave that out (`LocalObjectReference`, alone or in line).
const REFERENCES: [&str; 8] = [
    "ConfigMapEnvSource",
    "ConfigMapKeySelector",
    "ConfigMapProjection",
    "ConfigMapVolumeSource",
    "LocalObjectReference",
    "SecretEnvSource",
    "SecretKeySelector",
    "SecretProjection",
];

fn int_or_string_format() -> (&'static str, Value) {
    ("format", json!("int-or-string"))
}

/// Says of numbers that may be text what upstream's documents say: each form of the document has its own words.
fn describe(schemas: &mut Map<String, Value>, name: &str, words: &[(&str, Value)]) {
    let Some(schema) = schemas.get_mut(name).and_then(Value::as_object_mut) else { return };
    schema.remove("x-kubernetes-int-or-string");
    schema.extend(words.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
}

/// The name of the schema of lists of what this is the schema of.
pub(super) fn list_of(schema: &str) -> String {
    format!("{schema}List")
}

/// The name of the schema of a kind that is spoken below objects.
pub(super) fn name_of((group, version, kind): (&str, &str, &str)) -> String {
    let group = group.split('.').next().filter(|group| !group.is_empty()).unwrap_or("core");
    format!("io.k8s.api.{group}.{version}.{kind}")
}

/// What is answered beside the kinds themselves, and what is spoken below their objects.
fn add_others(kinds: &[&Kind], generator: &mut SchemaGenerator) {
    generator.subschema_for::<Status>();
    generator.subschema_for::<ListMeta>();
    generator.subschema_for::<DeleteOptions>();
    for sub in kinds.iter().flat_map(|kind| kind.info.subresources) {
        match sub {
            Subresource::Scale => drop(generator.subschema_for::<Scale>()),
            Subresource::Eviction => drop(generator.subschema_for::<Eviction>()),
            Subresource::Token => drop(generator.subschema_for::<TokenRequest>()),
            _ => {}
        }
    }
}

/// The schema of lists of a kind, whose own has this name and these properties.
fn list(kind: &Kind, name: &str, own: &Value, definitions: &str) -> Value {
    let (group, version, kind) = (kind.info.group, kind.info.version, kind.info.kind);
    let refer = |name: &str| format!("{definitions}/{name}");
    json!({
        "description": format!("{kind}List is a list of {kind}."),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": own["apiVersion"], "kind": own["kind"],
            "metadata": {"description": "Standard list metadata.", "allOf": [{"$ref": refer(LIST_META)}]},
            "items": {"description": format!("Items of kind {kind}."), "type": "array", "items": {"$ref": refer(name)}},
        },
        "x-kubernetes-group-version-kind": [{"group": group, "version": version, "kind": format!("{kind}List")}],
    })
}

/// What is spoken beside the kinds themselves: schema, group and kind, all of v1.
const SPOKEN: [(&str, &str, &str); 4] = [
    (STATUS, "", "Status"),
    ("io.k8s.api.autoscaling.v1.Scale", "autoscaling", "Scale"),
    ("io.k8s.api.authentication.v1.TokenRequest", "authentication.k8s.io", "TokenRequest"),
    ("io.k8s.api.policy.v1.Eviction", "policy", "Eviction"),
];

fn watch_event() -> Value {
    json!({
        "description": "Event represents a single event to a watched resource.",
        "type": "object",
        "required": ["type", "object"],
        "properties": {
            "type": {"type": "string"},
            "object": {
                "description": "The object as it is now, or was last if it is gone; of an error, a Status.",
                "type": "object",
            },
        },
    })
}

/// Says which kinds these are. How to delete, and what is watched, is said in every group.
fn name_the_others(kinds: &[&Kind], schemas: &mut Map<String, Value>) {
    for (name, group, kind) in SPOKEN {
        if let Some(schema) = schemas.get_mut(name) {
            schema[GVK] = json!([{"group": group, "version": "v1", "kind": kind}]);
            needs_no_metadata(name, schema);
        }
    }
    let mut groups: Vec<_> = kinds.iter().map(|kind| (kind.info.group, kind.info.version)).collect();
    groups.sort_unstable();
    groups.dedup();
    schemas.insert(WATCH_EVENT.to_owned(), watch_event());
    for (name, kind) in [(DELETE_OPTIONS, "DeleteOptions"), (WATCH_EVENT, "WatchEvent")] {
        if let Some(schema) = schemas.get_mut(name) {
            let named = groups.iter().map(|(group, version)| json!({"group": group, "version": version, "kind": kind}));
            schema[GVK] = named.collect();
        }
    }
}

const GVK: &str = "x-kubernetes-group-version-kind";

fn collect(kinds: &[&Kind], settings: SchemaSettings) -> (Vec<String>, Map<String, Value>) {
    let definitions = format!("#{}", settings.definitions_path.trim_end_matches('/'));
    let mut generator = settings.into_generator();
    add_others(kinds, &mut generator);
    let mut names = Vec::new();
    for kind in kinds {
        let reference = (kind.schema)(&mut generator);
        let reference = reference.get("$ref").and_then(Value::as_str).unwrap_or("");
        names.push(reference.rsplit('/').next().unwrap_or("").to_owned());
    }
    let mut schemas = generator.take_definitions(true);
    for (name, schema) in &mut schemas {
        if let Some(merging) = api::merge_keys::of_schema(name) {
            say_how_it_merges(merging, schema);
        }
        lists_have_one_owner(schema);
    }
    for (kind, name) in kinds.iter().zip(&names) {
        let gvk = json!([{"group": kind.info.group, "version": kind.info.version, "kind": kind.info.kind}]);
        let Some(schema) = schemas.get_mut(name) else { continue };
        schema[GVK] = gvk;
        needs_no_metadata(name, schema);
        if kind.info.can(Verb::List) {
            let list = list(kind, name, &schema["properties"], &definitions);
            schemas.insert(list_of(name), list);
        }
    }
    name_the_others(kinds, &mut schemas);
    for name in REFERENCES {
        if let Some(schema) = schemas.get_mut(&format!("{CORE}{name}")) {
            needs_no("name", schema);
        }
    }
    if let Some(event) = schemas.get_mut("io.k8s.api.events.v1.Event") {
        event["required"] = json!(["eventTime"]);
    }
    (names, schemas)
}

/// `metadata` is there in every object and is not asked of clients, but for Events of the core (`api/openapi-spec`).
fn needs_no_metadata(name: &str, schema: &mut Value) {
    if name != "io.k8s.api.core.v1.Event" {
        needs_no("metadata", schema);
    }
}

fn needs_no(field: &str, schema: &mut Value) {
    let required = schema["required"].as_array_mut();
    let left = required.is_some_and(|required| {
        required.retain(|name| name != field);
        !required.is_empty()
    });
    if let Some(schema) = schema.as_object_mut().filter(|_| !left) {
        schema.remove("required");
    }
}

/// Adds what the types do not say: how their fields merge. Without it kubectl would replace whole lists.
fn say_how_it_merges(merging: &Type, schema: &mut Value) {
    if merging.atomic {
        schema["x-kubernetes-map-type"] = json!("atomic");
    }
    for (name, property) in schema["properties"].as_object_mut().into_iter().flatten() {
        let Some(field) = merging.field(name) else { continue };
        let strategies = [(field.merge, "merge"), (field.replace, "replace"), (field.retain_keys, "retainKeys")];
        let strategies: Vec<&str> = strategies.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect();
        if !strategies.is_empty() {
            property["x-kubernetes-patch-strategy"] = json!(strategies.join(","));
        }
        if let Some(key) = field.merge_key {
            property["x-kubernetes-patch-merge-key"] = json!(key);
        }
        match &field.list_type {
            ListType::Map(keys) => {
                property["x-kubernetes-list-type"] = json!("map");
                property["x-kubernetes-list-map-keys"] = keys.iter().map(|key| key.name).collect();
            }
            ListType::Set => property["x-kubernetes-list-type"] = json!("set"),
            ListType::Atomic if property["type"] == "array" => property["x-kubernetes-list-type"] = json!("atomic"),
            ListType::Atomic => {}
        }
        if field.atomic {
            property["x-kubernetes-map-type"] = json!("atomic");
        }
    }
}

/// Lists of which nothing else is said are atomic, and upstream says so.
fn lists_have_one_owner(schema: &mut Value) {
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    for property in properties.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
        if property.get("type").is_some_and(|is| is == "array") {
            property.entry("x-kubernetes-list-type").or_insert_with(|| json!("atomic"));
        }
    }
}

/// `{"allOf": [{"$ref": x}], "description": d}` becomes `{"$ref": x, "description": d}`.
fn flatten_references(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::Array(all)) = map.get("allOf")
                && let [only] = all.as_slice()
                && let Some(reference) = only.get("$ref").cloned()
            {
                map.remove("allOf");
                map.insert("$ref".to_owned(), reference);
            }
            map.values_mut().for_each(flatten_references);
        }
        Value::Array(list) => list.iter_mut().for_each(flatten_references),
        _ => {}
    }
}
