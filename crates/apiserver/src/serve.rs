//! HTTPS: an accept loop of its own, so that the client's certificate and every limit of a connection are at hand.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;

use crate::authn::{Caller, ClientCertificate};
use crate::connect::http1;
use crate::connections::{Connections, Open, Told};
use crate::error::Error;
use crate::held;
use crate::pki::{Callers, Pki};
use crate::server::Shared;
use crate::stalled::Stalled;

/// How long a client may take for its part of the TLS handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(10);
/// How long a client may take to send a request's headers.
const HEADERS_MAX: Duration = Duration::from_secs(30);
/// The most bytes of a request's headers over HTTP/2, as Go's servers allow (`DefaultMaxHeaderBytes`); over HTTP/1.1 hyper
/// allows some 400 KiB and a hundred headers.
const MAX_HEADER_BYTES: u32 = 1024 * 1024;
/// How long a client may take nothing of what is sent to it. Over HTTP/2, where each request has a window of its own,
/// what is held for one is bounded by time ([`held`]), and a client that reads nothing at all does not answer pings.
const STALLED_MAX: Duration = Duration::from_secs(60);
/// How often a silent HTTP/2 connection is asked whether it lives, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_MAX: Duration = Duration::from_secs(20);
/// Requests, watches above all, on one HTTP/2 connection.
const MAX_STREAMS: u32 = 10_000;
/// Flow control: at the default of 64 KiB many watches on one connection stall each other.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Go clients end watches by resetting their streams, often many at once.
const MAX_PENDING_RESETS: usize = 1000;
/// How long requests may take to finish once the server stops.
const DRAIN_MAX: Duration = Duration::from_secs(5);
/// The pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) async fn serve(shared: &Arc<Shared>, listener: TcpListener) -> Result<(), Error> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(&shared.pki)?));
    let places = Arc::new(Semaphore::new(shared.config.max_connections));
    let connections = Arc::<Connections>::default();
    loop {
        let place = tokio::select! {
            () = shared.stop.cancelled() => break,
            place = places.clone().acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let stream = (stream, peer.ip());
                let connection = connection(shared.clone(), acceptor.clone(), stream, connections.open(), place);
                tokio::spawn(connection);
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::select! {
                    () = shared.stop.cancelled() => break,
                    () = tokio::time::sleep(ACCEPT_PAUSE) => {}
                }
            }
        }
    }
    drop(listener);
    connections.finish();
    let all_places = u32::try_from(shared.config.max_connections).unwrap_or(u32::MAX);
    if tokio::time::timeout(DRAIN_MAX, places.acquire_many(all_places)).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    Ok(())
}

async fn connection(
    shared: Arc<Shared>,
    acceptor: TlsAcceptor,
    (stream, address): (TcpStream, IpAddr),
    open: Open,
    _place: OwnedSemaphorePermit,
) {
    if let Err(error) = http1::prepare(&stream) {
        return tracing::debug!(%error, "a connection ended before it began");
    }
    let is_upgraded = Arc::new(AtomicBool::new(false));
    let watched = Stalled::new(stream, STALLED_MAX, is_upgraded.clone());
    let handshake = tokio::select! {
        () = shared.stop.cancelled() => return,
        handshake = tokio::time::timeout(HANDSHAKE_MAX, acceptor.accept(watched)) => handshake,
    };
    let stream = match handshake {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let shown = certificates.and_then(|c| c.first()).and_then(|c| ClientCertificate::read(c)).map(Arc::new);
    let caller = Caller::Connection(shown, address);
    let this = held::Connection(open.end.clone());
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (shared, caller) = (shared.clone(), caller.clone());
        request.extensions_mut().insert(this.clone());
        async move { Ok::<_, std::convert::Infallible>(shared.handle(caller, request.map(Body::new)).await) }
    });
    let builder = builder();
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let mut is_finishing = false;
    let ended = poll_fn(|cx| {
        match open.end.poll(cx) {
            Told::Nothing => {}
            Told::Finish if is_finishing => {}
            Told::Finish => {
                is_finishing = true;
                connection.as_mut().graceful_shutdown();
            }
            Told::Cut => return Poll::Ready(None),
        }
        connection.as_mut().poll(cx).map(Some)
    });
    match ended.await {
        Some(Ok(())) => {}
        Some(Err(error)) => tracing::debug!(%error, "connection ended"),
        None => tracing::debug!("a connection whose client did not read ended"),
    }
    // Whoever is in a session may look at it as slowly as he likes.
    is_upgraded.store(true, Ordering::Relaxed);
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADERS_MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_MAX)
        .max_header_list_size(MAX_HEADER_BYTES)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS);
    builder
}

/// The server's certificate, and the cluster's CA for clients that have one too. The chain holds the CA itself, so that
/// a minion can compare it with the fingerprint in its join token.
fn tls(pki: &Pki) -> Result<rustls::ServerConfig, Error> {
    let config = pki.server.tls(&pki.ca, Callers::Anybody, &[b"h2", b"http/1.1"]);
    config.map_err(|error| Error::Certificate(error.to_string()))
}
