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
async fn of_a_key_that_is_there_twice_the_last_value_counts_and_it_is_said() {
    let server = Server::start().await;
    let text = |name: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  a: \"1\"\n  a: \"2\"\nfoo: 1\n---\n["
        )
    };
    let told = r#"line 7: key "a" already set in map"#;
    let send = |method, path: String, media_type, text: String| {
        let server = &server;
        async move { server.send(method, &path, &[("content-type", media_type)], &text).await }
    };
    let yaml = "application/yaml";
    let strict = send("POST", format!("{CONFIG_MAPS}?fieldValidation=Strict"), yaml, text("a")).await;
    let why =
        "strict decoding error: yaml: unmarshal errors:\n  line 7: key \"a\" already set in map, unknown field \"foo\"";
    let message = strict.json()["message"].as_str().unwrap().to_owned();
    assert!(strict.code == 400 && message.ends_with(why), "{message}");
    let warned = send("POST", CONFIG_MAPS.to_owned(), yaml, text("a")).await;
    assert_eq!((warned.code, said(&warned)), (201, vec![told.to_owned(), r#"unknown field "foo""#.to_owned()]));
    assert_eq!(warned.json()["data"], json!({"a": "2"}));
    let ignored = send("PUT", format!("{CONFIG_MAPS}/a?fieldValidation=Ignore"), yaml, text("a")).await;
    assert_eq!((ignored.code, said(&ignored)), (200, vec![]));

    let (apply, applied) = ("application/apply-patch+yaml", text("b").replace("foo: 1\n", ""));
    let path = format!("{CONFIG_MAPS}/b?fieldManager=m");
    let strict = send("PATCH", format!("{path}&fieldValidation=Strict"), apply, applied.clone()).await;
    let why = "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  ";
    assert_eq!((strict.code, strict.json()["message"].clone()), (400, json!(format!("{why}{told}"))));
    let warned = send("PATCH", path.clone(), apply, applied).await;
    assert_eq!((warned.code, said(&warned)), (201, vec![told.to_owned()]));
    let as_json = config_map("b").to_string().replacen('{', r#"{"data":{},"#, 1);
    let warned = send("PATCH", path, apply, as_json).await;
    assert_eq!((warned.code, said(&warned)), (200, vec![r#"line 1: key "data" already set in map"#.to_owned()]));
}

#[tokio::test]
async fn a_yaml_body_without_a_document_is_an_object_without_anything() {
    let server = Server::start().await;
    for text in ["", "# nothing\n", "---\n---\nmetadata: {name: a}\n"] {
        let answer = server.send("POST", CONFIG_MAPS, &[("content-type", "application/yaml")], text).await;
        let causes = answer.json()["details"]["causes"].clone();
        assert_eq!((answer.code, &causes[0]["field"]), (422, &json!("metadata.name")), "{text:?}: {}", answer.text);
    }
    server.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    assert_eq!(server.send("DELETE", &path, &[("content-type", "application/yaml")], "# as usual\n").await.code, 200);
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
