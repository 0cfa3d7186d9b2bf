//! Who may do what, and what everyone may see.

use crate::common::*;
use apiserver::User;
use serde_json::json;

fn node(name: &str) -> User {
    User::new(format!("system:node:{name}"), ["system:nodes"])
}

#[tokio::test]
async fn nodes_see_and_change_only_what_is_theirs() {
    let server = Server::start().await;
    for name in ["used", "other"] {
        server.create("/api/v1/namespaces/default/secrets", &json!({"metadata": {"name": name}})).await;
    }
    let mut own = pod("own", "n1");
    own["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": "used"}}]);
    server.create(PODS, &own).await;
    server.pod("foreign", "n2").await;
    server.create("/api/v1/nodes", &json!({"metadata": {"name": "n3"}})).await;
    server.get(PODS).await;
    let secrets = "/api/v1/namespaces/default/secrets";
    let leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
    let lease = |name: &str| json!({"metadata": {"name": name}, "spec": {"holderIdentity": name}}).to_string();
    let node_object = |name: &str| json!({"metadata": {"name": name}}).to_string();
    let status = json!({"status": {"phase": "Running"}}).to_string();
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}}).to_string();
    let cases: Vec<(&str, String, String, u16)> = vec![
        ("POST", "/api/v1/nodes".into(), node_object("n1"), 201),
        ("POST", "/api/v1/nodes".into(), node_object("n2"), 403),
        ("GET", "/api/v1/nodes/n1".into(), String::new(), 200),
        ("PATCH", "/api/v1/nodes/n1/status".into(), json!({"status": {}}).to_string(), 200),
        (
            "PATCH",
            "/api/v1/nodes/n1".into(),
            json!({"spec": {"taints": [{"key": "a", "effect": "NoExecute"}]}}).to_string(),
            403,
        ),
        // Whose it is matters where it is there.
        ("PATCH", "/api/v1/nodes/n2".into(), "{}".into(), 404),
        ("PATCH", "/api/v1/nodes/n3".into(), "{}".into(), 403),
        ("PATCH", "/api/v1/nodes/n3/status".into(), json!({"status": {"phase": "Running"}}).to_string(), 403),
        ("DELETE", "/api/v1/nodes/n1".into(), String::new(), 403),
        ("GET", "/api/v1/pods".into(), String::new(), 403),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn1".into(), String::new(), 200),
        ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3Dn2".into(), String::new(), 403),
        ("GET", format!("{PODS}/own"), String::new(), 200),
        ("GET", format!("{PODS}/foreign"), String::new(), 403),
        ("POST", PODS.into(), pod("new", "n1").to_string(), 403),
        ("PATCH", format!("{PODS}/own"), "{}".into(), 403),
        ("PATCH", format!("{PODS}/own/status"), status.clone(), 200),
        ("PATCH", format!("{PODS}/foreign/status"), status, 403),
        ("DELETE", format!("{PODS}/foreign"), String::new(), 403),
        ("GET", format!("{secrets}/used"), String::new(), 200),
        ("GET", format!("{secrets}?fieldSelector=metadata.name%3Dused"), String::new(), 200),
        ("GET", format!("{secrets}/other"), String::new(), 403),
        ("GET", secrets.into(), String::new(), 403),
        ("DELETE", format!("{secrets}/used"), String::new(), 403),
        ("GET", "/api/v1/services".into(), String::new(), 200),
        ("GET", "/apis/discovery.k8s.io/v1/endpointslices".into(), String::new(), 200),
        ("POST", SERVICES.into(), "{}".into(), 403),
        ("POST", leases.into(), lease("n1"), 201),
        ("POST", leases.into(), lease("n2"), 403),
        ("GET", format!("{leases}/n1"), String::new(), 200),
        ("GET", format!("{leases}/n2"), String::new(), 403),
        ("POST", "/api/v1/namespaces/default/events".into(), event, 201),
        ("GET", "/api/v1/namespaces/default/events".into(), String::new(), 403),
        ("POST", "/api/v1/namespaces".into(), json!({"metadata": {"name": "x"}}).to_string(), 403),
        ("DELETE", format!("{PODS}/own?gracePeriodSeconds=0"), String::new(), 200),
    ];
    for (method, path, body, code) in cases {
        let headers =
            [("content-type", if method == "PATCH" { "application/merge-patch+json" } else { "application/json" })];
        let answer = server.send_as(node("n1"), method, &path, &headers, &body).await;
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.text);
    }
}

