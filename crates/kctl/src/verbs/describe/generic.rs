//! Every other kind: its metadata, then its fields by name.

use serde_json::Value;

use super::text::{Text, date};
use crate::object::{api_version, kind, text as at};

/// Objects nest no deeper where people look at them.
const DEPTH_MAX: usize = 12;

pub(super) fn describe(text: &mut Text, object: &Value) {
    text.name(object);
    text.labels(0, &object["metadata"]);
    text.field(0, "API Version", api_version(object));
    text.field(0, "Kind", kind(object));
    text.field(0, "Created", date(at(object, &["metadata", "creationTimestamp"])));
    let secret = kind(object) == "Secret";
    let own = |key: &str| !matches!(key, "apiVersion" | "kind" | "metadata");
    for (key, value) in object.as_object().into_iter().flatten().filter(|(key, _)| own(key)) {
        if secret && key == "data" {
            sizes(text, value);
        } else {
            field(text, 0, key, value);
        }
    }
}

/// Secrets are not for reading over a shoulder: only how long each value is.
fn sizes(text: &mut Text, data: &Value) {
    text.line(0, "Data:");
    for (key, value) in data.as_object().into_iter().flatten() {
        let packed = value.as_str().unwrap_or("").trim_end_matches('=');
        text.field(1, key, format!("{} bytes", packed.len() * 3 / 4));
    }
}

fn field(text: &mut Text, level: usize, key: &str, value: &Value) {
    let title = title(key);
    match value {
        _ if level > DEPTH_MAX => text.field(level, &title, "..."),
        Value::Object(fields) => {
            text.line(level, &format!("{title}:"));
            for (key, value) in fields {
                field(text, level + 1, key, value);
            }
        }
        Value::Array(items) => {
            text.line(level, &format!("{title}:"));
            for item in items {
                match item {
                    Value::Object(fields) => fields.iter().for_each(|(key, value)| field(text, level + 1, key, value)),
                    other => text.line(level + 1, &plain(other)),
                }
            }
        }
        other => text.field(level, &title, plain(other)),
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned).replace('\n', " ")
}

/// `holderIdentity` → `Holder Identity`. Keys that are no field names (`app.conf`) stay as they are.
fn title(key: &str) -> String {
    if !key.chars().all(|c| c.is_ascii_alphanumeric()) {
        return key.to_owned();
    }
    let mut title = String::new();
    for (i, c) in key.chars().enumerate() {
        if i == 0 {
            title.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() && title.ends_with(|p: char| p.is_lowercase()) {
                title.push(' ');
            }
            title.push(c);
        }
    }
    title
}
