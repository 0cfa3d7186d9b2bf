//! Which version of the world a read may show: `resourceVersion`, `resourceVersionMatch`.

use store::Revision;

use crate::query::Query;
use crate::server::Shared;
use crate::status::ApiError;

/// What `resourceVersion` of a read demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Freshness {
    /// Everything acknowledged before the request.
    Newest,
    /// Whatever is at hand.
    Any,
    /// At least this.
    NotOlderThan(Revision),
    /// Exactly this.
    Exact(Revision),
}

/// Reads a resourceVersion; `None` when not given.
pub(crate) fn parse(text: Option<&str>) -> Result<Option<Revision>, ApiError> {
    let invalid = |text: &str| {
        ApiError::BadRequest(format!("resourceVersion: Invalid value: {text:?}: must be an unsigned integer"))
    };
    let number = text.map(|t| t.parse::<u64>().ok().and_then(|n| Revision::try_from(n).ok()).ok_or_else(|| invalid(t)));
    number.transpose()
}

impl Freshness {
    /// Reads both parameters; `options::check` has seen to it that they fit together.
    pub(crate) fn of(query: &Query) -> Result<Freshness, ApiError> {
        let exact = query.get("resourceVersionMatch") == Some("Exact");
        Ok(match parse(query.get("resourceVersion"))? {
            None => Freshness::Newest,
            Some(revision) if exact => Freshness::Exact(revision),
            Some(0) => Freshness::Any,
            Some(revision) => Freshness::NotOlderThan(revision),
        })
    }
}

impl Shared {
    /// Waits until the cache is as fresh as demanded, and says how fresh it is.
    pub(crate) async fn reach(&self, freshness: Freshness) -> Result<Revision, ApiError> {
        match freshness {
            Freshness::Newest => self.cache.catch_up().await,
            Freshness::Any => Ok(self.cache.revision()),
            Freshness::NotOlderThan(revision) | Freshness::Exact(revision) => self.cache.wait_for(revision).await,
        }
    }
}
