//! How many requests are worked on at once. Whoever comes when all places are taken is told to come again.

use std::sync::Arc;

use api::well_known::GROUP_MASTERS;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::request::RequestInfo;
use crate::status::ApiError;
use crate::user::User;

/// Places for readers and writers (`WithMaxInFlightLimit`).
pub(crate) struct InFlight {
    reading: Arc<Semaphore>,
    writing: Arc<Semaphore>,
}

impl InFlight {
    pub(crate) fn new(reading: usize, writing: usize) -> InFlight {
        InFlight { reading: Arc::new(Semaphore::new(reading)), writing: Arc::new(Semaphore::new(writing)) }
    }

    /// A place for the time of a request. Watches and logs need none; cluster admins are never turned away, so that an
    /// overloaded cluster can be helped.
    pub(crate) fn enter(&self, user: &User, info: &RequestInfo) -> Result<Option<OwnedSemaphorePermit>, ApiError> {
        if info.is_long_running() {
            return Ok(None);
        }
        let places = if info.verb.is_mutating() { &self.writing } else { &self.reading };
        match places.clone().try_acquire_owned() {
            Ok(permit) => Ok(Some(permit)),
            Err(_) if user.is_in(GROUP_MASTERS) => Ok(None),
            Err(_) => Err(ApiError::TooManyRequests),
        }
    }

    /// Requests being worked on: reading and writing, out of `limits`.
    pub(crate) fn used(&self, limits: (usize, usize)) -> (usize, usize) {
        let used = |limit: usize, places: &Semaphore| limit.saturating_sub(places.available_permits());
        (used(limits.0, &self.reading), used(limits.1, &self.writing))
    }
}
