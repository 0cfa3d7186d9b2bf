//! What clients print and discover, word by word: compared with the files in `tests/golden`, and written anew with
//! `UPDATE_GOLDEN=1`, to be reviewed as a diff.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use crate::common::{Server, pod, rc};

const TABLE: [(&str, &str); 1] = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
/// Columns whose cells tell the time.
const OF_TIME: [&str; 4] = ["Age", "Last Seen", "First Seen", "Created At"];

fn compare(file: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(expected == text, "{} differs; UPDATE_GOLDEN=1 writes it anew. It would be:\n{text}", path.display());
}

/// One object of every kind that is stored, with what observers say of it.
fn objects() -> Vec<Value> {
    let container = json!({"name": "c", "image": "busybox:1"});
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}});
    let request =
        "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUFBPQotLS0tLUVORCBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0K";
    let mut with_status = pod("web", "n1");
    with_status["status"] = json!({"phase": "Running", "podIP": "10.1.0.7", "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "c", "ready": true, "restartCount": 2, "image": "i", "imageID": "", "state": {"running": {}}}]});
    let mut controller = rc("web");
    controller["status"] = json!({"replicas": 2, "readyReplicas": 1, "fullyLabeledReplicas": 2});
    vec![
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1", "b": "2"}}),
        json!({"apiVersion": "v1", "kind": "Endpoints", "subsets": [{"addresses": [{"ip": "10.1.0.1"}], "ports": [{"port": 80}]}]}),
        json!({"apiVersion": "v1", "kind": "Event", "type": "Warning", "reason": "Failed", "message": "it failed",
            "count": 3, "source": {"component": "kubelet", "host": "n1"},
            "involvedObject": {"kind": "Pod", "name": "web", "namespace": "default"}}),
        json!({"apiVersion": "v1", "kind": "LimitRange", "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "1m"}}]}}),
        json!({"apiVersion": "v1", "kind": "Namespace"}),
        json!({"apiVersion": "v1", "kind": "Node", "status": {"conditions": [{"type": "Ready", "status": "True"}],
            "addresses": [{"type": "InternalIP", "address": "192.168.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.35.0", "osImage": "Debian", "kernelVersion": "6.1", "containerRuntimeVersion": "docker://20.10",
                "machineID": "", "systemUUID": "", "bootID": "", "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64"}}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "spec": {"capacity": {"storage": "5Gi"},
            "accessModes": ["ReadWriteOnce", "ReadOnlyMany"], "hostPath": {"path": "/data"}, "storageClassName": "slow",
            "claimRef": {"namespace": "default", "name": "web"}}, "status": {"phase": "Bound"}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"volumeName": "web", "storageClassName": "slow",
            "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
            "status": {"phase": "Bound", "capacity": {"storage": "5Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}}),
        with_status,
        json!({"apiVersion": "v1", "kind": "PodTemplate", "template": template}),
        controller,
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "spec": {"hard": {"limits.cpu": "4", "count/leases.coordination.k8s.io": "9"}},
            "status": {"hard": {"limits.cpu": "4", "count/leases.coordination.k8s.io": "9"},
                "used": {"limits.cpu": "500m", "count/leases.coordination.k8s.io": "0"}}}),
        json!({"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "1"}}),
        json!({"apiVersion": "v1", "kind": "Service", "spec": {"clusterIP": "None", "selector": {"app": "web"}, "ports": [{"port": 80}]}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount"}),
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "spec": {"request": request, "signerName": "a.b/c", "usages": ["client auth"], "expirationSeconds": 3600}}),
        json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "spec": {"holderIdentity": "me"}}),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "endpoints": [{"addresses": ["10.1.0.1"]}], "ports": [{"port": 80}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "web"},
            "subjects": [{"kind": "Group", "name": "dev"}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "web"},
            "subjects": [{"kind": "User", "name": "ada"}]}),
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "value": 7}),
    ]
}

fn row(object: &Value) -> &'static api::Kind {
    api::kinds::by_kind(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap()
}

fn collection(kind: &api::KindInfo) -> String {
    let group = if kind.group.is_empty() { "/api".to_owned() } else { format!("/apis/{}", kind.group) };
    let place = if kind.scope == api::Scope::Namespaced { "/namespaces/default" } else { "" };
    format!("{group}/{}{place}/{}", kind.version, kind.plural)
}

/// Headings with their cells, those of `-o wide` in brackets.
fn shown(table: &Value) -> String {
    let columns = table["columnDefinitions"].as_array().unwrap();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    let mut text = String::new();
    for (column, cell) in columns.iter().zip(cells) {
        let name = column["name"].as_str().unwrap();
        let cell = if OF_TIME.contains(&name) && cell != "<unknown>" { json!("<time>") } else { cell.clone() };
        let heading = if column["priority"] == 0 { name.to_owned() } else { format!("({name})") };
        writeln!(text, "  {heading}: {cell}").unwrap();
    }
    text
}

#[tokio::test]
async fn tables_are_as_they_were() {
    let server = Server::start().await;
    let mut text = String::new();
    let objects = objects();
    for object in &objects {
        let (kind, mut object) = (row(object).info, object.clone());
        object["metadata"] = json!({"name": "web", "labels": object["metadata"]["labels"]});
        let path = collection(kind);
        let mut created = server.create(&path, &object).await;
        if kind.has(api::Subresource::Status) && !object["status"].is_null() {
            created["status"] = object["status"].clone();
            let answer = server.put(&format!("{path}/web/status"), &created).await;
            assert_eq!(answer.code, 200, "{}", answer.text);
        }
        let table = server.send("GET", &format!("{path}/web"), &TABLE, "").await.json();
        writeln!(text, "{} {}\n{}", kind.api_version(), kind.kind, shown(&table)).unwrap();
    }
    compare("tables.txt", &text);
    let stored = api::kinds().filter(|kind| kind.info.is_stored() && kind.view.is_none());
    let shown: BTreeSet<&str> = objects.iter().map(|o| row(o).info.kind).collect();
    let hidden: Vec<&str> = stored.map(|kind| kind.info.kind).filter(|kind| !shown.contains(kind)).collect();
    assert_eq!(hidden, [""; 0], "every stored kind has an object above");
}

#[tokio::test]
async fn discovery_is_as_it_was() {
    let server = Server::start().await;
    let mut documents = Map::new();
    let named = api::kinds().map(|kind| kind.info).filter(|info| !info.group.is_empty());
    let groups: BTreeSet<String> = named.map(|info| format!("/apis/{}", info.api_version())).collect();
    let paths = ["/api".to_owned(), "/apis".to_owned(), "/api/v1".to_owned()];
    for path in paths.into_iter().chain(groups) {
        let mut document = server.get(&path).await.json();
        if let Some(document) = document.as_object_mut() {
            // Where this server is reached.
            document.remove("serverAddressByClientCIDRs");
        }
        documents.insert(path, document);
    }
    let text = serde_json::to_string_pretty(&Value::Object(documents)).unwrap();
    compare("discovery.json", &format!("{text}\n"));
}

#[tokio::test]
async fn discovery_in_one_document_is_as_it_was() {
    let server = Server::start().await;
    let accept = [("accept", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")];
    let mut documents = Map::new();
    for path in ["/api", "/apis"] {
        documents.insert(path.to_owned(), server.send("GET", path, &accept, "").await.json());
    }
    let text = serde_json::to_string_pretty(&Value::Object(documents)).unwrap();
    compare("aggregated-discovery.json", &format!("{text}\n"));
}
