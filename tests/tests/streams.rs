//! Streams to and from pods on Docker, as stock kubectl of both generations uses them: SPDY up to 1.28, WebSockets after.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

use std::process::Stdio;
use std::time::Duration;

use harness::boxes::{Boxes, IMAGE};
use harness::docker::{self, output};
use harness::kubectl::{Kubectl, line};
use harness::wait::{PATIENCE, until};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::api::{Api, PostParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

/// SPDY for everything; from 1.30 on WebSockets for exec, from 1.31 on for everything.
const VERSIONS: [u32; 8] = [20, 27, 28, 29, 30, 31, 32, 33];
/// What is sent through in one go.
const MUCH: usize = 20 << 20;

/// Bytes in which a lost or doubled piece shows.
fn much() -> Vec<u8> {
    (0..MUCH as u32 / 4).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

async fn create_pod(boxes: &Boxes, name: &str, container: Value) {
    let mut container = container;
    container["name"] = json!("c");
    container["image"] = json!(IMAGE);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }))
    .unwrap();
    Api::default_namespaced(boxes.client()).create(&PostParams::default(), &pod).await.unwrap();
    let ready = |pods: &[std::sync::Arc<Pod>]| pods.len() == 1 && api::pods::is_ready(&pods[0]);
    until::<Pod>(&boxes.client(), "the pod runs", &format!("app={name}"), ready).await.unwrap();
}

