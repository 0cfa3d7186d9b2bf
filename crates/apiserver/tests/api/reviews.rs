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
        ("GET", format!("{reviews}/x"), 404),
        ("GET", "/api/v1/namespaces/default/bindings".to_owned(), 405),
        ("DELETE", "/api/v1/namespaces".to_owned(), 405),
        ("POST", "/api/v1/bindings".to_owned(), 404),
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

const ACCESS: &str = "/apis/authorization.k8s.io/v1";

#[tokio::test]
async fn reviews_say_who_may_what_and_why() {
    let server = Server::start().await;
    let bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings";
    let role = json!({"kind": "ClusterRole", "name": "system:aggregate-to-view"});
    let alice = json!({"kind": "User", "name": "alice"});
    server.create(bindings, &json!({"metadata": {"name": "b"}, "roleRef": role, "subjects": [alice]})).await;
    let pods = |namespace: &str| json!({"verb": "list", "resource": "pods", "namespace": namespace});
    let spec = |namespace: &str| json!({"user": "alice", "groups": ["dev"], "resourceAttributes": pods(namespace)});
    let status = server.create(&format!("{ACCESS}/subjectaccessreviews"), &json!({"spec": spec("default")})).await;
    let because =
        r#"RBAC: allowed by RoleBinding "b/default" of ClusterRole "system:aggregate-to-view" to User "alice""#;
    assert_eq!(status["status"], json!({"allowed": true, "reason": because}));
    let status = server.create(&format!("{ACCESS}/subjectaccessreviews"), &json!({"spec": spec("other")})).await;
    assert_eq!(status["status"], json!({"allowed": false}));
    let local = format!("{ACCESS}/namespaces/default/localsubjectaccessreviews");
    assert_eq!(server.create(&local, &json!({"spec": spec("default")})).await["status"]["allowed"], json!(true));
    assert_eq!(server.post(&local, &json!({"spec": spec("other")})).await.code, 422);
    let rules = json!({"spec": {"namespace": "default"}}).to_string();
    let path = format!("{ACCESS}/selfsubjectrulesreviews");
    let answer = server.send_as(User::new("alice", ["dev"]), "POST", &path, &[], &rules).await.json();
    let resources = answer["status"]["resourceRules"].as_array().unwrap();
    assert!(resources.iter().any(|r| r["resources"].as_array().unwrap().contains(&json!("pods"))), "{answer}");
    let paths = answer["status"]["nonResourceRules"].as_array().unwrap();
    assert!(paths.iter().any(|r| r["nonResourceURLs"].as_array().unwrap().contains(&json!("/api"))), "{answer}");
    assert_eq!(answer["status"]["incomplete"], json!(false));
}

