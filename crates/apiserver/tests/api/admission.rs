//! What admission does to pods, and what it refuses.

use apiserver::User;
use serde_json::{Value, json};

use crate::common::{PODS, Server, pod};

const LIMITS: &str = "/api/v1/namespaces/default/limitranges";
const CLASSES: &str = "/apis/scheduling.k8s.io/v1/priorityclasses";

fn class(name: &str, value: i32, default: bool) -> Value {
    json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
        "value": value, "globalDefault": default})
}

#[tokio::test]
async fn a_pod_gets_the_priority_of_its_class() {
    let server = Server::start().await;
    let plain = server.pod("plain", "").await;
    assert_eq!(
        (&plain["spec"]["priority"], &plain["spec"]["preemptionPolicy"]),
        (&json!(0), &json!("PreemptLowerPriority"))
    );
    server.create(CLASSES, &class("high", 1000, false)).await;
    let mut wanted = pod("important", "");
    wanted["spec"]["priorityClassName"] = json!("high");
    assert_eq!(server.create(PODS, &wanted).await["spec"]["priority"], 1000);
    wanted["metadata"]["name"] = json!("other");
    wanted["spec"]["priority"] = json!(7);
    let refused = server.post(PODS, &wanted).await;
    assert!(refused.message().contains("the integer value of priority (7) must not be provided"), "{}", refused.text);
    wanted["spec"]["priorityClassName"] = json!("nothing");
    let refused = server.post(PODS, &wanted).await;
    assert_eq!(
        (refused.code, refused.message()),
        (403, r#"pods "other" is forbidden: no PriorityClass with name nothing was found"#.into())
    );

    server.create(CLASSES, &class("usual", 5, true)).await;
    let defaulted = server.pod("usual", "").await;
    assert_eq!((&defaulted["spec"]["priority"], &defaulted["spec"]["priorityClassName"]), (&json!(5), &json!("usual")));
    let second = server.post(CLASSES, &class("second", 6, true)).await;
    assert!(second.message().contains("PriorityClass usual is already marked as default"), "{}", second.text);
    let answer = server.get(&format!("{CLASSES}/system-node-critical")).await;
    assert_eq!(answer.json()["value"], 2_000_001_000);
}

#[tokio::test]
async fn a_limit_range_fills_in_and_refuses_from_the_moment_it_is_there() {
    let server = Server::start().await;
    let limits = json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [
        {"type": "Container", "default": {"cpu": "500m"}, "max": {"cpu": "1"}}]}});
    server.create(LIMITS, &limits).await;
    let given = server.pod("given", "").await;
    assert_eq!(
        given["spec"]["containers"][0]["resources"],
        json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "500m"}})
    );
    assert_eq!(given["status"]["qosClass"], "Burstable");
    let mut large = pod("large", "");
    large["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": "2"}});
    let refused = server.post(PODS, &large).await;
    assert_eq!(
        (refused.code, refused.message()),
        (
            403,
            r#"pods "large" is forbidden: [maximum cpu usage per Container is 1, but limit is 2]"#
                .replace(['[', ']'], "")
        )
    );
}

#[tokio::test]
async fn nothing_is_created_in_a_namespace_that_is_not_there() {
    let server = Server::start().await;
    let answer = server.post("/api/v1/namespaces/nowhere/pods", &pod("p", "")).await;
    assert_eq!((answer.code, answer.message()), (404, r#"namespaces "nowhere" not found"#.into()));
    let answer = server.delete("/api/v1/namespaces/kube-system").await;
    let message = r#"namespaces "kube-system" is forbidden: this namespace may not be deleted"#;
    assert_eq!((answer.code, answer.message()), (403, message.into()));
}

#[tokio::test]
async fn an_evicted_pod_is_told_so_and_gets_its_grace() {
    let server = Server::start().await;
    let before = server.pod("leaving", "n1").await["metadata"].clone();
    let eviction = |preconditions: Value| {
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "leaving", "namespace": "default"},
            "deleteOptions": {"gracePeriodSeconds": 7, "preconditions": preconditions}})
    };
    let path = format!("{PODS}/leaving/eviction");
    let conflict = r#"Operation cannot be fulfilled on Pod "leaving": the "#;
    for (preconditions, message) in [
        (json!({"uid": "another"}), "UID in the precondition (another) does not match the UID in record"),
        (json!({"resourceVersion": "1"}), "ResourceVersion in the precondition (1) does not match the ResourceVersion"),
    ] {
        let answer = server.post(&path, &eviction(preconditions)).await;
        assert_eq!(answer.code, 409, "{}", answer.text);
        assert!(answer.message().starts_with(&format!("{conflict}{message}")), "{}", answer.message());
        let pod = server.get(&format!("{PODS}/leaving")).await.json();
        assert_eq!(pod["metadata"]["resourceVersion"], before["resourceVersion"], "another's eviction leaves no mark");
    }
    let trial = server.post(&format!("{path}?dryRun=All"), &eviction(json!({"uid": before["uid"]}))).await;
    assert_eq!(trial.code, 201, "{}", trial.text);
    let right = json!({"uid": before["uid"], "resourceVersion": before["resourceVersion"]});
    let answer = server.post(&path, &eviction(right)).await;
    assert_eq!((answer.code, &answer.json()["status"]), (201, &json!("Success")), "{}", answer.text);
    let pod = server.get(&format!("{PODS}/leaving")).await.json();
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 7);
    let condition = pod["status"]["conditions"].as_array().unwrap().iter().find(|c| c["type"] == "DisruptionTarget");
    assert_eq!(condition.unwrap()["reason"], "EvictionByEvictionAPI");
}

