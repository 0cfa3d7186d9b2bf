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
    /// Reads both parameters as upstream validates them (`ValidateListOptions`).
    pub(crate) fn of(query: &Query) -> Result<Freshness, ApiError> {
        let revision = parse(query.get("resourceVersion"))?;
        let forbidden = |why: &str| ApiError::BadRequest(format!("resourceVersionMatch: Forbidden: {why}"));
        match (revision, query.get("resourceVersionMatch")) {
            (None, None) => Ok(Freshness::Newest),
            (None, Some(_)) => Err(forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided")),
            (Some(0), None | Some("NotOlderThan")) => Ok(Freshness::Any),
            (Some(0), Some("Exact")) => {
                Err(forbidden("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\""))
            }
            (Some(revision), Some("Exact")) => Ok(Freshness::Exact(revision)),
            (Some(revision), None | Some("NotOlderThan")) => Ok(Freshness::NotOlderThan(revision)),
            (Some(_), Some(other)) => Err(ApiError::BadRequest(format!(
                "resourceVersionMatch: Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
            ))),
        }
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
