//! Roles and bindings decide what users may do.

use crate::common::*;
use apiserver::User;
use serde_json::{Value, json};

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

fn alice() -> User {
    User::new("alice", ["dev"])
}

fn role_binding(name: &str, role: (&str, &str), subject: &Value) -> Value {
    json!({"metadata": {"name": name}, "roleRef": {"kind": role.0, "name": role.1}, "subjects": [subject]})
}

async fn code(server: &Server, user: &User, method: &str, path: &str, body: &Value) -> u16 {
    let media_type = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
    let body = if body.is_null() { String::new() } else { body.to_string() };
    server.send_as(user.clone(), method, path, &[("content-type", media_type)], &body).await.code
}

#[tokio::test]
async fn a_right_begins_with_its_binding_and_ends_with_it() {
    let server = Server::start().await;
    server.config_map("a").await;
    let bindings = format!("{RBAC}/namespaces/default/rolebindings");
    let group = json!({"kind": "Group", "name": "dev"});
    let get = async || code(&server, &alice(), "GET", CONFIG_MAPS, &Value::Null).await;
    assert_eq!(get().await, 403);
    for turn in 0..3 {
        server.create(&bindings, &role_binding("read", ("ClusterRole", "system:aggregate-to-view"), &group)).await;
        assert_eq!(get().await, 200, "{turn}");
        assert_eq!(code(&server, &alice(), "GET", "/api/v1/configmaps", &Value::Null).await, 403, "only there");
        assert_eq!(code(&server, &User::new("bob", ["ops"]), "GET", CONFIG_MAPS, &Value::Null).await, 403);
        assert_eq!(server.delete(&format!("{bindings}/read")).await.code, 200);
        server.get(&bindings).await;
        assert_eq!(get().await, 403, "{turn}");
    }
}

#[tokio::test]
async fn what_the_server_was_told_is_for_admins() {
    let server = Server::start().await;
    assert_eq!(code(&server, &alice(), "GET", "/configz", &Value::Null).await, 403);
    assert_eq!(code(&server, &User::anonymous(), "GET", "/configz", &Value::Null).await, 403);
    assert_eq!(server.get("/configz").await.code, 200);
    let rules = json!([{"nonResourceURLs": ["/configz"], "verbs": ["get"]}]);
    server.create(&format!("{RBAC}/clusterroles"), &json!({"metadata": {"name": "look"}, "rules": rules})).await;
    let group = json!({"kind": "Group", "name": "dev"});
    server.create(&format!("{RBAC}/clusterrolebindings"), &role_binding("look", ("ClusterRole", "look"), &group)).await;
    assert_eq!(code(&server, &alice(), "GET", "/configz", &Value::Null).await, 200);
}

