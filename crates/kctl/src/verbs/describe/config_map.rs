//! Config maps: their values as they are.

use serde_json::Value;

use super::text::Text;

pub(super) fn describe(text: &mut Text, config_map: &Value) {
    text.name(config_map);
    text.labels(0, &config_map["metadata"]);
    text.line(0, "");
    text.line(0, "Data\n====");
    for (key, value) in config_map["data"].as_object().into_iter().flatten() {
        text.line(0, &format!("{key}:\n----\n{}\n", value.as_str().unwrap_or("")));
    }
    text.line(0, "\nBinaryData\n====");
    for (key, value) in config_map["binaryData"].as_object().into_iter().flatten() {
        let packed = value.as_str().unwrap_or("").trim_end_matches('=');
        text.line(0, &format!("{key}: {} bytes", packed.len() * 3 / 4));
    }
    text.line(0, "");
}
