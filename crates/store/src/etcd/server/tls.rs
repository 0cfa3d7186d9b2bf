//! The same over a network: TLS, and for those only who show a certificate of a CA that signs for nothing else.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::StreamExt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tonic::transport::server::Connected;

use super::Etcd3;
use crate::Error;

/// Connections held at once, of strangers too; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1000;
/// How long a client may take for its part of the TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How often a silent connection is asked whether it lives, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(20);
/// The pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

impl Etcd3 {
    /// Answers connections by TLS until `stop` ends; those that are open then may finish what they do. `tls` says what is
    /// shown and whom to believe.
    pub async fn serve_tls(
        self,
        tls: Arc<ServerConfig>,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let ended = |error| Error::Unavailable(format!("the etcd face ended: {error}"));
        let server = super::server().http2_keepalive_interval(Some(PING_EVERY)).http2_keepalive_timeout(Some(PING_MAX));
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let connections = futures::stream::unfold((listener, places), |(listener, places)| async move {
            let place = places.clone().acquire_owned().await.ok()?;
            let stream = accept(&listener).await;
            Some((Held { stream, _place: place }, (listener, places)))
        });
        let acceptor = TlsAcceptor::from(tls);
        let incoming = connections
            .map(move |stream| tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(stream)))
            .buffer_unordered(MAX_CONNECTIONS)
            .filter_map(|shaken| std::future::ready(greeted(shaken).map(Ok::<_, io::Error>)));
        server.serve_with_incoming_shutdown(self, Box::pin(incoming), stop).await.map_err(ended)
    }
}

/// The connection, once each side believes the other.
fn greeted<S>(shaken: Result<io::Result<S>, Elapsed>) -> Option<S> {
    match shaken {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake with an etcd client failed"),
        Err(_) => tracing::debug!("TLS handshake with an etcd client took too long"),
    }
    None
}

async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                drop(stream.set_nodelay(true));
                return stream;
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of an etcd client");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// A connection and the place it takes.
struct Held {
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Connected for Held {
    type ConnectInfo = <TcpStream as Connected>::ConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Held {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, to)
    }
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