#[tokio::test]
async fn an_eviction_of_yesterday_is_one() {
    let server = Server::start().await;
    for (name, version, code) in
        [("a", "policy/v1", 201), ("b", "policy/v1beta1", 201), ("c", "policy/v1beta2", 400), ("d", "", 201)]
    {
        server.pod(name, "").await;
        let eviction = json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": name}});
        let path = format!("{PODS}/{name}/eviction?fieldValidation=Strict");
        let answer = server.post(&path, &eviction).await;
        assert_eq!(answer.code, code, "{version}: {}", answer.text);
    }
    let other = json!({"apiVersion": "policy/v1beta1", "kind": "Pod", "metadata": {"name": "c"}});
    assert_eq!(server.post(&format!("{PODS}/c/eviction"), &other).await.code, 400);
    assert_eq!(server.post(&format!("{PODS}/nowhere/eviction"), &other).await.code, 400, "before it is looked for");
}

#[tokio::test]
async fn a_node_labels_itself_only_with_what_steers_nothing_to_it() {
    let server = Server::start().await;
    let node =
        |labels: Value| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": labels}});
    let as_node = || User::new("system:node:n1", ["system:nodes"]);
    let bad = node(json!({"node-role.kubernetes.io/control-plane": ""})).to_string();
    let refused = server.send_as(as_node(), "POST", "/api/v1/nodes", &[], &bad).await;
    let message = r#"nodes "n1" is forbidden: node "n1" is not allowed to set the following labels: node-role.kubernetes.io/control-plane"#;
    assert_eq!((refused.code, refused.message()), (403, message.into()));
    let good = node(json!({"kubernetes.io/hostname": "n1", "disk": "ssd"})).to_string();
    assert_eq!(server.send_as(as_node(), "POST", "/api/v1/nodes", &[], &good).await.code, 201);
}

#[tokio::test]
async fn one_event_reads_in_two_words() {
    let server = Server::start().await;
    let newer = "/apis/events.k8s.io/v1/namespaces/default/events";
    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "note": "it was tried", "reason": "Tried", "action": "Try",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}, "type": "Normal",
        "reportingController": "a.b/c", "reportingInstance": "c-1"});
    let created = server.create(newer, &event).await;
    assert_eq!((&created["apiVersion"], &created["note"]), (&json!("events.k8s.io/v1"), &json!("it was tried")));
    let older = server.get("/api/v1/namespaces/default/events/e").await.json();
    assert_eq!((&older["apiVersion"], &older["message"]), (&json!("v1"), &json!("it was tried")));
    assert_eq!(older["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    let list = server.get(&format!("{newer}?fieldSelector=regarding.name%3Dp")).await.json();
    assert_eq!((&list["apiVersion"], &list["items"][0]["note"]), (&json!("events.k8s.io/v1"), &json!("it was tried")));
    let mut watch = server.watch(&format!("{newer}?watch=1")).await;
    assert_eq!(watch.next().await.unwrap()["object"]["regarding"]["name"], "p");
    let patched = server
        .patch(
            &format!("{newer}/e"),
            &json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:00:01.000000Z"}}),
        )
        .await;
    assert_eq!((patched.code, &patched.json()["series"]["count"]), (200, &json!(2)), "{}", patched.text);
    assert_eq!(watch.next().await.unwrap()["object"]["series"]["count"], 2);
    let refused = server.patch(&format!("{newer}/e"), &json!({"note": "another"})).await;
    assert!(refused.message().contains("message: Invalid value"), "{}", refused.text);
    let older = server.patch("/api/v1/namespaces/default/events/e", &json!({"message": "another"})).await;
    assert_eq!(older.code, 200, "{}", older.text);
    let bad = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "f"}});
    assert!(server.post(newer, &bad).await.message().contains("eventTime: Required value"));
}

