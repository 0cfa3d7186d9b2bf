//! Clients of the API server: with the token, and with the node's certificate, which may be exchanged while it is used.
//! Both speak HTTP/2 where the server does: all watches of a node share one connection. Where there are several servers,
//! one is used until it does not answer, or not as a server should, then the next.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

use super::Error;
use super::credentials::Pair;
use super::pin::PinnedCa;

/// A server that does not take a connection for this long is down.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Where there is another server, one that does not begin its answer for this long is left: a machine that stands still
/// takes connections, and says nothing. Less than a renewal of the node's lease waits (a quarter of 40 seconds), so that
/// the next one goes elsewhere.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A connection that is silent for this long is asked whether it lives, and given up when it does not say so in time.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_LIMIT: Duration = Duration::from_secs(10);
/// Flow-control windows that do not let many watches starve each other.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Who the API server writes down as the manager of what is written here.
const KUBELET: HeaderValue = HeaderValue::from_static(concat!("kubelet/", env!("CARGO_PKG_VERSION")));

/// The node's certificate as a client.
#[derive(Clone)]
pub(super) struct Identity {
    current: Arc<ArcSwap<CertifiedKey>>,
    /// How often it was exchanged.
    generation: Arc<AtomicUsize>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    pub(super) fn new(pair: &Pair) -> Result<Identity, Error> {
        Ok(Identity { current: Arc::new(ArcSwap::new(Arc::new(certified(pair)?))), generation: Arc::default() })
    }

    /// Shows this one from now on, on connections of its own.
    pub(super) fn replace(&self, pair: &Pair) -> Result<(), Error> {
        self.current.store(Arc::new(certified(pair)?));
        self.generation.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

fn certified(pair: &Pair) -> Result<CertifiedKey, Error> {
    crate::server::certified_key(&pair.certificate, &pair.key).map_err(|error| Error::Crypto(error.to_string()))
}

impl ResolvesClientCert for Identity {
    fn resolve(&self, _issuers: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// A client with the node's certificate.
pub(super) fn node_client(servers: &[http::Uri], ca_pem: &str, identity: Identity) -> Result<kube::Client, Error> {
    let roots = crate::server::roots(ca_pem).map_err(|error| Error::Crypto(error.to_string()))?;
    let generation = identity.generation.clone();
    let mut config = builder()?.with_root_certificates(roots).with_client_cert_resolver(Arc::new(identity));
    // A session that is taken up again would be that of the certificate it began with.
    config.resumption = Resumption::disabled();
    Ok(client(servers, config, generation, None))
}

/// A client with the join token, which believes only servers of the pinned CA.
pub(super) fn bootstrap_client(servers: &[http::Uri], pin: Arc<PinnedCa>, bearer: &str) -> Result<kube::Client, Error> {
    let config = builder()?.dangerous().with_custom_certificate_verifier(pin).with_no_client_auth();
    let authorization = HeaderValue::from_str(&format!("Bearer {bearer}")).map_err(|_| Error::Token)?;
    Ok(client(servers, config, Arc::default(), Some(authorization)))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.map_err(|error| Error::Crypto(error.to_string()))
}

type Http = Client<HttpsConnector<HttpConnector>, kube::client::Body>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn client(
    servers: &[http::Uri],
    config: ClientConfig,
    generation: Arc<AtomicUsize>,
    authorization: Option<HeaderValue>,
) -> kube::Client {
    let (servers, connections) = (Arc::new(Servers::new(servers)), Connections::new(config, generation));
    let service = tower::service_fn(move |mut request: http::Request<kube::client::Body>| {
        let (number, server) = servers.current();
        *request.uri_mut() = at(&server, request.uri());
        request.headers_mut().insert(USER_AGENT, KUBELET);
        if let Some(value) = &authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let (answer, servers) = (connections.current().request(request), servers.clone());
        async move {
            let answer = servers.patient(answer).await;
            let fails = match &answer {
                Ok(answer) => is_failure(answer.status()),
                Err(_) => true,
            };
            if fails {
                servers.leave(number);
            }
            answer
        }
    });
    kube::Client::new(service, "default")
}

/// Whether such an answer says that another server would do better: its store is away, it is overrun, or what stands
/// before it does not reach it.
fn is_failure(status: StatusCode) -> bool {
    status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
}

/// The connections of one client. A connection lives longer than the certificate it was made with, so that each has
/// connections of its own; requests under way on older ones end there.
struct Connections {
    connector: HttpsConnector<HttpConnector>,
    generation: Arc<AtomicUsize>,
    current: Mutex<(usize, Http)>,
}

impl Connections {
    fn new(config: ClientConfig, generation: Arc<AtomicUsize>) -> Connections {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_LIMIT));
        let tls = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_only();
        let connector = tls.enable_http1().enable_http2().wrap_connector(tcp);
        let current = Mutex::new((generation.load(Ordering::Acquire), http(&connector)));
        Connections { connector, generation, current }
    }

    fn current(&self) -> Http {
        let mut current = self.current.lock();
        let wanted = self.generation.load(Ordering::Acquire);
        if current.0 != wanted {
            *current = (wanted, http(&self.connector));
        }
        current.1.clone()
    }
}

fn http(connector: &HttpsConnector<HttpConnector>) -> Http {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_LIMIT)
        .http2_keep_alive_while_idle(false)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build(connector.clone())
}

/// The servers of one cluster, any of which will do.
struct Servers {
    all: Vec<http::Uri>,
    current: AtomicUsize,
}

impl Servers {
    fn new(all: &[http::Uri]) -> Servers {
        Servers { all: all.to_vec(), current: AtomicUsize::new(0) }
    }