async fn start() -> Option<Boxes> {
    if !docker::available() {
        eprintln!("skipped: no Docker Engine answers, or not root");
        return None;
    }
    Some(Boxes::start().await.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_runs_commands_attaches_and_copies() {
    let Some(boxes) = start().await else { return };
    create_pod(&boxes, "box", json!({"command": ["sleep", "100000"]})).await;
    let echo = "while read line; do echo \"got $line\"; done; sleep 100000";
    create_pod(&boxes, "echo", json!({"command": ["sh", "-c", echo], "stdin": true})).await;
    for kubectl in Kubectl::all(&boxes.kubeconfig(), &VERSIONS) {
        eprintln!("kubectl 1.{}", kubectl.minor);
        commands(&kubectl).await;
        terminal(&kubectl).await;
        attached(&kubectl).await;
        run_and_removed(&kubectl).await;
        copies(&kubectl).await;
    }
    boxes.stop().await.unwrap();
}

async fn commands(kubectl: &Kubectl) {
    let script = "echo out; echo err >&2; exit 7";
    let ended = kubectl.run(&["exec", "box", "--", "sh", "-c", script], b"").await;
    let error = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!((ended.status.code(), &ended.stdout[..]), (Some(7), &b"out\n"[..]), "{error}");
    assert_eq!(error, "err\ncommand terminated with exit code 7\n");
    let much = much();
    assert!(kubectl.ok(&["exec", "-i", "box", "--", "cat"], &much).await == much, "every byte, both ways");
    let counted = kubectl.ok(&["exec", "-i", "box", "--", "sh", "-c", "head -c 1000 | wc -c"], &much).await;
    assert_eq!(counted, b"1000\n", "a command that does not read all of its input");
    let missing = kubectl.run(&["exec", "box", "-c", "other", "--", "true"], b"").await;
    assert!(String::from_utf8_lossy(&missing.stderr).contains("container other is not valid for pod box"));
    let missing = kubectl.run(&["exec", "box", "--", "/nothing"], b"").await;
    assert!(!missing.status.success());
}

/// A terminal of `script`'s: kubectl takes its size, and follows it. A command may start before it has its first size.
async fn terminal(kubectl: &Kubectl) {
    let inner =
        "trap 'stty size' WINCH; stty size; while [ \"$(stty size)\" != '44 111' ]; do sleep 1 & wait; done; exit 3";
    let file = kubectl.home().join("inner");
    std::fs::write(&file, inner).unwrap();
    let run = kubectl.line();
    let outer = format!("tty; stty rows 33 cols 99; exec {run} exec -it box -- sh -c \"$(cat {})\"", file.display());
    let mut script = Command::new("script");
    script.args(["-qfec", &outer, "/dev/null"]).env("HOME", kubectl.home()).env("SHELL", "/bin/sh");
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(script.stdout.take().unwrap());
    let tty = line(&mut lines).await;
    while line(&mut lines).await != "33 99" {}
    output("stty", &["-F", &tty, "rows", "44", "cols", "111"]).unwrap();
    while line(&mut lines).await != "44 111" {}
    let ended = tokio::time::timeout(PATIENCE, script.wait()).await.unwrap().unwrap();
    assert_eq!(ended.code(), Some(3));
}

async fn attached(kubectl: &Kubectl) {
    let mut child = kubectl.spawn(&["attach", "-i", "echo"]);
    child.stdin.as_mut().unwrap().write_all(b"hello\n").await.unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    while line(&mut lines).await != "got hello" {}
    child.kill().await.unwrap();
}

/// A pod for one conversation: it ends with its input, and goes.
async fn run_and_removed(kubectl: &Kubectl) {
    let image = format!("--image={IMAGE}");
    let run = ["run", "talk", &image, "--image-pull-policy=IfNotPresent", "--restart=Never", "--rm", "-i"];
    let said = kubectl.ok(&[&run[..], &["--command", "--", "cat"]].concat(), b"hello\n").await;
    let said = String::from_utf8_lossy(&said);
    assert!(said.starts_with("hello\n") && said.ends_with("pod \"talk\" deleted\n"), "{said}");
}

async fn copies(kubectl: &Kubectl) {
    let much = much();
    let (there, back) = (kubectl.home().join("there"), kubectl.home().join("back"));
    std::fs::write(&there, &much).unwrap();
    kubectl.ok(&["cp", there.to_str().unwrap(), "box:/copied"], b"").await;
    kubectl.ok(&["cp", "box:/copied", back.to_str().unwrap()], b"").await;
    assert!(std::fs::read(&back).unwrap() == much);
    kubectl.ok(&["exec", "box", "--", "rm", "/copied"], b"").await;
}

/// On 80 and, for loopback only, on 8080 files; on 7 what it is sent.
fn server() -> Value {
    let script = "mkdir -p /www && echo home > /www/index.html && echo page > /www/page; nc -ll -p 7 -e cat & \
                  httpd -p 80 -h /www && httpd -p 127.0.0.1:8080 -h /www && wait";
    json!({"command": ["sh", "-c", script], "ports": [{"containerPort": 80}]})
}

/// Waits until the pod of [`server`] listens.
async fn listening(kubectl: &Kubectl) {
    let script = "until wget -q -O - http://127.0.0.1:8080/page; do sleep 0.1; done";
    kubectl.ok(&["exec", "server", "--", "sh", "-c", script], b"").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_forwards_ports() {
    let Some(boxes) = start().await else { return };
    create_pod(&boxes, "server", server()).await;
    for kubectl in Kubectl::all(&boxes.kubeconfig(), &VERSIONS) {
        eprintln!("kubectl 1.{}", kubectl.minor);
        listening(&kubectl).await;
        let mut forward = kubectl.forward("pod/server", 8080).await;
        assert_eq!(output("curl", &["-s", &format!("http://127.0.0.1:{}/page", forward.port)]).unwrap(), "page");
        forward.child.kill().await.unwrap();
        let mut forward = kubectl.forward("pod/server", 7).await;
        let much = much();
        let pieces = (1..=20).map(|n| &much[..MUCH / 20 * if n == 1 { 20 } else { 1 }]);
        // The server's backlog is short: one after the other is accepted, then all send at once.
        let mut connections = Vec::new();
        for piece in pieces {
            connections.push(echoed(accepted(forward.port).await, piece));
        }
        futures::future::join_all(connections).await;
        forward.child.kill().await.unwrap();
        refused(&kubectl).await;
    }
    boxes.stop().await.unwrap();
}

/// A connection whose first byte came back.
async fn accepted(port: u16) -> TcpStream {
    let mut connection = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    connection.write_all(b"x").await.unwrap();
    assert_eq!(connection.read_u8().await.unwrap(), b'x');
    connection
}

/// Everything comes back, also after the end of what was sent.
async fn echoed(connection: TcpStream, sent: &[u8]) {
    let (mut reader, mut writer) = connection.into_split();
    let sent = sent.to_vec();
    let (expected, mut received) = (sent.clone(), Vec::new());
    let write = async move {
        writer.write_all(&sent).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let both = async { tokio::join!(write, reader.read_to_end(&mut received)) };
    let ((), read) = tokio::time::timeout(PATIENCE, both).await.unwrap();
    read.unwrap();
    assert!(received == expected, "{} of {} bytes", received.len(), expected.len());
}

async fn refused(kubectl: &Kubectl) {
    let mut forward = kubectl.forward("pod/server", 9).await;
    let mut connection = TcpStream::connect(("127.0.0.1", forward.port)).await.unwrap();
    assert_eq!(connection.read(&mut [0; 8]).await.unwrap_or(0), 0, "closed");
    let mut told = BufReader::new(forward.child.stderr.take().unwrap());
    let told = line(&mut told).await;
    assert!(told.contains("error forwarding port 9 to pod") && told.contains("refused"), "{told}");
    forward.child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_pods_and_services_are_reached_through_the_proxy() {
    let Some(boxes) = start().await else { return };
    create_pod(&boxes, "server", server()).await;
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "server"}, "ports": [{"name": "http", "port": 8000, "targetPort": 80}]},
    }))
    .unwrap();
    Api::default_namespaced(boxes.client()).create(&PostParams::default(), &service).await.unwrap();
    let has_address = |endpoints: &[std::sync::Arc<k8s_openapi::api::core::v1::Endpoints>]| {
        let mut subsets =
            endpoints.iter().filter(|e| e.metadata.name.as_deref() == Some("web")).flat_map(|e| &e.subsets);
        subsets.any(|subsets| !subsets.is_empty())
    };
    until(&boxes.client(), "the service has an endpoint", "", has_address).await.unwrap();
    let kubectl = Kubectl::all(&boxes.kubeconfig(), &VERSIONS).pop().unwrap();
    listening(&kubectl).await;
    let raw = async |path: &str| {
        let output = kubectl.run(&["get", "--raw", path], b"").await;
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        format!("{out}{err}").trim().to_owned()
    };
    let namespace = "/api/v1/namespaces/default";
    for (path, expected) in [
        (format!("{namespace}/pods/server/proxy/page"), "page"),
        (format!("{namespace}/pods/http:server:80/proxy/page?x=y"), "page"),
        (format!("{namespace}/services/web:http/proxy/page"), "page"),
        (format!("{namespace}/services/web:8000/proxy/"), "home"),
        ("/api/v1/nodes/box/proxy/healthz".to_owned(), "ok"),
        ("/api/v1/nodes/box/proxy/containerLogs/default/server/c".to_owned(), ""),
    ] {
        assert_eq!(raw(&path).await, expected, "{path}");
    }
    assert!(raw(&format!("{namespace}/pods/server:81/proxy/")).await.contains("error trying to reach service"));
    assert!(raw(&format!("{namespace}/services/web:81/proxy/")).await.contains("no service port 81 found"));
    assert!(raw("/api/v1/proxy/nodes/box/healthz").await.contains("could not find the requested resource"));
    through_kubectl_proxy(&kubectl).await;
    boxes.stop().await.unwrap();
}

