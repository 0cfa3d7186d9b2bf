//! Reading objects that stay JSON.

use serde_json::Value;

/// `metadata.name`, empty where there is none.
pub fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or("")
}

/// `metadata.namespace`.
pub fn namespace(object: &Value) -> Option<&str> {
    object["metadata"]["namespace"].as_str().filter(|n| !n.is_empty())
}

/// `apiVersion`, empty where there is none.
pub fn api_version(object: &Value) -> &str {
    object["apiVersion"].as_str().unwrap_or("")
}

/// `kind`, empty where there is none.
pub fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or("")
}

/// Group and version of an `apiVersion`.
pub fn group_version(api_version: &str) -> (&str, &str) {
    api_version.rsplit_once('/').unwrap_or(("", api_version))
}

/// The value at a path of keys.
pub fn at<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(object, |value, key| &value[*key])
}

/// The text at a path of keys, empty where there is none.
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).as_str().unwrap_or("")
}

/// The array at a path of keys, empty where there is none.
pub fn items<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).as_array().map_or(&[], Vec::as_slice)
}

/// A map of strings as sorted pairs.
pub fn pairs(object: &Value) -> Vec<(&str, &str)> {
    let mut pairs: Vec<(&str, &str)> =
        object.as_object().into_iter().flatten().map(|(k, v)| (k.as_str(), v.as_str().unwrap_or(""))).collect();
    pairs.sort_unstable();
    pairs
}

/// `a=b,c=d`, or `<none>` for an empty map.
pub fn joined_pairs(object: &Value) -> String {
    let pairs = pairs(object);
    if pairs.is_empty() {
        return "<none>".to_owned();
    }
    pairs.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(",")
}

/// A list of objects in kubectl's wrapping.
pub fn list(items: Vec<Value>) -> Value {
    serde_json::json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}
