//! Where a kind has which field, read from the schema the server publishes.

use serde_json::{Map, Value, json};

/// The deepest field that is looked at: `spec.containers[].env[].valueFrom.secretKeyRef.key` is nine deep.
const MAX_DEPTH: usize = 10;

/// A step from an object to a field.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Step {
    Key(String),
    /// The first item of a list.
    First,
}

/// What belongs into a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Type {
    Text,
    Bytes,
    Time,
    Integer,
    Boolean,
    List,
    Object,
    /// Free keys, and values of one type.
    Map,
    /// Anything at all.
    Anything,
    /// An amount, or a port by number or name.
    Either,
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) way: Vec<Step>,
    pub(super) of: Type,
}

impl Field {
    /// `spec.containers[0].name`.
    pub(super) fn path(&self) -> String {
        self.way.iter().fold(String::new(), |path, step| match step {
            Step::First => format!("{path}[0]"),
            Step::Key(key) if path.is_empty() => key.clone(),
            Step::Key(key) => format!("{path}.{key}"),
        })
    }

    /// Values that do not belong here.
    pub(super) fn wrong_values(&self) -> Vec<Value> {
        match self.of {
            Type::Text => vec![json!(7), json!({}), json!(["x"]), json!(true)],
            Type::Bytes => vec![json!("?"), json!(7), json!({})],
            Type::Time => vec![json!("noon"), json!(7), json!("2026-13-01T00:00:00Z")],
            Type::Integer => vec![json!("x"), json!({}), json!(1.5), json!(1e30), json!(true), json!([1])],
            Type::Boolean => vec![json!("true"), json!(1), json!({})],
            Type::List => vec![json!({}), json!("x"), json!(7)],
            Type::Object | Type::Map => vec![json!([]), json!("x"), json!(7), json!(false)],
            Type::Either => vec![json!({}), json!([]), json!(true)],
            Type::Anything => Vec::new(),
        }
    }

    /// `object` with `value` in this field, and with whatever must be there for the field to be.
    pub(super) fn put(&self, object: &Value, value: Value) -> Value {
        let mut changed = object.clone();
        let mut place = &mut changed;
        for step in &self.way {
            place = match step {
                Step::Key(key) => {
                    if !place.is_object() {
                        *place = json!({});
                    }
                    &mut place[key.as_str()]
                }
                Step::First => {
                    if place.get(0).is_none() {
                        *place = json!([{}]);
                    }
                    &mut place[0]
                }
            };
        }
        *place = value;
        changed
    }
}

/// Every field of the kind whose OpenAPI document this is.
pub(super) fn of_kind(document: &Value, info: &api::KindInfo) -> Vec<Field> {
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let gvk = json!([{"group": info.group, "version": info.version, "kind": info.kind}]);
    let (name, schema) = schemas.iter().find(|(_, s)| s["x-kubernetes-group-version-kind"] == gvk).unwrap();
    let mut walk = Walk { schemas, open: vec![name.clone()], way: Vec::new(), found: Vec::new() };
    walk.properties(schema);
    walk.found
}

/// Every field an object has that is of a kind without a published schema.
pub(super) fn of_value(value: &Value) -> Vec<Field> {
    let mut found = Vec::new();
    walk_value(value, &mut Vec::new(), &mut found);
    found
}

fn walk_value(value: &Value, way: &mut Vec<Step>, found: &mut Vec<Field>) {
    let of = match value {
        Value::Object(_) => Type::Object,
        Value::Array(_) => Type::List,
        Value::Bool(_) => Type::Boolean,
        Value::Number(_) => Type::Integer,
        Value::String(_) | Value::Null => Type::Text,
    };
    if !way.is_empty() {
        found.push(Field { way: way.clone(), of });
    }
    for (key, value) in value.as_object().into_iter().flatten() {
        way.push(Step::Key(key.clone()));
        walk_value(value, way, found);
        way.pop();
    }
}

struct Walk<'a> {
    schemas: &'a Map<String, Value>,
    /// The schemas on the way here, so that none is entered again within itself.
    open: Vec<String>,
    way: Vec<Step>,
    found: Vec<Field>,
}

impl Walk<'_> {
    fn properties(&mut self, schema: &Value) {
        for (key, property) in schema["properties"].as_object().into_iter().flatten() {
            self.step(Step::Key(key.clone()), property);
        }
    }

    fn step(&mut self, step: Step, schema: &Value) {
        self.way.push(step);
        if self.way.len() <= MAX_DEPTH {
            self.schema(schema);
        }
        self.way.pop();
    }

    fn schema(&mut self, schema: &Value) {
        let reference = schema.get("$ref").or_else(|| schema["allOf"].get(0)?.get("$ref")).and_then(Value::as_str);
        let Some(name) = reference.and_then(|r| r.rsplit('/').next()) else { return self.inline(schema) };
        if self.open.iter().any(|open| open == name) {
            return;
        }
        self.open.push(name.to_owned());
        self.inline(&self.schemas[name]);
        self.open.pop();
    }

    fn inline(&mut self, schema: &Value) {
        let of = type_of(schema);
        self.found.push(Field { way: self.way.clone(), of });
        match of {
            Type::Object => self.properties(schema),
            Type::Map => self.step(Step::Key("a".into()), &schema["additionalProperties"]),
            Type::List => self.step(Step::First, &schema["items"]),
            _ => {}
        }
    }
}

fn type_of(schema: &Value) -> Type {
    if schema["x-kubernetes-int-or-string"] == true {
        return Type::Either;
    }
    match (schema["type"].as_str().unwrap_or(""), schema["format"].as_str().unwrap_or("")) {
        ("string", "byte") => Type::Bytes,
        ("string", "date-time") => Type::Time,
        ("string", _) => Type::Text,
        ("integer" | "number", _) => Type::Integer,
        ("boolean", _) => Type::Boolean,
        ("array", _) => Type::List,
        ("object", _) if schema["properties"].is_object() => Type::Object,
        ("object", _) if schema["additionalProperties"].is_object() => Type::Map,
        _ => Type::Anything,
    }
}