#[tokio::test]
async fn the_parts_of_the_control_plane_say_how_they_are() {
    let server = Server::start().await;
    let path = "/api/v1/componentstatuses";
    let health = |name: &str, list: &Value| {
        let of = list["items"].as_array().unwrap().iter().find(|i| i["metadata"]["name"] == name).cloned().unwrap();
        of["conditions"][0]["status"].as_str().unwrap().to_owned()
    };
    let list = server.get(path).await.json();
    assert_eq!((list["kind"].as_str(), health("etcd-0", &list).as_str()), (Some("ComponentStatusList"), "True"));
    assert_eq!(health("scheduler", &list), "False");
    let watch = server.watch_as(User::master("system:kube-scheduler"), &format!("{PODS}?watch=1"), &[]).await;
    assert_eq!(server.get(&format!("{path}/scheduler")).await.json()["conditions"][0]["message"], "ok");
    drop(watch);
    assert_eq!(health("scheduler", &server.get(path).await.json()), "False");
    assert_eq!(server.get(&format!("{path}/nothing")).await.code, 404);
}

#[tokio::test]
async fn a_namespace_says_how_much_its_pods_may_do() {
    let server = Server::start().await;
    let pods = "/api/v1/namespaces/safe/pods";
    let labels = json!({"pod-security.kubernetes.io/warn": "restricted"});
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "safe", "labels": labels}});
    server.create("/api/v1/namespaces", &namespace).await;
    server.create("/api/v1/namespaces/safe/serviceaccounts", &json!({"metadata": {"name": "default"}})).await;
    let mut privileged = pod("mighty", "");
    privileged["spec"]["containers"][0]["securityContext"] = json!({"privileged": true});
    let warned = server.post(pods, &privileged).await;
    assert_eq!(warned.code, 201, "{}", warned.text);
    let warning = warned.headers["warning"].to_str().unwrap();
    assert!(warning.starts_with(r#"299 - "would violate PodSecurity \"restricted:latest\": privileged"#), "{warning}");

    // A read sees the pod, so the next request does.
    server.get(&format!("{pods}/mighty")).await;
    let enforce = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    let told = server.patch("/api/v1/namespaces/safe", &enforce).await;
    let told: Vec<_> = told.headers.get_all("warning").iter().map(|w| w.to_str().unwrap().to_owned()).collect();
    assert_eq!(
        told,
        [
            r#"299 - "existing pods in namespace \"safe\" violate the new PodSecurity enforce level \"baseline:latest\"""#,
            r#"299 - "mighty: privileged""#,
        ]
    );
    privileged["metadata"]["name"] = json!("mightier");
    let refused = server.post(pods, &privileged).await;
    let message = r#"pods "mightier" is forbidden: violates PodSecurity "baseline:latest": privileged (container "c" must not set securityContext.privileged=true)"#;
    assert_eq!((refused.code, refused.message()), (403, message.into()));
    let bad = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "strict"}}});
    assert_eq!(server.patch("/api/v1/namespaces/safe", &bad).await.code, 422);
}

#[tokio::test]
async fn an_account_may_lend_no_other_secrets_than_it_names() {
    let server = Server::start().await;
    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    for (name, value, code) in [("free", "false", 201), ("bound", "true", 403)] {
        let annotations = json!({"kubernetes.io/enforce-mountable-secrets": value});
        let account = json!({"metadata": {"name": name, "annotations": annotations}, "secrets": [{"name": "mine"}]});
        server.create(accounts, &account).await;
        for (secret, code) in [("mine", 201), ("other", code)] {
            let mut pod = pod(&format!("{name}-{secret}"), "");
            pod["spec"]["serviceAccountName"] = json!(name);
            pod["spec"]["volumes"] = json!([{"name": "v", "secret": {"secretName": secret}}]);
            let answer = server.post(PODS, &pod).await;
            assert_eq!(answer.code, code, "{name} {secret}: {}", answer.text);
        }
    }
    let debug = json!({"spec": {"ephemeralContainers": [{"name": "e", "image": "i",
        "envFrom": [{"secretRef": {"name": "other"}}]}]}});
    for (pod, code) in [("free-mine", 200), ("bound-mine", 403)] {
        let answer = server.patch(&format!("{PODS}/{pod}/ephemeralcontainers"), &debug).await;
        assert_eq!(answer.code, code, "{}", answer.text);
        let why = "ephemeral container e with envFrom referencing secret.secretName=\"other\" is not allowed because \
                   service account bound does not reference that secret";
        assert!(code == 200 || answer.message().ends_with(why), "{}", answer.message());
    }
}
