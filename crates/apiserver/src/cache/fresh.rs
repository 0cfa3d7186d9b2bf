//! Freshness: a read without a resourceVersion sees every write that was acknowledged before it began.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use store::{Revision, Store};

use super::Cache;
use crate::status::ApiError;

/// How long a reader waits for the cache before it asks the store for a progress notice.
const PROGRESS_AFTER: Duration = Duration::from_millis(50);
/// How long a reader waits for a revision at all (`blockTimeout` of the cacher upstream).
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Reads of the store's revision, shared by all who wait: whoever comes while a read is under way takes part in the
/// next one, because the present one may have begun before a write he must see.
#[derive(Default)]
pub(super) struct RevisionReads {
    tickets: AtomicU64,
    /// The newest ticket the last read serves, and what it read.
    last: tokio::sync::Mutex<(u64, Revision)>,
    /// Whether the store has to be waited for; an embedded one answers at once and needs no sharing.
    is_remote: AtomicBool,
}

impl RevisionReads {
    async fn read(&self, store: &dyn Store) -> Result<Revision, store::Error> {
        if !self.is_remote.load(Ordering::Relaxed) {
            let mut read = store.revision();
            match futures::poll!(read.as_mut()) {
                Poll::Ready(revision) => return revision,
                Poll::Pending => self.is_remote.store(true, Ordering::Relaxed),
            }
            return read.await;
        }
        let ticket = self.tickets.fetch_add(1, Ordering::SeqCst);
        let mut last = self.last.lock().await;
        if last.0 > ticket {
            return Ok(last.1);
        }
        let served = self.tickets.load(Ordering::SeqCst);
        let revision = store.revision().await?;
        *last = (served, revision);
        Ok(revision)
    }
}

impl Cache {
    /// Waits until the cache has everything the store has acknowledged, and says up to where it is.
    pub(crate) async fn catch_up(&self) -> Result<Revision, ApiError> {
        let revision = self.fresh.read(&*self.store).await?;
        self.wait_for(revision).await
    }

    /// Waits until the cache has everything up to `revision`, and says up to where it is.
    pub(crate) async fn wait_for(&self, revision: Revision) -> Result<Revision, ApiError> {
        let current = self.revision();
        if current >= revision {
            return Ok(current);
        }
        let mut progress = self.revision.subscribe();
        let mut reached = async |wait: Duration| {
            let reached = tokio::time::timeout(wait, progress.wait_for(|r| *r >= revision)).await;
            reached.ok().and_then(Result::ok).map(|r| *r)
        };
        if let Some(current) = reached(PROGRESS_AFTER).await {
            return Ok(current);
        }
        self.store.request_progress().await?;
        let too_large = || ApiError::TooLargeResourceVersion { requested: revision, current: self.revision() };
        reached(WAIT_MAX).await.ok_or_else(too_large)
    }
}
