//! What tracking managed fields costs a write: `cargo run --release -p api --example track_cost`.

#![allow(clippy::print_stdout, clippy::unwrap_used)]

use std::time::Instant;

use api::Subresource;
use api::apply::{Writer, join, split};
use jiff::Timestamp;
use serde_json::{Value, json};

const ROUNDS: u32 = 20_000;

fn main() {
    let kind = api::kinds::by_kind("v1", "Pod").unwrap();
    let decode = |value: &Value| (kind.decode)(value.to_string().as_bytes()).unwrap().object;
    let mut created = decode(&pod());
    created.set_defaults();
    let created = String::from_utf8(created.encode()).unwrap();
    let mut running = pod();
    running["status"] = status("2026-01-01T00:00:00Z");
    let mut running = decode(&running);
    running.set_defaults();
    let running = String::from_utf8(running.encode()).unwrap();
    let later = running.replace("00:00:00Z", "00:00:30Z");
    let creator = Writer { info: kind.info, manager: "maker", subresource: None, now: Timestamp::UNIX_EPOCH };
    let kubelet = Writer { manager: "kubelet", subresource: Some(Subresource::Status), ..creator };
    let at_creation = creator.track(None, &created, "");
    let at_running = kubelet.track(Some(&created), &running, &at_creation);
    println!(
        "pod {} bytes, its managers {}; running {}, managers {}",
        created.len(),
        at_creation.len(),
        running.len(),
        at_running.len()
    );
    let stored = join(kind.info, running.clone().into_bytes(), &at_running);
    measure("decode a running pod, for comparison", || drop((kind.decode)(running.as_bytes()).unwrap()));
    let object = (kind.decode)(running.as_bytes()).unwrap().object;
    measure("encode a running pod, for comparison", || drop(object.encode()));
    measure("track a creation", || drop(creator.track(None, &created, "")));
    measure("track a first status", || drop(kubelet.track(Some(&created), &running, &at_creation)));
    measure("track a later status", || drop(kubelet.track(Some(&running), &later, &at_running)));
    measure("track no change", || drop(kubelet.track(Some(&running), &running, &at_running)));
    measure("split", || drop(split(kind.info, &stored)));
    measure("join", || drop(join(kind.info, running.clone().into_bytes(), &at_running)));
}

fn measure(what: &str, mut work: impl FnMut()) {
    let start = Instant::now();
    (0..ROUNDS).for_each(|_| work());
    println!("{what:40} {:6.2} µs", start.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "web-abcde", "namespace": "default", "generateName": "web-", "labels": {"app": "web", "tier": "front"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "ReplicationController", "name": "web", "uid": "u", "controller": true}]},
        "spec": {
            "containers": [{"name": "web", "image": "nginx:1.29", "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
                "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
                "readinessProbe": {"httpGet": {"path": "/", "port": 80}},
                "volumeMounts": [{"name": "data", "mountPath": "/data"}]}],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    })
}

fn status(time: &str) -> Value {
    let condition = |type_: &str| json!({"type": type_, "status": "True", "lastTransitionTime": time});
    let conditions = ["Initialized", "Ready", "ContainersReady", "PodScheduled"].map(condition);
    json!({
        "phase": "Running", "hostIP": "10.0.0.1", "podIP": "10.1.0.7", "podIPs": [{"ip": "10.1.0.7"}], "qosClass": "Burstable",
        "startTime": time, "conditions": conditions,
        "containerStatuses": [{"name": "web", "image": "nginx:1.29", "imageID": "sha256:abc", "containerID": "docker://def",
            "ready": true, "restartCount": 0, "started": true, "state": {"running": {"startedAt": time}}, "lastState": {}}],
    })
}
