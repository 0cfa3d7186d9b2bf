use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use parking_lot::Mutex;
use rcgen::CertificateSigningRequestParams;
use serde_json::{Value, json};

use super::*;
use crate::testing::{Ca, serve as serve_tls};

/// An API server that signs every request at once.
struct Signer {
    ca: Ca,
    requests: Mutex<Vec<Value>>,
    bearers: Mutex<Vec<String>>,
    denies: bool,
    created: AtomicUsize,
}

async fn create(State(signer): State<Arc<Signer>>, headers: HeaderMap, Json(mut request): Json<Value>) -> Json<Value> {
    let bearer = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or("none");
    signer.bearers.lock().push(bearer.to_owned());
    signer.created.fetch_add(1, Ordering::Relaxed);
    let answer = request.clone();
    let decode = |text: &str| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
    let encode = |text: String| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let pem = String::from_utf8(decode(request["spec"]["request"].as_str().unwrap())).unwrap();
    let certificate = CertificateSigningRequestParams::from_pem(&pem).unwrap().signed_by(&signer.ca.issuer).unwrap();
    request["status"] = match signer.denies {
        true => json!({"conditions": [{"type": "Denied", "status": "True", "reason": "No", "message": "not you"}]}),
        false => json!({"certificate": encode(certificate.pem())}),
    };
    signer.requests.lock().push(request);
    Json(answer)
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListQuery {
    field_selector: Option<String>,
    watch: Option<bool>,
}

async fn list(State(signer): State<Arc<Signer>>, Query(query): Query<ListQuery>) -> Response {
    if query.watch == Some(true) {
        return axum::body::Body::from_stream(futures::stream::pending::<std::io::Result<bytes::Bytes>>())
            .into_response();
    }
    let name = query.field_selector.unwrap_or_default().replace("metadata.name=", "");
    let items: Vec<Value> = signer.requests.lock().iter().filter(|r| r["metadata"]["name"] == *name).cloned().collect();
    Json(json!({"kind": "List", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": items}))
        .into_response()
}

struct Cluster {
    signer: Arc<Signer>,
    server: String,
    token: String,
}

impl Cluster {
    async fn new(denies: bool) -> Cluster {
        let ca = Ca::new("kubernetes");
        let token = format!("abc123.0123456789abcdef.{}", ca.hash());
        let signer =
            Signer { ca, requests: Mutex::default(), bearers: Mutex::default(), denies, created: AtomicUsize::new(0) };
        let signer = Arc::new(signer);
        let path = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
        let router = Router::new().route(path, get(list).post(create)).with_state(signer.clone());
        let address = serve_tls(&signer.ca, router).await;
        Cluster { signer, server: format!("https://{address}"), token }
    }

    fn options(&self, dir: &Path) -> JoinOptions {
        JoinOptions {
            servers: vec![self.server.clone()],
            token: Some(self.token.clone()),
            node_name: "box1".into(),
            node_ip: IpAddr::from([127, 0, 0, 1]),
            data_dir: dir.to_owned(),
        }
    }
}

#[tokio::test]
async fn machine_joins_once_and_comes_back_without_a_token() {
    let (cluster, dir, tasks) = (Cluster::new(false).await, tempfile::tempdir().unwrap(), Tasks::new());
    let joined = join(&cluster.options(dir.path()), &tasks).await.unwrap();
    assert_eq!(joined.ca_pem.trim(), cluster.signer.ca.pem.replace("\r\n", "\n").trim());
    assert_eq!(cluster.signer.bearers.lock()[0], "Bearer abc123.0123456789abcdef");
    let first = cluster.signer.requests.lock()[0].clone();
    assert_eq!(first["spec"]["signerName"], api::well_known::SIGNER_KUBELET_CLIENT);
    let stored = std::fs::metadata(dir.path().join("pki").join(credentials::CLIENT)).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&stored.permissions()) & 0o777, 0o600);

    let again = JoinOptions { token: None, ..cluster.options(dir.path()) };
    let clients = || {
        cluster.signer.requests.lock().iter().filter(|r| r["spec"]["signerName"] == first["spec"]["signerName"]).count()
    };
    join(&again, &tasks).await.unwrap();
    assert_eq!(clients(), 1, "the credentials of last time are used");

    let renamed = JoinOptions { node_name: "box2".into(), ..again };
    assert!(matches!(join(&renamed, &tasks).await, Err(Error::NoToken)), "they are of another node");
    assert!(tasks.stop(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn server_of_another_ca_is_refused_before_anything_is_sent() {
    let (cluster, dir, tasks) = (Cluster::new(false).await, tempfile::tempdir().unwrap(), Tasks::new());
    let token = Some(format!("abc123.0123456789abcdef.{}", Ca::new("other").hash()));
    let options = JoinOptions { token, ..cluster.options(dir.path()) };
    assert!(matches!(join(&options, &tasks).await, Err(Error::Pin)));
    assert_eq!(cluster.signer.created.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn denied_requests_and_bad_options_are_told() {
    let (cluster, dir, tasks) = (Cluster::new(true).await, tempfile::tempdir().unwrap(), Tasks::new());
    let options = cluster.options(dir.path());
    let denied = join(&options, &tasks).await.err().unwrap();
    assert_eq!(denied.to_string(), "the certificate request was denied: not you");
    for (options, expected) in [
        (JoinOptions { servers: vec!["http://x".into()], ..options.clone() }, "http://x is not an https:// URL"),
        (JoinOptions { token: None, ..options.clone() }, "this machine has not joined yet: a join token is needed"),
    ] {
        assert_eq!(join(&options, &tasks).await.err().unwrap().to_string(), expected);
    }
}
