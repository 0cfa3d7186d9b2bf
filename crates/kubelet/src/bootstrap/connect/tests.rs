use super::*;

fn host(server: &Server) -> Option<&str> {
    server.uri.host()
}

#[test]
fn a_server_that_fails_is_left_once_for_the_next() {
    let all: Vec<http::Uri> = ["https://a", "https://b"].iter().map(|uri| uri.parse().unwrap()).collect();
    let servers = Servers::new(&all);
    let first = servers.current();
    assert_eq!((first.number, host(&first)), (0, Some("a")));
    servers.leave(&first, Health::Gone);
    assert!(first.gone.is_cancelled());
    servers.leave(&first, Health::Gone);
    let second = servers.current();
    assert_eq!(host(&second), Some("b"), "two requests that fail together leave it together");
    assert!(!second.gone.is_cancelled());
    servers.leave(&second, Health::Gone);
    let back = servers.current();
    assert_eq!((host(&back), back.gone.is_cancelled()), (Some("a"), false));
    let servers = Servers::new(&all[..1]);
    let alone = servers.current();
    servers.leave(&alone, Health::Gone);
    assert_eq!((servers.current().number, alone.gone.is_cancelled()), (0, false));
}

#[test]
fn watches_of_a_server_that_was_left_for_a_failure_end_when_it_is_gone() {
    let all: Vec<http::Uri> = ["https://a", "https://b"].iter().map(|uri| uri.parse().unwrap()).collect();
    let servers = Servers::new(&all);
    let first = servers.current();
    for expected in ["b", "a"] {
        servers.leave(&servers.current(), Health::Fails);
        assert_eq!(host(&servers.current()), Some(expected));
    }
    assert!(!first.gone.is_cancelled());
    servers.leave(&servers.current(), Health::Gone);
    assert!(first.gone.is_cancelled());
}

#[test]
fn only_what_another_server_may_do_better_is_a_failure() {
    use Health::{Fails, Gone, Well};
    for (status, expected) in [
        (200, Well),
        (101, Well),
        (404, Well),
        (409, Well),
        (429, Well),
        (500, Fails),
        (501, Well),
        (502, Gone),
        (503, Gone),
        (504, Gone),
        (507, Fails),
    ] {
        assert_eq!(health(StatusCode::from_u16(status).unwrap()), expected, "{status}");
    }
}

