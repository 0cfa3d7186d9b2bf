//! What one client may take from the others: bytes, places, time.

use std::time::Duration;

use apiserver::User;
use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tower::ServiceExt;

use crate::common::*;
use crate::tls::Secure;

/// Somebody with every right, and not in `system:masters`, whom no limit turns away.
fn operator() -> User {
    User::new("operator", ["ops"])
}

async fn server(change: impl FnOnce(&mut apiserver::Config)) -> Server {
    let server = Server::start_with(change).await;
    let binding = json!({
        "metadata": {"name": "ops"}, "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "Group", "name": "ops"}],
    });
    server.create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", &binding).await;
    server
}

/// A request whose body never ends; the answer, once there is one.
fn hang(server: &Server, user: User) -> tokio::task::JoinHandle<(u16, Value)> {
    hang_at(server, user, CONFIG_MAPS)
}

fn hang_at(server: &Server, user: User, path: &str) -> tokio::task::JoinHandle<(u16, Value)> {
    let first = futures::stream::once(async { Ok::<_, std::convert::Infallible>(Bytes::from_static(b"{")) });
    let body = Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()));
    let request = Request::post(path).body(body).unwrap();
    let service = server.api.service_as(user);
    tokio::spawn(async move {
        let (parts, body) = service.oneshot(request).await.unwrap().into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        (parts.status.as_u16(), serde_json::from_slice(&bytes).unwrap_or_default())
    })
}

