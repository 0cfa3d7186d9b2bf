//! Static pods on a machine whose master is away: they run, the API shows them when it comes, and nothing but their manifest
//! ends them.

use std::process::Stdio;
use std::sync::Arc;

use harness::boxes::IMAGE;
use harness::engine;
use harness::wait::{PATIENCE, until};
use k8s_openapi::api::core::v1::Pod;
use kube::api::DeleteParams;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::killed::{Process, lab};
use crate::lab::{Lab, statuses};

/// The name of the mirror of the pod `web` on node `box`.
const MIRROR: &str = "web-box";

async fn until_mirrored(lab: &Lab, what: &str, expected: impl Fn(&Pod) -> bool) -> Arc<Pod> {
    let mirror = |pods: &[Arc<Pod>]| pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(MIRROR)).cloned();
    let is = |pods: &[Arc<Pod>]| mirror(pods).is_some_and(|pod| expected(&pod));
    let pods = until::<Pod>(&lab.boxes.client(), what, "", is).await.unwrap();
    mirror(&pods).unwrap()
}

fn now() -> String {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    since_1970.as_secs().to_string()
}

/// Waits until this has happened to a container called `c` on this engine.
async fn happened(endpoint: &str, event: &str, since: &str) {
    let filters = ["--filter", event, "--filter", "label=io.kubernetes.container.name=c", "--since", since];
    let mut events = Command::new("docker");
    events.args(["-H", endpoint, "events"]).args(filters).stdout(Stdio::piped()).kill_on_drop(true);
    let mut events = events.spawn().unwrap();
    let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
    tokio::time::timeout(PATIENCE, lines.next_line()).await.expect(event).unwrap().unwrap();
}

async fn until_gone(lab: &Lab) {
    let none = |pods: &[Arc<Pod>]| pods.iter().all(|pod| pod.metadata.name.as_deref() != Some(MIRROR));
    until::<Pod>(&lab.boxes.client(), "the mirror goes with the manifest", "", none).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn static_pods_run_before_the_master_does_and_are_shown_when_it_comes() {
    if !engine::available() {
        eprintln!("skipped: no Docker Engine here, or not root");
        return;
    }
    let mut lab = lab().await;
    let manifests = tempfile::tempdir().unwrap();
    let flags = lab.flags(&["--pod-manifest-path", manifests.path().to_str().unwrap()]);
    let minion = Process::with(&flags, Stdio::null());
    lab.until_node("the node is ready", "True", "").await;
    minion.kill().await;

    let container = json!({"name": "c", "image": IMAGE, "command": ["sleep", "1000"]});
    let spec = json!({"terminationGracePeriodSeconds": 1, "containers": [container]});
    let manifest = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": spec});
    let file = manifests.path().join("web.json");
    std::fs::write(&file, manifest.to_string()).unwrap();
    let (endpoint, mut minion) = (lab.engine.endpoint(), None);
    lab.boxes = lab
        .boxes
        .restart_master_after(async {
            minion = Some(Process::with(&flags, Stdio::null()));
            happened(&endpoint, "event=start", "1").await;
        })
        .await
        .unwrap();
    let mirror = until_mirrored(&lab, "the mirror", api::pods::is_ready).await;
    assert_eq!(lab.containers(MIRROR), ["POD running", "c running"]);

    lab.pods().delete(MIRROR, &DeleteParams::default().grace_period(0)).await.unwrap();
    let other = |pod: &Pod| pod.metadata.uid != mirror.metadata.uid && api::pods::is_ready(pod);
    let again = until_mirrored(&lab, "another mirror", other).await;
    assert_eq!(statuses(&again), statuses(&mirror), "a mirror that goes takes no container with it");

    std::fs::remove_file(&file).unwrap();
    until_gone(&lab).await;
    assert_eq!(lab.containers(MIRROR), [""; 0], "the mirror went last");

    // The same where nobody is there to see the manifest go.
    std::fs::write(&file, manifest.to_string()).unwrap();
    until_mirrored(&lab, "the mirror again", api::pods::is_ready).await;
    minion.unwrap().kill().await;
    std::fs::remove_file(&file).unwrap();
    let since = now();
    let minion = Process::with(&flags, Stdio::null());
    until_gone(&lab).await;
    happened(&lab.engine.endpoint(), "event=destroy", &since).await;
    minion.kill().await;
    lab.stop().await;
}
