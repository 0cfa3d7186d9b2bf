use proptest::prelude::*;
use serde_json::json;

use super::*;

const LIMIT: usize = 1 << 20;

fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    bytes.push(value.to_le_bytes()[0]);
    bytes
}

fn int(number: u8, value: i64) -> Vec<u8> {
    [varint(u64::from(number) << 3), varint(value.cast_unsigned())].concat()
}

fn bytes(number: u8, value: impl AsRef<[u8]>) -> Vec<u8> {
    let value = value.as_ref();
    [varint(u64::from(number) << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn message<const N: usize>(number: u8, fields: [Vec<u8>; N]) -> Vec<u8> {
    bytes(number, fields.concat())
}

fn entry(number: u8, key: &str, value: impl AsRef<[u8]>) -> Vec<u8> {
    message(number, [bytes(1, key), bytes(2, value)])
}

/// Metadata as Go writes it: what is no pointer is there even if it is empty.
fn metadata(name: &str) -> Vec<u8> {
    let empty = [2, 3, 4, 5, 6].map(|number| bytes(number, "")).concat();
    message(1, [bytes(1, name), empty, int(7, 0), bytes(8, "")])
}

fn body<const N: usize>(api_version: &str, kind: &str, fields: [Vec<u8>; N]) -> Vec<u8> {
    let type_meta = message(1, [bytes(1, api_version), bytes(2, kind)]);
    [b"k8s\0".to_vec(), type_meta, bytes(2, fields.concat()), bytes(3, ""), bytes(4, "")].concat()
}

fn read(body: &[u8]) -> Value {
    serde_json::from_slice(&to_json(body, LIMIT).unwrap()).unwrap()
}

fn pod() -> Vec<u8> {
    let limits = entry(1, "cpu", bytes(1, "100m"));
    let probe =
        message(10, [message(1, [message(2, [bytes(1, "/healthz"), message(2, [int(1, 0), int(2, 80)])])]), int(3, 0)]);
    let container = message(2, [bytes(1, "web"), bytes(2, "nginx"), bytes(14, ""), message(8, [limits]), probe]);
    let volume = message(1, [bytes(1, "scratch"), message(2, [message(2, [bytes(1, "")])])]);
    let spec = message(2, [volume, container, bytes(3, ""), int(4, 0), int(11, 0)]);
    body("v1", "Pod", [metadata("web"), spec, message(3, [])])
}

#[test]
fn what_go_writes_is_what_go_would_write_as_json() {
    let meta = |name: &str| json!({"name": name});
    let cases = [
        (
            "a namespace with nothing but a name",
            body("v1", "Namespace", [metadata("shop"), message(2, []), message(3, [bytes(1, "")])]),
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": meta("shop"), "spec": {}, "status": {}}),
        ),
        (
            "a secret: bytes in a map",
            body(
                "v1",
                "Secret",
                [metadata("creds"), entry(2, "key", b"\x00\xff"), entry(4, "plain", "x"), bytes(3, "Opaque")],
            ),
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": meta("creds"), "type": "Opaque",
                "data": {"key": "AP8="}, "stringData": {"plain": "x"}}),
        ),
        (
            "a service: ports that are numbers, and names",
            body(
                "v1",
                "Service",
                [
                    metadata("web"),
                    message(
                        2,
                        [
                            message(
                                1,
                                [
                                    bytes(1, ""),
                                    bytes(2, "TCP"),
                                    int(3, 80),
                                    message(4, [int(1, 0), int(2, 8080), bytes(3, "")]),
                                    int(5, 0),
                                ],
                            ),
                            message(
                                1,
                                [
                                    bytes(1, "b"),
                                    bytes(2, ""),
                                    int(3, 81),
                                    message(4, [int(1, 1), int(2, 0), bytes(3, "http")]),
                                    int(5, 0),
                                ],
                            ),
                            entry(2, "app", "web"),
                            bytes(4, "ClusterIP"),
                        ],
                    ),
                ],
            ),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("web"), "spec": {
                "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": "http"}],
                "selector": {"app": "web"}, "type": "ClusterIP",
            }}),
        ),
        (
            "a pod: embedded messages, quantities, and zeros that say something",
            pod(),
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta("web"), "status": {}, "spec": {
                "volumes": [{"name": "scratch", "emptyDir": {}}],
                "containers": [{"name": "web", "image": "nginx", "resources": {"limits": {"cpu": "100m"}},
                    "livenessProbe": {"httpGet": {"path": "/healthz", "port": 80}}}],
                "terminationGracePeriodSeconds": 0,
            }}),
        ),
        (
            "a token request",
            body(
                "authentication.k8s.io/v1",
                "TokenRequest",
                [metadata(""), message(2, [bytes(1, "vault"), int(4, 1200)]), message(3, [bytes(1, ""), bytes(2, "")])],
            ),
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
                "spec": {"audiences": ["vault"], "expirationSeconds": 1200}, "status": {"token": ""}}),
        ),
        (
            "a question",
            body(
                "authorization.k8s.io/v1",
                "SelfSubjectAccessReview",
                [
                    metadata(""),
                    message(2, [message(1, [bytes(1, "shop"), bytes(2, "get"), bytes(5, "pods")])]),
                    message(3, [int(1, 0), bytes(2, ""), bytes(3, ""), int(4, 0)]),
                ],
            ),
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
                "spec": {"resourceAttributes": {"namespace": "shop", "verb": "get", "resource": "pods"}},
                "status": {"allowed": false}}),
        ),
        (
            "a question about somebody with lists of strings",
            body(
                "authorization.k8s.io/v1",
                "SubjectAccessReview",
                [message(2, [entry(5, "scopes", [bytes(1, "a"), bytes(1, "b")].concat())])],
            ),
            json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {"extra": {"scopes": ["a", "b"]}}}),
        ),
        (
            "times and who manages what",
            body(
                "v1",
                "ConfigMap",
                [message(
                    1,
                    [
                        message(8, [int(1, 1_700_000_000), int(2, 5)]),
                        message(17, [bytes(1, "m"), message(7, [bytes(1, br#"{"f:data":{}}"#)])]),
                    ],
                )],
            ),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"creationTimestamp": "2023-11-14T22:13:20Z",
                "managedFields": [{"manager": "m", "fieldsV1": {"f:data": {}}}]}}),
        ),
        (
            "a lease: microseconds, and a holder who has let go",
            body(
                "coordination.k8s.io/v1",
                "Lease",
                [message(2, [bytes(1, ""), message(4, [int(1, 1_700_000_000), int(2, 1_234_567)]), int(5, 0)])],
            ),
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {
                "holderIdentity": "", "renewTime": "2023-11-14T22:13:20.001234Z", "leaseTransitions": 0}}),
        ),
        (
            "how to delete, in any group",
            body("apps/v1", "DeleteOptions", [int(1, 0), message(2, [bytes(1, "some-uid")]), bytes(4, "Orphan")]),
            json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0,
                "preconditions": {"uid": "some-uid"}, "propagationPolicy": "Orphan"}),
        ),
        (
            "numbers packed and not, below zero",
            body("v1", "Pod", [message(2, [message(14, [bytes(4, [1, 2]), int(4, 3), int(2, -1)])])]),
            json!({"apiVersion": "v1", "kind": "Pod",
                "spec": {"securityContext": {"supplementalGroups": [1, 2, 3], "runAsUser": -1}}}),
        ),
    ];
    for (sentence, body, expected) in cases {
        assert_eq!(read(&body), expected, "{sentence}");
    }
}

