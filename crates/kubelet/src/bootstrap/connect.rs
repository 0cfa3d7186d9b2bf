//! Clients of the API server: with the token, and with the node's certificate, which may be exchanged while it is used.
//! Both speak HTTP/2 where the server does: all watches of a node share one connection. Where there are several servers,
//! one is used until it does not answer, then the next.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderValue;
use http::header::{AUTHORIZATION, USER_AGENT};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::client::ResolvesClientCert;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, SignatureScheme};

use super::Error;
use super::credentials::Pair;
use super::pin::PinnedCa;

/// A server that does not take a connection for this long is down.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
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
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    pub(super) fn new(pair: &Pair) -> Result<Identity, Error> {
        Ok(Identity { current: Arc::new(ArcSwap::new(Arc::new(certified(pair)?))) })
    }

    /// Shows this one from the next handshake on.
    pub(super) fn replace(&self, pair: &Pair) -> Result<(), Error> {
        self.current.store(Arc::new(certified(pair)?));
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
    let config = builder()?.with_root_certificates(roots).with_client_cert_resolver(Arc::new(identity));
    Ok(client(servers, config, None))
}

/// A client with the join token, which believes only servers of the pinned CA.
pub(super) fn bootstrap_client(servers: &[http::Uri], pin: Arc<PinnedCa>, bearer: &str) -> Result<kube::Client, Error> {
    let config = builder()?.dangerous().with_custom_certificate_verifier(pin).with_no_client_auth();
    let authorization = HeaderValue::from_str(&format!("Bearer {bearer}")).map_err(|_| Error::Token)?;
    Ok(client(servers, config, Some(authorization)))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.map_err(|error| Error::Crypto(error.to_string()))
}

fn client(servers: &[http::Uri], config: ClientConfig, authorization: Option<HeaderValue>) -> kube::Client {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_LIMIT));
    let tls = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(config).https_only();
    let tls = tls.enable_http1().enable_http2().wrap_connector(tcp);
    let http = Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_LIMIT)
        .http2_keep_alive_while_idle(false)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .build::<_, kube::client::Body>(tls);
    let servers = Arc::new(Servers::new(servers));
    let service = tower::service_fn(move |mut request: http::Request<kube::client::Body>| {
        let (number, server) = servers.current();
        *request.uri_mut() = at(&server, request.uri());
        request.headers_mut().insert(USER_AGENT, KUBELET);
        if let Some(value) = &authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        let (answer, servers) = (http.request(request), servers.clone());
        async move {
            let answer = answer.await;
            if answer.is_err() {
                servers.leave(number);
            }
            answer
        }
    });
    kube::Client::new(service, "default")
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

    /// Uses the next from now on, unless others who failed with it have left it already. Whoever failed tries again.
    fn leave(&self, number: usize) {
        let next = (number + 1) % self.all.len().max(1);
        if self.current.compare_exchange(number, next, Ordering::Relaxed, Ordering::Relaxed).is_ok() && next != number {
            tracing::warn!(from = %self.all[number], to = %self.all[next], "the API server does not answer: trying another");
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
    fn requests_go_to_the_server_they_are_meant_for() {
        for (server, path, expected) in [
            ("https://a:6443", "/api/v1/pods?x=1", "https://a:6443/api/v1/pods?x=1"),
            ("https://a/prefix/", "/api", "https://a/prefix/api"),
        ] {
            assert_eq!(at(&server.parse().unwrap(), &path.parse().unwrap()).to_string(), expected);
        }
    }
}
