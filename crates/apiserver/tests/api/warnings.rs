//! What is done all the same, and said in `Warning` headers.

use serde_json::json;

use crate::common::*;

fn said(answer: &Answer) -> Vec<String> {
    let headers = answer.headers.get_all("warning").iter().map(|value| value.to_str().unwrap());
    headers
        .map(|text| text.strip_prefix("299 - \"").unwrap().strip_suffix('"').unwrap().replace("\\\"", "\""))
        .collect()
}

#[tokio::test]
async fn what_a_template_hardly_means_is_said_when_it_changes() {
    let server = Server::start().await;
    let path = "/api/v1/namespaces/default/replicationcontrollers";
    let mut controller = rc("web");
    controller["spec"]["template"]["spec"]["nodeSelector"] = json!({"beta.kubernetes.io/os": "linux"});
    let os = r#"spec.template.spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead"#;
    let dry = server.post(&format!("{path}?dryRun=All"), &controller).await;
    assert_eq!((dry.code, said(&dry)), (201, vec![os.to_owned()]));
    controller["nonsense"] = json!(1);
    let created = server.post(path, &controller).await;
    assert_eq!(said(&created), [r#"unknown field "nonsense""#, os]);
    let path = format!("{path}/web");
    let labelled = server.patch(&path, &json!({"metadata": {"labels": {"a": "b"}}})).await;
    assert_eq!((labelled.code, said(&labelled)), (200, vec![]));
    let scaled = server.patch(&path, &json!({"spec": {"replicas": 1}})).await;
    assert_eq!((scaled.code, said(&scaled)), (200, vec![os.to_owned()]));
    let counted = server.patch(&format!("{path}/status"), &json!({"status": {"replicas": 1}})).await;
    assert_eq!((counted.code, said(&counted)), (200, vec![]));
}

#[tokio::test]
async fn whoever_uses_a_kind_of_yesterday_is_told() {
    let server = Server::start().await;
    let endpoints = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice";
    let path = "/api/v1/namespaces/default/endpoints";
    for answer in [server.get(path).await, server.get(&format!("{path}/nothing")).await] {
        assert_eq!(said(&answer), [endpoints], "{}", answer.text);
    }
    let body = json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web"}});
    assert_eq!(said(&server.post(path, &body).await), [endpoints]);
    let components = server.get("/api/v1/componentstatuses").await;
    assert_eq!(said(&components), ["v1 ComponentStatus is deprecated in v1.19+"]);
    assert_eq!(said(&server.get(PODS).await), [""; 0]);
    let metrics = server.get("/metrics").await.text;
    let labels = r#"group="",version="v1",resource="endpoints",subresource="",removed_release="""#;
    let line = format!("apiserver_requested_deprecated_apis{{{labels}}} 1\n");
    assert!(metrics.contains(&line), "{metrics}");
}

#[tokio::test]
async fn what_is_refused_is_commented_on_too() {
    let server = Server::start().await;
    server.config_map("a").await;
    let odd = json!({"metadata": {"name": "a", "resourceVersion": "1"}, "foo": 1});
    for (method, path, code) in [
        ("POST", "/api/v1/namespaces/nowhere/configmaps".to_owned(), 404),
        ("PUT", format!("{CONFIG_MAPS}/a"), 409),
        ("PUT", format!("{CONFIG_MAPS}/b"), 400),
    ] {
        let mut odd = odd.clone();
        if method == "POST" {
            odd["metadata"]["resourceVersion"] = json!("");
        }
        let refused = server.send(method, &path, &[], &odd.to_string()).await;
        assert_eq!(refused.code, code, "{}", refused.text);
        assert_eq!(refused.headers["warning"], r#"299 - "unknown field \"foo\"""#, "{method} {path}");
    }
}
