//! ConfigMap: non-secret data that pods read.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::rules;
use crate::Resource;
use crate::field::{ErrorList, Path, forbidden, invalid, too_long};
use crate::kinds::{AGE, KindInfo, NAME, Scope, Verb, column};
use crate::names::{self, NameRule};

impl Resource for ConfigMap {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[],
        columns: &[NAME, column("Data", "string", "Number of entries"), AGE],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn validate(&self, errors: &mut ErrorList) {
        let mut size = 0;
        for (key, value) in self.data.iter().flatten() {
            data_key(key, &Path::new("data"), errors);
            if self.binary_data.as_ref().is_some_and(|b| b.contains_key(key)) {
                errors.push(invalid(
                    &Path::new("data").key(key),
                    key.as_str(),
                    "duplicate of key present in binaryData",
                ));
            }
            size += value.len();
        }
        for (key, value) in self.binary_data.iter().flatten() {
            data_key(key, &Path::new("binaryData"), errors);
            size += value.0.len();
        }
        if size > rules::MAX_DATA_SIZE {
            errors.push(too_long(&Path::new(""), rules::MAX_DATA_SIZE));
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        if old.immutable != Some(true) {
            return;
        }
        let same = [
            (self.immutable == old.immutable, "immutable"),
            (self.data == old.data, "data"),
            (self.binary_data == old.binary_data, "binaryData"),
        ];
        for (_, field) in same.into_iter().filter(|(is_same, _)| !is_same) {
            errors.push(forbidden(&Path::new(field), "field is immutable when `immutable` is set"));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let entries = self.data.as_ref().map_or(0, |d| d.len()) + self.binary_data.as_ref().map_or(0, |d| d.len());
        vec![json!(self.metadata.name), json!(entries), crate::printing::age(&self.metadata, now)]
    }
}

/// Keys are file names in volumes.
pub(super) fn data_key(key: &str, path: &Path, errors: &mut ErrorList) {
    rules::all(names::is_config_map_key(key), key, &path.key(key), errors);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn with(key: &str, value: &str) -> ConfigMap {
        ConfigMap { data: Some([(key.to_owned(), value.to_owned())].into()), ..ConfigMap::default() }
    }

    #[test]
    fn keys_are_file_names() {
        assert!(Object::validate(&with("a.conf", "x")).is_empty());
        let errors = Object::validate(&with("..", "x"));
        assert!(errors[0].to_string().starts_with(r#"data[..]: Invalid value: "..": "#), "{}", errors[0]);
    }

    #[test]
    fn data_has_a_greatest_size() {
        assert!(Object::validate(&with("a", &"x".repeat(rules::MAX_DATA_SIZE))).is_empty());
        let errors = Object::validate(&with("a", &"x".repeat(rules::MAX_DATA_SIZE + 1)));
        assert_eq!(errors[0].message, "Too long: may not be more than 1048576 bytes");
    }

    #[test]
    fn immutable_map_keeps_its_data() {
        let old = ConfigMap { immutable: Some(true), ..with("a", "1") };
        assert!(Object::validate_update(&old.clone(), &old).is_empty());
        let new = ConfigMap { immutable: Some(true), ..with("a", "2") };
        let errors = Object::validate_update(&new, &old);
        assert_eq!(errors[0].to_string(), "data: Forbidden: field is immutable when `immutable` is set");
    }
}
