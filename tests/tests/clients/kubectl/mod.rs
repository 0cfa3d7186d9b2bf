//! Stock kubectl: each version does everything. They speak differently:
//!
//! | | 1.20 | 1.27 | 1.28 | 1.29 | 1.30 | 1.31 | 1.32 | 1.33 |
//! | --- | --- | --- | --- | --- | --- | --- | --- | --- |
//! | `whoami` | | beta | v1 | | | | | |
//! | exec, attach | SPDY | | | | WebSocket | | | |
//! | port-forward | SPDY | | | | | WebSocket | | |
//! | validation by | OpenAPI v2 in protobuf | v2 | | | OpenAPI v3 | | | |
//! | discovery | a group at a time | aggregated | | | | | | |
//! | `--subresource resize` | | | | | | | yes | |
//! | typed clients send | JSON | | | | | | protobuf | |

mod access;
mod habits;
mod nodes;
mod pods;
mod reading;
mod writing;

use futures::StreamExt;
use harness::boxes::Boxes;
use harness::kubectl::{Kubectl, line};
use harness::wait::PATIENCE;
use tokio::io::BufReader;

const ALL: [u32; 8] = [20, 27, 28, 29, 30, 31, 32, 33];
/// How many of them judge at a time.
const AT_ONCE: usize = 3;

/// A replication controller of two pods, its service and a config map.
const WEB: &str = r#"
apiVersion: v1
kind: ReplicationController
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 2
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: web
        image: example/web:1
        command: [serve, everything]
        ports: [{name: http, containerPort: 80}]
        env: [{name: A, value: "1"}, {name: B, value: "2"}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: http}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {a: "1", b: "2"}
"#;

/// Lets every kubectl judge one cluster, several at a time, each in a namespace of its own, `v20` to `v33`.
async fn judge(nodes: usize, part: impl AsyncFn(Kubectl)) {
    let boxes = Boxes::hollow(nodes).await.unwrap();
    let judges = Kubectl::all(&boxes.kubeconfig(), &ALL);
    let judge = async |kubectl: &Kubectl| {
        let namespace = format!("v{}", kubectl.minor);
        kubectl.prints(&format!("create namespace {namespace}"), &format!("namespace/{namespace} created\n")).await;
        part(kubectl.inside(&namespace)).await;
    };
    futures::stream::iter(&judges).for_each_concurrent(AT_ONCE, judge).await;
    boxes.stop().await.unwrap();
}

/// What kubectl says of something with another annotation.
fn annotated(kubectl: &Kubectl, what: &str) -> String {
    let word = if kubectl.minor == 27 { "annotate" } else { "annotated" };
    format!("{what} {word}\n")
}

/// Applies [`WEB`] and waits until it runs.
async fn start_web(kubectl: &Kubectl) {
    kubectl.ok(&["apply", "-f", "-"], WEB.as_bytes()).await;
    until_shown(kubectl, "rc/web", "{.status.readyReplicas}", "2").await;
}

/// Watches an object until what `look` shows of it is as expected.
///
/// kubectl reads the object, watches from version 0 and takes the first event for what it has shown: a change between the
/// two it never tells. So a watch that has been silent for a while is begun anew.
async fn until_shown(kubectl: &Kubectl, what: &str, look: &str, expected: &str) {
    let look = format!("jsonpath={look}{{\"\\n\"}}");
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while tokio::time::Instant::now() < deadline {
        let mut watch = kubectl.spawn(&["get", what, "-w", "-o", &look]);
        let mut lines = BufReader::new(watch.stdout.take().unwrap());
        let shown = async { while line(&mut lines).await != expected {} };
        let shown = tokio::time::timeout(PATIENCE / 12, shown).await;
        watch.kill().await.unwrap();
        if shown.is_ok() {
            return;
        }
    }
    let there = kubectl.says("get rc,pods,events -o yaml").await;
    panic!("{what} does not show {expected:?} in {look}:\n{there}");
}

/// A table as it stands on the terminal, cell by cell; without its heading.
fn cells(table: &str) -> Vec<Vec<&str>> {
    table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}
