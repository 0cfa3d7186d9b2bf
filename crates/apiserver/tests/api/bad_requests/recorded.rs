//! What users get wrong most, and what Kubernetes says to it, word by word: what kubectl prints is made of this.

use serde_json::{Value, json};

use super::ask;
use super::request::{APPLY, Bad, JSON_PATCH, MERGE};
use crate::common::*;

/// What is asked, and code, reason, message and causes (reason, field) of the answer.
struct Recorded {
    bad: Bad,
    code: u16,
    reason: &'static str,
    message: &'static str,
    causes: &'static [(&'static str, &'static str)],
}

fn recorded(
    bad: Bad,
    (code, reason): (u16, &'static str),
    message: &'static str,
    causes: &'static [(&'static str, &'static str)],
) -> Recorded {
    Recorded { bad, code, reason, message, causes }
}

const BAD_REQUEST: (u16, &str) = (400, "BadRequest");
const NOT_FOUND: (u16, &str) = (404, "NotFound");
const INVALID: (u16, &str) = (422, "Invalid");
const REPLICATION_CONTROLLERS: &str = "/api/v1/namespaces/default/replicationcontrollers";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";

fn post(path: &str, body: &Value) -> Bad {
    Bad::new("POST", path, "").body(body.to_string())
}

fn patch(path: &str, media_type: &str, body: &str) -> Bad {
    Bad::new("PATCH", path, "").header("content-type", media_type).body(body)
}

/// A pod called `p`, changed.
fn a_pod(change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = pod("p", "");
    change(&mut pod);
    pod
}

fn about_bodies() -> Vec<Recorded> {
    let strict = format!("{PODS}?fieldValidation=Strict");
    vec![
        recorded(
            Bad::new("POST", CONFIG_MAPS, ""),
            BAD_REQUEST,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
            &[],
        ),
        recorded(
            Bad::new("POST", CONFIG_MAPS, "").body("{\"kind\":"),
            BAD_REQUEST,
            "the object provided is unrecognized (must be of type ConfigMap): couldn't get version/kind; json parse error: unexpected end of JSON input ({\"kind\":)",
            &[],
        ),
        recorded(
            post(&strict, &a_pod(|p| p["spec"]["foo"] = json!(1))),
            BAD_REQUEST,
            r#"Pod in version "v1" cannot be handled as a Pod: strict decoding error: unknown field "spec.foo""#,
            &[],
        ),
        recorded(
            post(PODS, &a_pod(|p| p["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "much"}}))),
            BAD_REQUEST,
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            &[],
        ),
        recorded(
            post(PODS, &a_pod(|p| p["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "1Kib"}}))),
            BAD_REQUEST,
            "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
            &[],
        ),
        recorded(
            post(PODS, &a_pod(|p| p["spec"]["containers"][0]["resources"] = json!({"limits": {"memory": "1KM"}}))),
            BAD_REQUEST,
            "Pod in version \"v1\" cannot be handled as a Pod: unable to parse quantity's suffix",
            &[],
        ),
        recorded(
            post(CONFIG_MAPS, &json!({"apiVersion": "apps/v1", "kind": "ConfigMap"})),
            BAD_REQUEST,
            r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "apps/v1" in scheme "pkg/api/legacyscheme/scheme.go:30""#,
            &[],
        ),
        recorded(
            post(CONFIG_MAPS, &json!({"metadata": {"name": "a", "namespace": "b"}})),
            BAD_REQUEST,
            "the namespace of the provided object does not match the namespace sent on the request",
            &[],
        ),
        recorded(
            Bad::new("POST", CONFIG_MAPS, "").header("content-type", "text/html"),
            (415, "UnsupportedMediaType"),
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf",
            &[],
        ),
        recorded(
            Bad::new("PUT", format!("{CONFIG_MAPS}/there"), "").body(config_map("other").to_string()),
            BAD_REQUEST,
            "the name of the object (other) does not match the name on the URL (there)",
            &[],
        ),
    ]
}

fn about_objects() -> Vec<Recorded> {
    vec![
        recorded(
            post(CONFIG_MAPS, &config_map("A_b")),
            INVALID,
            "ConfigMap \"A_b\" is invalid: metadata.name: Invalid value: \"A_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            &[("FieldValueInvalid", "metadata.name")],
        ),
        recorded(
            post(CONFIG_MAPS, &json!({"metadata": {}})),
            INVALID,
            "ConfigMap \"\" is invalid: metadata.name: Required value: name or generateName is required",
            &[("FieldValueRequired", "metadata.name")],
        ),
        recorded(
            post(PODS, &a_pod(|p| p["spec"]["containers"] = json!([]))),
            INVALID,
            "Pod \"p\" is invalid: spec.containers: Required value",
            &[("FieldValueRequired", "spec.containers")],
        ),
        recorded(
            post(PODS, &a_pod(|p| p["spec"]["restartPolicy"] = json!("Sometimes"))),
            INVALID,
            "Pod \"p\" is invalid: spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\"",
            &[("FieldValueNotSupported", "spec.restartPolicy")],
        ),
        recorded(
            post(
                PODS,
                &a_pod(|p| p["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "v", "mountPath": "/v"}])),
            ),
            INVALID,
            "Pod \"p\" is invalid: spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            &[("FieldValueNotFound", "spec.containers[0].volumeMounts[0].name")],
        ),
        recorded(
            post(SERVICES, &json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 0}]}})),
            INVALID,
            "Service \"s\" is invalid: [spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive]",
            &[("FieldValueInvalid", "spec.ports[0].port"), ("FieldValueInvalid", "spec.ports[0].targetPort")],
        ),
        recorded(
            post(
                SERVICES,
                &json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}}),
            ),
            INVALID,
            "Service \"s\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port is not in the valid range. The range of valid ports is 30000-32767",
            &[("FieldValueInvalid", "spec.ports[0].nodePort")],
        ),
        recorded(
            post(REPLICATION_CONTROLLERS, &{
                let mut controller = rc("r");
                controller["spec"]["selector"] = json!({"app": "other"});
                controller
            }),
            INVALID,
            "ReplicationController \"r\" is invalid: spec.template.metadata.labels: Invalid value: {\"app\":\"r\"}: `selector` does not match template `labels`",
            &[("FieldValueInvalid", "spec.template.metadata.labels")],
        ),
        recorded(
            post(SECRETS, &json!({"metadata": {"name": "s"}, "type": "kubernetes.io/tls"})),
            INVALID,
            "Secret \"s\" is invalid: [data[tls.crt]: Required value, data[tls.key]: Required value]",
            &[("FieldValueRequired", "data[tls.crt]"), ("FieldValueRequired", "data[tls.key]")],
        ),
        recorded(
            patch(&format!("{CONFIG_MAPS}/fixed"), MERGE, r#"{"data":{"k":"w"}}"#),
            INVALID,
            "ConfigMap \"fixed\" is invalid: data: Forbidden: field is immutable when `immutable` is set",
            &[("FieldValueForbidden", "data")],
        ),
    ]
}

fn about_places() -> Vec<Recorded> {
    let there = format!("{CONFIG_MAPS}/there");
    vec![
        recorded(Bad::new("GET", format!("{PODS}/x"), ""), NOT_FOUND, "pods \"x\" not found", &[]),
        recorded(Bad::new("DELETE", format!("{PODS}/x"), ""), NOT_FOUND, "pods \"x\" not found", &[]),
        recorded(
            Bad::new("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/x", ""),
            NOT_FOUND,
            "clusterroles.rbac.authorization.k8s.io \"x\" not found",
            &[],
        ),
        recorded(
            post("/api/v1/namespaces/nowhere/pods", &pod("p", "")),
            NOT_FOUND,
            "namespaces \"nowhere\" not found",
            &[],
        ),
        recorded(
            Bad::new("GET", "/api/v1/nothings", ""),
            NOT_FOUND,
            "the server could not find the requested resource",
            &[],
        ),
        recorded(
            post(CONFIG_MAPS, &config_map("there")),
            (409, "AlreadyExists"),
            "configmaps \"there\" already exists",
            &[],
        ),
        recorded(
            Bad::new("PUT", &there, "")
                .body(json!({"metadata": {"name": "there", "resourceVersion": "1"}}).to_string()),
            (409, "Conflict"),
            "Operation cannot be fulfilled on configmaps \"there\": the object has been modified; please apply your changes to the latest version and try again",
            &[],
        ),
        recorded(
            Bad::new("TRACE", &there, ""),
            (405, "MethodNotAllowed"),
            "the server does not allow this method on the requested resource",
            &[],
        ),
        recorded(
            Bad::new("GET", format!("{PODS}?labelSelector=a%20b%20c"), ""),
            BAD_REQUEST,
            "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt",
            &[],
        ),
        recorded(
            Bad::new("GET", format!("{PODS}?fieldSelector=spec.image%3Da"), ""),
            BAD_REQUEST,
            "field label not supported: spec.image",
            &[],
        ),
        recorded(
            Bad::new("GET", format!("{CONFIG_MAPS}?fieldSelector=data%3Da"), ""),
            BAD_REQUEST,
            "\"data\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            &[],
        ),
        recorded(
            Bad::new("GET", format!("{CONFIG_MAPS}?limit=many"), ""),
            BAD_REQUEST,
            "strconv.ParseInt: parsing \"many\": invalid syntax",
            &[],
        ),
        recorded(
            Bad::new("DELETE", format!("{there}?propagationPolicy=Sometimes"), ""),
            INVALID,
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Sometimes\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
            &[("FieldValueNotSupported", "propagationPolicy")],
        ),
    ]
}

fn about_patches() -> Vec<Recorded> {
    let there = format!("{CONFIG_MAPS}/there");
    vec![
        recorded(
            patch(&there, JSON_PATCH, r#"[{"op":"test","path":"/data/k","value":"w"}]"#),
            INVALID,
            "the server rejected our request due to an error in our request",
            &[],
        ),
        recorded(
            patch(&there, "application/json", "{}"),
            (415, "UnsupportedMediaType"),
            "415: Unsupported Media Type",
            &[],
        ),
        recorded(
            patch(&there, APPLY, "apiVersion: v1\nkind: ConfigMap\n"),
            INVALID,
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            &[("FieldValueRequired", "fieldManager")],
        ),
    ]
}

#[tokio::test]
async fn common_mistakes_are_answered_in_upstreams_words() {
    let server = Server::start().await;
    server.config_map("there").await;
    server.create(CONFIG_MAPS, &json!({"metadata": {"name": "fixed"}, "immutable": true, "data": {"k": "v"}})).await;
    let all = [about_bodies(), about_objects(), about_places(), about_patches()].into_iter().flatten();
    let mut differences = Vec::new();
    for Recorded { bad, code, reason, message, causes } in all {
        let answer = ask(&server, &bad).await;
        let status = answer.json();
        let told = status["details"]["causes"].as_array().cloned().unwrap_or_default();
        let told: Vec<_> =
            told.iter().map(|c| (c["reason"].as_str().unwrap_or(""), c["field"].as_str().unwrap_or(""))).collect();
        if (answer.code, status["reason"].as_str(), status["message"].as_str()) != (code, Some(reason), Some(message))
            || told != causes
        {
            differences.push(format!(
                "{} {}: wanted {code} {reason} {message:?} {causes:?}\n  got {}",
                bad.method, bad.path, answer.text
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn a_patch_that_leaves_no_object_is_to_blame() {
    let server = Server::start().await;
    server.config_map("there").await;
    let there = format!("{CONFIG_MAPS}/there");
    for (media_type, body) in [(MERGE, r#"{"data":7}"#), (JSON_PATCH, r#"[{"op":"replace","path":"/data","value":7}]"#)]
    {
        let answer = ask(&server, &patch(&there, media_type, body)).await;
        let status = answer.json();
        assert_eq!((answer.code, &status["reason"]), (422, &json!("Invalid")), "{}", answer.text);
        assert!(
            answer.message().starts_with(" \"\" is invalid: patch: Invalid value: \"{\\\"apiVersion\\\""),
            "{}",
            answer.text
        );
        assert_eq!(status["details"]["causes"][0]["field"], "patch");
        assert!(status["details"].get("kind").is_none() && status["details"].get("name").is_none());
    }
    assert_eq!(server.get(&there).await.json()["data"], json!({"k": "v"}));
    server.create("/api/v1/namespaces/default/resourcequotas", &json!({"metadata": {"name": "q"}})).await;
    let path = "/api/v1/namespaces/default/resourcequotas/q";
    let refused = ask(&server, &patch(path, MERGE, r#"{"spec":{"hard":{"pods":"many"}}}"#)).await;
    assert_eq!((refused.code, refused.json()["details"]["causes"][0]["field"].as_str()), (422, Some("patch")));
    assert!(
        refused
            .message()
            .ends_with(" quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")
    );
}

/// What cannot be read is refused before it is looked at what it is meant for.
#[tokio::test]
async fn an_amount_that_is_none_is_no_object_wherever_it_is_sent() {
    let server = Server::start().await;
    server.create(PODS, &a_pod(|p| p["metadata"]["name"] = json!("there"))).await;
    let much = |name: &str| {
        a_pod(|p| {
            p["metadata"]["name"] = json!(name);
            p["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "much"}});
        })
    };
    let mut stale = much("there");
    stale["metadata"]["resourceVersion"] = json!("1");
    let elsewhere = "/api/v1/namespaces/nowhere/pods";
    let applied = |name: &str| patch(&format!("{PODS}/{name}?fieldManager=me"), APPLY, &much(name).to_string());
    let status = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "there"},
        "status": {"containerStatuses": [{"name": "c", "allocatedResources": {"cpu": "much"}}]}});
    for bad in [
        Bad::new("PUT", format!("{PODS}/nothing"), "").body(much("nothing").to_string()),
        Bad::new("PUT", format!("{PODS}/there"), "").body(stale.to_string()),
        Bad::new("PUT", format!("{PODS}/there/status"), "").body(status.to_string()),
        Bad::new("POST", elsewhere, "").body(much("there").to_string()),
        applied("there"),
        applied("new"),
    ] {
        let answer = ask(&server, &bad).await;
        assert_eq!((answer.code, &answer.json()["reason"]), (400, &json!("BadRequest")), "{}", answer.text);
        let words = "Pod in version \"v1\" cannot be handled as a Pod: quantities must match the regular expression";
        assert!(answer.message().starts_with(words), "{}", answer.text);
    }
}
