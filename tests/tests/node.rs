//! A node on this machine's Docker: what it uses, its images, volumes that outlive pods, and how it is emptied; with
//! stock kubectl where that has a command for it.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::sync::Arc;
use std::time::Duration;

use harness::boxes::{Boxes, IMAGE};
use harness::docker::{self, output};
use harness::wait::until;
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::api::{Api, LogParams};
use serde_json::{Value, json};

struct Lab {
    boxes: Boxes,
    home: tempfile::TempDir,
}

impl Lab {
    fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let program = std::env::var("KUBECTL").unwrap_or_else(|_| "kubectl".to_owned());
        let (config, home) = (self.boxes.kubeconfig(), self.home.path().display().to_string());
        let all = [&[&format!("HOME={home}"), program.as_str(), "--kubeconfig", config.to_str().unwrap()], arguments];
        output("env", &all.concat())
    }

    async fn create<K>(&self, object: Value)
    where
        K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
        K: k8s_openapi::Resource,
    {
        let object: K = serde_json::from_value(object).unwrap();
        let client = self.boxes.client();
        let group = if K::GROUP.is_empty() { "/api".to_owned() } else { format!("/apis/{}", K::GROUP) };
        let namespaced = K::KIND != "PersistentVolume";
        let place = if namespaced { "/namespaces/default" } else { "" };
        let path = format!("{group}/{}{place}/{}", K::VERSION, K::URL_PATH_SEGMENT);
        let request = http::Request::post(path).header("content-type", "application/json");
        let body = serde_json::to_vec(&object).unwrap();
        client.request::<Value>(request.body(body).unwrap()).await.unwrap();
    }

    async fn pod(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["terminationGracePeriodSeconds"] = json!(1);
        self.create::<Pod>(json!({"metadata": {"name": name, "labels": {"app": name}}, "spec": spec})).await;
    }

    async fn until_running(&self, name: &str) {
        let ready = |pods: &[Arc<Pod>]| pods.len() == 1 && api::pods::is_ready(&pods[0]);
        until::<Pod>(&self.boxes.client(), "the pod runs", &format!("app={name}"), ready).await.unwrap();
    }

    /// What a pod printed that has ended well.
    async fn printed(&self, name: &str) -> String {
        let ended = |pods: &[Arc<Pod>]| {
            let phase = pods.first().and_then(|pod| pod.status.as_ref()?.phase.as_deref());
            assert_ne!(phase, Some("Failed"), "{pods:?}");
            phase == Some("Succeeded")
        };
        until::<Pod>(&self.boxes.client(), "the pod ends", &format!("app={name}"), ended).await.unwrap();
        let pods: Api<Pod> = Api::default_namespaced(self.boxes.client());
        pods.logs(name, &LogParams::default()).await.unwrap()
    }

    /// A request to the node's images, through the API server; status and text.
    async fn images(&self, method: &str, rest: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let path = format!("/api/v1/nodes/box/proxy/images{rest}");
        let request = http::Request::builder().method(method).uri(path).body(kube::client::Body::from(body)).unwrap();
        let answer = self.boxes.client().send(request).await.unwrap();
        let status = answer.status().as_u16();
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        (status, body.to_vec())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_is_measured_supplied_and_emptied() {
    if !docker::available() {
        eprintln!("skipped: no Docker Engine answers, or not root");
        return;
    }
    let lab = Lab { boxes: Boxes::start().await.unwrap(), home: tempfile::tempdir().unwrap() };
    usage(&lab).await;
    images(&lab).await;
    volumes(&lab).await;
    lives(&lab).await;
    drain(&lab).await;
    lab.boxes.stop().await.unwrap();
}

/// `kubectl top` and what it is made from.
async fn usage(lab: &Lab) {
    let busy = json!({"name": "busy", "image": IMAGE, "command": ["sh", "-c", "while :; do :; done"],
        "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}}});
    let idle = json!({"name": "idle", "image": IMAGE, "command": ["sleep", "1000"]});
    lab.pod("busy", json!({"containers": [busy, idle]})).await;
    lab.until_running("busy").await;

    let nodes = lab.kubectl(&["top", "node"]).unwrap();
    assert!(nodes.starts_with("NAME") && nodes.contains("box") && nodes.contains('%'), "{nodes}");
    let pods = lab.kubectl(&["top", "pod", "-A", "--containers", "--no-headers"]).unwrap();
    let row = |name: &str| -> Vec<String> {
        let line =
            pods.lines().find(|line| line.split_whitespace().nth(2) == Some(name)).unwrap_or_else(|| panic!("{pods}"));
        line.split_whitespace().map(str::to_owned).collect()
    };
    let (busy, idle) = (row("busy"), row("idle"));
    assert_eq!((busy[0].as_str(), busy[1].as_str()), ("default", "busy"));
    let milli = |row: &[String]| row[3].trim_end_matches('m').parse::<u32>().unwrap();
    // The first second of the idle one is its start.
    assert!((10..=200).contains(&milli(&busy)) && milli(&idle) < milli(&busy), "{pods}");
    assert!(busy[4].ends_with("Mi"), "{pods}");
    let selected = lab.kubectl(&["top", "pod", "-l", "app=none"]).unwrap_or_default();
    assert!(!selected.contains("busy"), "{selected}");

    let summary = lab.kubectl(&["get", "--raw", "/api/v1/nodes/box/proxy/stats/summary"]).unwrap();
    let summary: Value = serde_json::from_str(&summary).unwrap();
    let pod = summary["pods"].as_array().unwrap().iter().find(|pod| pod["podRef"]["name"] == "busy").unwrap();
    assert!(pod["memory"]["workingSetBytes"].as_u64().unwrap() > 0, "{pod}");
    assert_eq!(pod["network"]["name"], "eth0");
    let busy = pod["containers"].as_array().unwrap().iter().find(|c| c["name"] == "busy").unwrap();
    let available = busy["memory"]["availableBytes"].as_u64().unwrap();
    assert!(available < 64 << 20, "what is left of its limit: {busy}");
    assert!(busy["cpu"]["usageNanoCores"].as_u64().unwrap() > 10_000_000, "{busy}");
    assert!(summary["node"]["fs"]["capacityBytes"].as_u64().unwrap() > 0);
    let metrics = lab.kubectl(&["get", "--raw", "/api/v1/nodes/box/proxy/metrics/resource"]).unwrap();
    assert!(
        metrics.contains("container_cpu_usage_seconds_total{container=\"busy\",namespace=\"default\",pod=\"busy\"}")
    );
}

/// Images come and go without a registry.
async fn images(lab: &Lab) {
    let archive = {
        let (status, archive) = lab.images("GET", &format!("/save?reference={IMAGE}"), Vec::new()).await;
        assert_eq!(status, 200);
        archive
    };
    assert!(archive.len() > 100_000, "an image of {} bytes", archive.len());
    let (status, text) =
        lab.images("POST", &format!("/tag?reference={IMAGE}&name=coracle/test-moved:2"), Vec::new()).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&text));
    let (_, list) = lab.images("GET", "", Vec::new()).await;
    let list: Value = serde_json::from_slice(&list).unwrap();
    let image = |name: &str| {
        let named = |image: &&Value| image["names"].as_array().unwrap().iter().any(|n| n == name);
        list["items"].as_array().unwrap().iter().find(named).cloned()
    };
    assert_eq!(image(IMAGE).unwrap()["inUse"], true);
    let pause = list["items"].as_array().unwrap().iter().find(|image| image["pinned"] == true);
    assert!(pause.is_some_and(|image| image["names"][0].as_str().unwrap().starts_with("coracle/pause")), "{list}");
    let (status, _) = lab.images("DELETE", "?reference=coracle/test-moved:2", Vec::new()).await;
    assert_eq!(status, 200, "another name of an image in use may go");
    let (status, why) = lab.images("DELETE", &format!("?reference={IMAGE}"), Vec::new()).await;
    assert_eq!(status, 409, "its last may not: {}", String::from_utf8_lossy(&why));
    let (status, loaded) = lab.images("POST", "/load", archive).await;
    assert_eq!((status, String::from_utf8_lossy(&loaded).into_owned()), (200, format!("{{\"loaded\":[\"{IMAGE}\"]}}")));
    let (status, _) = lab.images("POST", "/load", b"no archive".to_vec()).await;
    assert!(status >= 400);
}

/// A volume of this machine behind a claim, and an image as a volume.
async fn volumes(lab: &Lab) {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("old"), "kept").unwrap();
    let on_box = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": ["box"]});
    lab.create::<PersistentVolume>(json!({"metadata": {"name": "local-1"}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "local": {"path": place.path()},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [on_box]}]}}}}))
        .await;
    lab.create::<PersistentVolumeClaim>(json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}}))
        .await;
    let script = "cat /data/old; echo new > /data/new; stat -c '%g %a' /data/old; ls /image/bin | grep -c sh; \
                  touch /image/x 2>/dev/null || echo read-only; cat /part/file";
    lab.pod("keeper", json!({
        "restartPolicy": "Never",
        "securityContext": {"fsGroup": 4242},
        "initContainers": [{"name": "i", "image": IMAGE, "command": ["sh", "-c", "mkdir -p /all/a; echo sub > /all/a/file"],
            "volumeMounts": [{"name": "scratch", "mountPath": "/all"}]}],
        "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c", script], "volumeMounts": [
            {"name": "data", "mountPath": "/data"}, {"name": "image", "mountPath": "/image"},
            {"name": "scratch", "mountPath": "/part", "subPath": "a"}]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "image", "image": {"reference": IMAGE, "pullPolicy": "Never"}}, {"name": "scratch", "emptyDir": {}}],
    }))
    .await;
    let printed = lab.printed("keeper").await;
    let lines: Vec<&str> = printed.lines().collect();
    assert_eq!(lines[0], "kept4242 664", "{printed}");
    assert_eq!(lines[2..], ["read-only", "sub"], "{printed}");
    lab.kubectl(&["delete", "pod", "keeper", "--wait"]).unwrap();
    assert_eq!(
        std::fs::read_to_string(place.path().join("new")).unwrap(),
        "new\n",
        "what a claim holds outlives its pods"
    );
    let left = output("docker", &["ps", "-aq", "--filter", "label=io.coracle.image-files"]).unwrap();
    assert_eq!(left, "", "nothing is left of unpacking an image");
}

