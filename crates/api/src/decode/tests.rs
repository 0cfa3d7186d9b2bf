use k8s_openapi::api::core::v1::ConfigMap;
use proptest::prelude::*;

use super::*;

fn config_map(text: &str) -> Result<Decoded, DecodeError> {
    decode::<ConfigMap>(text.as_bytes())
}

/// The way into nested lists and objects: metadata has both.
const OWNER: &str =
    r#"{"metadata":{"ownerReferences":[{"name":"a"},{"name":"b","uid":"u","uid":"v","foo":1}]},"foo":{}}"#;

#[test]
fn unknown_and_duplicate_fields_are_named() {
    let decoded = config_map(OWNER).unwrap();
    assert_eq!(
        decoded.strict_errors,
        [
            r#"unknown field "metadata.ownerReferences[1].foo""#,
            r#"unknown field "foo""#,
            r#"duplicate field "metadata.ownerReferences[1].uid""#
        ]
    );
    let many: Vec<String> = (0..20).chain([3]).map(|i| format!(r#""k{i}":"""#)).collect();
    let decoded = config_map(&format!(r#"{{"data":{{{}}}}}"#, many.join(","))).unwrap();
    assert_eq!(decoded.strict_errors, [r#"duplicate field "data.k3""#]);
}

#[test]
fn escaped_duplicates_are_found() {
    assert_eq!(config_map(r#"{"data":{"a":"","\u0061":""}}"#).unwrap().strict_errors, [r#"duplicate field "data.a""#]);
}

#[test]
fn kind_and_version_may_be_absent_but_not_wrong() {
    for text in [
        "{}",
        r#"{"apiVersion":"v1","kind":"ConfigMap"}"#,
        r#"{"apiVersion":"","kind":"ConfigMap"}"#,
        r#"{"apiVersion":null,"kind":null}"#,
    ] {
        let object = config_map(text).unwrap().object;
        assert!(object.encode().starts_with(br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"#), "{text}");
    }
    for (text, message) in [
        (r#"{"apiVersion":"v1","kind":"Pod"}"#, r#"Pod in version "v1" cannot be handled as a ConfigMap"#),
        (
            r#"{"apiVersion":"v2","kind":"ConfigMap"}"#,
            "the API version in the data (v2) does not match the expected API version (v1)",
        ),
    ] {
        let error = config_map(text).unwrap_err();
        assert!(matches!(error, DecodeError::Kind { .. }));
        assert!(error.to_string().contains(message), "{error}");
    }
}

#[test]
fn wrong_types_are_named_with_their_path() {
    for (text, path) in [
        (r#"{"immutable":"yes"}"#, "immutable"),
        (r#"{"data":{"a":"b","c":5}}"#, "data.c"),
        (r#"{"data":[]}"#, "data"),
        (r#"{"metadata":{"ownerReferences":[{"uid":"u"},{"uid":7}]}}"#, "metadata.ownerReferences[1].uid"),
        (r#"{"metadata":{"ownerReferences":[{"uid":"u"},{"uid":{}}]}}"#, "metadata.ownerReferences[1].uid"),
        (r#"{"metadata":{"finalizers":["a", 7 ]}}"#, "metadata.finalizers[1]"),
        ("{\n \"data\": {\n  \"a\": \"x\",\n  \"b\": true\n }\n}", "data.b"),
        (r#"{"metadata":{"creationTimestamp":"noon"}}"#, "metadata.creationTimestamp"),
        (r#"{"binaryData":{"x":"?"}}"#, "binaryData.x"),
        ("[]", ""),
        ("7", ""),
    ] {
        match config_map(text).unwrap_err() {
            DecodeError::Type { path: found, message } => {
                assert_eq!(found, path, "{text}");
                assert!(message.starts_with(r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: "#));
            }
            other => panic!("{text}: {other}"),
        }
    }
    assert_eq!(
        config_map(r#"{"data":{"c":5}}"#).unwrap_err().to_string(),
        r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: cannot decode field "data.c": invalid type: integer `5`, expected a string"#
    );
}

#[test]
fn null_strings_are_empty_strings() {
    let decoded = config_map(r#"{"data":{"a":null,"b":"c","d":null},"metadata":{"labels":null}}"#).unwrap();
    assert_eq!(decoded.object.to_value()["data"], serde_json::json!({"a": "", "b": "c", "d": ""}));
    assert!(decoded.strict_errors.is_empty());
}

#[test]
fn what_is_not_json_is_a_syntax_error() {
    let deep = "[".repeat(200_000);
    for text in ["", "{", "{}x", "{\"a\":}", "kind: Pod", deep.as_str(), "{\"a\":1e999}"] {
        assert!(matches!(config_map(text), Err(DecodeError::Syntax(_))), "{}", &text[..text.len().min(10)]);
    }
}

#[test]
fn any_served_kind_is_decoded_by_its_own_word() {
    let bytes = br#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","namespace":"b"}}"#;
    assert_eq!(decode_any(bytes).unwrap().object.info().kind, "ConfigMap");
    assert_eq!(
        identify(bytes).unwrap(),
        Identity { api_version: "v1".into(), kind: "ConfigMap".into(), name: "a".into(), namespace: "b".into() }
    );
    let unknown = decode_any(br#"{"apiVersion":"v1","kind":"Foo"}"#).unwrap_err();
    assert_eq!(unknown.to_string(), r#"no kind "Foo" is registered for version "v1""#);
}

proptest! {
    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let _ = decode::<ConfigMap>(&bytes);
        for consumed in 0..bytes.len() {
            locate::path(&bytes, consumed);
        }
    }

    #[test]
    fn no_damaged_object_makes_the_decoder_panic(at in 0..OWNER.len(), byte: u8) {
        let mut bytes = OWNER.as_bytes().to_vec();
        bytes[at] = byte;
        let _ = (decode::<ConfigMap>(&bytes), decode_any(&bytes));
    }
}