    /// The one in use, and its number.
    fn current(&self) -> (usize, http::Uri) {
        let number = self.current.load(Ordering::Relaxed);
        (number, self.all.get(number).cloned().unwrap_or_default())
    }

    /// The answer; where there is another server to ask, no longer than it may take.
    async fn patient<T, E: Into<Failure>>(&self, answer: impl Future<Output = Result<T, E>>) -> Result<T, Failure> {
        if self.all.len() < 2 {
            return answer.await.map_err(Into::into);
        }
        match tokio::time::timeout(ANSWER_LIMIT, answer).await {
            Ok(answer) => answer.map_err(Into::into),
            Err(_) => Err(format!("no answer within {} seconds", ANSWER_LIMIT.as_secs()).into()),
        }
    }

    /// Uses the next from now on, unless others who failed with it have left it already. Whoever failed tries again.
    fn leave(&self, number: usize) {
        let next = (number + 1) % self.all.len().max(1);
        if self.current.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() && next != number {
            tracing::warn!(from = %self.all[number], to = %self.all[next], "the API server does not answer as it should: trying another");
        }
    }
}

/// `path` on `server`, below the path the server's URL has.
fn at(server: &http::Uri, path: &http::Uri) -> http::Uri {
    let wanted = path.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let prefix = server.path().trim_end_matches('/');
    let mut parts = server.clone().into_parts();
    parts.path_and_query = format!("{prefix}{wanted}").parse().ok();
    http::Uri::from_parts(parts).unwrap_or_else(|_| path.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_fails_is_left_once_for_the_next() {
        let all: Vec<http::Uri> = ["https://a", "https://b"].iter().map(|uri| uri.parse().unwrap()).collect();
        let servers = Servers::new(&all);
        let (first, server) = servers.current();
        assert_eq!((first, server.host()), (0, Some("a")));
        servers.leave(first);
        servers.leave(first);
        assert_eq!(servers.current().1.host(), Some("b"), "two requests that fail together leave it together");
        servers.leave(1);
        assert_eq!(servers.current().1.host(), Some("a"));
        let alone = Servers::new(&all[..1]);
        alone.leave(0);
        assert_eq!(alone.current().0, 0);
    }

    #[test]
    fn only_what_another_server_may_do_better_is_a_failure() {
        for (status, expected) in [
            (200, false),
            (101, false),
            (404, false),
            (409, false),
            (429, false),
            (500, true),
            (501, false),
            (503, true),
        ] {
            assert_eq!(is_failure(StatusCode::from_u16(status).unwrap()), expected, "{status}");
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
}
