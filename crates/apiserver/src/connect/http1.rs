//! One HTTP/1.1 exchange over a connection of its own, which may become a byte stream.

use std::io;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, ToSocketAddrs};

/// How long connecting may take, TLS and all.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A peer that has been silent for this long is asked whether it is still there, and asked again after as long: Go's
/// defaults (`net.KeepAliveConfig`), which every server of upstream runs with.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A peer that has not answered so many times is gone.
const KEEP_ALIVE_PROBES: u32 = 9;

/// Connects, as [`prepare`] says.
pub(crate) async fn connect(address: impl ToSocketAddrs) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    prepare(&stream)?;
    Ok(stream)
}

/// Has a connection not wait for segments to fill, as keystrokes and frames are small; and end when the other side has
/// vanished without a word, so that a session nobody is in does not last for ever.
pub(crate) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let keep_alive =
        TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE).with_retries(KEEP_ALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keep_alive)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_silent_peer_is_asked_whether_it_lives() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = connect(listener.local_addr().unwrap()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        let times = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        assert_eq!((times, socket.tcp_keepalive_retries().unwrap()), ((KEEP_ALIVE, KEEP_ALIVE), KEEP_ALIVE_PROBES));
    }
}
