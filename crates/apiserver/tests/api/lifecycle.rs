//! Deletion, namespaces, services: writes that touch more than one object or more than one moment.

use std::collections::HashSet;

use crate::common::*;
use serde_json::{Value, json};
use store::ListRequest;

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
}

async fn ranges(server: &Server) -> Vec<String> {
    let request = ListRequest { prefix: "/registry/ranges/".into(), ..ListRequest::default() };
    server.store.list(request).await.unwrap().items.iter().map(|i| i.key.to_string()).collect()
}

#[tokio::test]
async fn a_pod_on_a_node_is_told_to_stop_and_ends_when_its_kubelet_says_so() {
    let server = Server::start().await;
    server.pod("a", "n1").await;
    let path = format!("{PODS}/a");
    let marked = server.delete(&path).await.json();
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let again = server.delete(&path).await.json();
    assert_eq!(again["metadata"]["resourceVersion"], marked["metadata"]["resourceVersion"]);
    let other = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": "other"}});
    assert_eq!(server.send("DELETE", &path, &[], &other.to_string()).await.code, 409);
    let now = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": marked["metadata"]["uid"]}});
    assert_eq!(server.send("DELETE", &path, &[], &now.to_string()).await.code, 200);
    assert_eq!(server.get(&path).await.code, 404);
    server.pod("b", "").await;
    server.delete(&format!("{PODS}/b")).await;
    assert_eq!(server.get(&format!("{PODS}/b")).await.code, 404, "a pod without a node needs no grace");
}

/// As upstream, where a graceful deletion is a mark and an end, however short the grace.
#[tokio::test]
async fn a_pod_that_ends_at_once_is_told_to_before_it_does() {
    let server = Server::start().await;
    let cases = [("a", "n1", "?gracePeriodSeconds=0"), ("b", "", ""), ("c", "n1", "?gracePeriodSeconds=0&dryRun=All")];
    for (name, node, query) in cases {
        let made = server.pod(name, node).await;
        let version = made["metadata"]["resourceVersion"].as_str().unwrap();
        let fields = format!("fieldSelector=metadata.name%3D{name}");
        let mut watch = server.watch(&format!("{PODS}?watch=1&resourceVersion={version}&{fields}")).await;
        let answer = server.delete(&format!("{PODS}/{name}{query}")).await.json();
        assert_eq!(answer["metadata"]["deletionGracePeriodSeconds"], 0, "{answer}");
        if query.contains("dryRun") {
            assert_eq!(server.get(&format!("{PODS}/{name}")).await.code, 200);
            continue;
        }
        let (marked, gone) = (watch.next().await.unwrap(), watch.next().await.unwrap());
        assert_eq!((&marked["type"], &gone["type"]), (&json!("MODIFIED"), &json!("DELETED")));
        for event in [&marked, &gone] {
            assert_eq!(event["object"]["metadata"]["deletionGracePeriodSeconds"], 0, "{event}");
            assert!(event["object"]["metadata"]["deletionTimestamp"].is_string(), "{event}");
        }
        assert_eq!(answer["metadata"], gone["object"]["metadata"], "the answer is the object as it ended");
    }
}

