//! The verbs on one object.

use crate::common::*;
use serde_json::{Value, json};

#[tokio::test]
async fn an_object_is_created_read_changed_and_deleted() {
    let server = Server::start().await;
    let created = server.config_map("a").await;
    assert!(created["metadata"]["uid"].is_string() && created["metadata"]["creationTimestamp"].is_string());
    assert_eq!(created["metadata"]["namespace"], "default");
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(server.get(&path).await.json(), created);
    let patched = server.patch(&path, &json!({"data": {"k": null, "x": "y"}})).await;
    assert_eq!((patched.code, &patched.json()["data"]), (200, &json!({"x": "y"})));
    assert!(revision(&patched.json()) > revision(&created));
    let same = server.patch(&path, &json!({"data": {"x": "y"}})).await;
    assert_eq!(revision(&same.json()), revision(&patched.json()), "a write that changes nothing writes nothing");
    let deleted = server.delete(&path).await;
    assert_eq!((deleted.code, &deleted.json()["status"]), (200, &json!("Success")));
    assert_eq!(deleted.json()["details"]["name"], "a");
    assert_eq!(server.get(&path).await.message(), r#"configmaps "a" not found"#);
}

#[tokio::test]
async fn a_write_is_seen_by_every_read_after_it() {
    let server = Server::start().await;
    for i in 0..200 {
        let created = server.config_map(&format!("a{i}")).await;
        let list = server.get(CONFIG_MAPS).await.json();
        assert_eq!(list["items"].as_array().unwrap().len(), i + 1);
        assert!(revision(&list) >= revision(&created));
    }
}

/// sentence, method, path, headers, body, code, part of the message
type Refusal = (&'static str, &'static str, String, Vec<(&'static str, &'static str)>, String, u16, &'static str);

#[tokio::test]
async fn bad_requests_are_refused_in_upstream_words() {
    let server = Server::start().await;
    server.config_map("a").await;
    let a = format!("{CONFIG_MAPS}/a");
    let missing = "/api/v1/namespaces/nowhere/configmaps".to_owned();
    let with = |change: fn(&mut Value)| {
        let mut object = config_map("a");
        change(&mut object);
        object.to_string()
    };
    let plain = || config_map("a").to_string();
    let list = CONFIG_MAPS.to_owned();
    let strict = format!("{CONFIG_MAPS}?fieldValidation=Strict");
    let cases: Vec<Refusal> = vec![
        ("a name that is taken", "POST", list.clone(), vec![], plain(), 409, r#"configmaps "a" already exists"#),
        ("a missing namespace", "POST", missing, vec![], plain(), 404, r#"namespaces "nowhere" not found"#),
        ("no JSON", "POST", list.clone(), vec![], "{".into(), 400, "(must be of type ConfigMap)"),
        ("nothing", "POST", list.clone(), vec![], "".into(), 400, "empty"),
        ("a wrong kind", "POST", list.clone(), vec![], pod("a", "").to_string(), 400, ""),
        ("a wrong type", "POST", list.clone(), vec![], with(|o| o["data"] = json!([1])), 400, "data"),
        (
            "a bad name",
            "POST",
            list.clone(),
            vec![],
            config_map("A_b").to_string(),
            422,
            "metadata.name: Invalid value",
        ),
        ("no name", "POST", list.clone(), vec![], config_map("").to_string(), 422, "name or generateName is required"),
        (
            "a bad label",
            "POST",
            list.clone(),
            vec![],
            with(|o| o["metadata"]["labels"] = json!({"a b": "c"})),
            422,
            "metadata.labels: Invalid value",
        ),
        (
            "an unknown field, strictly",
            "POST",
            strict,
            vec![],
            with(|o| o["foo"] = json!(1)),
            400,
            r#"strict decoding error: unknown field "foo""#,
        ),
        (
            "another namespace",
            "POST",
            list.clone(),
            vec![],
            with(|o| o["metadata"]["namespace"] = json!("b")),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            "a resourceVersion at creation",
            "POST",
            list.clone(),
            vec![],
            with(|o| o["metadata"]["resourceVersion"] = json!("1")),
            400,
            "resourceVersion should not be set on objects to be created",
        ),
        (
            "a stale resourceVersion",
            "PUT",
            a.clone(),
            vec![],
            with(|o| o["metadata"]["resourceVersion"] = json!("1")),
            409,
            r#"Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#,
        ),
        (
            "another uid",
            "PUT",
            a.clone(),
            vec![],
            with(|o| o["metadata"]["uid"] = json!("x")),
            409,
            "UID in precondition: x",
        ),
        (
            "another name",
            "PUT",
            a.clone(),
            vec![],
            config_map("b").to_string(),
            400,
            "the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            "an update of nothing",
            "PUT",
            format!("{CONFIG_MAPS}/b"),
            vec![],
            config_map("b").to_string(),
            404,
            "not found",
        ),
        (
            "JSON that is said to be protobuf",
            "POST",
            list.clone(),
            vec![("content-type", "application/vnd.kubernetes.protobuf")],
            plain(),
            400,
            "provided data does not appear to be a protobuf message",
        ),
        (
            "a patch in protobuf",
            "PATCH",
            a.clone(),
            vec![("content-type", "application/vnd.kubernetes.protobuf")],
            plain(),
            415,
            "",
        ),
        ("CBOR", "POST", list.clone(), vec![("content-type", "application/cbor")], plain(), 415, ""),
        (
            "half an object in protobuf",
            "POST",
            list.clone(),
            vec![("content-type", "application/vnd.kubernetes.protobuf")],
            "k8s\0\n\x0f\n\x02v1".into(),
            400,
            "proto: unexpected EOF",
        ),
        (
            "only protobuf back",
            "GET",
            a.clone(),
            vec![("accept", "application/vnd.kubernetes.protobuf")],
            "".into(),
            406,
            "",
        ),
        ("a plain PATCH", "PATCH", a.clone(), vec![("content-type", "application/json")], "{}".into(), 415, ""),
        (
            "a patch that does not fit",
            "PATCH",
            a.clone(),
            vec![("content-type", "application/json-patch+json")],
            r#"[{"op":"remove","path":"/nothing"}]"#.into(),
            422,
            "the server rejected our request due to an error in our request",
        ),
        ("too much", "POST", list.clone(), vec![], "x".repeat(4 << 20), 413, "Request entity too large"),
        ("a bad selector", "GET", format!("{CONFIG_MAPS}?labelSelector=a%20b%20c"), vec![], "".into(), 400, "parse"),
        (
            "an unknown field selector",
            "GET",
            format!("{CONFIG_MAPS}?fieldSelector=a%3Db"),
            vec![],
            "".into(),
            400,
            "\"a\" is not a known field selector",
        ),
        ("a bad dryRun", "POST", format!("{CONFIG_MAPS}?dryRun=x"), vec![], plain(), 422, "dryRun"),
        (
            "an unknown path",
            "GET",
            "/api/v1/nowhere".into(),
            vec![],
            "".into(),
            404,
            "the server could not find the requested resource",
        ),
        (
            "a wrong method",
            "POST",
            a,
            vec![],
            plain(),
            405,
            "the server does not allow this method on the requested resource",
        ),
    ];
    for (sentence, method, path, headers, body, code, message) in cases {
        let answer = server.send(method, &path, &headers, &body).await;
        assert_eq!(answer.code, code, "{sentence}: {}", answer.text);
        let status = answer.json();
        assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(code)), "{sentence}");
        assert!(answer.message().contains(message), "{sentence}: {}", answer.text);
    }
}

#[tokio::test]
async fn unknown_fields_earn_a_warning() {
    let server = Server::start().await;
    let mut object = config_map("a");
    object["foo"] = json!(1);
    let answer = server.post(CONFIG_MAPS, &object).await;
    assert_eq!(answer.code, 201);
    assert_eq!(answer.headers["warning"], r#"299 - "unknown field \"foo\"""#);
}

#[tokio::test]
async fn yaml_is_read_and_written() {
    let server = Server::start().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\ndata:\n  a: b\n";
    let headers = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let answer = server.send("POST", CONFIG_MAPS, &headers, yaml).await;
    assert_eq!((answer.code, &answer.headers["content-type"]), (201, &"application/yaml".parse().unwrap()));
    assert!(answer.text.contains("\ndata:\n  a: b\n"), "{}", answer.text);
}

#[tokio::test]
async fn a_dry_run_leaves_no_trace() {
    let server = Server::start().await;
    server.config_map("a").await;
    let before = server.get("/api/v1/configmaps").await.text;
    let dry = |path: &str| format!("{path}?dryRun=All");
    let a = format!("{CONFIG_MAPS}/a");
    assert_eq!(server.post(&dry(CONFIG_MAPS), &config_map("b")).await.code, 201);
    assert_eq!(server.post(&dry(CONFIG_MAPS), &config_map("a")).await.code, 409);
    assert_eq!(server.patch(&dry(&a), &json!({"data": {"z": "z"}})).await.json()["data"]["z"], "z");
    assert_eq!(server.put(&dry(&a), &config_map("a")).await.code, 200);
    assert_eq!(server.delete(&dry(&a)).await.code, 200);
    assert_eq!(server.delete(&dry(CONFIG_MAPS)).await.code, 200);
    assert_eq!(server.get("/api/v1/configmaps").await.text, before);
}

#[tokio::test]
async fn generated_names_are_unique() {
    let server = Server::start().await;
    let mut object = config_map("");
    object["metadata"] = json!({"generateName": "web-"});
    let mut names = std::collections::HashSet::new();
    for _ in 0..20 {
        let name = server.create(CONFIG_MAPS, &object).await["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(name.starts_with("web-") && name.len() == 9, "{name}");
        assert!(names.insert(name));
    }
}

#[tokio::test]
async fn status_and_spec_are_two_halves() {
    let server = Server::start().await;
    server.create("/api/v1/namespaces/default/replicationcontrollers", &rc("web")).await;
    let path = "/api/v1/namespaces/default/replicationcontrollers/web";
    let both = json!({"spec": {"replicas": 7}, "status": {"replicas": 5}});
    let status = server.patch(&format!("{path}/status"), &both).await.json();
    assert_eq!((&status["spec"]["replicas"], &status["status"]["replicas"]), (&json!(2), &json!(5)));
    assert_eq!(status["metadata"]["generation"], 1);
    let main = server.patch(path, &json!({"spec": {"replicas": 7}, "status": {"replicas": 9}})).await.json();
    assert_eq!((&main["spec"]["replicas"], &main["status"]["replicas"]), (&json!(7), &json!(5)));
    assert_eq!(main["metadata"]["generation"], 2);
}

#[tokio::test]
async fn a_scale_changes_replicas_and_nothing_else() {
    let server = Server::start().await;
    server.create("/api/v1/namespaces/default/replicationcontrollers", &rc("web")).await;
    let path = "/api/v1/namespaces/default/replicationcontrollers/web/scale";
    let scale = server.get(path).await.json();
    assert_eq!((&scale["kind"], &scale["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    let table =
        server.send("GET", path, &[("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")], "").await.json();
    assert_eq!(table["columnDefinitions"][1]["name"], "Desired", "{table}");
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap()[..3], [json!("web"), json!(2), json!(0)]);
    assert_eq!(scale["status"]["selector"], "app=web");
    let patched = server.patch(path, &json!({"spec": {"replicas": 4}})).await;
    assert_eq!((patched.code, &patched.json()["spec"]["replicas"]), (200, &json!(4)), "{}", patched.text);
    let stale = server.put(path, &scale).await;
    assert_eq!(stale.code, 409, "{}", stale.text);
    let negative = server.patch(path, &json!({"spec": {"replicas": -1}})).await;
    assert_eq!(negative.code, 422);
    assert!(negative.message().contains("must be greater than or equal to 0"), "{}", negative.text);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_of_one_object_lose_no_update() {
    let server = Server::start().await;
    server.create(CONFIG_MAPS, &json!({"metadata": {"name": "n"}, "data": {"n": "0"}})).await;
    let path = format!("{CONFIG_MAPS}/n");
    let writer = |_| async {
        let mut done = 0;
        while done < 5 {
            let mut object = server.get(&path).await.json();
            let n: u64 = object["data"]["n"].as_str().unwrap().parse().unwrap();
            object["data"]["n"] = json!((n + 1).to_string());
            match server.put(&path, &object).await.code {
                200 => done += 1,
                409 => {}
                other => panic!("{other}"),
            }
        }
    };
    futures::future::join_all((0..64).map(writer)).await;
    assert_eq!(server.get(&path).await.json()["data"]["n"], (64 * 5).to_string());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patches_without_resource_version_all_succeed() {
    let server = Server::start().await;
    server.config_map("n").await;
    let path = format!("{CONFIG_MAPS}/n");
    let patch = |i: usize| {
        let (server, path) = (&server, &path);
        async move { server.patch(path, &json!({"data": {format!("k{i}"): "v"}})).await.code }
    };
    let codes = futures::future::join_all((0..64).map(patch)).await;
    assert!(codes.iter().all(|c| *c == 200), "{codes:?}");
    assert_eq!(server.get(&path).await.json()["data"].as_object().unwrap().len(), 65);
}
