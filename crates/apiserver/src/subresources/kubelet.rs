//! The way to a node's kubelet: HTTPS with a certificate the kubelet knows, to the address its Node has, certified by
//! the cluster's CA.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use rustls::RootCertStore;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::error::Error;
use crate::pki::Pki;
use crate::status::ApiError;

/// Where a kubelet listens unless its Node says otherwise.
const DEFAULT_PORT: i32 = 10250;
/// How long connecting may take, TLS and all.
const CONNECT_MAX: Duration = Duration::from_secs(10);
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
            .with_client_auth_cert(vec![pki.kubelet_client.certificate.clone()], pki.kubelet_client.key.clone_key())
            .map_err(failed)?;
        Ok(KubeletClient { connector: TlsConnector::from(Arc::new(config)) })
    }

    /// Sends `GET path` to the kubelet of `node`. The answer's body is read as it comes.
    pub(crate) async fn get(&self, node: &Node, path: &str) -> Result<Response<Incoming>, ApiError> {
        let address = address(node)?;
        let port = port(node);
        let unreachable =
            |e: &dyn std::fmt::Display| ApiError::Internal(format!("Get \"https://{address}:{port}{path}\": {e}"));
        let connect = async {
            let stream = TcpStream::connect((address, port)).await?;
            stream.set_nodelay(true)?;
            let name = ServerName::try_from(address.to_owned()).map_err(std::io::Error::other)?;
            self.connector.connect(name, stream).await
        };
        let stream = tokio::time::timeout(CONNECT_MAX, connect)
            .await
            .map_err(|_| unreachable(&"connecting took too long"))?
            .map_err(|e| unreachable(&e))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| unreachable(&e))?;
        // Ends with the answer's body or when the client goes away and drops it.
        tokio::spawn(connection);
        let request = Request::get(path).header(http::header::HOST, format!("{address}:{port}")).body(Body::empty());
        let request = request.map_err(|e| unreachable(&e))?;
        let answer = tokio::time::timeout(ANSWER_MAX, sender.send_request(request)).await;
        answer.map_err(|_| unreachable(&"the kubelet does not answer"))?.map_err(|e| unreachable(&e))
    }
}

/// `--kubelet-preferred-address-types` as upstream orders what minions have.
fn address(node: &Node) -> Result<&str, ApiError> {
    let addresses = node.status.as_ref().and_then(|s| s.addresses.as_ref());
    let of_type = |t: &str| addresses.into_iter().flatten().find(|a| a.type_ == t).map(|a| a.address.as_str());
    of_type("InternalIP").or_else(|| of_type("Hostname")).ok_or_else(|| {
        let name = node.metadata.name.as_deref().unwrap_or("");
        ApiError::Internal(format!("no preferred addresses found for node {name:?}"))
    })
}

fn port(node: &Node) -> u16 {
    let endpoint = node.status.as_ref().and_then(|s| s.daemon_endpoints.as_ref()?.kubelet_endpoint.as_ref());
    let port = endpoint.map_or(DEFAULT_PORT, |e| e.port);
    u16::try_from(port).ok().filter(|p| *p != 0).unwrap_or(10250)
}
