//! What passes through to kubelets: upgrades byte by byte, refusals, and who may.

use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::common::*;
use crate::tls::Secure;
use apiserver::User;

/// A kubelet that echoes what it is sent on `/exec`, with a last word after the end, and tells nothing of `/portForward`.
struct Kubelet {
    asked: mpsc::UnboundedReceiver<String>,
    ended: mpsc::UnboundedReceiver<()>,
}

impl Kubelet {
    /// Serves as the node `n1`, on which a pod `p` runs.
    async fn start(secure: &Secure) -> Kubelet {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        secure
            .server
            .create(
                "/api/v1/nodes",
                &json!({"metadata": {"name": "n1"}, "status": {
                    "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                    "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
                }}),
            )
            .await;
        secure.server.pod("p", "n1").await;
        let certificate = CertificateDer::from_pem_file(secure.path("pki/apiserver.crt")).unwrap();
        let key = PrivateKeyDer::from_pem_file(secure.path("pki/apiserver.key")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider);
        let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = builder.with_single_cert(vec![certificate], key).unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let (tell_asked, asked) = mpsc::unbounded_channel();
        let (tell_ended, ended) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, asked, ended) = (acceptor.clone(), tell_asked.clone(), tell_ended.clone());
                tokio::spawn(async move {
                    let stream = TokioIo::new(acceptor.accept(stream).await.unwrap());
                    let service = hyper::service::service_fn(async |request| answer(request, &asked, &ended));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(stream, service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Kubelet { asked, ended }
    }
}

/// What a node says whose every core-second is used: one core by the container `c` of the pod `p`, two by all.
fn busy() -> String {
    let now = jiff::Timestamp::now();
    let (millis, seconds) = (now.as_millisecond(), now.as_millisecond() as f64 / 1e3);
    let labels = r#"{container="c",namespace="default",pod="p"}"#;
    format!(
        "container_cpu_usage_seconds_total{labels} {seconds} {millis}\ncontainer_memory_working_set_bytes{labels} 1048576 {millis}\n\
         container_start_time_seconds{labels} 1\nnode_cpu_usage_seconds_total {} {millis}\n\
         node_memory_working_set_bytes 2097152 {millis}\n",
        2.0 * seconds
    )
}

fn answer(
    mut request: Request<Incoming>,
    asked: &mpsc::UnboundedSender<String>,
    ended: &mpsc::UnboundedSender<()>,
) -> Result<Response<Body>, std::convert::Infallible> {
    let secrets = request.headers().keys().any(|name| name == "authorization" || name.as_str().contains("impersonate"));
    asked
        .send(format!("{} {}{}", request.method(), request.uri(), if secrets { " with secrets" } else { "" }))
        .unwrap();
    let path = request.uri().path();
    if path.starts_with("/portForward") {
        let mut refused = Response::new(Body::from("not now"));
        *refused.status_mut() = StatusCode::FORBIDDEN;
        return Ok(refused);
    }
    if let Some(to) = path.strip_prefix("/to/") {
        let moved = Response::builder().status(302).header("location", format!("/{to}"));
        return Ok(moved.body(Body::from("moved")).unwrap());
    }
    if path == "/page" {
        let page = Response::builder().header("content-type", "text/html").header("access-control-allow-origin", "*");
        return Ok(page.body(Body::from("<a href='/x'>x</a><a href='x'>x</a>")).unwrap());
    }
    if path == "/metrics/resource" {
        return Ok(Response::new(Body::from(busy())));
    }
    if !path.starts_with("/exec") {
        return Ok(Response::new(Body::from(format!("at {}", request.uri()))));
    }
    let (upgrade, ended) = (hyper::upgrade::on(&mut request), ended.clone());
    tokio::spawn(async move {
        let mut io = TokioIo::new(upgrade.await.unwrap());
        let mut buffer = [0; 1024];
        while let Ok(read @ 1..) = io.read(&mut buffer).await {
            if io.write_all(&buffer[..read]).await.is_err() {
                break;
            }
        }
        let _ = io.write_all(b"bye").await;
        let _ = io.shutdown().await;
        ended.send(()).unwrap();
    });
    let switched = Response::builder().status(101).header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
    Ok(switched.header("x-stream-protocol-version", "v4.channel.k8s.io").body(Body::empty()).unwrap())
}

/// Asks over TLS, with a token, for an upgrade.
async fn upgrade(secure: &Secure, method: &str, path: &str) -> (u16, Result<TokioIo<Upgraded>, String>) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(secure.path("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    let stream = TcpStream::connect(secure.address).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    let stream = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    let request = Request::builder().method(method).uri(path).header("host", "localhost");
    let request = request.header("authorization", "Bearer s3cret");
    let request = request.header("connection", "Upgrade").header("upgrade", "SPDY/3.1");
    let response = sender.send_request(request.body(Empty::<bytes::Bytes>::new()).unwrap()).await.unwrap();
    let code = response.status().as_u16();
    if code == 101 {
        assert_eq!(response.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
        return (code, Ok(TokioIo::new(hyper::upgrade::on(response).await.unwrap())));
    }
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (code, Err(String::from_utf8(body.to_vec()).unwrap()))
}

async fn secure() -> Secure {
    secure_with(|_| {}).await
}

async fn secure_with(change: impl FnOnce(&mut apiserver::Config)) -> Secure {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), "s3cret,alice,1,system:masters\n").unwrap();
    Secure::start(|config| {
        config.token_auth_file = Some(tokens.path().to_owned());
        change(config);
    })
    .await
}

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

#[tokio::test]
async fn upgraded_connections_are_joined_and_every_end_is_passed_on() {
    let secure = secure().await;
    let mut kubelet = Kubelet::start(&secure).await;
    let exec = format!("{PODS}/p/exec?command=sh&command=a%20b&stdin=true&stdout=true");
    let (_, io) = upgrade(&secure, "POST", &exec).await;
    let mut io = io.unwrap();
    assert_eq!(kubelet.asked.recv().await.unwrap(), "POST /exec/default/p/c?input=1&output=1&command=sh&command=a%20b");
    io.write_all(b"hello").await.unwrap();
    let mut echoed = [0; 5];
    soon(io.read_exact(&mut echoed)).await.unwrap();
    assert_eq!(&echoed, b"hello");
    io.shutdown().await.unwrap();
    let mut last = String::new();
    soon(io.read_to_string(&mut last)).await.unwrap();
    assert_eq!(last, "bye", "after the end of input");
    soon(kubelet.ended.recv()).await.unwrap();

    let (_, io) = upgrade(&secure, "POST", &exec).await;
    drop(io.unwrap());
    soon(kubelet.ended.recv()).await.expect("a client that vanished");

    let (_, io) = upgrade(&secure, "GET", &exec).await;
    let mut io = io.unwrap();
    secure.stop().await;
    assert_eq!(soon(io.read(&mut echoed)).await.unwrap_or(0), 0, "sessions end with the server");
    soon(kubelet.ended.recv()).await.unwrap();
}

#[tokio::test]
async fn there_are_so_many_sessions_and_no_more() {
    let secure = secure_with(|c| c.max_tunnels = 1).await;
    let mut kubelet = Kubelet::start(&secure).await;
    let exec = format!("{PODS}/p/exec?command=sh&stdin=true");
    let (code, io) = upgrade(&secure, "POST", &exec).await;
    assert_eq!(code, 101);
    assert_eq!(upgrade(&secure, "POST", &exec).await.0, 429);
    // Of the session that was refused, whose kubelet has answered already.
    soon(kubelet.ended.recv()).await.unwrap();
    drop(io.unwrap());
    soon(kubelet.ended.recv()).await.unwrap();
    let again = async {
        while upgrade(&secure, "POST", &exec).await.0 != 101 {
            tokio::task::yield_now().await;
        }
    };
    soon(again).await;
    secure.stop().await;
}

#[test]
fn the_log_says_when_a_session_ends() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let limits = apiserver::AuditLogLimits { max_size_megabytes: 0, max_backups: 0, max_age_days: 0 };
    let audit = apiserver::AuditConfig { log_path: log.path().to_owned(), policy_file: None, limits };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let secure = secure_with(|c| c.audit = Some(audit)).await;
        let mut kubelet = Kubelet::start(&secure).await;
        let (_, io) = upgrade(&secure, "POST", &format!("{PODS}/p/exec?command=sh&stdin=true")).await;
        let mut io = io.unwrap();
        io.write_all(b"a").await.unwrap();
        soon(io.read_u8()).await.unwrap();
        secure.server.get("/version").await;
        drop(io);
        soon(kubelet.ended.recv()).await.unwrap();
        secure.stop().await;
    });
    drop(runtime);
    let text = std::fs::read_to_string(log.path()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let told = lines.filter_map(|line| {
        let uri = line["requestURI"].as_str()?.split('?').next()?.rsplit('/').next()?.to_owned();
        Some((uri, line["stage"].as_str()?.to_owned()))
    });
    let told: Vec<_> = told.filter(|(uri, _)| uri == "exec" || uri == "version").collect();
    let expected = [("exec", "ResponseStarted"), ("version", "ResponseComplete"), ("exec", "ResponseComplete")];
    assert_eq!(told, expected.map(|(uri, stage)| (uri.to_owned(), stage.to_owned())));
}