/// As `ReturnDeletedObject` says upstream.
#[tokio::test]
async fn some_kinds_are_shown_once_more_when_they_are_gone() {
    let server = Server::start().await;
    let default = "/api/v1/namespaces/default";
    let volume = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/d"}});
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let template = json!({"spec": {"containers": [{"name": "c", "image": "i"}]}});
    for (path, mut object, kind) in [
        ("/api/v1/persistentvolumes".to_owned(), json!({"spec": volume}), "PersistentVolume"),
        (format!("{default}/persistentvolumeclaims"), json!({"spec": claim}), "PersistentVolumeClaim"),
        (PODS.to_owned(), pod("a", ""), "Pod"),
        (format!("{default}/podtemplates"), json!({"template": template}), "PodTemplate"),
        (format!("{default}/resourcequotas"), json!({"spec": {"hard": {"pods": "9"}}}), "ResourceQuota"),
        (format!("{default}/serviceaccounts"), json!({}), "ServiceAccount"),
        (SERVICES.to_owned(), service("a"), "Service"),
        (CONFIG_MAPS.to_owned(), config_map("a"), "Status"),
        (format!("{default}/limitranges"), json!({"spec": {"limits": []}}), "Status"),
        (format!("{default}/replicationcontrollers"), rc("a"), "Status"),
    ] {
        object["metadata"] = json!({"name": "a"});
        server.create(&path, &object).await;
        let path = format!("{path}/a");
        // A replication controller would be asked for its pods before.
        let answer = server.delete(&format!("{path}?propagationPolicy=Background")).await;
        assert_eq!((answer.code, &answer.json()["kind"]), (200, &json!(kind)), "{path}: {}", answer.text);
        if kind.starts_with("PersistentVolume") {
            // A controller would look whether they are in use.
            assert_eq!(server.patch(&path, &json!({"metadata": {"finalizers": null}})).await.code, 200, "{path}");
        }
        assert_eq!(server.get(&path).await.code, 404, "{path}");
    }
}

