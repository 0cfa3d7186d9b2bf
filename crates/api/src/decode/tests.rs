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
        (
            r#"{"apiVersion":"v1","kind":"Pod"}"#,
            r#"Pod in version "v1" cannot be handled as a ConfigMap: converting (v1.Pod) to (core.ConfigMap): unknown conversion"#,
        ),
        (
            r#"{"apiVersion":"a.b/v2","kind":"ConfigMap"}"#,
            r#"ConfigMap in version "v2" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "a.b/v2" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
        (
            r#"{"kind":"Potato"}"#,
            r#"Potato in version "v1" cannot be handled as a ConfigMap: no kind "Potato" is registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
        ),
    ] {
        let error = config_map(text).unwrap_err();
        assert!(matches!(error, DecodeError::Kind { .. }));
        assert_eq!(error.to_string(), message);
    }
    let event = kinds::by_kind("v1", "Event").unwrap();
    let error =
        (event.decode)(br#"{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest"}"#).unwrap_err();
    assert!(
        error.to_string().ends_with("converting (v1.CertificateSigningRequest) to (core.Event): unknown conversion")
    );
    let error = config_map(r#"{"apiVersion":"a/b/c"}"#).unwrap_err();
    assert!(matches!(&error, DecodeError::Syntax(why) if why == "unexpected GroupVersion string: a/b/c"), "{error}");
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
    ] {
        match config_map(text).unwrap_err() {
            DecodeError::Type { path: found, message } => {
                assert_eq!(found, path, "{text}");
                assert!(message.starts_with(r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: "#));
            }
            other => panic!("{text}: {other}"),
        }
    }
}

#[test]
fn wrong_types_are_told_as_go_tells_them() {
    let pod = |container: &str| format!(r#"{{"spec":{{"containers":[{{{container}}}]}}}}"#);
    let cases = [
        (
            "ConfigMap",
            r#"{"metadata":1}"#.to_owned(),
            "number into Go struct field ConfigMap.metadata of type v1.ObjectMeta",
        ),
        ("ConfigMap", r#"{"data":{"c":5}}"#.into(), "number into Go struct field ConfigMap.data of type string"),
        ("ConfigMap", r#"{"data":[]}"#.into(), "array into Go struct field ConfigMap.data of type map[string]string"),
        (
            "ConfigMap",
            r#"{"binaryData":7}"#.into(),
            "number into Go struct field ConfigMap.binaryData of type map[string][]uint8",
        ),
        (
            "ConfigMap",
            r#"{"metadata":{"uid":true}}"#.into(),
            "bool into Go struct field ObjectMeta.metadata.uid of type types.UID",
        ),
        (
            "ConfigMap",
            r#"{"metadata":{"creationTimestamp":1}}"#.into(),
            "number into Go struct field ObjectMeta.metadata.creationTimestamp of type string",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":{}}}"#.into(),
            "object into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            "Pod",
            r#"{"spec":{"containers":["a"]}}"#.into(),
            "string into Go struct field PodSpec.spec.containers of type v1.Container",
        ),
        (
            "Pod",
            pod(r#""env":[{"name":"A","value":1}]"#),
            "number into Go struct field EnvVar.spec.containers.env.value of type string",
        ),
        (
            "Pod",
            pod(r#""ports":[{"containerPort":"80"}]"#),
            "string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            "Pod",
            pod(r#""ports":[{"containerPort":1.5}]"#),
            "number 1.5 into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            "Pod",
            pod(r#""resources":{"limits":1}"#),
            "number into Go struct field ResourceRequirements.spec.containers.resources.limits of type v1.ResourceList",
        ),
        (
            "Pod",
            r#"{"spec":{"activeDeadlineSeconds":"1"}}"#.into(),
            "string into Go struct field PodSpec.spec.activeDeadlineSeconds of type int64",
        ),
    ];
    for (kind, text, expected) in cases {
        let error = (kinds::by_kind("v1", kind).unwrap().decode)(text.as_bytes()).unwrap_err();
        let start = format!("{kind} in version \"v1\" cannot be handled as a {kind}: json: cannot unmarshal ");
        assert_eq!(error.to_string(), format!("{start}{expected}"), "{text}");
    }
    // What only our decoder knows.
    let error = config_map(r#"{"metadata":{"creationTimestamp":"noon"}}"#).unwrap_err().to_string();
    assert!(error.contains("cannot decode field \"metadata.creationTimestamp\""), "{error}");
}

#[test]
fn what_is_no_object_is_told_as_go_tells_it() {
    for (text, expected) in [
        ("[]", "json: cannot unmarshal array into Go value of type struct {"),
        ("7", "json: cannot unmarshal number into Go value of type struct {"),
        (r#"{"kind":1}"#, "json: cannot unmarshal number into Go struct field .kind of type string"),
        ("{} x", "invalid character 'x' after top-level value"),
    ] {
        let DecodeError::Syntax(why) = config_map(text).unwrap_err() else { panic!("{text}") };
        assert!(why.starts_with(&format!("couldn't get version/kind; json parse error: {expected}")), "{why}");
    }
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
