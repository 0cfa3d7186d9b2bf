//! What is kept, what is not, and what is kept once.

use serde_json::{Value, json};

use super::*;

fn pod() -> Value {
    json!({
        "metadata": {"name": "p", "namespace": "d", "uid": "u", "resourceVersion": "7", "labels": {"a": "b"},
            "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {DELETION_COST: "5", "note": "long"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "ReplicationController", "name": "rc", "uid": "o", "controller": true}]},
        "spec": {"nodeName": "n", "hostname": "h", "subdomain": "s", "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "c", "image": "x",
                "ports": [{"name": "http", "containerPort": 80}, {"containerPort": 81}]}],
            "initContainers": [
                {"name": "i", "ports": [{"name": "early", "containerPort": 1}]},
                {"name": "s", "restartPolicy": "Always", "ports": [{"name": "dns", "protocol": "UDP", "containerPort": 53}]}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:09Z"}],
            "containerStatuses": [{"name": "c", "ready": true, "restartCount": 3, "image": "x", "imageID": "y"}]},
    })
}

fn kept(change: impl FnOnce(&mut Value)) -> PodInfo {
    let mut pod = pod();
    change(&mut pod);
    Keeper::default().keep(&serde_json::from_value(pod).unwrap())
}

#[test]
fn what_controllers_look_at_is_kept() {
    let pod = kept(|_| ());
    let time = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    assert_eq!((&*pod.namespace, &*pod.name, &*pod.uid, &*pod.version), ("d", "p", "u", "7"));
    assert_eq!((pod.node.as_deref(), pod.phase, pod.restarts, pod.deletion_cost), (Some("n"), Phase::Running, 3, 5));
    assert_eq!((pod.created, pod.deletion), (time("2026-01-01T00:00:00Z"), None));
    assert_eq!((pod.ready, pod.ready_since()), (true, time("2026-01-01T00:00:09Z")));
    assert_eq!(pod.ips.iter().map(|ip| &**ip).collect::<Vec<_>>(), ["10.0.0.1", "fd00::1"]);
    assert_eq!((pod.evicted, pod.disrupted, pod.mirror), (false, false, false));
    assert_eq!((pod.common.hostname.as_deref(), pod.common.subdomain.as_deref()), (Some("h"), Some("s")));
    let ports: Vec<_> = pod.common.ports.iter().map(|p| (&*p.name, &*p.protocol, p.port)).collect();
    assert_eq!(ports, [("http", "TCP", 80), ("dns", "UDP", 53)], "init containers that end serve nobody");
    assert_eq!(pod.common.tolerations.len(), 1);
    assert_eq!(pod.controller().map(|owner| owner.uid.as_str()), Some("o"));
    let metadata = pod.metadata();
    assert_eq!(metadata.owner_references.unwrap()[0].name, "rc");
    assert_eq!(metadata.labels.unwrap()["a"], "b");
}

#[test]
fn a_pod_is_judged_by_its_status() {
    type Case = (&'static str, fn(&mut Value), fn(&PodInfo) -> bool);
    let cases: &[Case] = &[
        ("nobody has written a phase", |p| p["status"] = json!({}), |p| p.phase == Phase::Pending && !p.ready),
        ("succeeded", |p| p["status"]["phase"] = json!("Succeeded"), PodInfo::is_terminal),
        ("failed", |p| p["status"]["phase"] = json!("Failed"), PodInfo::is_terminal),
        ("running", |_| (), |p| !p.is_terminal() && !p.is_terminating()),
        (
            "not ready is ready since never",
            |p| p["status"]["conditions"][0]["status"] = json!("False"),
            |p| !p.ready && p.ready_since().is_none(),
        ),
        (
            "on its way out",
            |p| p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"),
            |p| p.is_terminating() && p.metadata().deletion_timestamp.is_some(),
        ),
        ("an empty node name is none", |p| p["spec"]["nodeName"] = json!(""), |p| p.node.is_none()),
        ("evicted", |p| p["status"]["reason"] = json!("Evicted"), |p| p.evicted),
        (
            "disrupted",
            |p| p["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True"}]),
            |p| p.disrupted && !p.ready,
        ),
        ("a mirror", |p| p["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"}), |p| p.mirror),
        (
            "no list of addresses",
            |p| p["status"]["podIPs"] = json!(null),
            |p| p.ips.len() == 1 && &*p.ips[0] == "10.0.0.1",
        ),
        (
            "a cost that is no number",
            |p| p["metadata"]["annotations"] = json!({DELETION_COST: "x"}),
            |p| p.deletion_cost == 0,
        ),
    ];
    for (sentence, change, holds) in cases {
        assert!(holds(&kept(*change)), "{sentence}");
    }
}

#[test]
fn what_pods_have_in_common_is_kept_once() {
    let keeper = Keeper::default();
    let keep = |name: &str, label: &str| {
        let mut pod = pod();
        pod["metadata"]["name"] = json!(name);
        pod["metadata"]["labels"]["a"] = json!(label);
        keeper.keep(&serde_json::from_value(pod).unwrap())
    };
    let (a, b, other) = (keep("a", "x"), keep("b", "x"), keep("c", "y"));
    assert!(Arc::ptr_eq(&a.common, &b.common) && Arc::ptr_eq(&a.namespace, &other.namespace));
    assert_eq!((&a.labels()["a"], &other.labels()["a"]), (&"x".to_owned(), &"y".to_owned()));
}
