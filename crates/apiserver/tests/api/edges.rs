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
