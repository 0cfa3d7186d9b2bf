use serde_json::{Value, json};

use super::*;
use crate::kinds;

/// What is encoded of an object, with what is not the object's own taken away.
fn encoded(api_version: &str, kind: &str, object: &Value) -> Value {
    let row = kinds::by_kind(api_version, kind).unwrap();
    let once = (row.decode)(object.to_string().as_bytes()).unwrap().object.encode();
    let again = (row.decode)(&once).unwrap().object.encode();
    assert_eq!(String::from_utf8(once).unwrap(), String::from_utf8(again.clone()).unwrap());
    let mut value: Value = serde_json::from_slice(&again).unwrap();
    value.as_object_mut().unwrap().retain(|name, _| !["apiVersion", "kind", "metadata"].contains(&name.as_str()));
    value
}

#[test]
fn every_line_of_the_table_is_about_fields_there_are() {
    for (message, fields) in table() {
        for field in fields.clone().map(|word| named(word).0) {
            assert!(protobuf::field(message, field).is_some(), "{message}.{field}");
            let known = &MESSAGES[message];
            let is_there = known.always.iter().any(|a| a.name == field) || known.left_out == Some(field);
            assert!(is_there, "{message}.{field}");
        }
        assert!(fields.clone().is_sorted(), "{message}");
    }
    assert!(table().map(|(message, _)| message).is_sorted());
}

#[test]
fn what_go_writes_though_nothing_is_in_it_is_written() {
    let event = json!({"eventTime": null, "firstTimestamp": null, "involvedObject": {}, "lastTimestamp": null,
        "reportingComponent": "", "reportingInstance": "", "source": {}});
    let node_info = json!({"architecture": "", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": "",
        "kubeProxyVersion": "", "kubeletVersion": "", "machineID": "", "operatingSystem": "", "osImage": "",
        "systemUUID": ""});
    let endpoints = json!({"kubeletEndpoint": {"Port": 0}});
    let status = json!({"conditions": [{"type": "Ready", "status": "True", "lastProbeTime": null,
        "lastTransitionTime": null}], "containerStatuses": [{"name": "c", "image": "", "imageID": "", "ready": false,
        "restartCount": 0, "lastState": {}, "state": {"running": {"startedAt": null}}}]});
    let container = json!({"name": "c", "resources": {}});
    let cases = [
        ("v1", "Event", json!({}), event),
        ("v1", "Node", json!({}), json!({"spec": {}, "status": {"daemonEndpoints": endpoints, "nodeInfo": node_info}})),
        (
            "v1",
            "Pod",
            json!({"spec": {"containers": [{"name": "c"}]}, "status": {"conditions": [{"type": "Ready",
                "status": "True"}], "containerStatuses": [{"name": "c", "state": {"running": {}}}]}}),
            json!({"spec": {"containers": [container]}, "status": status}),
        ),
        ("v1", "PodTemplate", json!({}), json!({"template": {"metadata": {}, "spec": {"containers": null}}})),
        ("v1", "LimitRange", json!({"spec": {"limits": []}}), json!({"spec": {"limits": null}})),
        ("v1", "Namespace", json!({}), json!({"spec": {}, "status": {}})),
        ("v1", "Service", json!({"status": null}), json!({"spec": {}, "status": {"loadBalancer": {}}})),
        ("v1", "ConfigMap", json!({"data": {"a": "{"}}), json!({"data": {"a": "{"}})),
        ("rbac.authorization.k8s.io/v1", "Role", json!({}), json!({"rules": null})),
        ("rbac.authorization.k8s.io/v1", "ClusterRole", json!({"rules": []}), json!({"rules": null})),
        ("coordination.k8s.io/v1", "Lease", json!({}), json!({"spec": {}})),
        (
            "discovery.k8s.io/v1",
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"]}]}),
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {}}],
                "ports": null}),
        ),
    ];
    for (api_version, kind, object, expected) in cases {
        assert_eq!(encoded(api_version, kind, &object), expected, "{kind} {object}");
    }
}

#[test]
fn a_reference_without_a_name_has_none() {
    let env = |from: Value| json!({"name": "A", "valueFrom": from});
    let selector = env(json!({"configMapKeyRef": {"key": "k", "name": "", "optional": true}}));
    let field = env(json!({"resourceFieldRef": {"resource": "limits.cpu"}}));
    let pod = json!({"spec": {"containers": [{"name": "c", "env": [selector, field], "envFrom": [{"secretRef": {}}]}],
        "imagePullSecrets": [{}, {"name": ""}, {"name": "s"}],
        "volumes": [{"name": "v", "configMap": {"name": "", "optional": true}}]}});
    let mut expected = pod.clone();
    let container = &mut expected["spec"]["containers"][0];
    container["env"][0] = env(json!({"configMapKeyRef": {"key": "k", "optional": true}}));
    container["env"][1] = env(json!({"resourceFieldRef": {"divisor": "0", "resource": "limits.cpu"}}));
    container["resources"] = json!({});
    expected["spec"]["imagePullSecrets"] = json!([{}, {}, {"name": "s"}]);
    expected["spec"]["volumes"][0]["configMap"] = json!({"optional": true});
    expected["status"] = json!({});
    assert_eq!(encoded("v1", "Pod", &pod), expected);
    let last = br#"{"spec":{"imagePullSecrets":[{"x":1 , "name" : ""}]}}"#;
    let row = kinds::by_kind("v1", "Pod").unwrap();
    let found = complete(row.info, Cow::Borrowed(last));
    let found: Value = serde_json::from_slice(&found).unwrap();
    assert_eq!(found["spec"]["imagePullSecrets"], json!([{"x": 1}]));
}

#[test]
fn what_was_stored_without_is_completed_to_what_is_encoded_now() {
    let row = kinds::by_kind("v1", "Event").unwrap();
    let metadata = row.info.metadata_prefix();
    for (before, after) in [
        (
            r#""name":"x"},"type":"Normal"}"#,
            r#""name":"x"},"eventTime":null,"firstTimestamp":null,"involvedObject":{},"lastTimestamp":null,"reportingComponent":"","reportingInstance":"","source":{},"type":"Normal"}"#,
        ),
        (
            r#""name":"x"}, "count" : 1 }"#,
            r#""name":"x"}, "count" : 1 ,"eventTime":null,"firstTimestamp":null,"involvedObject":{},"lastTimestamp":null,"reportingComponent":"","reportingInstance":"","source":{}}"#,
        ),
    ] {
        let found = complete(row.info, format!("{metadata}{before}").into_bytes().into());
        assert_eq!(std::str::from_utf8(&found).unwrap(), format!("{metadata}{after}"));
        assert!(matches!(complete(row.info, Cow::Borrowed(&found)), Cow::Borrowed(_)), "once is enough");
    }
    for broken in ["", "{", "[", "null", "{\"a\"", "{\"a\":", "{\"a\":1", "{\"source\":{\"a\""] {
        complete(row.info, Cow::Borrowed(broken.as_bytes()));
    }
}
