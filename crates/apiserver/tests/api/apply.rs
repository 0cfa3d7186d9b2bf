//! Server-side apply and managed fields, asked over the router.

use crate::common::*;
use apiserver::User;
use serde_json::{Value, json};

const APPLY: (&str, &str) = ("content-type", "application/apply-patch+yaml");

async fn apply(server: &Server, path: &str, query: &str, config: &Value) -> Answer {
    server.send("PATCH", &format!("{path}?{query}"), &[APPLY], &config.to_string()).await
}

/// `manager operation subresource` of each entry.
fn managers(object: &Value) -> Vec<String> {
    let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    entries.iter().map(|e| [&e["manager"], &e["operation"], &e["subresource"]].map(text).join(" ")).collect()
}

fn fields<'a>(object: &'a Value, manager: &str) -> &'a Value {
    let entries = object["metadata"]["managedFields"].as_array().unwrap();
    entries.iter().find(|e| e["manager"] == manager).map_or(&Value::Null, |e| &e["fieldsV1"])
}

#[tokio::test]
async fn every_write_is_written_down() {
    let server = Server::start().await;
    let agent = ("user-agent", "kubelet/v1.35 (linux)");
    let created = server.send("POST", &format!("{PODS}?fieldManager=maker"), &[], &pod("a", "n1").to_string()).await;
    let created = created.json();
    assert_eq!(managers(&created), ["maker Update -"]);
    assert_eq!(fields(&created, "maker")["f:spec"]["f:nodeName"], json!({}));
    assert_eq!(fields(&created, "maker")["f:spec"]["f:tolerations"], Value::Null, "admission's are nobody's");
    let path = format!("{PODS}/a");
    let mut status = created.clone();
    status["status"]["message"] = json!("hello");
    let answer = server.send("PUT", &format!("{path}/status"), &[agent], &status.to_string()).await.json();
    let mut names = managers(&answer);
    names.sort();
    assert_eq!(names, ["kubelet Update status", "maker Update -"]);
    assert_eq!(fields(&answer, "kubelet"), &json!({"f:status": {"f:message": {}}}));
    let labels = json!({"metadata": {"labels": {"x": "y"}}});
    let patched = server.patch(&format!("{path}?fieldManager=maker"), &labels).await.json();
    assert_eq!(fields(&patched, "maker")["f:metadata"]["f:labels"]["f:x"], json!({}));
    // Whoever changes nothing is not written down, and neither is when.
    let same = server.patch(&format!("{path}?fieldManager=other"), &labels).await.json();
    assert_eq!(same, patched);
    let read = server.get(&path).await.json();
    assert_eq!(read, patched);
    let list = server.get(PODS).await.json();
    assert_eq!(managers(&list["items"][0]).len(), 2);
}

/// `kubectl apply` of a pod with tolerations says nothing of those that admission added.
#[tokio::test]
async fn what_admission_gives_back_is_no_change() {
    let server = Server::start().await;
    let mut body = pod("a", "n1");
    body["spec"]["tolerations"] = json!([{"key": "x", "operator": "Exists"}]);
    let created = server.create(PODS, &body).await;
    assert_eq!(created["spec"]["tolerations"].as_array().unwrap().len(), 3, "{created}");
    let kubectl = ("content-type", "application/strategic-merge-patch+json");
    let change = json!({"spec": {"tolerations": body["spec"]["tolerations"]}}).to_string();
    let path = format!("{PODS}/a");
    let patched = server.send("PATCH", &path, &[kubectl], &change).await.json();
    assert_eq!(patched["spec"], created["spec"]);
    assert_eq!(patched["metadata"]["generation"], created["metadata"]["generation"]);
    let again = server.send("PATCH", &path, &[kubectl], &change).await.json();
    assert_eq!(again, patched, "nothing is written a second time");
}

