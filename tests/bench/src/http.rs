//! A small, quick HTTPS client for load: HTTP/1.1 over TLS, one connection per worker, kept open.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::stream::{Accepts, Stream};

/// Where an API server is and how to prove who we are.
#[derive(Clone)]
pub(crate) struct Target {
    /// `127.0.0.1:6443`.
    pub(crate) address: String,
    tls: Arc<rustls::ClientConfig>,
    token: Option<String>,
}

impl Target {
    /// A server whose certificate `ca` signed, with a bearer token.
    pub(crate) fn with_token(address: &str, ca: &[u8], token: &str) -> Result<Target> {
        let tls = builder(ca)?.with_no_client_auth();
        Ok(Target { address: address.to_owned(), tls: Arc::new(tls), token: Some(token.to_owned()) })
    }

    /// Opens a connection.
    pub(crate) async fn connect(&self) -> Result<Connection> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.tls().await?)).await?;
        tokio::spawn(connection);
        Ok(Connection { sender, authorization: self.authorization() })
    }

    /// Opens a watch on a connection of its own.
    pub(crate) async fn watch(&self, path: &str, accepts: Accepts) -> Result<Stream> {
        Stream::open(self.tls().await?, path, self.authorization().as_deref(), accepts).await
    }

    fn authorization(&self) -> Option<String> {
        self.token.as_ref().map(|token| format!("Bearer {token}"))
    }

    async fn tls(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.address).await.with_context(|| format!("connect to {}", self.address))?;
        stream.set_nodelay(true)?;
        let host = self.address.rsplit_once(':').map_or(self.address.as_str(), |(host, _)| host).to_owned();
        Ok(TlsConnector::from(self.tls.clone()).connect(ServerName::try_from(host)?, stream).await?)
    }
}

fn builder(ca: &[u8]) -> Result<rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca) {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(roots))
}

/// One connection; one request at a time.
pub(crate) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    authorization: Option<String>,
}

impl Connection {
    async fn send(&mut self, method: Method, path: &str, body: Bytes, kind: &str) -> Result<hyper::Response<Incoming>> {
        let mut request = Request::builder().method(method).uri(path).header("host", "bench");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        if !body.is_empty() {
            request = request.header("content-type", kind);
        }
        self.sender.ready().await?;
        Ok(self.sender.send_request(request.body(Full::new(body))?).await?)
    }

    /// Sends a request and reads the whole answer; anything but success is an error with the answer's text.
    pub(crate) async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Bytes> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let response = self.send(method, path, body, kind).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        if status.is_success() { Ok(body) } else { Err(anyhow!("{status}: {}", String::from_utf8_lossy(&body))) }
    }

    /// Opens a stream (a watch) and returns its body.
    pub(crate) async fn stream(&mut self, path: &str) -> Result<Incoming> {
        let response = self.send(Method::GET, path, Bytes::new(), "").await?;
        anyhow::ensure!(response.status().is_success(), "{}", response.status());
        Ok(response.into_body())
    }
}