#[tokio::test]
async fn rules_are_as_narrow_as_they_say() {
    let server = Server::start().await;
    for name in ["a", "b"] {
        server.config_map(name).await;
    }
    server.pod("p", "").await;
    let rules = json!([
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["a"], "verbs": ["get", "list", "patch", "deletecollection"]},
        {"apiGroups": [""], "resources": ["pods/status"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
    ]);
    server
        .create(&format!("{RBAC}/namespaces/default/roles"), &json!({"metadata": {"name": "r"}, "rules": rules}))
        .await;
    let account = json!({"kind": "ServiceAccount", "name": "robot"});
    server
        .create(&format!("{RBAC}/namespaces/default/rolebindings"), &role_binding("b", ("Role", "r"), &account))
        .await;
    let robot = User::new("system:serviceaccount:default:robot", ["system:serviceaccounts"]);
    let cases = [
        ("GET", format!("{CONFIG_MAPS}/a"), 200),
        ("GET", format!("{CONFIG_MAPS}/b"), 403),
        ("GET", CONFIG_MAPS.to_owned(), 403),
        ("DELETE", format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Da"), 403),
        ("GET", format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Da"), 200),
        ("GET", format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Db"), 403),
        ("PATCH", format!("{CONFIG_MAPS}/a"), 200),
        ("DELETE", format!("{CONFIG_MAPS}/a"), 403),
        ("GET", format!("{PODS}/p"), 403),
        ("GET", format!("{PODS}/p/status"), 200),
        ("GET", "/api/v1/namespaces/default".to_owned(), 200),
        ("GET", "/api/v1/namespaces/kube-system".to_owned(), 403),
        ("GET", "/api/v1/namespaces".to_owned(), 403),
        ("GET", "/apis/discovery.k8s.io/v1".to_owned(), 200),
        ("GET", "/metrics".to_owned(), 403),
        ("GET", "/nothing".to_owned(), 403),
    ];
    for (method, path, expected) in cases {
        assert_eq!(code(&server, &robot, method, &path, &json!({})).await, expected, "{method} {path}");
    }
}

#[tokio::test]
async fn refusals_name_what_is_missing() {
    let server = Server::start().await;
    let user = json!({"kind": "User", "name": "alice"});
    server.create(&format!("{RBAC}/clusterrolebindings"), &role_binding("b", ("ClusterRole", "gone"), &user)).await;
    let pods = server.send_as(alice(), "GET", &format!("{PODS}/x/log"), &[], "").await;
    assert_eq!(
        pods.message(),
        r#"pods "x" is forbidden: User "alice" cannot get resource "pods/log" in API group "" in the namespace "default": RBAC: clusterrole.rbac.authorization.k8s.io "gone" not found"#
    );
    let path = server.send_as(User::anonymous(), "GET", "/metrics", &[], "").await;
    assert_eq!(path.message(), r#"forbidden: User "system:anonymous" cannot get path "/metrics""#);
}

#[tokio::test]
async fn default_roles_are_there_after_the_first_start_and_mended_at_the_next() {
    let server = Server::start().await;
    let discovery = format!("{RBAC}/clusterroles/system:discovery");
    let basic = format!("{RBAC}/clusterroles/system:basic-user");
    assert_eq!(server.get(&format!("{RBAC}/clusterrolebindings/cluster-admin")).await.code, 200);
    let whole = server.get(&discovery).await.json()["rules"].clone();
    server.patch(&discovery, &json!({"rules": []})).await;
    let opt_out = json!({"rules": [], "metadata": {"annotations": {
        "rbac.authorization.kubernetes.io/autoupdate": "false",
    }}});
    server.patch(&basic, &opt_out).await;
    // As in a store of a version that did not know it.
    let rotation = format!("{RBAC}/clusterrolebindings/system:node-autoapprove-certificate-rotation");
    let binding = server.get(&rotation).await.json();
    assert_eq!(server.send("DELETE", &rotation, &[], "").await.code, 200);
    let again = Server::start_on(server.store.clone(), |_| {}).await;
    let paths = |rules: &Value| {
        rules.as_array().unwrap().iter().map(|r| r["nonResourceURLs"].as_array().unwrap().len()).sum::<usize>()
    };
    assert_eq!(paths(&again.get(&discovery).await.json()["rules"]), paths(&whole));
    // No rules are `null` in Go.
    assert_eq!(again.get(&basic).await.json()["rules"], Value::Null);
    assert_eq!(again.get(&rotation).await.json()["subjects"], binding["subjects"]);
}

#[tokio::test]
async fn nobody_grants_what_he_does_not_hold() {
    let server = Server::start().await;
    let (roles, bindings) =
        (format!("{RBAC}/namespaces/default/roles"), format!("{RBAC}/namespaces/default/rolebindings"));
    let may = |verbs: &[&str], resources: &[&str], names: &[&str]| {
        let group =
            if resources[0] == "configmaps" || resources[0] == "secrets" { "" } else { "rbac.authorization.k8s.io" };
        json!({"apiGroups": [group], "resources": resources, "resourceNames": names, "verbs": verbs})
    };
    let role = |name: &str, rules: Value| json!({"metadata": {"name": name}, "rules": rules});
    let alices = json!({"kind": "User", "name": "alice"});
    let own = json!([
        may(&["get", "list"], &["configmaps"], &[]),
        may(&["create", "get", "patch"], &["roles", "rolebindings"], &[]),
        may(&["escalate"], &["roles"], &["free"]),
        may(&["bind"], &["clusterroles"], &["view"]),
    ]);
    server.create(&roles, &role("own", own)).await;
    server.create(&bindings, &role_binding("own", ("Role", "own"), &alices)).await;
    server.create(&roles, &role("secret", json!([may(&["get", "delete"], &["secrets"], &[])]))).await;
    let bob = json!({"kind": "User", "name": "bob"});
    let secrets = json!([may(&["get", "delete"], &["secrets"], &[])]);
    let cases = [
        ("what one holds", "POST", roles.clone(), role("a", json!([may(&["get"], &["configmaps"], &[])])), 201),
        ("what one does not", "POST", roles.clone(), role("b", secrets.clone()), 403),
        ("later as little as at first", "PATCH", format!("{roles}/a"), json!({"rules": secrets}), 403),
        ("unless one may escalate", "POST", roles.clone(), role("free", secrets.clone()), 201),
        ("a role one holds", "POST", bindings.clone(), role_binding("a", ("Role", "a"), &bob), 201),
        ("a role one does not", "POST", bindings.clone(), role_binding("b", ("Role", "secret"), &bob), 403),
        ("a role one may bind", "POST", bindings.clone(), role_binding("c", ("ClusterRole", "view"), &bob), 201),
        ("the role of all", "POST", bindings.clone(), role_binding("d", ("ClusterRole", "cluster-admin"), &bob), 403),
        ("a role that is not there", "POST", bindings.clone(), role_binding("e", ("Role", "gone"), &bob), 404),
    ];
    for (sentence, method, path, body, expected) in cases {
        assert_eq!(code(&server, &alice(), method, &path, &body).await, expected, "{sentence}");
    }
    let refused = server.send_as(alice(), "POST", &roles, &[], &role("b", secrets).to_string()).await;
    assert_eq!(
        refused.message(),
        "roles.rbac.authorization.k8s.io \"b\" is forbidden: user \"alice\" (groups=[\"dev\" \"system:authenticated\"]) is \
         attempting to grant RBAC permissions not currently held:\n\
         {APIGroups:[\"\"], Resources:[\"secrets\"], Verbs:[\"get\" \"delete\"]}"
    );
}

#[tokio::test]
async fn only_who_has_everything_aggregates() {
    let server = Server::start().await;
    let rules =
        json!([{"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["create"]}]);
    server.create(&format!("{RBAC}/clusterroles"), &json!({"metadata": {"name": "writer"}, "rules": rules})).await;
    let user = json!({"kind": "User", "name": "alice"});
    server.create(&format!("{RBAC}/clusterrolebindings"), &role_binding("w", ("ClusterRole", "writer"), &user)).await;
    let selectors = json!({"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]});
    let role = json!({"metadata": {"name": "sum"}, "aggregationRule": selectors});
    let refused = server.send_as(alice(), "POST", &format!("{RBAC}/clusterroles"), &[], &role.to_string()).await;
    assert_eq!(refused.code, 403);
    assert!(refused.message().ends_with("must have cluster-admin privileges to use the aggregationRule"));
    server.create(&format!("{RBAC}/clusterroles"), &role).await;
}

#[tokio::test]
async fn who_approves_or_signs_needs_the_signer_too() {
    let server = Server::start().await;
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let request = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, request);
    let spec = json!({"request": request, "signerName": "example.com/mine", "usages": ["client auth"]});
    let csr = server.create(path, &json!({"metadata": {"name": "a"}, "spec": spec})).await;
    let grant = async |name: &str, rules: Value| {
        server.create(&format!("{RBAC}/clusterroles"), &json!({"metadata": {"name": name}, "rules": rules})).await;
        let group = json!({"kind": "Group", "name": "dev"});
        server.create(&format!("{RBAC}/clusterrolebindings"), &role_binding(name, ("ClusterRole", name), &group)).await;
    };
    let group = "certificates.k8s.io";
    let below = ["certificatesigningrequests/approval", "certificatesigningrequests/status"];
    grant("write", json!([{"apiGroups": [group], "resources": below, "verbs": ["update", "patch"]}])).await;
    let said = |kinds: &[&str]| {
        let mut csr = csr.clone();
        csr["metadata"]["resourceVersion"] = Value::Null;
        let condition = |kind: &&str| json!({"type": kind, "status": "True", "reason": "r", "message": "m"});
        csr["status"] = json!({"conditions": kinds.iter().map(condition).collect::<Vec<_>>()});
        csr.to_string()
    };
    let put = async |below: &str, kinds: &[&str]| {
        server.send_as(alice(), "PUT", &format!("{path}/a/{below}"), &[], &said(kinds)).await
    };
    let refused = put("approval", &["Approved"]).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (
            403,
            r#"certificatesigningrequests.certificates.k8s.io "a" is forbidden: user not permitted to approve requests with signerName "example.com/mine""#
        )
    );
    let refused = put("status", &["Failed"]).await;
    assert_eq!(
        (refused.code, refused.message().as_str()),
        (
            403,
            r#"certificatesigningrequests.certificates.k8s.io "a" is forbidden: user not permitted to sign requests with signerName "example.com/mine""#
        )
    );
    let labels = json!({"metadata": {"labels": {"a": "b"}}});
    assert_eq!(
        code(&server, &alice(), "PATCH", &format!("{path}/a/status"), &labels).await,
        200,
        "which says nothing of the certificate"
    );
    grant("approve", json!([{"apiGroups": [group], "resources": ["signers"], "resourceNames": ["example.com/*"], "verbs": ["approve"]}])).await;
    assert_eq!(put("approval", &["Approved"]).await.code, 200);
    assert_eq!(put("status", &["Approved", "Failed"]).await.code, 403);
    grant("sign", json!([{"apiGroups": [group], "resources": ["signers"], "resourceNames": ["example.com/mine"], "verbs": ["sign"]}])).await;
    let failed = put("status", &["Approved", "Failed"]).await;
    assert_eq!(failed.code, 200, "{}", failed.text);
    let undone = put("status", &["Failed"]).await;
    assert!(undone.message().ends_with(r#"updates may not remove a condition of type "Approved""#), "{}", undone.text);
}
