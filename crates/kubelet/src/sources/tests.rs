//! Static pods on the hollow runtime, with a directory that is real, with and without a master.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Tasks;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio_stream::wrappers::BroadcastStream;

use crate::Config;
use crate::runtime::Runtime;
use crate::runtime::hollow::Hollow;
use crate::sources::url::ManifestUrl;

/// A wait that takes longer has failed.
const LIMIT: Duration = Duration::from_secs(60);

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// As much of a master as mirrors need: pods, and one Node.
#[derive(Clone)]
struct Master {
    pods: Arc<Mutex<BTreeMap<String, Value>>>,
    made: Arc<Mutex<u64>>,
    changes: broadcast::Sender<Value>,
}

impl Master {
    fn new() -> Master {
        Master { pods: Arc::default(), made: Arc::default(), changes: broadcast::Sender::new(64) }
    }

    fn client(&self) -> kube::Client {
        let master = self.clone();
        let answer = move |request: Request<Body>| {
            let master = master.clone();
            async move { Ok::<_, Infallible>(master.answer(request).await) }
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    fn tell(&self, what: &str, object: &Value) {
        let _ = self.changes.send(json!({"type": what, "object": object}));
    }

    fn delete(&self, name: &str) -> Option<Value> {
        let gone = self.pods.lock().remove(name)?;
        self.tell("DELETED", &gone);
        Some(gone)
    }

    async fn answer(&self, request: Request<Body>) -> Response<Answer> {
        let (parts, body) = request.into_parts();
        let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        let is_watch = parts.uri.query().unwrap_or_default().contains("watch=true");
        let words: Vec<&str> = path.trim_matches('/').split('/').collect();
        match (parts.method.as_str(), words.as_slice()) {
            ("GET", ["api", "v1", "pods"]) if is_watch => self.watch(),
            ("GET", _) if is_watch => Response::new(Answer::new(StreamBody::new(futures::stream::pending()))),
            ("GET", ["api", "v1", "pods"]) => list(self.pods.lock().values().cloned().collect()),
            ("GET", ["api", "v1", "nodes", name]) => {
                said(200, json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": "node-uid"}}))
            }
            ("GET", _) => list(Vec::new()),
            ("POST", [.., "pods"]) => said(201, self.create(body)),
            ("PATCH", [.., "pods", name, "status"]) => self.patch(name, &body),
            ("DELETE", [.., "pods", name]) => match self.delete(name) {
                Some(gone) => said(200, gone),
                None => said(404, failure(404)),
            },
            ("POST", _) => said(201, body),
            _ => said(404, failure(404)),
        }
    }

    fn create(&self, mut pod: Value) -> Value {
        let number = {
            let mut made = self.made.lock();
            *made += 1;
            *made
        };
        pod["metadata"]["uid"] = json!(format!("m{number}"));
        pod["metadata"]["resourceVersion"] = json!(format!("{}", number * 100));
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        self.pods.lock().insert(name, pod.clone());
        self.tell("ADDED", &pod);
        pod
    }

    fn patch(&self, name: &str, patch: &Value) -> Response<Answer> {
        let mut pods = self.pods.lock();
        let Some(pod) = pods.get_mut(name) else { return said(404, failure(404)) };
        for (key, value) in patch["status"].as_object().unwrap() {
            pod["status"][key] = value.clone();
        }
        let pod = pod.clone();
        drop(pods);
        self.tell("MODIFIED", &pod);
        said(200, pod)
    }

    fn watch(&self) -> Response<Answer> {
        let changes = BroadcastStream::new(self.changes.subscribe()).filter_map(|change| {
            let line = change.ok().map(|change| format!("{change}\n"));
            std::future::ready(line.map(|line| Ok::<_, Infallible>(hyper::body::Frame::data(Bytes::from(line)))))
        });
        Response::new(Answer::new(StreamBody::new(changes)))
    }

    /// Waits until `wanted` is true of the pods there are.
    async fn until(&self, what: &str, wanted: impl Fn(&BTreeMap<String, Value>) -> bool) {
        let mut changes = self.changes.subscribe();
        let found = async {
            while !wanted(&self.pods.lock()) {
                changes.recv().await.unwrap();
            }
        };
        assert!(tokio::time::timeout(LIMIT, found).await.is_ok(), "{what} never comes: {:?}", self.pods.lock());
    }
}

fn said(code: u16, value: Value) -> Response<Answer> {
    let mut response = Response::new(Answer::new(Full::from(value.to_string())));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn failure(code: u16) -> Value {
    json!({"kind": "Status", "status": "Failure", "reason": "NotFound", "message": "there is none", "code": code})
}

fn list(items: Vec<Value>) -> Response<Answer> {
    said(200, json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}))
}

fn manifest(name: &str, command: &str) -> String {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
        "terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "app:1", "command": [command]}]}})
    .to_string()
}

fn config(dir: &Path, standalone: bool) -> Config {
    Config {
        manifest_dir: Some(dir.to_owned()),
        pod_cidr: Some("10.244.9.0/24".parse().unwrap()),
        standalone,
        ..Config::new("n", "10.0.0.1".parse().unwrap(), "/nonexistent")
    }
}

/// Waits until these pods run, by their UIDs, and no others; their UIDs.
async fn until_running(hollow: &Hollow, count: usize, not: &[String]) -> Vec<String> {
    let mut events = hollow.events();
    let found = async {
        loop {
            let uids: Vec<String> = hollow.pods().await.unwrap().into_iter().map(|p| p.identity.uid).collect();
            if uids.len() == count && hollow.running() == count && !uids.iter().any(|uid| not.contains(uid)) {
                return uids;
            }
            events.next().await;
        }
    };
    tokio::time::timeout(LIMIT, found).await.unwrap_or_else(|_| panic!("{count} pods never run: {}", hollow.running()))
}

#[tokio::test]
async fn static_pods_need_no_master() {
    let (dir, hollow, tasks) = (tempfile::tempdir().unwrap(), Hollow::default(), Tasks::new());
    std::fs::write(dir.path().join("bad.yaml"), "kind: [").unwrap();
    let start = async |tasks: &Tasks| {
        let runtime = Arc::new(hollow.clone());
        crate::start(crate::no_master(), config(dir.path(), true), runtime, tasks).await.unwrap()
    };
    start(&tasks).await;
    let web = dir.path().join("web.yaml");
    std::fs::write(&web, manifest("web", "httpd")).unwrap();
    let first = until_running(&hollow, 1, &[]).await;
    std::fs::write(&web, manifest("web", "other")).unwrap();
    let second = until_running(&hollow, 1, &first).await;
    std::fs::write(dir.path().join("db.yaml"), manifest("db", "httpd")).unwrap();
    until_running(&hollow, 2, &first).await;
    let created = hollow.created();
    tasks.stop(Duration::from_secs(5)).await;

    // The next kubelet takes over what runs, and ends what lost its manifest meanwhile.
    std::fs::remove_file(&web).unwrap();
    let tasks = Tasks::new();
    start(&tasks).await;
    until_running(&hollow, 1, &second).await;
    assert_eq!(hollow.created(), created);
    std::fs::remove_file(dir.path().join("db.yaml")).unwrap();
    until_running(&hollow, 0, &[]).await;
    tasks.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn the_master_sees_static_pods_and_cannot_end_them() {
    let (dir, hollow, tasks) = (tempfile::tempdir().unwrap(), Hollow::default(), Tasks::new());
    let master = Master::new();
    // Left by a kubelet whose manifest went while it did not run.
    master.create(json!({"apiVersion": "v1", "kind": "Pod", "spec": {"containers": [], "nodeName": "n"},
        "metadata": {"name": "old-n", "namespace": "default", "annotations": {"kubernetes.io/config.mirror": "x"}}}));
    let web = dir.path().join("web.yaml");
    std::fs::write(&web, manifest("web", "httpd")).unwrap();
    let runtime = Arc::new(hollow.clone());
    crate::start(master.client(), config(dir.path(), false), runtime, &tasks).await.unwrap();
    let shown = |pods: &BTreeMap<String, Value>| pods.get("web-n").is_some_and(|p| p["status"]["phase"] == "Running");
    master.until("the mirror", |pods| shown(pods) && !pods.contains_key("old-n")).await;
    let mirror = master.pods.lock()["web-n"].clone();
    assert_eq!(mirror["metadata"]["ownerReferences"][0]["uid"], "node-uid");
    let uid = mirror["metadata"]["uid"].clone();
    let created = hollow.created();

    master.delete("web-n");
    master.until("another mirror", |pods| shown(pods) && pods["web-n"]["metadata"]["uid"] != uid).await;
    assert_eq!((hollow.created(), hollow.running()), (created, 1), "the containers are the same");

    std::fs::remove_file(&web).unwrap();
    master.until("the end of the mirror", |pods| pods.is_empty()).await;
    until_running(&hollow, 0, &[]).await;
    tasks.stop(Duration::from_secs(5)).await;
}

/// A document on a server, and how often it was sent, and how often it was not as it was the same.
#[derive(Clone)]
struct Document {
    text: Arc<Mutex<(u32, String)>>,
    sent: watch::Sender<(u32, u32)>,
}

impl Document {
    fn new(text: String) -> Document {
        Document { text: Arc::new(Mutex::new((0, text))), sent: watch::Sender::default() }
    }

    fn change(&self, text: String) {
        let mut present = self.text.lock();
        *present = (present.0 + 1, text);
    }

    /// Where it is, asked for many times a second.
    async fn serve(&self) -> ManifestUrl {
        let document = self.clone();
        let answer = async move |headers: http::HeaderMap| {
            let (version, text) = document.text.lock().clone();
            let changed = format!("Thu, 01 Jan 2026 00:00:{version:02} GMT");
            let known = headers.get("if-modified-since").is_some_and(|since| *since == changed);
            document.sent.send_modify(|(sent, same)| if known { *same += 1 } else { *sent += 1 });
            let status = if known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
            (status, [("last-modified", changed)], if known { String::new() } else { text })
        };
        let router = axum::Router::new().route("/pods", axum::routing::get(answer));
        let port = crate::testing::serve_plainly(router).await;
        let url = format!("http://127.0.0.1:{port}/pods").parse().unwrap();
        ManifestUrl { url, headers: Vec::new(), interval: Duration::from_millis(20) }
    }

    /// Waits until it has been sent twice more.
    async fn until_sent_again(&self) {
        let before = self.sent.borrow().0;
        let mut sent = self.sent.subscribe();
        let wait = sent.wait_for(|(sent, _)| *sent >= before + 2);
        tokio::time::timeout(LIMIT, wait).await.expect("the document is sent").unwrap();
    }

    /// Waits until it was the same twice more.
    async fn until_same(&self) {
        let before = self.sent.borrow().1;
        let mut sent = self.sent.subscribe();
        let wait = sent.wait_for(|(_, same)| *same >= before + 2);
        tokio::time::timeout(LIMIT, wait).await.expect("the document is the same").unwrap();
    }
}

#[tokio::test]
async fn pods_of_a_url_follow_its_document() {
    let (hollow, tasks, document) = (Hollow::default(), Tasks::new(), Document::new(manifest("web", "httpd")));
    let config =
        Config { manifest_dir: None, manifest_url: Some(document.serve().await), ..config(Path::new("/"), true) };
    crate::start(crate::no_master(), config, Arc::new(hollow.clone()), &tasks).await.unwrap();
    let first = until_running(&hollow, 1, &[]).await;
    document.change(manifest("web", "other"));
    let second = until_running(&hollow, 1, &first).await;
    document.until_same().await;
    document.change("kind: [".to_owned());
    document.until_sent_again().await;
    assert_eq!(until_running(&hollow, 1, &first).await, second, "a bad document ends nothing");
    document.change(manifest("db", "httpd"));
    until_running(&hollow, 1, &second).await;
    tasks.stop(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn a_name_that_its_source_gives_up_is_the_others() {
    let (dir, hollow, tasks) = (tempfile::tempdir().unwrap(), Hollow::default(), Tasks::new());
    let (web, document) = (dir.path().join("web.yaml"), Document::new(manifest("db", "httpd")));
    std::fs::write(&web, manifest("web", "httpd")).unwrap();
    let config = Config { manifest_url: Some(document.serve().await), ..config(dir.path(), true) };
    crate::start(crate::no_master(), config, Arc::new(hollow.clone()), &tasks).await.unwrap();
    until_running(&hollow, 2, &[]).await;
    document.change(manifest("web", "httpd"));
    let of_the_file = until_running(&hollow, 1, &[]).await;
    document.until_same().await;
    std::fs::remove_file(&web).unwrap();
    until_running(&hollow, 1, &of_the_file).await;
    tasks.stop(Duration::from_secs(5)).await;
}
