//! One HTTP/1.1 exchange over a connection of its own, which may become a byte stream.

use std::io;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};

/// How long connecting may take, TLS and all.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(10);

/// Connects without waiting for segments to fill: keystrokes and frames are small.
pub(crate) async fn connect(address: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Sends `request` and waits for the head of the answer.
pub(crate) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Body>,
) -> hyper::Result<Response<Incoming>> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the answer's body, with the stream it becomes, or when the client goes away and drops either.
    tokio::spawn(connection.with_upgrades());
    sender.send_request(request).await
}
