use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use serde_json::json;

use super::*;
use crate::Config;
use crate::clock::Clock;
use crate::runtime::Runtime;
use crate::runtime::hollow::Hollow;

/// A test that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(120);
/// Pods that live at a time, and how often that many do.
const BATCH: usize = 100;
const BATCHES: usize = 10;

fn pod(uid: &str) -> Arc<Pod> {
    let volume = json!({"name": "v", "emptyDir": {}});
    let container =
        json!({"name": "c", "image": "i", "command": ["httpd"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let metadata = json!({"name": uid, "namespace": "ns", "uid": uid});
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": [volume]});
    Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap())
}

fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_lives_leave_neither_tasks_nor_files_behind() {
    let dir = tempfile::tempdir().unwrap();
    let hollow = Hollow::new(Clock::Wall);
    hollow.ensure_network("10.0.0.0/23".parse().unwrap()).await.unwrap();
    hollow.use_files();
    let config = Config::new("box1", [127, 0, 0, 1].into(), dir.path());
    let (client, machine) = (crate::testing::empty_api(), hollow.machine().await.unwrap());
    let tasks = Tasks::new();
    let pods = Pods::new(crate::testing::kubelet(&hollow, &machine, config, &client), client, &tasks);
    tasks.spawn(pods.clone().follow_runtime());
    let runtime = tokio::runtime::Handle::current();
    let mut counts = Vec::new();
    for batch in 0..BATCHES {
        let all: Vec<Arc<Pod>> = (0..BATCH).map(|number| pod(&format!("p-{batch}-{number}"))).collect();
        all.iter().for_each(|pod| pods.set(pod.clone()));
        tokio::time::timeout(LIMIT, hollow.until_running(BATCH)).await.expect("all run");
        all.into_iter().for_each(|pod| pods.removed(pod));
        tokio::time::timeout(LIMIT, pods.until_idle()).await.expect("every worker ends");
        counts.push((runtime.metrics().num_alive_tasks(), open_files()));
    }
    assert!(hollow.created() >= 2 * (BATCH * BATCHES) as u64, "as many sandboxes, and as many containers");
    // The first batch may have opened what is kept for all.
    let (first, last) = (counts[0], counts[BATCHES - 1]);
    assert!(last.0 <= first.0 + 2 && last.1 <= first.1 + 2, "tasks and open files: {counts:?}");
    let left = std::fs::read_dir(dir.path().join("pods")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "nothing is left on disk");
    assert!(tasks.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn who_was_taken_away_has_no_place_any_more_though_it_still_stops() {
    let dir = tempfile::tempdir().unwrap();
    let hollow = Hollow::new(Clock::Wall);
    hollow.ensure_network("10.0.0.0/24".parse().unwrap()).await.unwrap();
    hollow.ignore_terminate(true);
    let mut config = Config::new("box1", [127, 0, 0, 1].into(), dir.path());
    config.max_pods = 1;
    let (client, machine) = (crate::testing::empty_api(), hollow.machine().await.unwrap());
    let tasks = Tasks::new();
    let pods = Pods::new(crate::testing::kubelet(&hollow, &machine, config, &client), client, &tasks);
    tasks.spawn(pods.clone().follow_runtime());
    let (first, second) = (pod("first"), pod("second"));
    pods.set(first.clone());
    tokio::time::timeout(LIMIT, hollow.until_running(1)).await.expect("the first runs");
    pods.removed(first);
    pods.set(second.clone());
    tokio::time::timeout(LIMIT, hollow.until_running(2)).await.expect("the second runs beside it");
    pods.removed(second);
    tokio::time::timeout(LIMIT, pods.until_idle()).await.expect("both end");
    assert!(tasks.stop(Duration::from_secs(5)).await);
}