/// Thirty pods come and go, and leave neither tasks nor open files behind.
async fn lives(lab: &Lab) {
    let pods: Api<Pod> = Api::default_namespaced(lab.boxes.client());
    let counts = || {
        let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
        (tokio::runtime::Handle::current().metrics().num_alive_tasks(), files)
    };
    let mut first = None;
    for batch in 0..3 {
        for number in 0..10 {
            let container = json!({"name": "c", "image": IMAGE, "command": ["sleep", "1000"]});
            let mut pod = json!({"metadata": {"name": format!("life-{batch}-{number}"), "labels": {"app": "life"}}});
            pod["spec"] = json!({"terminationGracePeriodSeconds": 0, "containers": [container]});
            lab.create::<Pod>(pod).await;
        }
        let all_run = |pods: &[Arc<Pod>]| pods.len() == 10 && pods.iter().all(|pod| api::pods::is_ready(pod));
        until::<Pod>(&lab.boxes.client(), "ten pods run", "app=life", all_run).await.unwrap();
        for number in 0..10 {
            pods.delete(&format!("life-{batch}-{number}"), &Default::default()).await.unwrap();
        }
        until::<Pod>(&lab.boxes.client(), "they are gone", "app=life", |pods| pods.is_empty()).await.unwrap();
        first.get_or_insert_with(counts);
    }
    // Pods without a grace are gone before their containers, and what ends with those may end a moment after them; what
    // leaks does so for each of twenty pods. Of the one pod that stays there are two containers and a sandbox.
    let (first, end) = (first.unwrap(), tokio::time::Instant::now() + Duration::from_secs(60));
    let of_pods = ["ps", "-a", "--filter", "label=io.kubernetes.pod.namespace=default", "--format", "{{.Names}}"];
    loop {
        let (last, left) = (counts(), output("docker", &of_pods).unwrap());
        if last.0 < first.0 + 10 && last.1 < first.1 + 10 && left.lines().count() == 3 {
            break;
        }
        let late = tokio::time::Instant::now() > end;
        assert!(!late, "tasks and open files: {last:?} and not {first:?}; containers: {left}");
        // Nobody tells when a task or a file of another has gone.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The node is emptied for maintenance and taken back.
async fn drain(lab: &Lab) {
    let drained =
        lab.kubectl(&["drain", "box", "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"]);
    let drained = drained.unwrap();
    assert!(drained.contains("evicted") && drained.contains("node/box drained"), "{drained}");
    let client = lab.boxes.client();
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    assert!(pods.list(&Default::default()).await.unwrap().items.is_empty());
    let nodes: Api<Node> = Api::all(client);
    assert_eq!(nodes.get("box").await.unwrap().spec.unwrap().unschedulable, Some(true));
    let waits = json!({"containers": [{"name": "c", "image": IMAGE, "command": ["sleep", "1000"]}]});
    lab.pod("waits", waits).await;
    let unschedulable = |pods: &[Arc<Pod>]| {
        let conditions = pods.first().and_then(|pod| pod.status.as_ref()?.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == "PodScheduled" && c.reason.as_deref() == Some("Unschedulable"))
    };
    until::<Pod>(&lab.boxes.client(), "the pod waits", "app=waits", unschedulable).await.unwrap();
    lab.kubectl(&["uncordon", "box"]).unwrap();
    lab.until_running("waits").await;
    pods.delete("waits", &Default::default()).await.unwrap();
}
