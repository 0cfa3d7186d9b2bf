//! Clients of the API server: with the token, and with the node's certificate, which may be exchanged while it is used.
//! Both speak HTTP/2 where the server does: all watches of a node share one connection.

use std::fmt;
use std::sync::Arc;
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
use tower::ServiceExt;

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
pub(super) fn node_client(server: &http::Uri, ca_pem: &str, identity: Identity) -> Result<kube::Client, Error> {
    let roots = crate::server::roots(ca_pem).map_err(|error| Error::Crypto(error.to_string()))?;
    let config = builder()?.with_root_certificates(roots).with_client_cert_resolver(Arc::new(identity));
    Ok(client(server, config, None))
}

/// A client with the join token, which believes only servers of the pinned CA.
pub(super) fn bootstrap_client(server: &http::Uri, pin: Arc<PinnedCa>, bearer: &str) -> Result<kube::Client, Error> {
    let config = builder()?.dangerous().with_custom_certificate_verifier(pin).with_no_client_auth();
    let authorization = HeaderValue::from_str(&format!("Bearer {bearer}")).map_err(|_| Error::Token)?;
    Ok(client(server, config, Some(authorization)))
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    builder.map_err(|error| Error::Crypto(error.to_string()))
}

fn client(server: &http::Uri, config: ClientConfig, authorization: Option<HeaderValue>) -> kube::Client {
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
    let server = server.clone();
    let service = http.map_request(move |mut request: http::Request<kube::client::Body>| {
        *request.uri_mut() = at(&server, request.uri());
        request.headers_mut().insert(USER_AGENT, KUBELET);
        if let Some(value) = &authorization {
            request.headers_mut().insert(AUTHORIZATION, value.clone());
        }
        request
    });
    kube::Client::new(service, "default")
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
    fn requests_go_to_the_server_they_are_meant_for() {
        for (server, path, expected) in [
            ("https://a:6443", "/api/v1/pods?x=1", "https://a:6443/api/v1/pods?x=1"),
            ("https://a/prefix/", "/api", "https://a/prefix/api"),
        ] {
            assert_eq!(at(&server.parse().unwrap(), &path.parse().unwrap()).to_string(), expected);
        }
    }
}