async fn through_kubectl_proxy(kubectl: &Kubectl) {
    let mut child = kubectl.spawn(&["proxy", "--port=0"]);
    let mut printed = BufReader::new(child.stdout.take().unwrap());
    let started = line(&mut printed).await;
    let address = started.strip_prefix("Starting to serve on ").unwrap();
    let page = |path: &str| output("curl", &["-s", "-L", &format!("http://{address}/api/v1/namespaces/default{path}")]);
    assert_eq!(page("/services/web:http/proxy").unwrap(), "home", "by way of the path with a slash");
    assert!(page("/pods/server").unwrap().contains("\"podIP\""));
    child.kill().await.unwrap();
}

/// What this process, which is master and minion, holds: open files, and tasks.
fn held() -> (usize, usize) {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    (files, tokio::runtime::Handle::current().metrics().num_alive_tasks())
}

/// Processes in the pod's container.
async fn processes(boxes: &Boxes) -> usize {
    let pod = Api::<Pod>::default_namespaced(boxes.client()).get("server").await.unwrap();
    let statuses = pod.status.unwrap().container_statuses.unwrap();
    let id = statuses[0].container_id.as_deref().unwrap().trim_start_matches("docker://").to_owned();
    output("docker", &["top", &id, "-o", "pid"]).unwrap().lines().count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_are_killed_leave_nothing_behind() {
    let Some(boxes) = start().await else { return };
    create_pod(&boxes, "server", server()).await;
    for kubectl in Kubectl::all(&boxes.kubeconfig(), &VERSIONS) {
        eprintln!("kubectl 1.{}", kubectl.minor);
        // Whatever is made once is made now.
        listening(&kubectl).await;
        let before = (held(), processes(&boxes).await);
        let mut children = Vec::new();
        for arguments in [
            &["exec", "-i", "server", "--", "sh", "-c", "echo ready; cat; sleep 1000"][..],
            &["exec", "server", "--", "sh", "-c", "echo ready; sleep 1000"],
        ] {
            let mut child = kubectl.spawn(arguments);
            assert_eq!(line(&mut BufReader::new(child.stdout.take().unwrap())).await, "ready");
            children.push(child);
        }
        children.push(kubectl.spawn(&["attach", "server"]));
        let mut forward = kubectl.forward("pod/server", 7).await;
        let connection = accepted(forward.port).await;
        assert!(processes(&boxes).await > before.1 + 1);
        for child in children.iter_mut().chain([&mut forward.child]) {
            child.kill().await.unwrap();
        }
        // What the test itself holds of them is not counted.
        drop((forward, connection, children));
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let now = (held(), processes(&boxes).await);
            if now.0.0 <= before.0.0 && now.0.1 <= before.0.1 && now.1 <= before.1 {
                break;
            }
            assert!(tokio::time::Instant::now() < end, "{now:?} and not {before:?}");
            // Nobody tells when a process or a file of another has gone.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    boxes.stop().await.unwrap();
}
