//! The way to a node's kubelet: HTTPS with a certificate the kubelet knows, to the address its Node has, certified by
//! the cluster's CA.

use std::fmt::Display;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use k8s_openapi::api::core::v1::Node;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::connect::http1;
use crate::error::Error;
use crate::pki::Pki;
use crate::status::ApiError;

/// Where a kubelet listens unless its Node says otherwise.
const DEFAULT_PORT: i32 = 10250;
/// How long a kubelet may take to begin its answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// Talks to kubelets.
pub(crate) struct KubeletClient {
    connector: TlsConnector,
}

impl KubeletClient {
    pub(crate) fn new(pki: &Pki) -> Result<KubeletClient, Error> {
        let failed = |e: rustls::Error| Error::Certificate(e.to_string());
        let mut roots = RootCertStore::empty();
        roots.add(pki.ca.clone()).map_err(failed)?;
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .with_root_certificates(roots)
            .with_client_cert_resolver(pki.kubelet_client.clone());
        Ok(KubeletClient { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Sends `GET path` to the kubelet of `node`. The answer's body is read as it comes.
    pub(crate) async fn get(&self, node: &Node, path: &str) -> Result<Response<Incoming>, ApiError> {
        let authority = authority(node)?;
        let failed = |why: &dyn Display| ApiError::Backend(format!("Get \"https://{authority}{path}\": {why}"));
        let request = Request::get(path).header(http::header::HOST, &authority).body(Body::empty());
        self.exchange(node, request.map_err(|error| failed(&error))?).await.map_err(|error| failed(&error))
    }

    /// Sends a request to the kubelet of `node`; its URI is a path.
    pub(crate) async fn send(&self, node: &Node, request: Request<Body>) -> Result<Response<Incoming>, ApiError> {
        authority(node)?;
        let answer = self.exchange(node, request).await;
        answer.map_err(|error| ApiError::Backend(format!("error dialing backend: {error}")))
    }

    async fn exchange(&self, node: &Node, request: Request<Body>) -> io::Result<Response<Incoming>> {
        let stream = self.connect(node).await?;
        match tokio::time::timeout(ANSWER_MAX, http1::exchange(stream, request)).await {
            Ok(answer) => answer.map_err(io::Error::other),
            Err(_) => Err(io::Error::other("the kubelet does not answer")),
        }
    }

    /// Connects to the kubelet of `node`.
    pub(crate) async fn connect(&self, node: &Node) -> io::Result<TlsStream<TcpStream>> {
        let address = address(node).map_err(io::Error::other)?;
        let connect = async {
            let stream = http1::connect(&authority(node).map_err(io::Error::other)?).await?;
            let name = ServerName::try_from(address.to_owned()).map_err(io::Error::other)?;
            self.connector.connect(name, stream).await
        };
        let connected = tokio::time::timeout(http1::CONNECT_MAX, connect).await;
        connected.map_err(|_| io::Error::other("net/http: TLS handshake timeout"))?
    }
}

/// `address:port` of the node's kubelet.
pub(crate) fn authority(node: &Node) -> Result<String, ApiError> {
    let (address, port) = (address(node)?, port(node));
    Ok(if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") })
}

/// `--kubelet-preferred-address-types` as upstream orders what minions have.
fn address(node: &Node) -> Result<&str, ApiError> {
    let addresses = node.status.as_ref().and_then(|s| s.addresses.as_ref());
    let of_type = |t: &str| addresses.into_iter().flatten().find(|a| a.type_ == t).map(|a| a.address.as_str());
    of_type("InternalIP").or_else(|| of_type("Hostname")).ok_or_else(|| {
        let name = node.metadata.name.as_deref().unwrap_or("");
        ApiError::Backend(format!("no preferred addresses found for node {name:?}"))
    })
}

/// The port of the node's kubelet.
pub(crate) fn port(node: &Node) -> u16 {
    let endpoint = node.status.as_ref().and_then(|s| s.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref());
    let port = endpoint.map_or(DEFAULT_PORT, |e| e.port);
    u16::try_from(port).ok().filter(|p| *p != 0).unwrap_or(10250)
}
