//! A thousand pods come and go on a node, and leave neither tasks nor open files behind.

use std::sync::Arc;
use std::time::Duration;

use harness::boxes::Boxes;
use harness::wait::until;
use k8s_openapi::api::core::v1::{Pod, ReplicationController};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

/// Lives of pods, and how many live at a time.
const LIVES: usize = 1000;
const AT_A_TIME: usize = 100;

/// Tasks that run and files that are open, in this process: master and minion.
fn counts() -> (usize, usize) {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    (tokio::runtime::Handle::current().metrics().num_alive_tasks(), files)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_lives_of_pods_leave_nothing_behind() {
    let boxes = Boxes::hollow(1).await.unwrap();
    let client = boxes.client();
    let rcs: Api<ReplicationController> = Api::default_namespaced(client.clone());
    let container = json!({"name": "c", "image": "app", "command": ["httpd"],
        "readinessProbe": {"httpGet": {"port": 80}, "periodSeconds": 1},
        "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "kube-root-ca.crt", "key": "ca.crt"}}}]});
    let rc: ReplicationController = serde_json::from_value(json!({"metadata": {"name": "life"},
        "spec": {"replicas": 0, "selector": {"app": "life"}, "template": {"metadata": {"labels": {"app": "life"}},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]}}}}))
    .unwrap();
    rcs.create(&PostParams::default(), &rc).await.unwrap();
    let mut first = None;
    for _ in 0..LIVES / AT_A_TIME {
        for replicas in [AT_A_TIME, 0] {
            let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
            rcs.patch("life", &PatchParams::default(), &patch).await.unwrap();
            let all = |pods: &[Arc<Pod>]| pods.len() == replicas && pods.iter().all(|pod| api::pods::is_ready(pod));
            until::<Pod>(&client, "so many pods run", "app=life", all).await.unwrap();
        }
        first.get_or_insert_with(counts);
    }
    // What ends with its pod may end a moment after it; what leaks does so for each of nine hundred.
    let (first, end) = (first.unwrap(), tokio::time::Instant::now() + Duration::from_secs(60));
    loop {
        let last = counts();
        if last.0 < first.0 + AT_A_TIME / 2 && last.1 < first.1 + AT_A_TIME / 4 {
            break;
        }
        assert!(tokio::time::Instant::now() < end, "tasks and open files: {last:?} and not {first:?}");
        // Nobody tells when a task or a file of another has gone.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    boxes.stop().await.unwrap();
}