#[tokio::test]
async fn applying_creates_updates_and_prunes() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let config = |data: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data});
    let created = apply(&server, &path, "fieldManager=one", &config(json!({"a": "1", "b": "1"}))).await;
    assert_eq!((created.code, managers(&created.json())), (201, vec!["one Apply -".to_owned()]));
    let again = apply(&server, &path, "fieldManager=one", &config(json!({"a": "1", "b": "1"}))).await;
    assert_eq!((again.code, again.json()), (200, created.json()), "nothing has changed, not even a time");
    let conflict = apply(&server, &path, "fieldManager=two", &config(json!({"a": "2"}))).await;
    assert_eq!(conflict.code, 409);
    assert_eq!(conflict.message(), r#"Apply failed with 1 conflict: conflict with "one": .data.a"#);
    let cause = json!([{"reason": "FieldManagerConflict", "message": "conflict with \"one\"", "field": ".data.a"}]);
    assert_eq!((&conflict.json()["details"]["causes"], &conflict.json()["reason"]), (&cause, &json!("Conflict")));
    let dry = apply(&server, &path, "fieldManager=two&force=true&dryRun=All", &config(json!({"a": "2"}))).await;
    assert_eq!(dry.json()["data"], json!({"a": "2", "b": "1"}));
    assert_eq!(server.get(&path).await.json(), created.json());
    let forced = apply(&server, &path, "fieldManager=two&force=true", &config(json!({"a": "2"}))).await;
    assert_eq!(managers(&forced.json()).len(), 2);
    let pruned = apply(&server, &path, "fieldManager=one", &config(json!({}))).await;
    assert_eq!(pruned.json()["data"], json!({"a": "2"}));
    let updated = server.patch(&format!("{path}?fieldManager=edit"), &json!({"data": {"a": "3"}})).await;
    assert_eq!(fields(&updated.json(), "two"), &Value::Null);
    let refused = apply(&server, &path, "fieldManager=two", &config(json!({"a": "2"}))).await;
    assert_eq!(refused.message(), r#"Apply failed with 1 conflict: conflict with "edit" using v1: .data.a"#);
}

#[tokio::test]
async fn an_applied_pod_keeps_what_the_server_gave_it() {
    let server = Server::start().await;
    let path = format!("{PODS}/a");
    let config = json!({
        "apiVersion": "v1", "kind": "Pod",
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
    });
    let created = apply(&server, &path, "fieldManager=one", &config).await;
    assert_eq!(created.code, 201, "{}", created.text);
    let again = apply(&server, &path, "fieldManager=one", &config).await;
    assert_eq!(again.json(), created.json());
    let mut sidecar = config.clone();
    sidecar["spec"]["containers"] = json!([{"name": "c", "image": "j"}]);
    let conflict = apply(&server, &path, "fieldManager=two", &sidecar).await;
    assert_eq!(
        conflict.message(),
        r#"Apply failed with 1 conflict: conflict with "one": .spec.containers[name="c"].image"#
    );
    let forced = apply(&server, &path, "fieldManager=two&force=true", &sidecar).await.json();
    assert_eq!(forced["spec"]["containers"][0]["image"], "j");
    assert_eq!(forced["spec"]["containers"][0]["ports"][0]["containerPort"], 80);
    let status = json!({"apiVersion": "v1", "kind": "Pod", "status": {"message": "m"}});
    let applied = apply(&server, &format!("{path}/status"), "fieldManager=one", &status).await.json();
    assert_eq!(applied["status"]["message"], "m");
    assert!(managers(&applied).contains(&"one Apply status".to_owned()));
    let absent = apply(&server, &format!("{PODS}/none/status"), "fieldManager=one", &status).await;
    assert_eq!(absent.code, 404);
}

#[tokio::test]
async fn services_are_applied_again_without_conflict() {
    let server = Server::start().await;
    let path = format!("{SERVICES}/a");
    let config = json!({
        "apiVersion": "v1", "kind": "Service", "spec": {"selector": {"a": "b"}, "ports": [{"port": 80}]},
    });
    let created = apply(&server, &path, "fieldManager=one", &config).await.json();
    let again = apply(&server, &path, "fieldManager=one", &config).await.json();
    assert_eq!(again, created);
    let mut more = config.clone();
    more["spec"]["ports"] = json!([{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]);
    let more = apply(&server, &path, "fieldManager=one", &more).await.json();
    assert_eq!(more["spec"]["ports"].as_array().unwrap().len(), 2);
    assert_eq!(more["spec"]["clusterIP"], created["spec"]["clusterIP"]);
}

#[tokio::test]
async fn what_is_no_configuration_is_refused() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let good = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let cases = [
        (
            "",
            good.clone(),
            422,
            r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#,
        ),
        ("fieldManager=m", json!({"kind": "ConfigMap"}), 400, "invalid object type: /, Kind=ConfigMap"),
        ("fieldManager=m", json!({"apiVersion": "v1", "kind": "Pod"}), 400, "invalid object type: /v1, Kind=Pod"),
        (
            "fieldManager=m",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "dat": {}, "metadata": {"name": "a"}}),
            400,
            "failed to create typed patch object (/a; /v1, Kind=ConfigMap): .dat: field not declared in schema",
        ),
        (
            "fieldManager=m",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": []}}),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            "fieldManager=m",
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "b"}}),
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
    ];
    for (query, config, code, message) in cases {
        let answer = apply(&server, &path, query, &config).await;
        assert_eq!((answer.code, answer.message().as_str()), (code, message));
    }
    let cbor = ("content-type", "application/apply-patch+cbor");
    assert_eq!(server.send("PATCH", &format!("{path}?fieldManager=m"), &[cbor], "x").await.code, 415);
    let yaml = "apiVersion: v1\nkind: ConfigMap\ndata:\n  a: b\n";
    let answer = server.send("PATCH", &format!("{path}?fieldManager=m"), &[APPLY], yaml).await;
    assert_eq!((answer.code, &answer.json()["data"]["a"]), (201, &json!("b")));
    let broken = server.send("PATCH", &format!("{path}?fieldManager=m"), &[APPLY], "a: [").await;
    assert_eq!(broken.code, 400);
}

