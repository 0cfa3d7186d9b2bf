//! What holds for every kind of the table.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::Object;

/// One valid object of each kind, as a client would send it.
fn examples() -> Vec<Value> {
    let template =
        json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "busybox"}]}});
    let request =
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUFBPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1024Mi"}}});
    let volume =
        json!({"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"}});
    let mut examples = vec![
        json!({"apiVersion": "v1", "kind": "Binding", "target": {"kind": "Node", "name": "n"}}),
        json!({"apiVersion": "v1", "kind": "ComponentStatus", "conditions": [{"type": "Healthy", "status": "True"}]}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1"}, "binaryData": {"b": "AQ=="}}),
        json!({"apiVersion": "v1", "kind": "Endpoints", "subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": [{"port": 80}]}]}),
        json!({"apiVersion": "v1", "kind": "Event", "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}}),
        json!({"apiVersion": "v1", "kind": "LimitRange", "spec": {"limits": [{"type": "Container", "max": {"cpu": "1000m"}}]}}),
        json!({"apiVersion": "v1", "kind": "Namespace"}),
        json!({"apiVersion": "v1", "kind": "Node", "status": {"capacity": {"memory": "1024Mi"}}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "spec": volume}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": claim}),
        json!({"apiVersion": "v1", "kind": "Pod", "spec": template["spec"]}),
        json!({"apiVersion": "v1", "kind": "PodTemplate", "template": template}),
        json!({"apiVersion": "v1", "kind": "ReplicationController", "spec": {"replicas": 3, "template": template}}),
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"pods": "3", "limits.cpu": "2000m"}}}),
        json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "1"}}),
        json!({"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount"}),
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}),
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "x"}}),
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "LocalSubjectAccessReview", "metadata": {"namespace": "a"},
            "spec": {"user": "u", "resourceAttributes": {"verb": "get", "namespace": "a"}}}),
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"nonResourceAttributes": {"verb": "get", "path": "/"}}}),
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "spec": {"namespace": "a"}}),
        json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
            "spec": {"user": "u", "resourceAttributes": {"verb": "get"}}}),
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "spec": {"request": request, "signerName": "a.b/c", "usages": ["client auth"]}}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"leaseDurationSeconds": 40}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.0.0.1"]}], "ports": [{"port": 80}]}),
        json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics", "timestamp": "2026-01-01T00:00:00Z",
            "window": "15s", "usage": {"cpu": "10m", "memory": "1Mi"}}),
        json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "PodMetrics", "timestamp": "2026-01-01T00:00:00Z",
            "window": "15s", "containers": [{"name": "c", "usage": {"cpu": "10m", "memory": "1Mi"}}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "roleRef": {"kind": "ClusterRole", "name": "view"}, "subjects": [{"kind": "Group", "name": "dev"}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "a"}]}),
        json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "eventTime": "2026-01-01T00:00:00.000000Z", "action": "Try",
            "reason": "Tried", "reportingController": "a.b/c", "reportingInstance": "c-1", "type": "Normal",
            "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}}),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 7}),
    ];
    for example in examples.iter_mut().filter(|e| row_of(e).info.is_stored()) {
        example["metadata"] = json!({"name": "web", "namespace": "default"});
    }
    examples
}

fn row_of(example: &Value) -> &'static Kind {
    by_kind(example["apiVersion"].as_str().unwrap(), example["kind"].as_str().unwrap()).unwrap()
}

/// The example as it would be stored.
fn stored(example: &Value) -> Box<dyn Object> {
    let decoded = (row_of(example).decode)(example.to_string().as_bytes()).unwrap();
    assert_eq!(decoded.strict_errors, [""; 0], "{example}");
    let mut object = decoded.object;
    object.set_defaults();
    object.prepare_create();
    object
}

#[test]
fn every_kind_has_an_example() {
    let mut kinds: Vec<&str> = KINDS.iter().map(|k| k.info.kind).collect();
    let examples = examples();
    let mut shown: Vec<&str> = examples.iter().map(|e| row_of(e).info.kind).collect();
    kinds.sort_unstable();
    shown.sort_unstable();
    assert_eq!(kinds, shown);
}

#[test]
fn defaults_applied_again_change_nothing() {
    for example in examples() {
        let object = stored(&example);
        let mut again = object.clone_object();
        again.set_defaults();
        assert_eq!(again.to_value(), object.to_value(), "{example}");
    }
}

#[test]
fn valid_objects_stay_valid_through_the_store() {
    for example in examples() {
        let object = stored(&example);
        assert_eq!(object.validate(), [], "{example}");
        let bytes = object.encode();
        let read = (row_of(&example).stored().decode)(&bytes).unwrap();
        assert_eq!(read.strict_errors, [""; 0], "{example}");
        assert_eq!(read.object.encode(), bytes, "{example}");
        assert_eq!(read.object.validate(), [], "{example}");
    }
}

#[test]
fn update_without_change_is_allowed_and_changes_nothing() {
    for example in examples() {
        let old = stored(&example);
        let mut new = old.clone_object();
        new.prepare_update(old.as_ref());
        assert_eq!(new.to_value(), old.to_value(), "{example}");
        assert_eq!(new.validate_update(old.as_ref()), [], "{example}");
        for subresource in old.info().subresources {
            new.prepare_subresource_update(*subresource, old.as_ref());
            assert_eq!(new.to_value(), old.to_value(), "{example} {subresource:?}");
            assert_eq!(new.validate_subresource_update(*subresource, old.as_ref()), [], "{example} {subresource:?}");
        }
    }
}

#[test]
fn cells_and_selectable_fields_fit_their_rows() {
    for example in examples() {
        let object = stored(&example);
        let info = object.info();
        assert_eq!(object.cells(Timestamp::UNIX_EPOCH).len(), info.columns.len(), "{}", info.kind);
        assert_eq!(object.selectable_fields().len(), info.selectable_fields.len(), "{}", info.kind);
    }
}

#[test]
fn empty_objects_are_refused_and_nothing_panics() {
    for kind in KINDS {
        let mut object = (kind.decode)(b"{}").unwrap().object;
        object.set_defaults();
        object.prepare_create();
        object.validate();
        object.cells(Timestamp::UNIX_EPOCH);
    }
}

#[test]
fn names_lead_to_their_rows() {
    for kind in KINDS {
        let info = kind.info;
        assert!(std::ptr::eq(by_resource(info.group, info.version, info.plural).unwrap().info, info), "{}", info.kind);
        assert!(std::ptr::eq(by_kind(&info.api_version(), info.kind).unwrap().info, info), "{}", info.kind);
    }
    assert!(by_resource("", "v1", "wishes").is_none());
}
