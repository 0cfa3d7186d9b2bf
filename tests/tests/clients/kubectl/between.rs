//! The versions between the oldest and the newest: what differs between them on the wire.
//!
//! | | 1.27 | 1.28 | 1.29 | 1.30 | 1.31 | 1.32 | 1.33 |
//! | --- | --- | --- | --- | --- | --- | --- | --- |
//! | `whoami` | beta | v1 | | | | | |
//! | exec, attach | SPDY | | | WebSocket | | | |
//! | port-forward | SPDY | | | | WebSocket | | |
//! | validation by | OpenAPI v2 | | | OpenAPI v3 | | | |
//! | `--subresource resize` | | | | | | yes | |
//! | typed clients send | JSON | | | | | protobuf | |

use harness::boxes::Boxes;
use harness::kubectl::Kubectl;

use super::{BOTH, pods, start_web, writing};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_version_between_speaks_its_own_way() {
    let boxes = Boxes::hollow(1).await.unwrap();
    let minors: Vec<u32> = (27..BOTH[1]).collect();
    let judges = Kubectl::all(&boxes.kubeconfig(), &minors);
    futures::future::join_all(judges.iter().map(speaks)).await;
    boxes.stop().await.unwrap();
}

async fn speaks(kubectl: &Kubectl) {
    let namespace = format!("v{}", kubectl.minor);
    kubectl.says(&format!("create namespace {namespace}")).await;
    let kubectl = kubectl.inside(&namespace);
    start_web(&kubectl).await;
    kubectl.mentions("explain rc.spec.replicas", &["FIELD: replicas <integer>"]).await;
    let unknown = "---\n{apiVersion: v1, kind: ConfigMap, metadata: {name: bad}, nonsense: 1}";
    let refused = kubectl.run(&["create", "-f", "-"], unknown.as_bytes()).await;
    let complaint = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(complaint.contains(r#"unknown field "nonsense""#), "{complaint}");
    let pod = kubectl.says("get pods -l app=web -o 'jsonpath={.items[0].metadata.name}'").await;
    let failed = kubectl.run(&["exec", "-i", &pod, "--", "sh"], b"echo in\nexit 7\n").await;
    assert_eq!((failed.status.code(), &failed.stdout[..]), (Some(7), &b"in\n"[..]), "{failed:?}");
    pods::forwards(&kubectl).await;
    if kubectl.minor >= pods::RESIZES {
        pods::resizes(&kubectl).await;
    }
    writing::server_side(&kubectl).await;
    if kubectl.minor == 27 {
        // It knows only the alpha and the beta of the review, which no server has had since.
        kubectl.fails("auth whoami", "the selfsubjectreviews API is not enabled in the cluster").await;
    } else {
        kubectl.mentions("auth whoami", &["kubernetes-admin", "system:masters"]).await;
    }
    kubectl.prints("delete rc web --cascade=foreground", "replicationcontroller \"web\" deleted\n").await;
    kubectl.prints("get pods -o name", "").await;
    writing::creates(&kubectl).await;
}
