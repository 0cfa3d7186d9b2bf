//! Clients of the API server: with the token, and with the node's certificate, which may be exchanged while it is used.
//! Both speak HTTP/2 where the server does: all watches of a node share one connection. Where there are several servers,
//! one is used until it does not answer, or not as a server should, then the next; watches of one that is gone end, too.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::Body;
use parking_lot::Mutex;
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};
use tokio_util::sync::CancellationToken;

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

type Http = Client<HttpsConnector<HttpConnector>, Body>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn client(
    servers: &[http::Uri],
    config: ClientConfig,
    generation: Arc<AtomicUsize>,
    authorization: Option<HeaderValue>,
) -> kube::Client {
    let (servers, connections) = (Arc::new(Servers::new(servers)), Connections::new(config, generation));
    let service = tower::service_fn(move |mut request: http::Request<Body>| {
        let server = servers.current();
        let watches = is_watch(request.uri());
        *request.uri_mut() = at(&server.uri, request.uri());
        request.headers_mut().insert(USER_AGENT, KUBELET);
        if let Some(value) = &authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let (answer, servers) = (connections.current().request(request), servers.clone());
        async move {
            let answer = servers.patient(answer).await;
            let health = answer.as_ref().map_or(Health::Gone, |answer| health(answer.status()));
            if health != Health::Well {
                servers.leave(&server, health);
            }
            answer.map(|answer| answer.map(|body| if watches { until(server.gone, body) } else { body.boxed_unsync() }))
        }
    });
    kube::Client::new(service, "default")
}

/// Whether the answer has no end of its own, or one in minutes.
fn is_watch(uri: &http::Uri) -> bool {
    let parameters = uri.query().unwrap_or_default().split('&');
    parameters.filter_map(|parameter| parameter.strip_prefix("watch=")).any(|value| value == "true" || value == "1")
}

/// The body, which ends early when its server is gone: as a watch does in the end, so that it is taken up where it was.
fn until(gone: CancellationToken, body: Incoming) -> UnsyncBoxBody<Bytes, hyper::Error> {
    let frames = body.into_data_stream().map_ok(Frame::data).take_until(gone.cancelled_owned());
    StreamBody::new(frames).boxed_unsync()
}

/// What an answer says of its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Well,
    /// Another one may do better. This request failed there, and perhaps would anywhere: a store without room refuses every
    /// write, and goes on to tell what it holds.
    Fails,
    /// Its store is away, or what stands before it does not reach it. Where it lives on it would tell watchers nothing for
    /// long.
    Gone,
}

fn health(status: StatusCode) -> Health {
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => Health::Gone,
        StatusCode::NOT_IMPLEMENTED => Health::Well,
        status if status.is_server_error() => Health::Fails,
        _ => Health::Well,
    }
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
    used: Mutex<Used>,
}

struct Used {
    /// The server in use.
    number: usize,
    /// For each server, over as soon as it is gone: also for those who watch there while another one is used.
    gone: Vec<CancellationToken>,
}

/// A server that a request goes to.
struct Server {
    number: usize,
    uri: http::Uri,
    gone: CancellationToken,
}

impl Servers {
    fn new(all: &[http::Uri]) -> Servers {
        let gone = all.iter().map(|_| CancellationToken::new()).collect();
        Servers { all: all.to_vec(), used: Mutex::new(Used { number: 0, gone }) }
    }

    fn current(&self) -> Server {
        let mut used = self.used.lock();
        let number = used.number;
        let uri = self.all.get(number).cloned().unwrap_or_default();
        let gone = used.gone.get_mut(number).map_or_else(CancellationToken::new, |gone| {
            // It has come back.
            if gone.is_cancelled() {
                *gone = CancellationToken::new();
            }
            gone.clone()
        });
        Server { number, uri, gone }
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

    /// Uses the next from now on, unless others who failed with it have left it already. Whoever failed tries again; whoever
    /// watches one that is gone, watches the next.
    fn leave(&self, server: &Server, health: Health) {
        if self.all.len() < 2 {
            return;
        }
        let mut used = self.used.lock();
        if used.number == server.number {
            used.number = (server.number + 1) % self.all.len();
            let to = self.all.get(used.number).map(tracing::field::display);
            tracing::warn!(from = %server.uri, to, "the API server does not answer as it should: trying another");
        }
        if health == Health::Gone {
            server.gone.cancel();
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
mod tests;