#[tokio::test]
async fn readers_and_writers_have_places_apart_and_watchers_need_none() {
    let server = server(|c| (c.max_requests_inflight, c.max_mutating_requests_inflight) = (1, 1)).await;
    let ask = async |method: &str, path: &str, body: &str| server.send_as(operator(), method, path, &[], body).await;
    assert_eq!(ask("POST", CONFIG_MAPS, &config_map("a").to_string()).await.code, 201);
    let held = hang(&server, operator());
    let refused = loop {
        // Until the other one has begun, there is a place.
        let answer = ask("POST", &format!("{CONFIG_MAPS}?dryRun=All"), &config_map("b").to_string()).await;
        if answer.code == 429 {
            break answer;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused.headers["retry-after"], "1");
    let status = refused.json();
    assert_eq!((&status["reason"], &status["details"]["retryAfterSeconds"]), (&json!("TooManyRequests"), &json!(1)));
    assert_eq!(refused.message(), "Too many requests, please try again later.");
    assert_eq!(ask("GET", CONFIG_MAPS, "").await.code, 200, "readers have places of their own");
    let mut watches = Vec::new();
    for _ in 0..3 {
        watches.push(server.watch_as(operator(), &format!("{CONFIG_MAPS}?watch=1"), &[]).await);
    }
    assert_eq!(ask("GET", CONFIG_MAPS, "").await.code, 200, "watchers take none");
    assert_eq!(server.post(CONFIG_MAPS, &config_map("c")).await.code, 201, "an admin is let in");
    held.abort();
    assert!(held.await.is_err());
    assert_eq!(ask("POST", CONFIG_MAPS, &config_map("d").to_string()).await.code, 201, "the place is free again");
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_let_go_of_in_time() {
    let server = server(|c| c.max_requests_inflight = 1).await;
    for name in ["a", "b", "c"] {
        let mut object = config_map(name);
        object["data"]["k"] = json!("x".repeat(100_000));
        server.create(CONFIG_MAPS, &object).await;
    }
    let list = async || {
        let request = Request::get(CONFIG_MAPS).body(Body::empty()).unwrap();
        server.api.service_as(operator()).oneshot(request).await.unwrap()
    };
    let read = list().await.into_body().collect().await.unwrap().to_bytes();
    assert!(read.len() > 300_000 && read.ends_with(b"]}"));
    let unread = list().await;
    assert_eq!(unread.status(), 200, "the place of what is read is free again");
    assert_eq!(list().await.status(), 429, "that of what is not is taken");
    let mut unread = unread.into_body();
    assert!(unread.frame().await.unwrap().is_ok());
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let free = async {
        while list().await.status() == 429 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("the place is free");
    assert!(unread.frame().await.unwrap().is_err(), "whoever reads on learns that it is not everything");
}

#[tokio::test]
async fn a_body_that_does_not_end_is_cut_off_in_time() {
    let server = server(|c| c.request_timeout = Duration::from_millis(200)).await;
    let (code, status) = tokio::time::timeout(PATIENCE, hang(&server, operator())).await.unwrap().unwrap();
    assert_eq!((code, &status["reason"], &status["kind"]), (504, &json!("Timeout"), &json!("Status")), "{status}");
    assert_eq!(status["message"], "Timeout: request did not complete within the allotted timeout");
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    tokio::time::sleep(Duration::from_millis(400)).await;
    server.config_map("late").await;
    assert_eq!(watch.told().await, "ADDED late", "a watch has all the time it wants");
}

#[tokio::test]
async fn clients_may_ask_for_less_time() {
    let server = server(|_| {}).await;
    for (query, code) in
        [("timeout=5s", 200), ("timeout=1m30s", 200), ("timeout=0s", 200), ("timeout=x", 400), ("timeout=-5s", 200)]
    {
        let answer = server.get(&format!("{CONFIG_MAPS}?{query}")).await;
        assert_eq!(answer.code, code, "{query}: {}", answer.text);
    }
    let path = format!("{CONFIG_MAPS}?timeout=200ms");
    let (code, status) = tokio::time::timeout(PATIENCE, hang_at(&server, operator(), &path)).await.unwrap().unwrap();
    assert_eq!((code, &status["reason"]), (504, &json!("Timeout")), "{status}");
    let answer = server.get(&format!("{CONFIG_MAPS}?timeout=x")).await;
    assert_eq!(answer.message(), "invalid timeout specified in the request URL - time: invalid duration \"x\"");
}

#[tokio::test]
async fn bodies_and_objects_are_as_large_as_may_be_and_no_larger() {
    let server = Server::start().await;
    let secret = |bytes: usize| json!({"metadata": {"name": "s"}, "data": {"a": "A".repeat(bytes)}});
    // Annotations are no larger than 256 KiB, a Secret's data no larger than 1 MiB: only many fields make a large object.
    let pod = |variables: usize| {
        let mut pod = pod("p", "");
        let variable = |n: usize| json!({"name": format!("v{n}"), "value": "x".repeat(1000)});
        pod["spec"]["containers"][0]["env"] = (0..variables).map(variable).collect();
        pod
    };
    let cases = [
        (PODS, pod(1000), 201, ""),
        (PODS, pod(1600), 413, "Request entity too large: limit is 1572864"),
        (PODS, pod(3200), 413, "Request entity too large: limit is 3145728"),
        ("/api/v1/namespaces/default/secrets", secret(1_500_000), 422, "Too long"),
    ];
    for (path, object, code, message) in cases {
        let answer = server.post(path, &object).await;
        assert_eq!(answer.code, code, "{}", &answer.text[..answer.text.len().min(300)]);
        assert!(code == 201 || answer.message().contains(message), "{}", answer.message());
    }
}

#[tokio::test]
async fn headers_and_paths_are_bounded() {
    let secure = Secure::start(|_| {}).await;
    let long = |n: usize| format!("/version?x={}", "a".repeat(n));
    for h2 in [true, false] {
        let (code, _) = secure.get(&long(30_000), None, None, h2).await;
        assert_eq!(code, 200, "as long as label selectors become");
    }
    let token = "t".repeat(100_000);
    for h2 in [true, false] {
        let (code, text) = secure.get("/version", None, Some(&token), h2).await;
        assert_eq!(code, 401, "tokens are read however long: {text}");
    }
    let (code, _) = secure.get("/version", None, Some(&"t".repeat(600_000)), false).await;
    assert_eq!(code, 431);
    let (code, _) = secure.get("/version", None, Some(&"t".repeat(1_200_000)), true).await;
    assert_eq!(code, 431);
    // Longer than clients make them.
    let mut connection = secure.connect(None, false).await;
    connection.write_all(format!("GET {} HTTP/1.1\r\nhost: a\r\n\r\n", long(70_000)).as_bytes()).await.unwrap();
    let mut status = [0; 12];
    connection.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 414");
    secure.stop().await;
}

#[tokio::test]
async fn a_client_that_begins_a_request_and_goes_no_further_is_left() {
    let secure = Secure::start(|_| {}).await;
    let mut connection = secure.connect(None, false).await;
    connection.write_all(b"GET /version HTTP/1.1\r\nhost: a\r\n").await.unwrap();
    connection.flush().await.unwrap();
    // Another, which came later, has been answered: the first is being read by now.
    assert_eq!(secure.get("/version", None, None, false).await.0, 200);
    tokio::time::pause();
    let mut rest = Vec::new();
    let ended = connection.read_to_end(&mut rest).await;
    tokio::time::resume();
    assert!(
        ended.is_err() || rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
        "{}",
        String::from_utf8_lossy(&rest)
    );
    secure.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_most_wait_until_there_is_a_place() {
    let secure = Secure::start(|c| c.max_connections = 1).await;
    let first = secure.connect(None, false).await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(first)).await.unwrap();
    let first = tokio::spawn(connection);
    let mut second = Box::pin(secure.get("/version", None, None, false));
    let several = async {
        for _ in 0..20 {
            let request = Request::get("/version").header("host", "a").body(String::new()).unwrap();
            sender.send_request(request).await.unwrap().into_body().collect().await.unwrap();
        }
        drop(sender);
    };
    tokio::select! {
        biased;
        (code, _) = &mut second => panic!("{code} while the only place was taken"),
        () = several => {}
    }
    first.await.unwrap().unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, second).await.unwrap().0, 200);
    secure.stop().await;
}

#[tokio::test]
async fn a_client_that_never_begins_to_speak_is_left() {
    let secure = Secure::start(|_| {}).await;
    let mut silent = tokio::net::TcpStream::connect(secure.address).await.unwrap();
    // Another, which came later, has been answered: the first has been accepted.
    assert_eq!(secure.get("/version", None, None, false).await.0, 200);
    tokio::time::pause();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(11), silent.read_to_end(&mut rest)).await;
    tokio::time::resume();
    assert!(ended.is_ok() && rest.is_empty(), "{rest:?}");
    secure.stop().await;
}
