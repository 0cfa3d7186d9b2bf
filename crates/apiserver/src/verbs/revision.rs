//! Which version of the world a read may show: `resourceVersion`, `resourceVersionMatch`.

use api::Verb;
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

/// Reads a resourceVersion; `None` when not given. What is none is refused in the words of Go's library, and by a list in
/// those of its storage, too (`GetList` in `k8s.io/apiserver/pkg/storage`).
pub(crate) fn parse(verb: Verb, text: Option<&str>) -> Result<Option<Revision>, ApiError> {
    let Some(text) = text else { return Ok(None) };
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(number) = text.parse::<u64>().ok().filter(|_| is_number) {
        return Ok(Some(Revision::try_from(number).unwrap_or(Revision::MAX)));
    }
    let problem = if is_number { "value out of range" } else { "invalid syntax" };
    let who = if matches!(verb, Verb::List | Verb::DeleteCollection) { "invalid resource version: " } else { "" };
    Err(ApiError::BadRequest(format!(
        "{who}resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: {problem}"
    )))
}

impl Freshness {
    /// Reads the parameters; `options::check` has seen to it that they fit together. Pages are of exactly the version
    /// that is named with them, unless it is said otherwise.
    pub(crate) fn of(verb: Verb, query: &Query) -> Result<Freshness, ApiError> {
        let exact = match query.get("resourceVersionMatch") {
            None => verb != Verb::Watch && query.number("limit")?.is_some(),
            Some(match_) => match_ == "Exact",
        };
        Ok(match parse(verb, query.get("resourceVersion"))? {
            None => Freshness::Newest,
            Some(0) => Freshness::Any,
            Some(revision) if exact => Freshness::Exact(revision),
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
