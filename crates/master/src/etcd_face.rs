//! Where the embedded store is reached as an etcd: a socket beside its files, which only their owner enters.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use store::embedded::Embedded;
use store::etcd::server::Etcd3;
use tokio::net::UnixListener;

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
    serving.spawn_draining(async move {
        let drained = async {
            stop.cancelled().await;
            tokio::time::sleep(DRAIN_MAX).await;
        };
        tokio::select! {
            served = face.serve(incoming, stop.cancelled()) => {
                if let Err(error) = served {
                    tracing::error!(%error, "the store is no longer served to etcd's clients");
                }
            }
            () = drained => {}
        }
        drop(std::fs::remove_file(&path));
    });
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
