//! One store lease for all Events of about a minute, so that they end without anyone looking for old ones.

use std::time::Duration;

use api::Kind;
use parking_lot::Mutex;
use store::LeaseId;
use tokio::time::Instant;

use crate::server::Shared;
use crate::status::ApiError;

/// How long one lease is given to new keys at most; they live up to this much longer than asked (`leaseManager` in
/// `k8s.io/apiserver/pkg/storage/etcd3`).
const SHARED_FOR_MAX: Duration = Duration::from_secs(60);
/// The part of their time that is, where that is less.
const SHARED_PART: u32 = 20;

/// The lease given out now, and since when.
#[derive(Default)]
pub(crate) struct SharedLease(Mutex<Option<(LeaseId, Instant)>>);

impl Shared {
    /// The lease objects of `kind` are put under: only Events end by themselves.
    pub(crate) async fn lease_for(&self, kind: &Kind) -> Result<Option<LeaseId>, ApiError> {
        if kind.info.plural != "events" {
            return Ok(None);
        }
        let shared_for = SHARED_FOR_MAX.min(self.config.event_ttl / SHARED_PART);
        let known = *self.event_lease.0.lock();
        if let Some((lease, since)) = known
            && since.elapsed() < shared_for
        {
            return Ok(Some(lease));
        }
        // Two who come at once make two leases; both are right.
        let ttl = self.config.event_ttl + shared_for;
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let lease = self.store.grant_lease(seconds).await?;
        *self.event_lease.0.lock() = Some((lease, Instant::now()));
        Ok(Some(lease))
    }
}