#[tokio::test]
async fn refusals_read_as_upstream_prints_them() {
    let server = Server::start().await;
    server.pod("foreign", "n2").await;
    for (method, path, expected) in [
        (
            "GET",
            PODS,
            r#"pods is forbidden: User "system:node:n1" cannot list resource "pods" in API group "" in the namespace "default": can only list/watch pods with spec.nodeName field selector"#,
        ),
        (
            "GET",
            "/api/v1/namespaces/default/secrets/x",
            r#"secrets "x" is forbidden: User "system:node:n1" cannot get resource "secrets" in API group "" in the namespace "default": no relationship found between node 'n1' and this object"#,
        ),
        (
            "DELETE",
            "/api/v1/nodes/n2",
            r#"nodes "n2" is forbidden: User "system:node:n1" cannot delete resource "nodes" in API group "" at the cluster scope"#,
        ),
        (
            "DELETE",
            "/api/v1/namespaces/default/pods/foreign",
            r#"pods "foreign" is forbidden: node "n1" can only delete pods with spec.nodeName set to itself"#,
        ),
    ] {
        let answer = server.send_as(node("n1"), method, path, &[], "").await;
        assert_eq!(answer.message(), expected, "{method} {path}");
    }
}

#[tokio::test]
async fn a_node_evicts_its_own_pods_only_and_does_not_even_mark_others() {
    let server = Server::start().await;
    let foreign = server.pod("foreign", "n2").await;
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "foreign"}});
    let path = format!("{PODS}/foreign");
    let refused = server.send_as(node("n1"), "POST", &format!("{path}/eviction"), &[], &eviction.to_string()).await;
    let reason = "node n1 can only evict pods with spec.nodeName set to itself";
    assert_eq!(refused.message(), format!(r#"pods "foreign" is forbidden: {reason}"#));
    assert_eq!(server.get(&path).await.json(), foreign);
}

#[tokio::test]
async fn a_mirror_pod_is_refused_for_what_it_needs_before_whose_it_is() {
    let server = Server::start().await;
    let mut mirror = pod("static-n1", "n1");
    mirror["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"});
    mirror["spec"]["serviceAccountName"] = json!("default");
    let refused = server.send_as(node("n1"), "POST", PODS, &[], &mirror.to_string()).await;
    let reason = "a mirror pod may not reference service accounts";
    assert_eq!(refused.message(), format!(r#"pods "static-n1" is forbidden: {reason}"#));
}

/// What is not there, or cannot be done, is told only to who might do it: `WithAuthorization` comes before any routing.
#[tokio::test]
async fn what_is_not_served_is_refused_first() {
    let server = Server::start().await;
    for (method, path, code, message) in [
        (
            "GET",
            "/api/v1/namespaces/default/foos?fieldSelector=metadata.name%3Dx",
            404,
            r#"foos "x" is forbidden: User "joe" cannot list resource "foos" in API group "" in the namespace "default""#,
        ),
        (
            "GET",
            "/api/v1/namespaces/default/secrets/x/status",
            404,
            r#"secrets "x" is forbidden: User "joe" cannot get resource "secrets/status" in API group "" in the namespace "default""#,
        ),
        (
            "PUT",
            "/apis/apps/v1/deployments",
            404,
            r#"deployments.apps is forbidden: User "joe" cannot update resource "deployments" in API group "apps" at the cluster scope"#,
        ),
        (
            "DELETE",
            "/api/v1/namespaces",
            405,
            r#"namespaces is forbidden: User "joe" cannot deletecollection resource "namespaces" in API group "" at the cluster scope"#,
        ),
        (
            "DELETE",
            "/api/v1/configmaps?fieldSelector=metadata.name%3Dx",
            405,
            r#"configmaps is forbidden: User "joe" cannot deletecollection resource "configmaps" in API group "" at the cluster scope"#,
        ),
        (
            "POST",
            "/api/v1/watch/namespaces/default/pods",
            405,
            r#"pods is forbidden: User "joe" cannot watch resource "pods" in API group "" in the namespace "default""#,
        ),
    ] {
        let refused = server.send_as(User::new("joe", ["dev"]), method, path, &[], "").await;
        assert_eq!((refused.code, refused.message().as_str()), (403, message), "{method} {path}");
        assert_eq!(server.send(method, path, &[], "").await.code, code, "{method} {path}");
    }
    let path = server.send_as(User::new("joe", ["dev"]), "GET", "/foo", &[], "").await.json();
    assert_eq!(path["details"], json!({}));
}

#[tokio::test]
async fn a_bootstrapper_sees_its_own_certificate_requests_only() {
    let server = Server::start().await;
    let joining = || User::new("system:bootstrap:abcdef", ["system:bootstrappers"]);
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:nodes");
    params.distinguished_name.push(rcgen::DnType::CommonName, "system:node:n1");
    let request = params.serialize_request(&key).unwrap().pem().unwrap();
    let csr = |name: &str| {
        json!({"metadata": {"name": name}, "spec": {
            "request": base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &request),
            "signerName": "kubernetes.io/kube-apiserver-client-kubelet", "usages": ["digital signature", "client auth"],
        }})
        .to_string()
    };
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    assert_eq!(server.send("POST", path, &[], &csr("other")).await.code, 201);
    let cases: Vec<(&str, String, String, u16)> = vec![
        ("POST", path.into(), csr("mine"), 201),
        ("GET", format!("{path}/mine"), String::new(), 200),
        ("GET", format!("{path}?fieldSelector=metadata.name%3Dmine"), String::new(), 200),
        ("GET", format!("{path}/other"), String::new(), 403),
        ("GET", path.into(), String::new(), 403),
        ("PUT", format!("{path}/mine/approval"), csr("mine"), 403),
        ("GET", "/api/v1/nodes".into(), String::new(), 403),
    ];
    for (method, path, body, code) in cases {
        let answer = server.send_as(joining(), method, &path, &[], &body).await;
        assert_eq!(answer.code, code, "{method} {path}: {}", answer.text);
    }
}

#[tokio::test]
async fn discovery_names_every_kind_in_both_forms() {
    let server = Server::start().await;
    for path in [
        "/api",
        "/api/",
        "/apis",
        "/apis/",
        "/api/v1",
        "/apis/discovery.k8s.io",
        "/apis/discovery.k8s.io/v1",
        "/version?timeout=5s",
    ] {
        assert_eq!(server.get(path).await.code, 200, "{path}");
    }
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json")];
    for kind in api::kinds() {
        let info = kind.info;
        let (root, all) = if info.group.is_empty() {
            ("/api/v1".into(), "/api")
        } else {
            (format!("/apis/{}/{}", info.group, info.version), "/apis")
        };
        let list = server.get(&root).await.json();
        let row = list["resources"].as_array().unwrap().iter().find(|r| r["name"] == info.plural).cloned().unwrap();
        assert_eq!((&row["kind"], &row["singularName"]), (&json!(info.kind), &json!(info.singular)));
        let aggregated = server.send("GET", all, &accept, "").await;
        assert!(aggregated.headers["content-type"].to_str().unwrap().contains("as=APIGroupDiscoveryList"));
        let aggregated = aggregated.json();
        let resources = aggregated["items"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|g| g["versions"][0]["resources"].as_array().unwrap());
        assert!(resources.clone().any(|r| r["resource"] == info.plural), "{}", info.kind);
    }
}

#[tokio::test]
async fn health_and_metrics_answer() {
    let server = Server::start().await;
    for path in
        ["/healthz", "/livez", "/readyz", "/readyz/etcd", "/livez/ping", "/healthz/poststarthook/rbac/bootstrap-roles"]
    {
        let answer = server.get(path).await;
        assert_eq!((answer.code, answer.text.as_str()), (200, "ok"), "{path}");
    }
    let alive = server.get("/livez?verbose").await.text;
    assert!(alive.starts_with("[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]poststarthook/"), "{alive}");
    assert!(alive.ends_with("livez check passed\n") && !alive.contains("shutdown"), "{alive}");
    let ready = server.get("/readyz?verbose&exclude=etcd&exclude=other").await.text;
    for line in ["[+]etcd excluded: ok\n", "[+]etcd-readiness ok\n", "[+]informer-sync ok\n", "[+]shutdown ok\n"] {
        assert!(ready.contains(line), "{line} {ready}");
    }
    assert!(ready.contains("warn: some health checks cannot be excluded: no matches for \"other\"\n"), "{ready}");
    for path in ["/readyz/nothing", "/livez/shutdown", "/healthz/etcd-readiness"] {
        assert_eq!(server.get(path).await.code, 404, "{path}");
    }
    server.config_map("a").await;
    server.get(CONFIG_MAPS).await;
    let metrics = server.get("/metrics").await.text;
    for line in [
        r#"apiserver_request_total{verb="create",resource="configmaps",code="201"} 1"#,
        // Two are the server's own.
        r#"apiserver_storage_objects{resource="configmaps"} 3"#,
        "process_resident_memory_bytes ",
        r#"apiserver_certificate_ttl_seconds{certificate="ca"} 3"#,
        r#"apiserver_certificate_ttl_seconds{certificate="admin.kubeconfig"} 3"#,
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    server.stop.cancel();
    let stopping = server.get("/readyz").await;
    assert_eq!(stopping.code, 500);
    assert!(stopping.text.ends_with("[-]shutdown failed: reason withheld\nreadyz check failed\n"), "{}", stopping.text);
    assert_eq!(server.get("/livez").await.code, 200);
}