/// Whatever the rules are, the answer to "may I?" is what happens to who tries.
#[tokio::test]
async fn can_i_agrees_with_what_happens() {
    use rand::seq::IndexedRandom;
    use rand::{RngExt, SeedableRng};
    let mut dice = rand::rngs::StdRng::seed_from_u64(7);
    let server = Server::start().await;
    let some = |from: &[&str], dice: &mut rand::rngs::StdRng| -> Vec<String> {
        let count = dice.random_range(1..3);
        from.sample(dice, count).map(|s| (*s).to_owned()).collect()
    };
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let kinds = [("", "configmaps"), ("", "pods"), ("coordination.k8s.io", "leases"), ("", "nodes")];
    let methods = [("get", "GET"), ("list", "GET"), ("create", "POST"), ("delete", "DELETE"), ("patch", "PATCH")];
    for round in 0..25 {
        let user = User::new(format!("user{round}"), ["random"]);
        let mut rules = Vec::new();
        for _ in 0..dice.random_range(1..4) {
            let names = if dice.random_bool(0.3) { some(&["a", "b"], &mut dice) } else { Vec::new() };
            rules.push(json!({
                "verbs": some(&["get", "list", "create", "delete", "patch", "*"], &mut dice),
                "apiGroups": some(&["", "coordination.k8s.io", "*"], &mut dice),
                "resources": some(&["configmaps", "pods", "leases", "nodes", "pods/status", "*/status", "*"], &mut dice),
                "resourceNames": names,
            }));
        }
        let everywhere = dice.random_bool(0.3);
        let (place, kind) =
            if everywhere { ("", "ClusterRoleBinding") } else { ("/namespaces/default", "RoleBinding") };
        let name = format!("r{round}");
        server.create(&format!("{rbac}/clusterroles"), &json!({"metadata": {"name": name}, "rules": rules})).await;
        let subject = json!({"kind": "User", "name": user.name});
        let role = json!({"kind": "ClusterRole", "name": name});
        let binding = json!({"kind": kind, "metadata": {"name": name}, "roleRef": role, "subjects": [subject]});
        server.create(&format!("{rbac}{place}/{}s", kind.to_lowercase()), &binding).await;
        for _ in 0..20 {
            let (group, resource) = *kinds.choose(&mut dice).unwrap();
            let (verb, method) = *methods.choose(&mut dice).unwrap();
            let namespace = if resource == "nodes" { "" } else { *["default", "other"].choose(&mut dice).unwrap() };
            let name = if matches!(verb, "list" | "create") { "" } else { *["a", "b", "c"].choose(&mut dice).unwrap() };
            let below = if matches!(verb, "get" | "patch")
                && resource != "configmaps"
                && resource != "leases"
                && dice.random_bool(0.3)
            {
                "status"
            } else {
                ""
            };
            let attributes = json!({
                "verb": verb, "group": group, "resource": resource, "subresource": below, "namespace": namespace, "name": name,
            });
            let review = json!({"spec": {"resourceAttributes": attributes}}).to_string();
            let path = format!("{ACCESS}/selfsubjectaccessreviews");
            let said = server.send_as(user.clone(), "POST", &path, &[], &review).await.json();
            let said = said["status"]["allowed"].as_bool().unwrap();
            let root = if group.is_empty() { "/api/v1".to_owned() } else { format!("/apis/{group}/v1") };
            let within = if namespace.is_empty() { String::new() } else { format!("/namespaces/{namespace}") };
            let path: String = [&*format!("{root}{within}/{resource}"), name, below]
                .iter()
                .filter(|p| !p.is_empty())
                .copied()
                .collect::<Vec<_>>()
                .join("/");
            let body = if method == "GET" || method == "DELETE" { "" } else { "{}" };
            let media_type =
                [("content-type", if method == "PATCH" { "application/merge-patch+json" } else { "application/json" })];
            let answer = server.send_as(user.clone(), method, &path, &media_type, body).await;
            // Whoever is let through may still be refused by what is (not) there, but not as forbidden by RBAC.
            let refused = answer.code == 403 && answer.message().contains(" cannot ");
            assert_eq!(said, !refused, "{} {method} {path}: {} {}\n{rules:?}", user.name, answer.code, answer.text);
        }
    }
}

#[tokio::test]
async fn who_may_impersonate_acts_as_somebody_else() {
    let server = Server::start().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let rules = json!([
        {"apiGroups": [""], "resources": ["users"], "resourceNames": ["bob"], "verbs": ["impersonate"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "verbs": ["impersonate"]},
    ]);
    server.create(&format!("{rbac}/clusterroles"), &json!({"metadata": {"name": "actor"}, "rules": rules})).await;
    let (role, alice) = (json!({"kind": "ClusterRole", "name": "actor"}), json!({"kind": "User", "name": "alice"}));
    let binding = json!({"metadata": {"name": "actor"}, "roleRef": role, "subjects": [alice]});
    server.create(&format!("{rbac}/clusterrolebindings"), &binding).await;
    let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
    let ask =
        async |headers: &[(&str, &str)]| server.send_as(User::new("alice", ["dev"]), "POST", path, headers, "{}").await;
    let bob = ask(&[("impersonate-user", "bob"), ("impersonate-extra-scopes", "view")]).await;
    let info = json!({"username": "bob", "groups": ["system:authenticated"], "extra": {"scopes": ["view"]}});
    assert_eq!(bob.json()["status"]["userInfo"], info, "{}", bob.text);
    assert_eq!(
        ask(&[("impersonate-user", "carol")]).await.message(),
        r#"users "carol" is forbidden: User "alice" cannot impersonate resource "users" in API group "" at the cluster scope"#
    );
    assert_eq!(ask(&[("impersonate-user", "bob"), ("impersonate-group", "system:masters")]).await.code, 403);
    assert_eq!(ask(&[("impersonate-group", "dev")]).await.code, 400);
}
