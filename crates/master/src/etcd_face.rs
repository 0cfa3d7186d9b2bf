//! Where the embedded store is reached as an etcd: a socket beside its files, which only their owner enters, and, if that is
//! asked for, addresses on which only those are heard who show a certificate of its own CA.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use client::Tasks;
use rustls::ServerConfig;
use store::embedded::Embedded;
use store::etcd::server::Etcd3;
use tokio::net::{TcpListener, UnixListener};
use tokio_util::sync::CancellationToken;

/// How long clients may finish what they do once the master stops.
const DRAIN_MAX: Duration = Duration::from_secs(1);

/// The pause after a failed accept, which is nearly always a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The socket of the store in `data_dir`.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("store").join("etcd.sock")
}

/// Listens there. The master goes on without where that is not possible: mostly because the path is longer than the name of
/// a socket may be.
pub(crate) fn serve(store: Arc<Embedded>, data_dir: &Path, serving: &Tasks) {
    let path = socket(data_dir);
    let listener = match listen(&path) {
        Ok(listener) => listener,
        Err(error) => {
            return tracing::warn!(%error, socket = %path.display(), "the store is not served to etcd's clients");
        }
    };
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await.map(|(stream, _)| stream);
        if let Err(error) = &accepted {
            tracing::warn!(%error, "cannot accept a connection of an etcd client");
            tokio::time::sleep(ACCEPT_PAUSE).await;
        }
        Some((accepted, listener))
    });
    let face = Etcd3::new(store, vec![format!("unix://{}", path.display())]);
    let stop = serving.token();
    let served = face.serve(incoming, stop.clone().cancelled_owned());
    serving.spawn_draining(async move {
        until_drained(served, &stop).await;
        drop(std::fs::remove_file(&path));
    });
}

/// Waits for the face to end; not long for its clients, once the master stops.
async fn until_drained(served: impl Future<Output = Result<(), store::Error>>, stop: &CancellationToken) {
    let drained = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN_MAX).await;
    };
    tokio::select! {
        served = served => {
            if let Err(error) = served {
                tracing::error!(%error, "the store is no longer served to etcd's clients");
            }
        }
        () = drained => {}
    }
}

/// The addresses of `--etcd-listen-client-urls`, bound before anything is written.
pub(crate) async fn bind(wanted: &[SocketAddr]) -> Result<Vec<TcpListener>> {
    let mut listeners = Vec::with_capacity(wanted.len());
    for address in wanted {
        let listener = TcpListener::bind(address).await;
        listeners.push(listener.with_context(|| format!("--etcd-listen-client-urls: cannot listen on {address}"))?);
    }
    Ok(listeners)
}

/// Where clients on the network reach the store.
pub(crate) struct Addresses {
    /// What is listened on.
    pub(crate) bound: Vec<SocketAddr>,
    /// How others reach that.
    reached: Vec<SocketAddr>,
}

impl Addresses {
    /// Those of the listeners; `advertised` stands for all, where one listens on all.
    pub(crate) fn of(listeners: &[TcpListener], advertised: IpAddr) -> Result<Addresses> {
        let bound = listeners.iter().map(TcpListener::local_addr).collect::<Result<Vec<_>, _>>();
        let bound = bound.context("a listener has no address")?;
        let reached = |at: &SocketAddr| if at.ip().is_unspecified() { advertised } else { at.ip() };
        let reached = bound.iter().map(|at| SocketAddr::new(reached(at), at.port())).collect();
        Ok(Addresses { bound, reached })
    }

    /// What the server's certificate is for.
    pub(crate) fn names(&self) -> Vec<IpAddr> {
        let loopback = (!self.reached.is_empty()).then_some(IpAddr::V4(Ipv4Addr::LOCALHOST));
        self.reached.iter().map(SocketAddr::ip).chain(loopback).collect()
    }
}

/// Answers on the listeners, too.
pub(crate) fn serve_tls(
    store: &Arc<Embedded>,
    listeners: Vec<TcpListener>,
    addresses: &Addresses,
    tls: &Arc<ServerConfig>,
    serving: &Tasks,
) {
    let urls: Vec<String> = addresses.reached.iter().map(|address| format!("https://{address}")).collect();
    for listener in listeners {
        let face = Etcd3::new(store.clone(), urls.clone());
        let stop = serving.token();
        let served = face.serve_tls(tls.clone(), listener, stop.clone().cancelled_owned());
        serving.spawn_draining(async move { until_drained(served, &stop).await });
    }
    tracing::info!(urls = urls.join(","), "the store is served as an etcd");
}

/// The store is open, so nobody else listens on what lies there.
fn listen(path: &Path) -> std::io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    // The folder is closed to others already.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}
