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
    /// How many certificates to sign that have ten seconds left of an hour; others last for ever.
    short: AtomicUsize,
}

impl Signer {
    fn sign(&self, request: &str) -> String {
        let mut asked = CertificateSigningRequestParams::from_pem(request).unwrap();
        let one_less = |short: usize| short.checked_sub(1);
        if self.short.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less).is_ok() {
            let now = Duration::from_secs(jiff::Timestamp::now().as_second().try_into().unwrap());
            let epoch = rcgen::date_time_ymd(1970, 1, 1);
            asked.params.not_before = epoch + (now - Duration::from_secs(3590));
            asked.params.not_after = epoch + (now + Duration::from_secs(10));
        }
        asked.signed_by(&self.ca.issuer).unwrap().pem()
    }
}

async fn create(State(signer): State<Arc<Signer>>, headers: HeaderMap, Json(mut request): Json<Value>) -> Json<Value> {
    let bearer = headers.get("authorization").and_then(|v| v.to_str().ok()).unwrap_or("none");
    signer.bearers.lock().push(bearer.to_owned());
    signer.created.fetch_add(1, Ordering::Relaxed);
    let answer = request.clone();
    let decode = |text: &str| base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
    let encode = |text: String| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, text);
    let pem = String::from_utf8(decode(request["spec"]["request"].as_str().unwrap())).unwrap();
    request["status"] = match signer.denies {
        true => json!({"conditions": [{"type": "Denied", "status": "True", "reason": "No", "message": "not you"}]}),
        false => json!({"certificate": encode(signer.sign(&pem))}),
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
        let (requests, bearers) = (Mutex::default(), Mutex::default());
        let (created, short) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let signer = Arc::new(Signer { ca, requests, bearers, denies, created, short });
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
async fn certificates_that_end_soon_are_renewed_while_they_are_used() {
    let (cluster, dir, tasks) = (Cluster::new(false).await, tempfile::tempdir().unwrap(), Tasks::new());
    cluster.signer.short.store(1, Ordering::Relaxed);
    let joined = join(&cluster.options(dir.path()), &tasks).await.unwrap();
    for kept in [&joined.certificates.client, &joined.certificates.serving] {
        let mut ends = kept.ends.subscribe();
        let lasts = |validity: &Option<credentials::Validity>| {
            validity.is_some_and(|v| v.to > crate::clock::after(jiff::Timestamp::now(), Duration::from_secs(60)))
        };
        tokio::time::timeout(Duration::from_secs(60), ends.wait_for(lasts)).await.unwrap().unwrap();
        assert!(kept.ttl_seconds(jiff::Timestamp::now()) > 60.0);
        assert_eq!(kept.renew_errors(), 0);
    }
    let requests = cluster.signer.requests.lock().clone();
    let signers = requests.iter().map(|r| r["spec"]["signerName"].as_str().unwrap());
    let clients = signers.filter(|signer| *signer == api::well_known::SIGNER_KUBELET_CLIENT).count();
    assert_eq!((clients, requests.len()), (2, 3), "the first had ten seconds left");
    let stored = Pair::read(&dir.path().join("pki").join(credentials::CLIENT)).unwrap().unwrap();
    assert_eq!(stored.validity(), *joined.certificates.client.ends.borrow());
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