#[tokio::test]
async fn volumes_claims_and_nodes_are_born_with_what_controllers_take_away() {
    let server = Server::start().await;
    let volume = json!({"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/d"}});
    let volume = json!({"metadata": {"name": "a", "finalizers": ["example.com/own"]}, "spec": volume});
    let volume = server.create("/api/v1/persistentvolumes", &volume).await;
    assert_eq!(volume["metadata"]["finalizers"], json!(["example.com/own", "kubernetes.io/pv-protection"]));
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let claims = "/api/v1/namespaces/default/persistentvolumeclaims";
    let claim = server.create(claims, &json!({"metadata": {"name": "a"}, "spec": claim})).await;
    assert_eq!(claim["metadata"]["finalizers"], json!(["kubernetes.io/pvc-protection"]));
    let node = server.create("/api/v1/nodes", &json!({"metadata": {"name": "n1"}})).await;
    assert_eq!(node["spec"]["taints"], json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}]));
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let server = Server::start().await;
    server.config_map("a").await;
    let path = format!("{CONFIG_MAPS}/a");
    server.patch(&path, &json!({"metadata": {"finalizers": ["example.com/hold"]}})).await;
    let marked = server.delete(&path).await.json();
    assert!(marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    let more =
        server.patch(&path, &json!({"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}})).await;
    assert_eq!(more.code, 422, "{}", more.text);
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={}", revision(&marked))).await;
    assert_eq!(server.patch(&path, &json!({"metadata": {"finalizers": null}})).await.code, 200);
    assert_eq!(watch.told().await, "DELETED a");
    assert_eq!(server.get(&path).await.code, 404);
}

#[tokio::test]
async fn propagation_policies_become_finalizers() {
    let server = Server::start().await;
    for (policy, finalizer) in [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")] {
        server.config_map("a").await;
        let path = format!("{CONFIG_MAPS}/a");
        let marked = server.delete(&format!("{path}?propagationPolicy={policy}")).await.json();
        assert_eq!(marked["metadata"]["finalizers"], json!([finalizer]));
        assert_eq!(server.delete(&format!("{path}?propagationPolicy=Background")).await.code, 200);
        assert_eq!(server.get(&path).await.code, 404);
    }
}

#[tokio::test]
async fn nothing_is_made_below_objects_of_a_namespace_that_ends_or_is_not_there() {
    let server = Server::start().await;
    server.create("/api/v1/namespaces", &json!({"metadata": {"name": "a"}})).await;
    server.create("/api/v1/namespaces/a/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    server.create("/api/v1/namespaces/a/pods", &pod("p", "")).await;
    server.delete("/api/v1/namespaces/a").await;
    let requests = [
        ("serviceaccounts/default/token", json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"})),
        ("pods/p/eviction", json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}})),
        ("pods/p/binding", json!({"metadata": {"name": "p"}, "target": {"name": "n1"}})),
    ];
    for (path, body) in requests {
        let refused = server.post(&format!("/api/v1/namespaces/a/{path}"), &body).await;
        assert_eq!(refused.code, 403, "{path}: {}", refused.text);
        assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating", "{path}");
        let refused = server.post(&format!("/api/v1/namespaces/b/{path}"), &body).await;
        assert_eq!((refused.code, refused.message().as_str()), (404, r#"namespaces "b" not found"#), "{path}");
    }
}

#[tokio::test]
async fn what_has_no_name_yet_is_refused_by_the_beginning_of_it() {
    let server = Server::start().await;
    server.create("/api/v1/namespaces", &json!({"metadata": {"name": "a"}})).await;
    server.delete("/api/v1/namespaces/a").await;
    let refused = server.post("/api/v1/namespaces/a/configmaps", &json!({"metadata": {"generateName": "x-"}})).await;
    assert!(refused.message().starts_with(r#"configmaps "x-" is forbidden: unable to create"#), "{}", refused.text);
}

#[tokio::test]
async fn a_namespace_ends_when_it_is_empty_and_takes_nothing_new_meanwhile() {
    let server = Server::start().await;
    let namespace = server.create("/api/v1/namespaces", &json!({"metadata": {"name": "a"}})).await;
    assert_eq!(namespace["status"]["phase"], "Active");
    assert_eq!(namespace["metadata"]["labels"]["kubernetes.io/metadata.name"], "a");
    let marked = server.delete("/api/v1/namespaces/a").await.json();
    assert_eq!(marked["status"]["phase"], "Terminating", "{marked}");
    let refused = server.post("/api/v1/namespaces/a/configmaps", &config_map("x")).await;
    assert_eq!(refused.code, 403);
    assert_eq!(refused.json()["details"]["causes"][0]["reason"], "NamespaceTerminating");
    assert!(refused.message().contains("unable to create new content in namespace a because it is being terminated"));
    let again = server.delete("/api/v1/namespaces/a").await;
    assert_eq!((again.code, again.json()), (200, marked.clone()), "it is under way");
    let mut finalized = marked.clone();
    finalized["spec"]["finalizers"] = json!([]);
    assert_eq!(server.put("/api/v1/namespaces/a/finalize", &finalized).await.code, 200);
    assert_eq!(server.get("/api/v1/namespaces/a").await.code, 404);
    let kept = server.delete("/api/v1/namespaces/default").await;
    assert_eq!(kept.message(), r#"namespaces "default" is forbidden: this namespace may not be deleted"#);
}

#[tokio::test]
async fn system_objects_are_there_from_the_start() {
    let server = Server::start_with(|c| c.advertise_address = [192, 0, 2, 7].into()).await;
    for namespace in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        assert_eq!(server.get(&format!("/api/v1/namespaces/{namespace}")).await.code, 200);
    }
    let service = server.get(&format!("{SERVICES}/kubernetes")).await.json();
    assert_eq!(service["spec"]["clusterIP"], "10.96.0.1");
    let endpoints = server.get("/api/v1/namespaces/default/endpoints/kubernetes").await.json();
    assert_eq!(endpoints["subsets"][0]["addresses"][0]["ip"], "192.0.2.7");
    let slice = server.get("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes").await.json();
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.7"]));
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.pod(name, "").await;
    }
    let deleted = server.delete(&format!("{PODS}?labelSelector=app+in+(a,c)")).await.json();
    assert_eq!((&deleted["kind"], deleted["items"].as_array().unwrap().len()), (&json!("PodList"), 2));
    assert_eq!(server.get(PODS).await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn services_get_an_address_and_give_it_back() {
    let server = Server::start().await;
    let before = ranges(&server).await;
    let created = server.create(SERVICES, &service("web")).await;
    let ip = created["spec"]["clusterIP"].as_str().unwrap();
    assert_eq!(created["spec"]["clusterIPs"], json!([ip]));
    assert_eq!(
        (&created["spec"]["ipFamilies"], &created["spec"]["ipFamilyPolicy"]),
        (&json!(["IPv4"]), &json!("SingleStack"))
    );
    assert!(ranges(&server).await.contains(&format!("/registry/ranges/serviceips/{ip}")));
    let mut second = service("two");
    second["spec"]["clusterIP"] = json!(ip);
    let refused = server.post(SERVICES, &second).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.message().ends_with(&format!("failed to allocate IP {ip}: provided IP is already allocated")),
        "{}",
        refused.text
    );
    let mut replaced = service("web");
    replaced["spec"]["type"] = json!("NodePort");
    let replaced = server.put(&format!("{SERVICES}/web"), &replaced).await.json();
    assert_eq!(replaced["spec"]["clusterIP"], ip, "an update that does not name the address keeps it");
    let port = replaced["spec"]["ports"][0]["nodePort"].as_i64().unwrap();
    assert!((30000..=32767).contains(&port));
    let mut third = service("three");
    third["spec"] = json!({"type": "NodePort", "ports": [{"port": 80, "nodePort": port}]});
    let refused = server.post(SERVICES, &third).await;
    assert!(refused.message().ends_with("provided port is already allocated"), "{}", refused.text);
    server.delete(&format!("{SERVICES}/web")).await;
    assert_eq!(ranges(&server).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_services_never_share_an_address() {
    let server = Server::start_with(|c| c.service_cluster_ip_range = "10.0.0.0/26".parse().unwrap()).await;
    let create = |i: usize| {
        let server = &server;
        async move { server.post(SERVICES, &service(&format!("s{i}"))).await }
    };
    let answers = futures::future::join_all((0..70).map(create)).await;
    let made: Vec<Value> = answers.iter().filter(|a| a.code == 201).map(Answer::json).collect();
    let addresses: HashSet<&str> = made.iter().map(|s| s["spec"]["clusterIP"].as_str().unwrap()).collect();
    // 62 usable addresses, one of them the `kubernetes` service's and one that of DNS.
    assert_eq!((made.len(), addresses.len()), (60, 60));
    assert!(answers.iter().filter(|a| a.code != 201).all(|a| a.message().contains("range is full")));
}

#[tokio::test]
async fn a_pod_runs_as_an_account_that_is_there() {
    let server = Server::start().await;
    let mut other = pod("a", "");
    other["spec"]["serviceAccountName"] = json!("other");
    let refused = server.post(PODS, &other).await;
    assert_eq!(refused.code, 403);
    let message =
        r#"pods "a" is forbidden: error looking up service account default/other: serviceaccount "other" not found"#;
    assert_eq!(refused.message(), message);

    // The account called `default` is waited for: a controller makes it right after the namespace.
    server.create("/api/v1/namespaces", &json!({"metadata": {"name": "shop"}})).await;
    let shop = "/api/v1/namespaces/shop";
    let (pods, accounts) = (format!("{shop}/pods"), format!("{shop}/serviceaccounts"));
    let (web, account) = (pod("web", ""), json!({"metadata": {"name": "default"}}));
    let (created, _) = tokio::join!(server.post(&pods, &web), server.create(&accounts, &account));
    assert_eq!(created.code, 201, "{}", created.text);
    let volume = created.json()["spec"]["volumes"][0]["name"].as_str().unwrap().to_owned();
    assert!(volume.starts_with("kube-api-access-"), "{volume}");
    server.delete(&format!("{accounts}/default")).await;
    // Admission looks at the watch cache as it is; a list brings it up to date.
    server.get(&accounts).await;
    assert_eq!(server.post(&pods, &pod("late", "")).await.code, 403, "but not for ever");
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let server = Server::start().await;
    let pod = server.pod("a", "").await;
    assert_eq!(pod["spec"]["serviceAccountName"], "default");
    let to = |node: &str| json!({"metadata": {"name": "a"}, "target": {"kind": "Node", "name": node}});
    assert_eq!(server.post("/api/v1/namespaces/default/bindings", &to("n1")).await.code, 201);
    let bound = server.get(&format!("{PODS}/a")).await.json();
    assert_eq!(bound["spec"]["nodeName"], "n1");
    assert!(
        bound["status"]["conditions"]
            .as_array()
            .unwrap()
            .iter()
            .any(|c| c["type"] == "PodScheduled" && c["status"] == "True")
    );
    let again = server.post(&format!("{PODS}/a/binding"), &to("n2")).await;
    assert_eq!(again.code, 409);
    assert_eq!(
        again.message(),
        r#"Operation cannot be fulfilled on pods/binding "a": pod a is already assigned to node "n1""#
    );
}

#[tokio::test]
async fn a_certificate_request_keeps_who_asked() {
    let server = Server::start().await;
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let request = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, request);
    let csr = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "a"},
        "spec": {"request": request, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"], "username": "root"},
    });
    let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let created = server.create(path, &csr).await;
    assert_eq!(created["spec"]["username"], "admin");
    let mut approved = created.clone();
    approved["status"] = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "x", "message": "y"}], "certificate": "eA=="});
    let answer = server.put(&format!("{path}/a/approval"), &approved).await;
    assert_eq!(answer.code, 200, "{}", answer.text);
    assert_eq!(answer.json()["status"]["conditions"][0]["type"], "Approved");
    assert_eq!(answer.json()["status"]["certificate"], Value::Null, "approval gives no certificate");
}

#[tokio::test]
async fn ephemeral_containers_come_by_their_own_way_and_stay() {
    let server = Server::start().await;
    let made = server.pod("a", "n1").await;
    let path = format!("{PODS}/a/ephemeralcontainers");
    let debug = |image: &str| json!({"spec": {"ephemeralContainers": [{"name": "debug", "image": image}]}});
    let more = server.patch(&format!("{PODS}/a"), &debug("busybox")).await;
    assert_eq!(more.code, 422, "{}", more.text);
    // As kubectl does it: a strategic merge patch.
    let strategic = [("content-type", "application/strategic-merge-patch+json")];
    let added = server.send("PATCH", &path, &strategic, &debug("busybox").to_string()).await;
    assert_eq!(added.code, 200, "{}", added.text);
    let pod = added.json();
    assert_eq!(pod["spec"]["ephemeralContainers"][0]["imagePullPolicy"], "Always");
    assert_eq!(pod["metadata"]["generation"], 2, "the kubelet has something to do");
    assert_eq!(server.get(&path).await.json()["spec"], pod["spec"]);
    let changed = server.send("PATCH", &path, &strategic, &debug("other").to_string()).await;
    assert_eq!(changed.code, 422, "{}", changed.text);
    assert!(changed.text.contains("may not be changed"), "{}", changed.text);
    // Nothing else goes this way, and the pod can be written as ever.
    let label = json!({"metadata": {"labels": {"a": "b"}}});
    let sneaked = server.send("PATCH", &path, &strategic, &label.to_string()).await;
    assert_eq!(sneaked.json()["metadata"]["labels"], made["metadata"]["labels"]);
    assert_eq!(server.patch(&format!("{PODS}/a"), &label).await.json()["metadata"]["labels"]["a"], "b");
}

#[tokio::test]
async fn some_kinds_are_created_by_an_update_and_leases_replaced_by_version_only() {
    let server = Server::start().await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    let lease = |more: Value| {
        let mut lease = json!({"metadata": {"name": "l"}, "spec": {"holderIdentity": "me"}});
        lease["metadata"].as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        lease
    };
    let path = format!("{leases}/l");
    for (seen, code, words) in [
        (json!({"resourceVersion": "x"}), 422, r#"resourceVersion: Invalid value: "x": must be an unsigned integer"#),
        (json!({"uid": "5"}), 409, "Precondition failed: UID in precondition: 5, UID in object meta: "),
        (
            json!({"uid": "5", "resourceVersion": "5"}),
            409,
            "Precondition failed: UID in precondition: 5, UID in object meta: ",
        ),
    ] {
        let answer = server.put(&path, &lease(seen)).await;
        assert!(answer.code == code && answer.message().ends_with(words), "{}", answer.text);
    }
    let secret = json!({"metadata": {"name": "s", "uid": "5"}});
    assert_eq!(server.put("/api/v1/namespaces/default/secrets/s", &secret).await.code, 409, "and nothing is made");
    for seen in [json!({}), json!({"resourceVersion": "5"})] {
        assert_eq!(server.put(&format!("{path}?dryRun=All"), &lease(seen)).await.code, 201);
    }
    assert_eq!(server.get(&path).await.code, 404);
    let made = server.put(&path, &lease(json!({}))).await;
    assert_eq!((made.code, &made.json()["spec"]["holderIdentity"]), (201, &json!("me")), "{}", made.text);
    let unsaid = server.put(&path, &lease(json!({}))).await;
    let words = "metadata.resourceVersion: Invalid value: 0: must be specified for an update";
    assert!(unsaid.code == 422 && unsaid.message().ends_with(words), "{}", unsaid.text);
    let version = json!({"resourceVersion": made.json()["metadata"]["resourceVersion"]});
    assert_eq!(server.put(&path, &lease(version)).await.code, 200);

    assert_eq!(server.put(&format!("{SERVICES}/s"), &service("s")).await.code, 201);
    assert_eq!(server.put(&format!("{SERVICES}/s"), &service("s")).await.code, 200);
    assert_eq!(server.put(&format!("{SERVICES}/other/status"), &service("other")).await.code, 404);
    assert_eq!(server.put(&format!("{CONFIG_MAPS}/c"), &config_map("c")).await.code, 404);
    // Who may update alone may not create.
    let rules = json!([{"apiGroups": [""], "resources": ["services"], "verbs": ["update"]}]);
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    server.create(&format!("{roles}/roles"), &json!({"metadata": {"name": "r"}, "rules": rules})).await;
    let subjects = json!([{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]);
    let role = json!({"kind": "Role", "name": "r", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "b"}, "roleRef": role, "subjects": subjects});
    server.create(&format!("{roles}/rolebindings"), &binding).await;
    let jane = || apiserver::User::new("jane", ["dev"]);
    let put = |name: &str| (format!("{SERVICES}/{name}"), service(name).to_string());
    let ((old, same), (new, other)) = (put("s"), put("t"));
    assert_eq!(server.send_as(jane(), "PUT", &old, &[], &same).await.code, 200);
    let refused = server.send_as(jane(), "PUT", &new, &[], &other).await;
    assert!(
        refused.code == 403 && refused.message().contains("cannot create resource \"services\""),
        "{}",
        refused.text
    );
}

#[tokio::test]
async fn options_of_a_deletion_are_those_of_its_body_if_there_is_one() {
    let server = Server::start().await;
    for (query, body, code) in [
        ("?propagationPolicy=", "", 422),
        ("?dryRun=All", "", 200),
        ("", r#"{"kind":"ConfigMap","apiVersion":"v1"}"#, 400),
        ("", r#"{"dryRun":["Some"]}"#, 422),
        (
            "?propagationPolicy=Some",
            r#"{"kind":"DeleteOptions","apiVersion":"example.org/v1","propagationPolicy":"Background"}"#,
            200,
        ),
    ] {
        server.post(CONFIG_MAPS, &config_map("a")).await;
        let answer = server.send("DELETE", &format!("{CONFIG_MAPS}/a{query}"), &[], body).await;
        assert_eq!(answer.code, code, "{query} {body}: {}", answer.text);
    }
    assert_eq!(server.get(&format!("{CONFIG_MAPS}/a")).await.code, 404);
    let orphaning = server.config_map("b").await;
    assert!(orphaning["metadata"]["finalizers"].is_null());
    let marked = server.delete(&format!("{CONFIG_MAPS}/b?orphanDependents=")).await.json();
    assert_eq!(marked["metadata"]["finalizers"], json!(["orphan"]));
}

#[tokio::test]
async fn nobody_manages_the_finalizer_an_object_ends_without() {
    let server = Server::start().await;
    let mut held = config_map("a");
    held["metadata"]["finalizers"] = json!(["a.b/c"]);
    server.create(CONFIG_MAPS, &held).await;
    let path = format!("{CONFIG_MAPS}/a");
    server.delete(&path).await;
    let last = server.patch(&path, &json!({"metadata": {"finalizers": null}})).await.json();
    assert!(!last["metadata"]["managedFields"].to_string().contains("finalizers"), "{last}");
    assert_eq!(server.get(&path).await.code, 404);
}