#[tokio::test]
async fn clients_may_forget_and_rewrite_managers() {
    let server = Server::start().await;
    server.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    let entry = |manager: &str, operation: &str| {
        json!({
            "manager": manager, "operation": operation, "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:data": {"f:k": {}}},
        })
    };
    // As kubectl moves a field from its client-side to its server-side manager.
    let replace =
        |value: Value| json!([{"op": "replace", "path": "/metadata/managedFields", "value": value}]).to_string();
    let json_patch = ("content-type", "application/json-patch+json");
    let moved = server.send("PATCH", &path, &[json_patch], &replace(json!([entry("kubectl", "Apply")]))).await.json();
    assert_eq!(managers(&moved), ["kubectl Apply -"]);
    // What is no list of managers is not taken.
    let same = server.send("PATCH", &path, &[json_patch], &replace(json!([entry("x", "Other")]))).await.json();
    assert_eq!(managers(&same), ["kubectl Apply -"]);
    let put = server.put(&path, &config_map("a")).await.json();
    assert_eq!(managers(&put), ["kubectl Apply -"], "who does not know of managers does not lose them");
    for list in [json!([]), json!([{}])] {
        let reset = server.patch(&path, &json!({"metadata": {"managedFields": list}})).await.json();
        assert_eq!(reset["metadata"]["managedFields"], Value::Null);
    }
    let untracked = server.patch(&path, &json!({"data": {"z": "z"}})).await.json();
    assert_eq!(untracked["metadata"]["managedFields"], Value::Null);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"y": "y"}});
    let applied = apply(&server, &path, "fieldManager=one", &config).await.json();
    assert_eq!(managers(&applied), ["one Apply -", "before-first-apply Update -"]);
}

#[tokio::test]
async fn scaling_owns_the_replicas() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    server.create(path, &rc("a")).await;
    let patch = json!({"spec": {"replicas": 5}});
    let scaled = server.patch(&format!("{path}/a/scale?fieldManager=scaler"), &patch).await;
    assert_eq!(scaled.code, 200, "{}", scaled.text);
    let read = server.get(&format!("{path}/a")).await.json();
    assert_eq!(fields(&read, "scaler"), &json!({"f:spec": {"f:replicas": {}}}));
    assert!(managers(&read).contains(&"scaler Update scale".to_owned()));
}

#[tokio::test]
async fn a_node_may_not_create_by_applying() {
    let server = Server::start().await;
    let node = User::new("system:node:n1", ["system:nodes"]);
    let config = json!({"apiVersion": "v1", "kind": "ConfigMap"});
    let path = format!("{CONFIG_MAPS}/a?fieldManager=m");
    let answer = server.send_as(node, "PATCH", &path, &[APPLY], &config.to_string()).await;
    assert_eq!(answer.code, 403);
}

#[tokio::test]
async fn appliers_at_once_agree() {
    let server = std::sync::Arc::new(Server::start().await);
    let path = format!("{CONFIG_MAPS}/a");
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let (server, path) = (server.clone(), path.clone());
            tokio::spawn(async move {
                let config = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {format!("k{n}"): "v"}});
                apply(&server, &path, &format!("fieldManager=m{n}"), &config).await.code
            })
        })
        .collect();
    let codes: Vec<u16> = futures::future::join_all(tasks).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(codes.iter().filter(|c| **c == 201).count(), 1, "{codes:?}");
    let read = server.get(&path).await.json();
    assert_eq!(read["data"].as_object().unwrap().len(), 16);
    assert_eq!(managers(&read).len(), 16);
}

