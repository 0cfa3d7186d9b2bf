//! The whole scheduler against a service that answers lists, leaves watches open and records what is written.

#![allow(clippy::unwrap_used, missing_docs)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::Tasks;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use scheduler::Config;
use serde_json::{Value, json};
use tokio::sync::mpsc;

type Answer = UnsyncBoxBody<Bytes, Infallible>;

/// What the API server holds, and how many bindings it refuses first.
#[derive(Default)]
struct World {
    nodes: Vec<Value>,
    pods: Vec<Value>,
    failing_binds: AtomicUsize,
}

/// One write: method, path and body.
type Write = (Method, String, Value);

/// Starts a scheduler on `world`; gives what it writes.
fn start(world: World) -> (mpsc::UnboundedReceiver<Write>, Tasks) {
    let (written, writes) = mpsc::unbounded_channel();
    let world = Arc::new(world);
    let service = tower::service_fn(move |request: Request<Body>| {
        let (world, written) = (world.clone(), written.clone());
        async move { Ok::<_, Infallible>(answer(&world, &written, request).await) }
    });
    let tasks = Tasks::new();
    let config = Config { seed: Some(1), ..Config::default() };
    scheduler::start(kube::Client::new(service, "default"), config, &tasks);
    (writes, tasks)
}

async fn answer(world: &World, written: &mpsc::UnboundedSender<Write>, request: Request<Body>) -> Response<Answer> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    if head.method == Method::GET {
        let watching = head.uri.query().is_some_and(|query| query.contains("watch=true"));
        return if watching { open_watch() } else { json_answer(StatusCode::OK, list(world, &path)) };
    }
    let body: Value = serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap();
    let refused = path.ends_with("/binding")
        && world.failing_binds.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
    written.send((head.method, path, body.clone())).ok();
    if refused {
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 500,
            "reason": "InternalError", "message": "no quorum"});
        return json_answer(StatusCode::INTERNAL_SERVER_ERROR, status);
    }
    json_answer(StatusCode::CREATED, body)
}

fn list(world: &World, path: &str) -> Value {
    let (kind, items) = if path.ends_with("/nodes") { ("NodeList", &world.nodes) } else { ("PodList", &world.pods) };
    json!({"kind": kind, "apiVersion": "v1", "metadata": {"resourceVersion": "5"}, "items": items})
}

fn open_watch() -> Response<Answer> {
    let silence = futures::stream::pending::<Result<http_body::Frame<Bytes>, Infallible>>();
    Response::new(StreamBody::new(silence).boxed_unsync())
}

fn json_answer(status: StatusCode, body: Value) -> Response<Answer> {
    let body = Full::new(Bytes::from(body.to_string())).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

fn node(name: &str, cpu: &str) -> Value {
    json!({
        "metadata": {"name": name, "resourceVersion": "1"},
        "status": {"allocatable": {"cpu": cpu, "memory": "8Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "web", "uid": format!("uid-{name}"), "resourceVersion": "2"},
        "spec": {"schedulerName": "default-scheduler",
            "containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
    })
}

/// The next write whose path ends in `suffix`.
async fn next(writes: &mut mpsc::UnboundedReceiver<Write>, suffix: &str) -> Write {
    let found = async {
        loop {
            let write = writes.recv().await.unwrap();
            if write.1.ends_with(suffix) {
                return write;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.expect("it is written")
}

#[tokio::test(start_paused = true)]
async fn a_waiting_pod_is_bound_by_uid_and_an_event_tells_of_it() {
    let (mut writes, tasks) =
        start(World { nodes: vec![node("n1", "4")], pods: vec![pod("a", "1")], ..World::default() });
    let (method, path, binding) = next(&mut writes, "/binding").await;
    assert_eq!((method, path.as_str()), (Method::POST, "/api/v1/namespaces/web/pods/a/binding"));
    assert_eq!(binding["target"], json!({"apiVersion": "v1", "kind": "Node", "name": "n1"}));
    assert_eq!(binding["metadata"]["uid"], "uid-a");
    let (_, _, event) = next(&mut writes, "/events").await;
    assert_eq!(
        (&event["reason"], &event["message"]),
        (&json!("Scheduled"), &json!("Successfully assigned web/a to n1"))
    );
    assert!(tasks.stop(Duration::from_secs(5)).await);
}

#[tokio::test(start_paused = true)]
async fn a_failed_binding_is_tried_again_after_a_back_off() {
    let world = World { nodes: vec![node("n1", "4")], pods: vec![pod("a", "1")], failing_binds: AtomicUsize::new(1) };
    let (mut writes, tasks) = start(world);
    next(&mut writes, "/binding").await;
    let failed = tokio::time::Instant::now();
    next(&mut writes, "/binding").await;
    assert!(failed.elapsed() >= scheduler::queue::BACKOFF_MIN);
    assert!(tasks.stop(Duration::from_secs(5)).await);
}

#[tokio::test(start_paused = true)]
async fn an_unschedulable_pod_says_why_in_its_status_and_in_an_event() {
    let (mut writes, tasks) =
        start(World { nodes: vec![node("n1", "1")], pods: vec![pod("big", "2")], ..World::default() });
    let (mut condition, mut event) = (None, None);
    while condition.is_none() || event.is_none() {
        let (_, path, body) = next(&mut writes, "").await;
        match path.as_str() {
            "/api/v1/namespaces/web/pods/big/status" => condition = Some(body["status"]["conditions"][0].clone()),
            path if path.ends_with("/events") => event = Some(body),
            path => panic!("unexpected write to {path}"),
        }
    }
    let (condition, event, text) = (condition.unwrap(), event.unwrap(), "0/1 nodes are available: 1 Insufficient cpu.");
    assert_eq!((&condition["type"], &condition["status"]), (&json!("PodScheduled"), &json!("False")));
    assert_eq!((&condition["reason"], &condition["message"]), (&json!("Unschedulable"), &json!(text)));
    assert_eq!((&event["reason"], &event["message"]), (&json!("FailedScheduling"), &json!(text)));
    assert!(tasks.stop(Duration::from_secs(5)).await);
}

#[tokio::test(start_paused = true)]
async fn pods_that_fit_together_are_bound_and_the_rest_is_refused() {
    let pods = (0..5).map(|number| pod(&format!("p{number}"), "1")).collect();
    let (mut writes, tasks) = start(World { nodes: vec![node("n1", "3")], pods, ..World::default() });
    let mut bound = 0;
    let mut refused = 0;
    while bound < 3 || refused < 2 {
        let (_, path, _) = next(&mut writes, "").await;
        bound += usize::from(path.ends_with("/binding"));
        refused += usize::from(path.ends_with("/status"));
    }
    assert_eq!((bound, refused), (3, 2));
    assert!(tasks.stop(Duration::from_secs(5)).await);
}
