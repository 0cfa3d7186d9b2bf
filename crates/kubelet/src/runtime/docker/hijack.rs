//! Requests whose connection becomes a byte stream. Docker calls it hijacking; bollard does it too, but takes bytes of a
//! terminal for the heads of its own frames, so this is done here: one HTTP/1.1 exchange on a connection of its own.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::super::{Connection, Error, Result};

/// How much of a refusal is read.
const MAX_REFUSAL_BYTES: usize = 16 << 10;

/// How long Docker may take to hand a connection over.
const HANDOVER_MAX: Duration = Duration::from_secs(120);

/// Where Docker is, and the version of its API to ask for.
#[derive(Clone, Debug)]
pub(super) struct Hijacker {
    endpoint: String,
    prefix: String,
    tls: Option<Arc<rustls::ClientConfig>>,
}

impl Hijacker {
    pub(super) fn new(endpoint: &str, prefix: &str, tls: Option<Arc<rustls::ClientConfig>>) -> Hijacker {
        Hijacker { endpoint: endpoint.to_owned(), prefix: prefix.to_owned(), tls }
    }

    /// Posts `body` to `path` and takes the connection over.
    pub(super) async fn post(&self, path: &str, body: &serde_json::Value) -> Result<TokioIo<Upgraded>> {
        let posted = tokio::time::timeout(HANDOVER_MAX, self.take_over(path, body)).await;
        posted.unwrap_or_else(|_| Err(Error::Unreachable("timed out".to_owned())))
    }

    async fn take_over(&self, path: &str, body: &serde_json::Value) -> Result<TokioIo<Upgraded>> {
        let request = Request::post(format!("{}{path}", self.prefix))
            .header(header::HOST, "docker")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "tcp")
            .body(Full::new(Bytes::from(body.to_string())))
            .map_err(|error| Error::Refused(error.to_string()))?;
        let connection = TokioIo::new(self.connect().await.map_err(unreachable)?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(connection).await.map_err(unreachable)?;
        // Ends with the answer, or with the stream the connection becomes.
        tokio::spawn(connection.with_upgrades());
        let response = sender.send_request(request).await.map_err(unreachable)?;
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_REFUSAL_BYTES).collect().await;
            return Err(refusal(status, &body.map(|b| b.to_bytes()).unwrap_or_default()));
        }
        Ok(TokioIo::new(hyper::upgrade::on(response).await.map_err(unreachable)?))
    }

    async fn connect(&self) -> std::io::Result<Connection> {
        match (self.endpoint.split_once("://"), &self.tls) {
            (Some(("unix", path)), _) => Ok(Box::new(UnixStream::connect(path).await?)),
            (Some((_, address)), None) => Ok(Box::new(TcpStream::connect(address.trim_end_matches('/')).await?)),
            (Some((_, address)), Some(config)) => {
                let address = address.trim_end_matches('/');
                let stream = TcpStream::connect(address).await?;
                let host = address.rsplit_once(':').map_or(address, |(host, _)| host).trim_matches(['[', ']']);
                let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
                Ok(Box::new(TlsConnector::from(config.clone()).connect(name, stream).await?))
            }
            (None, _) => Err(std::io::Error::other("not an endpoint")),
        }
    }
}

fn unreachable(error: impl std::fmt::Display) -> Error {
    Error::Unreachable(error.to_string())
}

fn refusal(status: StatusCode, body: &[u8]) -> Error {
    let parsed: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let message = parsed.as_ref().and_then(|v| v["message"].as_str()).map(str::to_owned);
    let message = message.unwrap_or_else(|| String::from_utf8_lossy(body).trim().to_owned());
    match status {
        StatusCode::NOT_FOUND => Error::NotFound(message),
        StatusCode::CONFLICT => Error::Conflict(message),
        _ => Error::Refused(format!("Error response from daemon: {message}")),
    }
}