#[tokio::test]
async fn a_scale_is_applied_patched_and_owned_like_the_replicas_it_stands_for() {
    let server = Server::start().await;
    let collection = "/api/v1/namespaces/default/replicationcontrollers";
    let path = format!("{collection}/web");
    server.create(&format!("{collection}?fieldManager=maker"), &rc("web")).await;
    let scale =
        |replicas: u32| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": replicas}});
    let sub = format!("{path}/scale");
    let refused = apply(&server, &sub, "fieldManager=hpa", &scale(5)).await;
    assert_eq!(refused.code, 409, "{}", refused.text);
    assert_eq!(
        refused.message(),
        r#"Apply failed with 1 conflict: conflict with "maker" using autoscaling/v1: .spec.replicas"#
    );
    let dry = apply(&server, &sub, "fieldManager=hpa&force=true&dryRun=All", &scale(5)).await;
    assert_eq!((dry.code, &dry.json()["spec"]["replicas"]), (200, &json!(5)));
    assert_eq!(server.get(&path).await.json()["spec"]["replicas"], 2);
    let applied = apply(&server, &sub, "fieldManager=hpa&force=true", &scale(5)).await.json();
    assert_eq!((&applied["kind"], &applied["spec"]["replicas"]), (&json!("Scale"), &json!(5)));
    let parent = server.get(&path).await.json();
    assert!(managers(&parent).contains(&"hpa Apply scale".to_owned()), "{:?}", managers(&parent));
    assert_eq!(fields(&parent, "hpa"), &json!({"f:spec": {"f:replicas": {}}}));
    assert_eq!(fields(&parent, "maker")["f:spec"]["f:replicas"], Value::Null, "taken from its first owner");
    let again = apply(&server, &sub, "fieldManager=hpa", &scale(5)).await.json();
    assert_eq!(again["metadata"]["resourceVersion"], applied["metadata"]["resourceVersion"], "nothing has changed");
    let patches = [
        ("application/merge-patch+json", r#"{"spec":{"replicas":6}}"#, 6),
        ("application/strategic-merge-patch+json", r#"{"spec":{"replicas":7}}"#, 7),
        ("application/json-patch+json", r#"[{"op":"replace","path":"/spec/replicas","value":8}]"#, 8),
    ];
    for (media_type, body, replicas) in patches {
        let sub = format!("{sub}?fieldManager=hand");
        let answer = server.send("PATCH", &sub, &[("content-type", media_type)], body).await;
        assert_eq!((answer.code, &answer.json()["spec"]["replicas"]), (200, &json!(replicas)), "{}", answer.text);
    }
    let parent = server.get(&path).await.json();
    assert!(managers(&parent).contains(&"hand Update scale".to_owned()), "{:?}", managers(&parent));
    assert_eq!(fields(&parent, "hpa"), &Value::Null);
    let cases = [
        (
            json!({"apiVersion": "v1", "kind": "ReplicationController"}),
            400,
            "invalid object type: /v1, Kind=ReplicationController",
        ),
        (
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"size": 1}}),
            400,
            ".spec.size: field not declared in schema",
        ),
        (
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "spec": {"replicas": -1}}),
            422,
            "must be greater than or equal to 0",
        ),
        (
            json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"uid": "x"}, "spec": {"replicas": 1}}),
            409,
            "UID in precondition: x",
        ),
    ];
    for (config, code, message) in cases {
        let answer = apply(&server, &sub, "fieldManager=hpa&force=true", &config).await;
        assert_eq!(answer.code, code, "{}", answer.text);
        assert!(answer.message().contains(message), "{}", answer.text);
    }
    assert_eq!(apply(&server, &format!("{collection}/none/scale"), "fieldManager=hpa", &scale(1)).await.code, 404);
}

#[tokio::test]
async fn an_applied_object_has_the_name_of_its_url_and_no_version_where_there_is_none() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}/a");
    let config = |metadata: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata});
    for _ in 0..2 {
        let unnamed = apply(&server, &path, "fieldManager=m", &config(json!({"name": ""}))).await;
        let message = "the name of the object (a based on URL) was undeterminable: name must be provided";
        assert_eq!((unnamed.code, unnamed.message().as_str()), (400, message));
        let made = apply(&server, &path, "fieldManager=m", &config(json!({"resourceVersion": "5"}))).await;
        assert!(matches!(made.code, 201 | 409), "{}", made.text);
    }
    assert_eq!(server.get(&path).await.code, 200);
}
