//! One HTTP/1.1 exchange over a connection of its own, which may become a byte stream.

use std::io;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// How long connecting may take, TLS and all.
pub(crate) const CONNECT_MAX: Duration = Duration::from_secs(10);

/// A peer that has been silent for this long is asked whether it is still there, and asked again after as long: Go's
/// defaults (`net.KeepAliveConfig`), which every server of upstream runs with.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A peer that has not answered so many times is gone.
const KEEP_ALIVE_PROBES: u32 = 9;

/// Connects to `host:port`, as [`prepare`] says. The error reads as Go's: people search for that.
pub(crate) async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = match tokio::time::timeout(CONNECT_MAX, TcpStream::connect(address)).await {
        Ok(stream) => stream.map_err(|error| dialed(address, &error))?,
        Err(_) => return Err(dialed(address, &io::ErrorKind::TimedOut.into())),
    };
    prepare(&stream)?;
    Ok(stream)
}

/// Why there is no connection.
fn dialed(address: &str, error: &io::Error) -> io::Error {
    let why = match error.kind() {
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::ConnectionReset => "connect: connection reset by peer".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    };
    io::Error::new(error.kind(), format!("dial tcp {address}: {why}"))
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
        let stream = connect(&listener.local_addr().unwrap().to_string()).await.unwrap();
        let socket = SockRef::from(&stream);
        assert!(socket.keepalive().unwrap() && stream.nodelay().unwrap());
        let times = (socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_interval().unwrap());
        assert_eq!((times, socket.tcp_keepalive_retries().unwrap()), ((KEEP_ALIVE, KEEP_ALIVE), KEEP_ALIVE_PROBES));
    }

    #[test]
    fn failures_read_as_in_go() {
        for (kind, expected) in [
            (io::ErrorKind::TimedOut, "dial tcp 1.2.3.4:5: i/o timeout"),
            (io::ErrorKind::ConnectionRefused, "dial tcp 1.2.3.4:5: connect: connection refused"),
            (io::ErrorKind::HostUnreachable, "dial tcp 1.2.3.4:5: connect: no route to host"),
        ] {
            assert_eq!(dialed("1.2.3.4:5", &kind.into()).to_string(), expected);
        }
    }
}
