//! Secret: data that pods read and others should not.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::config_map::data_key;
use super::rules;
use crate::Resource;
use crate::field::{ErrorList, Path, forbidden, invalid, required, too_long};
use crate::kinds::{AGE, KindInfo, NAME, Scope, Verb, column};
use crate::names::NameRule;
use crate::well_known::{ANNOTATION_SERVICE_ACCOUNT_NAME, SECRET_SERVICE_ACCOUNT_TOKEN};

/// Shown instead of a value in errors.
const SHADOW: &str = "<secret contents redacted>";

impl Resource for Secret {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[],
        columns: &[
            NAME,
            column("Type", "string", "Who reads the data and which keys it must have"),
            column("Data", "string", "Number of entries"),
            AGE,
        ],
        selectable_fields: &["type"],
        name_rule: NameRule::Dns1123Subdomain,
    };

    /// `stringData` is a way to write `data`, never to read it.
    fn set_defaults(&mut self) {
        for (key, text) in self.string_data.take().into_iter().flatten() {
            self.data.get_or_insert_default().insert(key, ByteString(text.into_bytes()));
        }
        if self.type_.as_deref().unwrap_or("").is_empty() {
            self.type_ = Some("Opaque".to_owned());
        }
    }

    fn validate(&self, errors: &mut ErrorList) {
        let data = Path::new("data");
        for key in self.data.iter().flatten().map(|(key, _)| key) {
            data_key(key, &data, errors);
        }
        if self.data.iter().flatten().map(|(_, value)| value.0.len()).sum::<usize>() > rules::MAX_DATA_SIZE {
            errors.push(too_long(&data, rules::MAX_DATA_SIZE));
        }
        required_keys(self, &data, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        crate::metadata::immutable(&Path::new("type"), &self.type_, &old.type_, errors);
        if old.immutable != Some(true) {
            return;
        }
        for (is_same, field) in [(self.immutable == old.immutable, "immutable"), (self.data == old.data, "data")] {
            if !is_same {
                errors.push(forbidden(&Path::new(field), "field is immutable when `immutable` is set"));
            }
        }
    }

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        vec![self.type_.as_deref().unwrap_or("").into()]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let entries = self.data.as_ref().map_or(0, |d| d.len());
        vec![json!(self.metadata.name), json!(self.type_), json!(entries), crate::printing::age(&self.metadata, now)]
    }
}

/// The keys that readers of a type rely on.
fn required_keys(secret: &Secret, path: &Path, errors: &mut ErrorList) {
    let value = |key: &str| secret.data.as_ref().and_then(|d| d.get(key)).map(|v| v.0.as_slice());
    let need = |key: &str, errors: &mut ErrorList| {
        if value(key).is_none() {
            errors.push(required(&path.key(key), ""));
        }
    };
    // So upstream writes it, who meant to put the name there.
    let odd = Path::new("data[%s]");
    match secret.type_.as_deref().unwrap_or("") {
        SECRET_SERVICE_ACCOUNT_TOKEN => {
            let annotations = secret.metadata.annotations.as_ref();
            if annotations.and_then(|a| a.get(ANNOTATION_SERVICE_ACCOUNT_NAME)).is_none_or(String::is_empty) {
                let path = Path::new("metadata").child("annotations").key(ANNOTATION_SERVICE_ACCOUNT_NAME);
                errors.push(required(&path, ""));
            }
        }
        "kubernetes.io/dockercfg" => {
            need(".dockercfg", errors);
            is_json(value(".dockercfg"), &path.key(".dockercfg"), errors);
        }
        "kubernetes.io/dockerconfigjson" => {
            need(".dockerconfigjson", errors);
            is_json(value(".dockerconfigjson"), &path.key(".dockerconfigjson"), errors);
        }
        "kubernetes.io/basic-auth" if value("username").is_none() && value("password").is_none() => {
            errors.extend(["username", "password"].map(|key| required(&odd.key(key), "")));
        }
        "kubernetes.io/ssh-auth" if value("ssh-privatekey").is_none_or(<[u8]>::is_empty) => {
            errors.push(required(&odd.key("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            need("tls.crt", errors);
            need("tls.key", errors);
        }
        _ => {}
    }
}

/// An object or nothing; the words are those of Go's decoder, which reads into a map.
fn is_json(value: Option<&[u8]>, path: &Path, errors: &mut ErrorList) {
    let Some(bytes) = value else { return };
    let into = "into Go value of type map[string]interface {}";
    let problem = match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(_) | Value::Null) => return,
        Ok(Value::Array(_)) => format!("json: cannot unmarshal array {into}"),
        Ok(Value::String(_)) => format!("json: cannot unmarshal string {into}"),
        Ok(Value::Bool(_)) => format!("json: cannot unmarshal bool {into}"),
        Ok(Value::Number(_)) => format!("json: cannot unmarshal number {into}"),
        Err(error) if error.is_eof() => "unexpected end of JSON input".to_owned(),
        Err(error) => error.to_string(),
    };
    errors.push(invalid(path, SHADOW, &problem));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn secret(secret_type: &str, data: &[(&str, &str)]) -> Secret {
        let data = data.iter().map(|(k, v)| ((*k).to_owned(), ByteString(v.as_bytes().to_vec()))).collect();
        Secret { type_: Some(secret_type.into()), data: Some(data), ..Secret::default() }
    }

    fn errors(secret: &Secret) -> Vec<String> {
        Object::validate(secret).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn types_have_the_keys_their_readers_need() {
        let table: [(&str, Secret, &[&str]); 6] = [
            ("opaque needs nothing", secret("Opaque", &[]), &[]),
            (
                "tls needs both halves",
                secret("kubernetes.io/tls", &[("tls.crt", "x")]),
                &["data[tls.key]: Required value"],
            ),
            ("either is enough", secret("kubernetes.io/basic-auth", &[("username", "me")]), &[]),
            ("a key", secret("kubernetes.io/ssh-auth", &[]), &["data[%s][ssh-privatekey]: Required value"]),
            (
                "credentials are JSON, and never shown",
                secret("kubernetes.io/dockerconfigjson", &[(".dockerconfigjson", "hunter2")]),
                &[
                    r#"data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": expected value at line 1 column 1"#,
                ],
            ),
            (
                "a token belongs to someone",
                secret("kubernetes.io/service-account-token", &[]),
                &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
        ];
        for (sentence, secret, expected) in table {
            assert_eq!(errors(&secret), expected, "{sentence}");
        }
    }

    #[test]
    fn string_data_becomes_data() {
        let string_data = [("a".to_owned(), "new".to_owned())].into();
        let mut secret = Secret { string_data: Some(string_data), ..secret("", &[("a", "old"), ("b", "kept")]) };
        Object::set_defaults(&mut secret);
        assert_eq!(secret, self::secret("Opaque", &[("a", "new"), ("b", "kept")]));
    }

    #[test]
    fn type_never_changes() {
        let errors = Object::validate_update(&secret("a/b", &[]), &secret("Opaque", &[]));
        assert_eq!(errors[0].to_string(), r#"type: Invalid value: "a/b": field is immutable"#);
    }
}
