//! The node's HTTPS server: logs of containers, streams to and from them, the pods here, what they use, health. Whoever
//! is heard showed a certificate of the cluster's CA or a token, and may ask what he asks.
//!
//! - [`door`]: who is let in; [`auth`]: who asks, and whether he may.
//! - [`find`]: from names to pods and containers; [`logs`]: what containers wrote.
//! - [`upgrade`]: from a request to a byte stream; [`websocket`] and [`crate::spdy`]: streams over it.
//! - [`remote_command`]: exec, attach, run; [`port_forward`]; [`pump`]: the copying between;
//!   [`idle`]: the end of what nobody uses.
//! - [`images`]: images there, and on their way.
//! - [`stats`]: usage and metrics; [`configz`], [`health`]: the kubelet itself.
//! - [`mod@tls`] has the certificates.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::Kubelet;
use crate::config::Serving;
use crate::pods::Pods;

mod auth;
mod configz;
mod door;
mod find;
pub(crate) mod health;
mod idle;
mod images;
mod logs;
mod port_forward;
mod pump;
mod remote_command;
mod stats;
mod tls;
mod upgrade;
mod websocket;

pub use tls::Certificate;
pub(crate) use tls::{certified_key, roots};

/// Sessions (exec, attach, port-forward) at a time; more are refused.
const MAX_SESSIONS: usize = 512;
/// A handshake, or the head of a request, that takes longer is given up.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// A silent client is asked whether it is there, and again after as long, as Go's servers do.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A client that has not answered so many times is gone.
const KEEP_ALIVE_PROBES: u32 = 9;

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The port cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Certificates or keys are not usable.
    #[error("{0}")]
    Tls(String),
}

/// A bound server that does not serve yet.
pub struct Listener {
    socket: TcpListener,
    port: u16,
    acceptor: TlsAcceptor,
}

impl Listener {
    /// The port it got.
    pub fn port(&self) -> u16 {
        self.port
    }
}

/// Binds `port` on every address.
pub async fn bind(serving: &Serving, port: u16) -> Result<Listener, Error> {
    let acceptor = TlsAcceptor::from(Arc::new(tls::server_config(serving)?));
    let address = SocketAddr::from((IpAddr::from([0, 0, 0, 0]), port));
    let socket = TcpListener::bind(address).await.map_err(|source| Error::Bind { address, source })?;
    let port = socket.local_addr().map_err(|source| Error::Bind { address, source })?.port();
    Ok(Listener { socket, port, acceptor })
}

/// What handlers need.
#[derive(Clone)]
struct Shared {
    kubelet: Arc<Kubelet>,
    pods: Pods,
    sessions: Sessions,
    words: Arc<auth::Words>,
    transfers: Arc<Semaphore>,
}

/// Connections that have left HTTP behind. They end with the server.
#[derive(Clone)]
struct Sessions {
    slots: Arc<Semaphore>,
    stop: CancellationToken,
}

impl Sessions {
    /// Runs `session`, unless there are too many; whether it does.
    fn spawn(&self, session: impl Future<Output = ()> + Send + 'static) -> bool {
        let Ok(slot) = self.slots.clone().try_acquire_owned() else { return false };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            stop.run_until_cancelled(session).await;
            drop(slot);
        });
        true
    }
}

/// Serves until dropped.
pub(crate) async fn serve(listener: Listener, kubelet: Arc<Kubelet>, pods: Pods) {
    let stop = CancellationToken::new();
    let sessions = Sessions { slots: Arc::new(Semaphore::new(MAX_SESSIONS)), stop: stop.clone() };
    let _ends_sessions = stop.drop_guard();
    stats::warn_without_cgroups();
    let transfers = Arc::new(Semaphore::new(images::MAX_TRANSFERS));
    let router = router(Shared { kubelet, pods, sessions, words: Arc::default(), transfers });
    let door = door::Door::new();
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = match listener.socket.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, most likely: give those who hold them a moment.
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (acceptor, router, guest) = (listener.acceptor.clone(), router.clone(), Arc::new(door.enter()));
        connections.spawn(async move {
            tokio::select! {
                () = guest.has_to_go() => {}
                () = connection(stream, acceptor, router, guest.clone()) => {}
            }
        });
    }
}

/// The paths of upstream's kubelet (`pkg/kubelet/server`). WebSockets begin with GET, SPDY with POST.
fn router(shared: Shared) -> Router {
    use {port_forward::port_forward, remote_command::attach, remote_command::exec, remote_command::run};
    health::routes()
        .route("/pods", get(list_pods))
        .route("/stats/summary", get(stats::stats_summary))
        .route("/metrics", get(stats::metrics))
        .route("/metrics/resource", get(stats::metrics_resource))
        .route("/metrics/cadvisor", get(stats::metrics_cadvisor))
        .route("/configz", get(configz::configz))
        .route("/images", get(images::list).delete(images::remove))
        .route("/images/inspect", get(images::inspect))
        .route("/images/save", get(images::save))
        .route("/images/load", post(images::load).layer(DefaultBodyLimit::disable()))
        .route("/images/pull", post(images::pull))
        .route("/images/push", post(images::push))
        .route("/images/tag", post(images::tag))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(logs::container_logs))
        .route("/exec/{namespace}/{pod}/{container}", get(exec).post(exec))
        .route("/exec/{namespace}/{pod}/{uid}/{container}", get(exec).post(exec))
        .route("/attach/{namespace}/{pod}/{container}", get(attach).post(attach))
        .route("/attach/{namespace}/{pod}/{uid}/{container}", get(attach).post(attach))
        .route("/portForward/{namespace}/{pod}", get(port_forward).post(port_forward))
        .route("/portForward/{namespace}/{pod}/{uid}", get(port_forward).post(port_forward))
        .route("/run/{namespace}/{pod}/{container}", post(run))
        .route("/run/{namespace}/{pod}/{uid}/{container}", post(run))
        .layer(axum::middleware::from_fn_with_state(shared.clone(), auth::guard))
        .with_state(shared)
}

/// Keystrokes and their echoes are not to wait for more; and an API server that vanished without a word does not leave its
/// sessions behind.
fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let keep_alive =
        TcpKeepalive::new().with_time(KEEP_ALIVE).with_interval(KEEP_ALIVE).with_retries(KEEP_ALIVE_PROBES);
    SockRef::from(stream).set_tcp_keepalive(&keep_alive)
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, router: Router, guest: Arc<door::Guest>) {
    if prepare(&stream).is_err() {
        return;
    }
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await else { return };
    let peer = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    let user = peer.and_then(auth::User::of_certificate).map(Arc::new);
    if user.is_some() && !guest.is_known() {
        return;
    }
    let peer = auth::Peer { user, guest };
    let service = tower::service_fn(move |mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(peer.clone());
        tower::Service::call(&mut router.clone(), request)
    });
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE_LIMIT);
    // How a connection ended is of no interest to anyone.
    let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), TowerToHyperService::new(service)).await;
}

async fn list_pods(State(shared): State<Shared>) -> Response {
    let items: Vec<serde_json::Value> =
        shared.pods.list().iter().filter_map(|pod| serde_json::to_value(pod.as_ref()).ok()).collect();
    let list = serde_json::json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items});
    axum::Json(list).into_response()
}

fn plain(status: StatusCode, message: String) -> Response {
    (status, message).into_response()
}

#[cfg(test)]
mod stream_tests;
#[cfg(test)]
mod tests;
