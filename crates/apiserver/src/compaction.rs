//! Forgets history that is older than one interval, as kube-apiserver does for etcd.

use std::sync::Arc;
use std::time::Duration;

use store::Store;
use tokio_util::sync::CancellationToken;

/// Compacts the store to where it was one interval ago, once per interval, if anything was written since.
pub(crate) async fn run(store: Arc<dyn Store>, interval: Duration, stop: CancellationToken) {
    let mut last = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        let now = match store.revision().await {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(%error, "the store's revision cannot be read");
                continue;
            }
        };
        if let Some(before) = last.filter(|before| *before < now) {
            match store.compact(before).await {
                Ok(()) => tracing::debug!(revision = before, "compacted"),
                // Another master was faster.
                Err(store::Error::Compacted { .. }) => {}
                Err(error) => tracing::warn!(%error, "the store cannot be compacted"),
            }
        }
        last = Some(now);
    }
}
