//! Questions are answered and not kept.

use crate::common::*;
use apiserver::User;
use serde_json::json;

#[tokio::test]
async fn who_am_i_tells_the_identity_of_the_request() {
    let server = Server::start().await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}).to_string();
    let mut user = User::new("alice", ["dev"]);
    user.uid = Some("7".into());
    let answer = server.send_as(user, "POST", path, &[], &review).await;
    assert_eq!(answer.code, 201, "{}", answer.text);
    let info = json!({"username": "alice", "uid": "7", "groups": ["dev", "system:authenticated"]});
    assert_eq!(answer.json()["status"]["userInfo"], info);
}

#[tokio::test]
async fn virtual_kinds_have_only_the_verbs_of_their_rows() {
    let server = Server::start().await;
    let reviews = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let cases = [
        ("GET", reviews.to_owned(), 405),
        ("DELETE", reviews.to_owned(), 405),
        ("GET", format!("{reviews}/x"), 405),
        ("GET", "/api/v1/namespaces/default/bindings".to_owned(), 405),
        ("DELETE", "/api/v1/namespaces".to_owned(), 405),
        ("POST", "/api/v1/bindings".to_owned(), 400),
    ];
    for (method, path, code) in cases {
        assert_eq!(server.send(method, &path, &[], "{}").await.code, code, "{method} {path}");
    }
    let list = server.get("/apis/authentication.k8s.io/v1").await.json();
    assert_eq!(list["resources"][0]["verbs"], json!(["create"]));
    let paths = server.get("/openapi/v3/apis/authentication.k8s.io/v1").await.json()["paths"].clone();
    let tokens = "/apis/authentication.k8s.io/v1/tokenreviews";
    assert_eq!(paths.as_object().unwrap().keys().collect::<Vec<_>>(), [reviews, tokens]);
    assert!(paths[reviews]["get"].is_null() && paths[reviews]["post"].is_object());
}