#[test]
fn what_comes_twice_is_merged_and_what_is_unknown_is_skipped() {
    let twice = [message(1, [bytes(1, "a"), bytes(3, "x")]), message(1, [bytes(1, "b"), int(100, 7)]), bytes(99, "?")];
    assert_eq!(read(&body("v1", "ConfigMap", twice))["metadata"], json!({"name": "b", "namespace": "x"}));
    let unset = [message(1, [bytes(3, "x"), bytes(3, "")])];
    assert_eq!(read(&body("v1", "ConfigMap", unset))["metadata"], json!({}));
}

#[test]
fn bad_bodies_are_refused() {
    let encoded = [b"k8s\0".to_vec(), message(1, [bytes(1, "v1"), bytes(2, "Pod")]), bytes(3, "gzip")].concat();
    let secret = |field: Vec<u8>| body("v1", "Secret", [field]);
    let cases: [(&str, Vec<u8>, &str); 9] = [
        (
            "JSON",
            b"{}".to_vec(),
            "provided data does not appear to be a protobuf message, expected prefix [107, 56, 115, 0]",
        ),
        ("an empty envelope", b"k8s\0".to_vec(), r#"no kind "" is registered for version """#),
        ("a kind nobody knows", body("v1", "Foo", []), r#"no kind "Foo" is registered for version "v1""#),
        ("something compressed", encoded, r#"the content encoding "gzip" is not supported"#),
        ("a body cut short", pod()[..40].to_vec(), "proto: unexpected EOF"),
        ("a number for a string", secret(int(3, 1)), "proto: cannot decode field core.v1.Secret.type: wrong wireType"),
        (
            "no UTF-8",
            secret(bytes(3, [0xff])),
            "proto: cannot decode field core.v1.Secret.type: string field contains invalid UTF-8",
        ),
        (
            "a time beyond all times",
            secret(message(1, [message(8, [int(1, i64::MAX)])])),
            "proto: cannot decode field meta.v1.ObjectMeta.creationTimestamp: the time is out of range",
        ),
        (
            "no JSON where JSON belongs",
            secret(message(1, [message(17, [message(7, [bytes(1, "{")])])])),
            "proto: cannot decode field meta.v1.ManagedFieldsEntry.fieldsV1: the bytes in it are no JSON",
        ),
    ];
    for (sentence, body, expected) in cases {
        assert_eq!(to_json(&body, LIMIT).unwrap_err().to_string(), expected, "{sentence}");
    }
}

#[test]
fn few_bytes_do_not_become_many() {
    let finalizers = body("v1", "ConfigMap", [bytes(1, bytes(14, "").repeat(1000))]);
    assert!(to_json(&finalizers, LIMIT).is_ok());
    assert_eq!(to_json(&finalizers, 500), Err(ProtobufError::TooLarge(500)));
    let owners = body("v1", "ConfigMap", [bytes(1, bytes(13, int(6, 1)).repeat(1000))]);
    assert_eq!(to_json(&owners, 10_000), Err(ProtobufError::TooLarge(10_000)));
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(kind in "Pod|Service|ConfigMap", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = to_json(&bytes, LIMIT);
        let _ = to_json(&body("v1", &kind, [bytes]), LIMIT);
    }

    #[test]
    fn an_object_cut_short_or_changed_is_read_or_refused(at in 0..1000_usize, byte in any::<u8>()) {
        let mut pod = pod();
        let at = at % pod.len();
        let _ = to_json(&pod[..at], LIMIT);
        pod[at] = byte;
        let _ = to_json(&pod, LIMIT);
    }
}