#[tokio::test]
async fn refusals_are_passed_on_and_explained() {
    let secure = secure().await;
    let mut kubelet = Kubelet::start(&secure).await;
    secure.server.pod("waiting", "").await;
    let (code, told) = upgrade(&secure, "POST", &format!("{PODS}/p/portforward?ports=80")).await;
    assert_eq!((code, told.err().as_deref()), (403, Some("not now")), "in the kubelet's words");
    assert_eq!(kubelet.asked.recv().await.unwrap(), "POST /portForward/default/p?port=80");
    for (path, code, message) in [
        ("p/exec?command=ls&container=d", 400, "container d is not valid for pod p"),
        ("waiting/attach", 400, "pod waiting does not have a host assigned"),
        ("none/attach", 404, r#"pods "none" not found"#),
    ] {
        let (answered, told) = upgrade(&secure, "POST", &format!("{PODS}/{path}")).await;
        assert!(answered == code && told.as_ref().is_err_and(|t| t.contains(&message.replace('"', "\\\""))), "{path}");
    }
    let plain = secure.server.send("POST", &format!("{PODS}/p/exec?command=ls"), &[], "").await;
    assert_eq!((plain.code, plain.message().as_str()), (400, "Upgrade request required"));
    assert_eq!(secure.server.send("PUT", &format!("{PODS}/p/exec"), &[], "").await.code, 405);
    secure.stop().await;
}

#[tokio::test]
async fn proxies_keep_the_path_and_take_any_method() {
    let secure = secure().await;
    let mut kubelet = Kubelet::start(&secure).await;
    for (method, path, code, text) in [
        ("GET", "/api/v1/nodes/n1/proxy/a%2Fb//c?x=y", 200, "at /a%2Fb//c?x=y"),
        ("DELETE", "/api/v1/nodes/n1/proxy/", 200, "at /"),
        ("OPTIONS", "/api/v1/nodes/https:n1:/proxy/o", 200, "at /o"),
    ] {
        let answer = secure.server.send(method, path, &[("accept", "text/html"), ("authorization", "x")], "").await;
        assert_eq!((answer.code, answer.text.as_str()), (code, text), "{method} {path}");
        assert!(kubelet.asked.recv().await.unwrap().starts_with(method));
    }
    let moved = secure.server.get("/api/v1/nodes/n1/proxy?x=y").await;
    assert_eq!((moved.code, &moved.headers["location"]), (301, &"/api/v1/nodes/n1/proxy/?x=y".parse().unwrap()));
    for (path, code, message) in [
        ("/api/v1/nodes/n2/proxy/", 404, r#"nodes "n2" not found"#),
        ("/api/v1/nodes/ftp:n1:1/proxy/", 400, r#"invalid node request "ftp:n1:1""#),
        ("/api/v1/nodes/n1:1/proxy/", 400, "address not allowed"),
        ("/api/v1/proxy/nodes/n1", 404, "the server could not find the requested resource"),
        ("/api/v1/namespaces/default/pods/p/proxy/", 400, "address not allowed"),
        (
            "/api/v1/namespaces/default/services/kubernetes:x/proxy/",
            503,
            "no endpoints available for service \"kubernetes:x\"",
        ),
    ] {
        let answer = secure.server.get(path).await;
        assert_eq!((answer.code, answer.message().as_str()), (code, message), "{path}");
    }
    secure.stop().await;
}

#[tokio::test]
async fn what_a_proxy_answers_leads_back_through_it() {
    let secure = secure().await;
    let _kubelet = Kubelet::start(&secure).await;
    let root = "/api/v1/nodes/n1/proxy";
    let page = secure.server.get(&format!("{root}/page")).await;
    assert_eq!(page.text, format!("<a href='{root}/x'>x</a><a href='x'>x</a>"));
    assert!(!page.headers.contains_key("access-control-allow-origin"));
    let moved = secure.server.get(&format!("{root}/to/a/b")).await;
    assert_eq!((moved.code, moved.headers["location"].to_str().unwrap()), (302, &*format!("{root}/a/b")));
    let posted = secure.server.send("POST", root, &[], "").await;
    assert_eq!((posted.code, posted.text.as_str()), (200, "at /"), "only who reads is led to the slash");
    let (code, told) = upgrade(&secure, "GET", &format!("{root}/page")).await;
    assert_eq!(code, 500);
    assert!(told.err().unwrap().contains("invalid upgrade response: status code 200"));
    secure.stop().await;
}

#[tokio::test]
async fn whoever_opens_a_session_needs_to_be_allowed_to_create_one() {
    let server = Server::start().await;
    server.pod("p", "").await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    for (name, verbs) in [("reader", vec!["get"]), ("creator", vec!["create"]), ("both", vec!["get", "create"])] {
        let rules = json!([{"apiGroups": [""], "resources": ["pods/exec"], "verbs": verbs}]);
        server.create(&format!("{rbac}/roles"), &json!({"metadata": {"name": name}, "rules": rules})).await;
        let binding = json!({"metadata": {"name": name}, "roleRef": {"kind": "Role", "name": name},
            "subjects": [{"kind": "User", "name": name}]});
        server.create(&format!("{rbac}/rolebindings"), &binding).await;
    }
    for (user, method, code) in [
        ("reader", "GET", 403),
        ("reader", "POST", 403),
        ("creator", "GET", 403),
        ("creator", "POST", 400),
        ("both", "GET", 400),
        ("both", "POST", 400),
    ] {
        let user_object = User::new(user, ["dev"]);
        let answer = server.send_as(user_object, method, &format!("{PODS}/p/exec?command=ls"), &[], "").await;
        assert_eq!(answer.code, code, "{user} {method}: {}", answer.text);
    }
}

#[tokio::test]
async fn what_nodes_and_pods_use_is_asked_of_kubelets() {
    let secure = secure().await;
    let _kubelet = Kubelet::start(&secure).await;
    // A node nobody answers for costs its own line only.
    secure.server.create("/api/v1/nodes", &json!({"metadata": {"name": "n2"}})).await;
    let labelled = json!({"metadata": {"labels": {"app": "web"}}});
    secure.server.patch(&format!("{PODS}/p"), &labelled).await;
    let root = "/apis/metrics.k8s.io/v1beta1";
    let nodes = secure.server.get(&format!("{root}/nodes")).await.json();
    assert_eq!((&nodes["kind"], nodes["items"].as_array().unwrap().len()), (&json!("NodeMetricsList"), 1), "{nodes}");
    let node = &nodes["items"][0];
    let cpu =
        |usage: &serde_json::Value| -> api::quantity::Quantity { usage["cpu"].as_str().unwrap().parse().unwrap() };
    assert_eq!((&node["metadata"]["name"], &node["usage"]["memory"]), (&json!("n1"), &json!("2Mi")));
    assert!((1990..=2010).contains(&cpu(&node["usage"]).milli()), "{node}");
    assert!(node["window"].as_str().unwrap().ends_with('s') && node["timestamp"].is_string(), "{node}");

    let pods = secure.server.get(&format!("{root}/pods?labelSelector=app%3Dweb")).await.json();
    let pod = &pods["items"][0];
    assert_eq!((&pod["metadata"]["name"], &pod["metadata"]["labels"]["app"]), (&json!("p"), &json!("web")));
    assert_eq!((&pod["containers"][0]["name"], &pod["containers"][0]["usage"]["memory"]), (&json!("c"), &json!("1Mi")));
    assert!((990..=1010).contains(&cpu(&pod["containers"][0]["usage"]).milli()), "{pod}");
    for (path, code) in [
        ("namespaces/default/pods/p", 200),
        ("namespaces/default/pods/none", 404),
        ("namespaces/other/pods/p", 404),
        ("nodes/n1", 200),
        ("nodes/n2", 404),
    ] {
        assert_eq!(secure.server.get(&format!("{root}/{path}")).await.code, code, "{path}");
    }
    let none = secure.server.get(&format!("{root}/pods?labelSelector=app%3Dother")).await.json();
    assert_eq!(none["items"], json!([]));
    let table = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = secure.server.send("GET", &format!("{root}/nodes"), &table, "").await.json();
    assert_eq!(table["rows"][0]["cells"][2], "2Mi", "{table}");
    assert_eq!(secure.server.send("POST", &format!("{root}/nodes"), &[], "{}").await.code, 405);
    secure.stop().await;
}
