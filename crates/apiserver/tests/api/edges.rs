//! What a kube-apiserver does at the edges of its paths and options, measured beside one.

use serde_json::json;

use crate::common::*;

#[tokio::test]
async fn nothing_is_written_below_watch() {
    let server = Server::start().await;
    server.config_map("a").await;
    for path in ["/api/v1/watch/namespaces/default", "/api/v1/watch/namespaces/default/configmaps"] {
        assert_eq!(server.delete(path).await.code, 405, "{path}");
    }
    assert_eq!(server.post("/api/v1/watch/namespaces/default/configmaps", &config_map("b")).await.code, 405);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, 200);
    assert_eq!(server.get("/api/v1/namespaces/default").await.json()["status"]["phase"], "Active");
}

#[tokio::test]
async fn what_replaces_an_object_says_its_name() {
    let server = Server::start().await;
    server.config_map("a").await;
    server.pod("p", "").await;
    let unnamed = r#"the name of the object (a based on URL) was undeterminable: name must be provided"#;
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(server.put(&path, &json!({})).await.message(), unnamed);
    assert_eq!(server.patch(&path, &json!({"metadata": null})).await.message(), unnamed);
    for (sub, body) in [("eviction", json!({})), ("binding", json!({"target": {"name": "n"}}))] {
        let answer = server.post(&format!("{PODS}/p/{sub}"), &body).await;
        assert_eq!(answer.code, 400, "{}", answer.text);
        assert!(answer.message().starts_with("name in URL does not match name in "), "{}", answer.text);
    }
}

#[tokio::test]
async fn what_is_nowhere_is_no_page_and_what_is_somewhere_a_status() {
    let server = Server::start().await;
    for path in ["/nothing", "/apis/nothing", "/apis/nothing/v1/things", "/healthz/nothing", "/healthz/", "/openapi/v4"]
    {
        let answer = server.get(path).await;
        assert_eq!((answer.code, answer.text.as_str()), (404, "404 page not found\n"), "{path}");
        assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8", "{path}");
    }
    for path in ["/api/v2", "/api/v1/nothings", "/apis/coordination.k8s.io/v2", "/api/v1/bindings", "/api/v1//pods"] {
        let answer = server.get(path).await;
        assert_eq!((answer.code, answer.json()["reason"].as_str()), (404, Some("NotFound")), "{path}");
    }
    for path in ["/api/v1/nodes", "/version", "/api"] {
        assert_eq!(server.send("HEAD", path, &[], "").await.code, 405, "{path}");
    }
    assert_eq!(server.post("/version", &json!({})).await.code, 405);
}

#[tokio::test]
async fn a_deletion_says_what_it_means() {
    let server = Server::start().await;
    let a = server.config_map("a").await;
    let (path, uid) = (format!("{CONFIG_MAPS}/a"), a["metadata"]["uid"].as_str().unwrap());
    let other = format!("the UID in the precondition (x) does not match the UID in record ({uid}). The object might");
    let refused = server.delete(&format!("{path}?uid=x")).await;
    assert_eq!((refused.code, &refused.json()["details"]["kind"]), (409, &json!("ConfigMap")));
    assert!(refused.message().contains(&other), "{}", refused.text);
    assert_eq!(server.delete(&format!("{path}?resourceVersion=1")).await.code, 409);
    assert_eq!(server.delete(&format!("{path}?gracePeriodSeconds=")).await.code, 400);
    let any = json!({"kind": "DeleteOptions", "apiVersion": "coordination.k8s.io/v1", "preconditions": {"uid": uid}})
        .to_string();
    assert_eq!(server.send("DELETE", &path, &[], &any).await.code, 200, "options of whatever group is served");
    server.pod("p", "").await;
    let gone = server.delete(&format!("{PODS}/p")).await.json();
    assert_eq!(gone["metadata"]["deletionGracePeriodSeconds"], 0, "{gone}");
    assert!(gone["metadata"]["deletionTimestamp"].is_string(), "{gone}");
    let mut held = config_map("b");
    held["metadata"]["finalizers"] = json!(["example.com/held"]);
    server.create(CONFIG_MAPS, &held).await;
    let answer = server.delete(&format!("{CONFIG_MAPS}/b?orphanDependents=false")).await;
    assert_eq!(answer.code, 202, "it is still there");
}

#[tokio::test]
async fn what_can_be_no_name_is_not_looked_for() {
    let server = Server::start().await;
    for (name, why) in [(".", "may not be '.'"), ("%2E.", "may not be '..'"), ("a%25b", "may not contain '%'")] {
        for method in ["GET", "DELETE", "PATCH"] {
            let headers = [("content-type", "application/merge-patch+json")];
            let answer = server.send(method, &format!("{CONFIG_MAPS}/{name}"), &headers, "{}").await;
            assert_eq!(answer.code, 400, "{}", answer.text);
            let message = answer.message();
            assert!(message.starts_with("Name parameter invalid: ") && message.ends_with(why), "{message}");
        }
    }
    assert_eq!(server.put(&format!("{CONFIG_MAPS}/."), &config_map(".")).await.code, 400);
    let no_path = server.get(&format!("{CONFIG_MAPS}/a%2Fb")).await;
    assert_eq!((no_path.code, &*no_path.message()), (404, "the server could not find the requested resource"));
}