/// A server of `ca` that answers everything with `status`, after so long.
async fn answering(ca: &crate::testing::Ca, status: u16, after: Duration) -> http::Uri {
    let router = axum::Router::new().fallback(move || async move {
        tokio::time::sleep(after).await;
        (StatusCode::from_u16(status).unwrap(), r#"{"gitVersion": "good"}"#)
    });
    format!("https://{}", crate::testing::serve(ca, router).await).parse().unwrap()
}

fn client_of(ca: &crate::testing::Ca, servers: &[http::Uri]) -> kube::Client {
    let signed = ca.sign("system:node:box1", "system:nodes");
    let pair = Pair { certificate: signed.certificate, key: signed.key };
    node_client(servers, &ca.pem, Identity::new(&pair).unwrap()).unwrap()
}

async fn ask(client: &kube::Client) -> Result<String, kube::Error> {
    client.request_text(http::Request::get("/version").body(Vec::new()).unwrap()).await
}

#[tokio::test]
async fn a_server_that_fails_every_request_is_left() {
    let ca = crate::testing::Ca::new("kubernetes");
    let now = Duration::ZERO;
    for status in [500, 502, 503, 504] {
        let client = client_of(&ca, &[answering(&ca, status, now).await, answering(&ca, 200, now).await]);
        ask(&client).await.expect_err("the first fails");
        assert!(ask(&client).await.unwrap().contains("good"), "{status}: the second is asked");
    }
    let refuses = client_of(&ca, &[answering(&ca, 403, now).await, answering(&ca, 200, now).await]);
    for _ in 0..2 {
        ask(&refuses).await.expect_err("an answer is an answer");
    }
}

/// A server of `ca` that answers watches, and logs, with a line and then no more until `more`; everything else fails.
async fn streaming(ca: &crate::testing::Ca, failure: StatusCode, more: CancellationToken) -> http::Uri {
    let router = axum::Router::new().route("/version", axum::routing::get(move || async move { failure }));
    let router = router.fallback(move || {
        let (first, more) = (Ok::<_, Failure>("first\n"), more.clone());
        let second = futures::stream::once(async move {
            more.cancelled().await;
            Ok("second\n")
        });
        async { axum::body::Body::from_stream(futures::stream::iter([first]).chain(second)) }
    });
    format!("https://{}", crate::testing::serve(ca, router).await).parse().unwrap()
}

/// An answer of such a server, whose first line was read.
async fn begin(client: &kube::Client, path: &str) -> http_body_util::BodyDataStream<Body> {
    let answer = client.send(http::Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
    let mut said = answer.into_body().into_data_stream();
    assert_eq!(said.try_next().await.unwrap().unwrap(), "first\n");
    said
}

#[tokio::test]
async fn watches_go_on_at_a_server_that_fails_some_requests() {
    let (ca, more) = (crate::testing::Ca::new("kubernetes"), CancellationToken::new());
    let good = answering(&ca, 200, Duration::ZERO).await;
    let failure = StatusCode::INTERNAL_SERVER_ERROR;
    let client = client_of(&ca, &[streaming(&ca, failure, more.clone()).await, good]);
    let watch = begin(&client, "/pods?watch=true").await;
    ask(&client).await.expect_err("the server fails");
    assert!(ask(&client).await.unwrap().contains("good"), "the other one is asked");
    more.cancel();
    assert_eq!(watch.try_collect::<Vec<_>>().await.unwrap().concat(), b"second\n");
}

#[tokio::test]
async fn watches_end_when_their_server_is_gone_and_other_answers_do_not() {
    let (ca, more) = (crate::testing::Ca::new("kubernetes"), CancellationToken::new());
    let good = answering(&ca, 200, Duration::ZERO).await;
    let client = client_of(&ca, &[streaming(&ca, StatusCode::BAD_GATEWAY, more.clone()).await, good]);
    let mut watches = [begin(&client, "/pods?watch=true&x=1").await, begin(&client, "/pods?x=1&watch=1").await];
    let log = begin(&client, "/log?follow=true&watch=false").await;
    assert!(futures::poll!(watches[0].next()).is_pending(), "it is used");
    ask(&client).await.expect_err("the server fails");
    for watch in &mut watches {
        let ended = tokio::time::timeout(Duration::from_secs(60), watch.try_next()).await;
        assert_eq!(ended.expect("the watch goes on").expect("the end is no error"), None);
    }
    assert!(ask(&client).await.unwrap().contains("good"));
    more.cancel();
    // Its end may be a frame of its own, without a byte.
    assert_eq!(log.try_collect::<Vec<_>>().await.unwrap().concat(), b"second\n");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_left_in_time() {
    let ca = crate::testing::Ca::new("kubernetes");
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent: http::Uri = format!("https://{}", silent.local_addr().unwrap()).parse().unwrap();
    let held = answering(&ca, 200, ANSWER_LIMIT * 100).await;
    for black_hole in [silent, held] {
        let client = client_of(&ca, &[black_hole, answering(&ca, 200, Duration::ZERO).await]);
        let error = ask(&client).await.expect_err("nobody answers");
        assert!(format!("{error:?}").contains("no answer within 5 seconds"), "{error:?}");
        assert!(ask(&client).await.unwrap().contains("good"));
    }
    let slow = client_of(&ca, &[answering(&ca, 200, Duration::from_millis(200)).await]);
    assert!(ask(&slow).await.unwrap().contains("good"), "the only one is waited for");
}

#[tokio::test]
async fn connections_are_made_anew_when_the_certificate_is_exchanged() {
    let ca = crate::testing::Ca::new("kubernetes");
    let pair = |name: &str| {
        let signed = ca.sign(name, "system:nodes");
        Pair { certificate: signed.certificate, key: signed.key }
    };
    let identity = Identity::new(&pair("first")).unwrap();
    let connections = Connections::new(
        builder().unwrap().with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth(),
        identity.generation.clone(),
    );
    connections.current();
    assert_eq!(connections.current.lock().0, 0);
    identity.replace(&pair("second")).unwrap();
    connections.current();
    assert_eq!(connections.current.lock().0, 1);
}

#[test]
fn requests_go_to_the_server_they_are_meant_for() {
    for (server, path, expected) in [
        ("https://a:6443", "/api/v1/pods?x=1", "https://a:6443/api/v1/pods?x=1"),
        ("https://a/prefix/", "/api", "https://a/prefix/api"),
    ] {
        assert_eq!(at(&server.parse().unwrap(), &path.parse().unwrap()).to_string(), expected);
    }
}
