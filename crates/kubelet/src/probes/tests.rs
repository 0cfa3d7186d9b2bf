//! Tries against servers on loopback.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::Redirect;
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::check::{Checked, Target, check};
use crate::runtime::hollow::Hollow;

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

async fn tried(probe: Value, timeout: Duration) -> Result<Checked, String> {
    let runtime = Hollow::default();
    runtime.use_network();
    let container = serde_json::from_value(json!({"name": "c"})).unwrap();
    let target = Target { id: "none".into(), container, address: [127, 0, 0, 1].into() };
    check(&runtime, &serde_json::from_value(probe).unwrap(), &target, timeout).await
}

fn router() -> axum::Router {
    let show = |headers: HeaderMap| async move {
        let text = |name: &str| headers.get(name).map(|v| v.to_str().unwrap().to_owned()).unwrap_or_default();
        let seen = format!("{} {} {}", text("user-agent"), text("x-token"), text("host"));
        if seen == "kube-probe/1.35 a example.org" { (StatusCode::OK, seen) } else { (StatusCode::BAD_REQUEST, seen) }
    };
    axum::Router::new()
        .route("/ok", get(|| async { "fine" }))
        .route("/headers", get(show))
        .route("/broken", get(|| async { StatusCode::INTERNAL_SERVER_ERROR }))
        .route("/hop", get(|| async { Redirect::temporary("/ok") }))
        .route("/to-broken", get(|| async { Redirect::temporary("broken") }))
        .route("/away", get(|| async { Redirect::temporary("http://example.org/") }))
        .route("/round", get(|| async { Redirect::temporary("/round") }))
        .route("/slow", get(|| async { std::future::pending::<()>().await }))
}

async fn serve() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else { return };
            let service = hyper_util::service::TowerToHyperService::new(router());
            tokio::spawn(async move {
                let builder = hyper_util::server::conn::auto::Builder::new(hyper_util::rt::TokioExecutor::new());
                let _ = builder.serve_connection(hyper_util::rt::TokioIo::new(stream), service).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn http_probes_read_the_status_and_follow_redirects_on_their_host() {
    let port = serve().await.port();
    let failed = |text: &str| Checked::Failure(text.to_owned());
    let url = format!("http://127.0.0.1:{port}");
    for (path, expected) in [
        ("/ok", Checked::Success),
        ("/hop", Checked::Success),
        ("/broken", failed("HTTP probe failed with statuscode: 500")),
        ("/to-broken", failed("HTTP probe failed with statuscode: 500")),
        ("/away", Checked::Warning("Probe terminated redirects, Response body: ".into())),
        ("/round", failed(&format!("Get \"{url}/round\": stopped after 10 redirects"))),
    ] {
        let probe = json!({"httpGet": {"path": path, "port": port}});
        assert_eq!(tried(probe, LONG).await.unwrap(), expected, "{path}");
    }
    let given = json!([{"name": "X-Token", "value": "a"}, {"name": "Host", "value": "example.org"}]);
    let probe = json!({"httpGet": {"path": "/headers", "port": port, "httpHeaders": given}});
    assert_eq!(tried(probe, LONG).await.unwrap(), Checked::Success);
    let probe = json!({"httpGet": {"path": "/slow", "port": port}});
    let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
    let late = failed(&format!("Get \"{url}/slow\": {late}"));
    assert_eq!(tried(probe, Duration::from_millis(50)).await.unwrap(), late);
    assert!(tried(json!({"httpGet": {"port": "none"}}), LONG).await.is_err(), "that is no failure of the container");
}

#[tokio::test]
async fn https_probes_believe_every_certificate() {
    let port = crate::testing::serve(&crate::testing::Ca::new("nobody"), router()).await.port();
    let probe = |path| json!({"httpGet": {"path": path, "port": port, "scheme": "HTTPS"}});
    assert_eq!(tried(probe("/ok"), LONG).await.unwrap(), Checked::Success);
    let broken = Checked::Failure("HTTP probe failed with statuscode: 500".into());
    assert_eq!(tried(probe("/broken"), LONG).await.unwrap(), broken);
}

#[tokio::test]
async fn tcp_probes_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    assert_eq!(tried(json!({"tcpSocket": {"port": port}}), LONG).await.unwrap(), Checked::Success);
    drop(listener);
    let refused = Checked::Failure(format!("dial tcp 127.0.0.1:{port}: connect: connection refused"));
    assert_eq!(tried(json!({"tcpSocket": {"port": port}}), LONG).await.unwrap(), refused);
}

#[tokio::test]
async fn grpc_probes_ask_the_health_service() {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("db", tonic_health::ServingStatus::NotServing).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let incoming = tonic::transport::server::TcpIncoming::from(listener);
    tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let failed = |text: String| Checked::Failure(text);
    let ask = |service: &str| json!({"grpc": {"port": port, "service": service}});
    assert_eq!(tried(ask(""), LONG).await.unwrap(), Checked::Success);
    let unhealthy = "service unhealthy (responded with \"NOT_SERVING\")".to_owned();
    assert_eq!(tried(ask("db"), LONG).await.unwrap(), failed(unhealthy));
    let unknown = "error: health rpc probe failed: rpc error: code = NotFound desc = service not registered".to_owned();
    assert_eq!(tried(ask("other"), LONG).await.unwrap(), failed(unknown));
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let late =
        format!("timeout: failed to connect service \"127.0.0.1:{closed}\" within 1m0s: context deadline exceeded");
    assert_eq!(tried(json!({"grpc": {"port": closed}}), LONG).await.unwrap(), failed(late));
    let web = serve().await.port();
    let Checked::Failure(text) = tried(json!({"grpc": {"port": web}}), LONG).await.unwrap() else { panic!() };
    assert!(text.contains("does not implement") || text.starts_with("error: health rpc probe failed"), "{text}");
}