#[tokio::test]
async fn a_body_of_null_says_nothing() {
    let server = Server::start().await;
    let json = [("content-type", "application/json")];
    let answer = server.send("POST", CONFIG_MAPS, &json, "null").await;
    assert_eq!(answer.code, 422, "{}", answer.text);
    assert!(answer.message().contains("name or generateName is required"), "{}", answer.text);
}

#[tokio::test]
async fn a_dry_run_deletes_nothing_wherever_it_is_asked_for() {
    let server = Server::start().await;
    let json = [("content-type", "application/json")];
    server.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a?dryRun=All");
    assert_eq!(server.delete(&path).await.code, 200);
    assert_eq!(server.send("DELETE", CONFIG_MAPS, &json, r#"{"dryRun": ["All"]}"#).await.code, 200);
    assert_eq!(server.send("DELETE", &path, &json, "{}").await.code, 200);
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, 200, "all were dry runs");
}

#[tokio::test]
async fn what_was_deleted_is_shown_in_the_shape_asked_for() {
    let server = Server::start().await;
    for (shape, code, kind) in [
        ("Table", 200, "Table"),
        ("PartialObjectMetadataList", 200, "PartialObjectMetadataList"),
        ("PartialObjectMetadata", 406, "Status"),
    ] {
        server.config_map("a").await;
        let accept = format!("application/json;as={shape};v=v1;g=meta.k8s.io");
        let answer = server.send("DELETE", CONFIG_MAPS, &[("accept", &*accept)], "").await;
        assert_eq!((answer.code, &answer.json()["kind"]), (code, &json!(kind)), "{}", answer.text);
        assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, 404, "it is gone all the same");
    }
    server.config_map("a").await;
    for (path, first) in [("a", "apiVersion: v1\ndetails:\n"), ("none", "apiVersion: v1\ncode: 404\n")] {
        let answer =
            server.send("DELETE", &format!("{CONFIG_MAPS}/{path}"), &[("accept", "application/yaml")], "").await;
        assert_eq!(answer.headers["content-type"], "application/yaml");
        assert!(answer.text.starts_with(first), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_priority_class_of_the_system_stays() {
    let server = Server::start().await;
    let path = "/apis/scheduling.k8s.io/v1/priorityclasses/system-node-critical";
    for query in ["", "?dryRun=All"] {
        let answer = server.delete(&format!("{path}{query}")).await;
        assert_eq!(answer.code, 403, "{}", answer.text);
        assert!(answer.message().ends_with("this is a system priority class and cannot be deleted"), "{}", answer.text);
    }
    assert_eq!(server.get(path).await.code, 200);
}

#[tokio::test]
async fn a_limit_range_needs_no_name() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/limitranges";
    let made = server.create(path, &json!({"spec": {"limits": []}})).await;
    assert_eq!(made["metadata"]["name"].as_str().map(str::len), Some("11111111-2222-3333-4444-555555555555".len()));
    let made = server.create(path, &json!({"metadata": {"generateName": "a-"}, "spec": {"limits": []}})).await;
    assert!(made["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("a-")), "{made}");
}

#[tokio::test]
async fn discovery_is_told_in_the_form_asked_for_or_not_at_all() {
    let server = Server::start().await;
    for path in ["/api", "/apis", "/api/v1", "/apis/coordination.k8s.io", "/version"] {
        let asked = async |accept: &str| server.send("GET", path, &[("accept", accept)], "").await;
        for unknown in ["text/html", "application/xml", "application/json;as=Table;v=v1;g=meta.k8s.io"] {
            assert_eq!(asked(unknown).await.code, 406, "{path} {unknown}");
        }
        let expected = if path == "/version" { 406 } else { 200 };
        assert_eq!(asked("application/yaml").await.code, expected, "{path}");
        assert_eq!(asked("application/vnd.kubernetes.protobuf,application/json").await.code, 200, "{path}");
    }
    let yaml = server.send("GET", "/api", &[("accept", "application/yaml")], "").await;
    assert!(yaml.text.starts_with("kind: APIVersions\n"), "{}", yaml.text);
}

#[tokio::test]
async fn what_is_no_page_says_so() {
    let server = Server::start().await;
    let joe = || apiserver::User::new("joe", ["dev"]);
    for path in [CONFIG_MAPS, "/metrics"] {
        let answer = server.send_as(joe(), "GET", path, &[], "").await;
        assert_eq!(
            (answer.code, &answer.headers["x-content-type-options"]),
            (403, &"nosniff".parse().unwrap()),
            "{path}"
        );
    }
    for path in ["/healthz", "/readyz?verbose", "/nothing"] {
        assert_eq!(server.get(path).await.headers["x-content-type-options"], "nosniff", "{path}");
    }
    let forbidden = server.delete("/api/v1/namespaces/default").await;
    assert_eq!((forbidden.code, forbidden.headers.get("x-content-type-options")), (403, None), "{}", forbidden.text);
}

#[tokio::test]
async fn options_of_a_log_are_looked_at_before_its_pod() {
    let server = Server::start().await;
    let answer = server.get(&format!("{PODS}/none/log?tailLines=-1")).await;
    assert_eq!(answer.code, 422, "{}", answer.text);
    assert_eq!(server.get(&format!("{PODS}/none/log")).await.code, 404);
}

#[tokio::test]
async fn what_only_the_server_says_of_an_object_is_no_patch() {
    let server = Server::start().await;
    let made = server.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    for (field, value) in [
        ("uid", json!("other")),
        ("deletionTimestamp", json!("2026-01-01T00:00:00Z")),
        ("deletionGracePeriodSeconds", json!(5)),
    ] {
        let answer = server.patch(&path, &json!({"metadata": {field: value}})).await;
        assert_eq!(answer.code, 422, "{}", answer.text);
        assert_eq!(answer.json()["details"]["causes"][0]["field"], format!("metadata.{field}"));
    }
    for (field, value) in [("uid", json!(null)), ("creationTimestamp", json!("2001-01-01T00:00:00Z"))] {
        let answer = server.patch(&path, &json!({"metadata": {field: value}})).await;
        assert_eq!((answer.code, answer.json()), (200, made.clone()), "{field}");
    }
}

#[tokio::test]
async fn no_time_to_wait_is_none_asked_for() {
    let server = Server::start().await;
    let path = format!("{CONFIG_MAPS}?dryRun=All");
    for (timeout, code) in [("0", 201), ("0s", 201), ("1h", 201), ("", 201), ("-1s", 201), ("1", 400), ("x", 400)] {
        let answer = server.post(&format!("{path}&timeout={timeout}"), &config_map("a")).await;
        assert_eq!(answer.code, code, "{timeout}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_scale_of_what_is_not_there_is_told_by_who_looks() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/replicationcontrollers/none/scale";
    let scale = json!({"metadata": {"name": "none"}, "spec": {"replicas": 1}});
    let read = server.get(path).await;
    assert_eq!((read.code, &*read.message()), (404, r#"replicationcontrollers/scale.autoscaling "none" not found"#));
    for answer in [server.put(path, &scale).await, server.patch(path, &scale).await] {
        assert_eq!(answer.code, 404, "{}", answer.text);
        assert_eq!(answer.message(), r#"replicationcontrollers "none" not found"#);
        assert_eq!(answer.json()["details"], json!({"name": "none", "kind": "replicationcontrollers"}));
    }
}

#[tokio::test]
async fn a_cluster_ip_stays_what_it_is() {
    let server = Server::start().await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let made = server.create(SERVICES, &service).await;
    let path = format!("{SERVICES}/s");
    let mine = &made["spec"]["clusterIP"];
    let stays = |value: &str| format!(r#"spec.clusterIPs[0]: Invalid value: ["{value}"]: may not change once set"#);
    for (change, code, words) in [
        (json!({"clusterIP": "10.96.77.77"}), 422, stays("10.96.77.77")),
        (json!({"clusterIP": "10.96.77.77", "clusterIPs": ["10.96.77.77"]}), 422, stays("10.96.77.77")),
        (json!({"clusterIP": "None"}), 422, stays("None")),
        (json!({"clusterIPs": ["10.96.77.77"]}), 422, "first value must match `clusterIP`".to_owned()),
        (json!({"clusterIP": mine, "clusterIPs": [mine]}), 200, String::new()),
        (json!({"clusterIP": null, "clusterIPs": null}), 200, String::new()),
    ] {
        let answer = server.patch(&path, &json!({"spec": change})).await;
        assert!(answer.code == code && answer.text.contains(&words.replace('"', "\\\"")), "{change}: {}", answer.text);
        assert_eq!(server.get(&path).await.json()["spec"]["clusterIPs"], json!([mine]), "{change}");
    }
    let outside = server.patch(&path, &json!({"spec": {"type": "ExternalName", "externalName": "a.b"}})).await;
    assert_eq!((outside.code, &outside.json()["spec"]["clusterIP"]), (200, &json!(null)), "{}", outside.text);
}

#[tokio::test]
async fn a_patch_matters_only_where_there_is_something_to_patch() {
    let server = Server::start().await;
    server.config_map("a").await;
    let types =
        ["application/json-patch+json", "application/merge-patch+json", "application/strategic-merge-patch+json"];
    for media_type in types {
        let patch = |name: &str, body: &str| {
            let (server, path, body) = (&server, format!("{CONFIG_MAPS}/{name}"), body.to_owned());
            async move { server.send("PATCH", &path, &[("content-type", media_type)], &body).await }
        };
        assert_eq!(patch("absent", "{").await.code, 404);
        let cut = patch("a", "{").await;
        assert_eq!((cut.code, cut.message().as_str()), (400, "error decoding patch: unexpected end of JSON input"));
    }
    let wrong = server.patch(&format!("{CONFIG_MAPS}/a"), &json!({"data": 1})).await;
    let why = "json: cannot unmarshal number into Go struct field ConfigMap.data of type map[string]string";
    assert!(wrong.code == 422 && wrong.message().ends_with(&format!(": {why}")), "{}", wrong.text);
}
