use serde_json::{Value, json};

use super::*;
use crate::kinds::by_kind;

fn object(value: Value) -> Box<dyn Object> {
    let kind = by_kind(value["apiVersion"].as_str().unwrap(), value["kind"].as_str().unwrap()).unwrap();
    (kind.decode)(value.to_string().as_bytes()).unwrap().object
}

fn pod(spec: Value) -> Box<dyn Object> {
    object(json!({"apiVersion": "v1", "kind": "Pod", "spec": spec}))
}

fn container(requests: Value, limits: Value) -> Value {
    json!({"name": "c", "image": "i", "resources": {"requests": requests, "limits": limits}})
}

fn shown(usage: &Usage, names: &[&str]) -> String {
    let one = |name: &&str| format!("{name}={}", usage.get(*name).copied().unwrap_or(Quantity::ZERO));
    names.iter().map(one).collect::<Vec<_>>().join(" ")
}

#[test]
fn everything_is_one_of_its_kind() {
    let map = object(json!({"apiVersion": "v1", "kind": "ConfigMap"}));
    assert_eq!(shown(&usage(&*map), &["configmaps", "count/configmaps"]), "configmaps=1 count/configmaps=1");
    let lease = object(json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease"}));
    assert_eq!(shown(&usage(&*lease), &["count/leases.coordination.k8s.io"]), "count/leases.coordination.k8s.io=1");
}

#[test]
fn pods_are_measured_by_what_they_ask_for() {
    let spec = json!({
        "containers": [container(json!({"cpu": "100m", "memory": "64Mi"}), json!({"cpu": "1"})),
            container(json!({"cpu": "200m", "example.com/gpu": "2"}), json!({"example.com/gpu": "2"}))],
        "initContainers": [container(json!({"cpu": "2"}), json!({}))],
    });
    let names = ["pods", "cpu", "requests.cpu", "requests.memory", "limits.cpu", "requests.example.com/gpu"];
    let expected = "pods=1 cpu=2 requests.cpu=2 requests.memory=64Mi limits.cpu=1 requests.example.com/gpu=2";
    assert_eq!(shown(&usage(&*pod(spec.clone())), &names), expected);
    let mut ended = object(json!({"apiVersion": "v1", "kind": "Pod", "spec": spec, "status": {"phase": "Failed"}}));
    assert_eq!(shown(&usage(&*ended), &["pods", "cpu", "count/pods"]), "pods=0 cpu=0 count/pods=1");
    ended.set_defaults();
}

#[test]
fn services_are_measured_by_the_ports_they_take() {
    let service = |spec: Value| usage(&*object(json!({"apiVersion": "v1", "kind": "Service", "spec": spec})));
    let names = ["services", "services.nodeports", "services.loadbalancers"];
    let ports = json!([{"port": 80}, {"port": 81, "nodePort": 30000}]);
    for (spec, expected) in [
        (json!({"ports": ports}), "services=1 services.nodeports=0 services.loadbalancers=0"),
        (json!({"ports": ports, "type": "NodePort"}), "services=1 services.nodeports=2 services.loadbalancers=0"),
        (json!({"ports": ports, "type": "LoadBalancer"}), "services=1 services.nodeports=2 services.loadbalancers=1"),
        (
            json!({"ports": ports, "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false}),
            "services=1 services.nodeports=1 services.loadbalancers=1",
        ),
    ] {
        assert_eq!(shown(&service(spec), &names), expected);
    }
}

#[test]
fn claims_are_measured_by_class_too() {
    let claim = object(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {
        "storageClassName": "fast", "resources": {"requests": {"storage": "1Gi"}}}}));
    let names = ["requests.storage", "fast.storageclass.storage.k8s.io/requests.storage"];
    let expected = "requests.storage=1Gi fast.storageclass.storage.k8s.io/requests.storage=1Gi";
    assert_eq!(shown(&usage(&*claim), &names), expected);
}

#[test]
fn scopes_choose_among_pods() {
    let quota =
        |spec: Value| -> ResourceQuota { serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap() };
    let covers = |spec: Value, object: &dyn Object| {
        let hard = [("pods".to_owned(), Amount("1".into())), ("secrets".to_owned(), Amount("1".into()))].into();
        covers(&quota(spec), &hard, object)
    };
    let best_effort = pod(json!({"containers": [{"name": "c"}]}));
    let burstable = pod(json!({"containers": [container(json!({"cpu": "1"}), json!({}))], "activeDeadlineSeconds": 5}));
    let high = pod(json!({"containers": [], "priorityClassName": "high"}));
    let secret = object(json!({"apiVersion": "v1", "kind": "Secret"}));
    let priority = |operator: &str| json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": operator, "values": ["high"]}]}});
    for (sentence, spec, object, expected) in [
        ("without scopes every pod counts", json!({}), &best_effort, true),
        ("and every other object", json!({}), &secret, true),
        ("which is in no scope", json!({"scopes": ["NotBestEffort"]}), &secret, false),
        ("best effort", json!({"scopes": ["BestEffort"]}), &best_effort, true),
        ("burstable is not best effort", json!({"scopes": ["BestEffort"]}), &burstable, false),
        ("a deadline ends a pod", json!({"scopes": ["Terminating"]}), &burstable, true),
        ("all scopes must fit", json!({"scopes": ["Terminating", "BestEffort"]}), &burstable, false),
        ("a class by name", priority("In"), &high, true),
        ("another class", priority("NotIn"), &high, false),
        ("no class", priority("In"), &best_effort, false),
    ] {
        assert_eq!(covers(spec, &**object), expected, "{sentence}");
    }
}

#[test]
fn containers_that_do_not_say_what_they_need_are_named() {
    let spec = json!({"containers": [
        {"name": "a", "resources": {"requests": {"cpu": "1"}}}, {"name": "b", "resources": {"limits": {"memory": "1Gi"}}},
    ]});
    let names = ["requests.cpu", "limits.memory", "pods"];
    let message = missing(names.into_iter(), &*pod(spec)).unwrap();
    assert_eq!(message, "must specify limits.memory for: a; requests.cpu for: b");
    assert_eq!(missing(names.into_iter(), &*pod(json!({"containers": []}))), None);
}

#[test]
fn a_limited_resource_belongs_to_one_kind() {
    for (name, plural) in [
        ("pods", "pods"),
        ("count/pods", "pods"),
        ("requests.cpu", "pods"),
        ("requests.example.com/gpu", "pods"),
        ("services.nodeports", "services"),
        ("requests.storage", "persistentvolumeclaims"),
        ("count/leases.coordination.k8s.io", "leases"),
        ("secrets", "secrets"),
    ] {
        let hard = [(name.to_owned(), Amount("1".into()))].into();
        let found: Vec<&str> = kinds(&hard).map(|kind| kind.info.plural).collect();
        assert_eq!(found, [plural], "{name}");
    }
}
