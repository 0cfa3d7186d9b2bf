//! A minion that comes back changed: installed anew, or with another address.

use std::sync::Arc;

use harness::boxes::Boxes;
use harness::wait::until;
use k8s_openapi::api::core::v1::{Node, Pod, ReplicationController};
use kube::api::{Api, LogParams, PostParams};
use serde_json::json;

/// Its addresses of type InternalIP.
fn internal_ips(node: &Node) -> Vec<&str> {
    let addresses = node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    addresses.filter(|address| address.type_ == "InternalIP").map(|address| address.address.as_str()).collect()
}

/// The pod's UID and how often its container began again.
fn runs(pod: &Pod) -> (Option<String>, Option<i32>) {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    (pod.metadata.uid.clone(), statuses.and_then(|all| Some(all.first()?.restart_count)))
}

async fn node(client: &kube::Client) -> Node {
    Api::<Node>::all(client.clone()).get("box-0").await.unwrap()
}

/// The one pod, once it is ready and its container is another than `before`.
async fn pod(client: &kube::Client, before: Option<&Pod>) -> Arc<Pod> {
    let told = std::sync::Mutex::new(None);
    let ready = |pods: &[Arc<Pod>]| {
        assert!(pods.len() <= 1, "it is never doubled: {pods:?}");
        let found = pods.first().filter(|pod| api::pods::is_ready(pod));
        let found = found.filter(|pod| before.is_none_or(|before| runs(before).1 != runs(pod).1));
        *told.lock().unwrap() = found.cloned();
        found.is_some()
    };
    until::<Pod>(client, "the pod runs", "app=stays", ready).await.unwrap();
    told.into_inner().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minion_comes_back_installed_anew_and_with_another_address() {
    let boxes = Boxes::hollow(1).await.unwrap();
    let client = boxes.client();
    let rc: ReplicationController = serde_json::from_value(json!({"metadata": {"name": "stays"},
        "spec": {"replicas": 1, "selector": {"app": "stays"}, "template": {"metadata": {"labels": {"app": "stays"}},
            "spec": {"containers": [{"name": "c", "image": "app", "command": ["httpd"]}]}}}}))
    .unwrap();
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &rc).await.unwrap();
    let first = pod(&client, None).await;
    let (uid, path) = (node(&client).await.metadata.uid, boxes.data("box-0").join("pki/kubelet-client.pem"));
    let certificate = std::fs::read_to_string(&path).unwrap();

    let boxes = boxes.come_back("box-0", true, &[]).await.unwrap();
    let second = pod(&client, Some(&first)).await;
    assert_eq!(runs(&second).0, runs(&first).0, "the pod is the same, and runs again");
    assert_eq!(node(&client).await.metadata.uid, uid, "so is the node");
    assert_ne!(std::fs::read_to_string(&path).unwrap(), certificate, "with credentials of its own");

    let certificate = std::fs::read_to_string(&path).unwrap();
    let (mut boxes, mut third) = (boxes, second);
    // The second can be reached, too.
    for ip in ["192.0.2.5", "127.0.0.2"] {
        boxes = boxes.come_back("box-0", false, &["--node-ip", ip]).await.unwrap();
        // A node is ready once its server has a certificate, which names its address.
        let moved =
            |nodes: &[Arc<Node>]| nodes.iter().all(|node| api::nodes::is_ready(node) && internal_ips(node) == [ip]);
        until::<Node>(&client, "the node has its new address", "", moved).await.unwrap();
        third = pod(&client, Some(&third)).await;
        assert_eq!((runs(&third).0, node(&client).await.metadata.uid), (runs(&first).0, uid.clone()));
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), certificate, "who it is has not changed");
    let name = third.metadata.name.as_deref().unwrap();
    let logs = Api::<Pod>::default_namespaced(client).logs(name, &LogParams::default()).await;
    logs.expect("the API server reaches it there, and believes it");
    boxes.stop().await.unwrap();
}
