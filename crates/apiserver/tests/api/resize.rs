//! `/resize`: what the containers of a pod ask for, changed while they run.

use apiserver::User;
use serde_json::{Value, json};

use crate::common::{Answer, PODS, Server, pod};

const STRATEGIC: &str = "application/strategic-merge-patch+json";

impl Server {
    /// A pod whose container asks for a tenth of a core and 64 MiB.
    async fn sized(&self, name: &str) -> Value {
        let mut pod = pod(name, "n1");
        pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m", "memory": "64Mi"}});
        self.create(PODS, &pod).await
    }

    async fn resize(&self, name: &str, kind: &str, patch: &Value) -> Answer {
        self.send("PATCH", &format!("{PODS}/{name}/resize"), &[("content-type", kind)], &patch.to_string()).await
    }
}

fn cpu(amount: &str) -> Value {
    json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": amount}}}]}})
}

#[tokio::test]
async fn a_pod_is_resized_by_every_kind_of_write() {
    let server = Server::start().await;
    let made = server.sized("a").await;
    let main = server.send("PATCH", &format!("{PODS}/a"), &[("content-type", STRATEGIC)], &cpu("1").to_string()).await;
    assert_eq!(main.code, 422, "{}", main.text);
    assert!(main.text.contains("pod updates may not change fields other than"), "{}", main.text);

    let requests = json!({"memory": "64Mi", "cpu": "300m"});
    let merge = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": requests}}]}});
    let operations = json!([{"op": "replace", "path": "/spec/containers/0/resources/requests/cpu", "value": "400m"}]);
    let applied = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}});
    for (generation, kind, patch, expected) in [
        (2, STRATEGIC, cpu("200m"), "200m"),
        (3, "application/merge-patch+json", merge, "300m"),
        (4, "application/json-patch+json", operations, "400m"),
    ] {
        let answer = server.resize("a", kind, &patch).await;
        assert_eq!(answer.code, 200, "{kind}: {}", answer.text);
        let pod = answer.json();
        assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"], json!({"cpu": expected, "memory": "64Mi"}));
        assert_eq!(pod["metadata"]["generation"], generation, "the kubelet has something to do");
    }
    let path = format!("{PODS}/a/resize?fieldManager=vpa&force=true");
    let kind = [("content-type", "application/apply-patch+yaml")];
    let answer = server.send("PATCH", &path, &kind, &applied.to_string()).await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    let managers = answer.json()["metadata"]["managedFields"].clone();
    let vpa = managers.as_array().unwrap().iter().find(|entry| entry["manager"] == "vpa").unwrap();
    assert_eq!((&vpa["operation"], &vpa["subresource"]), (&json!("Apply"), &json!("resize")));

    let mut whole = server.get(&format!("{PODS}/a/resize")).await.json();
    assert_eq!(whole["spec"]["containers"][0]["resources"]["requests"]["cpu"], "500m");
    whole["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("600m");
    whole["metadata"]["labels"] = json!({"sneaked": "in"});
    let answer = server.put(&format!("{PODS}/a/resize"), &whole).await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    assert_eq!(answer.json()["metadata"]["labels"], made["metadata"]["labels"]);
    assert_eq!(server.put(&format!("{PODS}/a/resize"), &whole).await.code, 409, "the version is of before");
    let refused = server.resize("a", STRATEGIC, &json!({"spec": {"containers": [{"name": "d"}]}})).await;
    assert_eq!(refused.code, 422, "{}", refused.text);
    assert_eq!(server.resize("b", STRATEGIC, &cpu("1")).await.code, 404);
}

#[tokio::test]
async fn bounds_and_quotas_hold_for_what_is_resized() {
    let server = Server::start().await;
    server.sized("a").await;
    let hard = json!({"requests.cpu": "1"});
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}});
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let mut quota = server.create(quotas, &quota).await;
    quota["status"] = json!({"hard": hard, "used": {"requests.cpu": "100m"}});
    assert_eq!(server.put(&format!("{quotas}/q/status"), &quota).await.code, 200);

    let refused = server.resize("a", STRATEGIC, &cpu("1100m")).await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    let expected = r#"pods "a" is forbidden: exceeded quota: q, requested: requests.cpu=1, used: requests.cpu=100m, limited: requests.cpu=1"#;
    assert_eq!(refused.message(), expected);
    assert_eq!(server.resize("a", STRATEGIC, &cpu("800m")).await.code, 200);
    let used = server.get(&format!("{quotas}/q")).await.json()["status"]["used"].clone();
    assert_eq!(used, json!({"requests.cpu": "800m"}), "the difference is claimed with the write");

    let limits = json!({"limits": [{"type": "Container", "max": {"memory": "128Mi"}}]});
    let range = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "r"}, "spec": limits});
    server.create("/api/v1/namespaces/default/limitranges", &range).await;
    let more = json!({"spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "256Mi"}}}]}});
    let refused = server.resize("a", STRATEGIC, &more).await;
    assert_eq!(refused.code, 403, "{}", refused.text);
    assert!(
        refused.message().contains("maximum memory usage per Container is 128Mi, but limit is 256Mi"),
        "{}",
        refused.text
    );
}

#[tokio::test]
async fn a_node_resizes_nothing_and_an_editor_does() {
    let server = Server::start().await;
    server.sized("a").await;
    let binding = json!({"metadata": {"name": "e"}, "roleRef": {"kind": "ClusterRole", "name": "system:aggregate-to-edit"},
        "subjects": [{"kind": "User", "name": "eve"}]});
    server.create("/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings", &binding).await;
    let ask = async |user: User| {
        let kind = [("content-type", STRATEGIC)];
        server.send_as(user, "PATCH", &format!("{PODS}/a/resize"), &kind, &cpu("200m").to_string()).await
    };
    let node = User::new("system:node:n1", ["system:nodes"]);
    assert_eq!(ask(node).await.code, 403);
    assert_eq!(ask(User::new("mallory", ["system:authenticated"])).await.code, 403);
    let answer = ask(User::new("eve", ["system:authenticated"])).await;
    assert_eq!(answer.code, 200, "{}", answer.text);
}
