//! Reads: the index says which version, the ring or a snapshot of the log has its value.

use std::sync::Arc;

use super::index::Version;
use super::reader::Snapshot;
use super::ring::Change;
use super::scope::Scope;
use super::{Shared, State};
use crate::{Error, KeyValue, ListRequest, ListResponse, Revision};

/// Keys of the index a list looks at before it lets a writer in.
const KEYS_PER_LOCK: usize = 4096;

/// A list with more values than this reads them on a thread where blocking is fine.
const INLINE_VALUES: usize = 32;

/// A list of "now" whose revision was compacted while it ran begins again, at most this often.
const LIST_ATTEMPTS: usize = 3;

impl State {
    /// The revision a read happens at.
    fn read_at(&self, revision: Option<Revision>) -> Result<Revision, Error> {
        let requested = revision.unwrap_or(self.revision);
        if requested > self.revision {
            return Err(Error::Future { requested, current: self.revision });
        }
        self.check_from(requested)?;
        Ok(requested)
    }
}

/// One key.
pub(super) fn get(
    shared: &Shared,
    key: &str,
    revision: Option<Revision>,
) -> Result<(Option<KeyValue>, Revision), Error> {
    let (version, at, snapshot) = {
        let state = shared.state.read();
        let at = state.read_at(revision)?;
        let Some(version) = state.index.at(key, at) else { return Ok((None, at)) };
        if let Some(change) = state.ring.change(version.at) {
            return Ok((Some(change.key_value()), at));
        }
        (version, at, shared.log.snapshot()?)
    };
    Ok((snapshot.change(&Arc::from(key), version.at)?.map(|change| change.key_value()), at))
}

/// A version of a key that was the newest a moment ago; the newest one, where it has been compacted since.
pub(super) fn version(shared: &Shared, key: &str, version: Version) -> Result<Option<KeyValue>, Error> {
    let snapshot = {
        let state = shared.state.read();
        if let Some(change) = state.ring.change(version.at) {
            return Ok(Some(change.key_value()));
        }
        shared.log.snapshot()?
    };
    match snapshot.change(&Arc::from(key), version.at)? {
        Some(found) => Ok(Some(found.key_value())),
        None => Ok(get(shared, key, None)?.0),
    }
}

/// Keys of a prefix.
pub(super) async fn list(shared: &Arc<Shared>, request: ListRequest) -> Result<ListResponse, Error> {
    let range = Range {
        scope: Scope::Prefix(request.prefix.into()),
        after: request.after.as_deref().map(Arc::from),
        revision: request.revision,
        limit: request.limit.unwrap_or(usize::MAX),
    };
    let found = range_values(shared, &range, |_| true).await?;
    let remaining = found.count - found.items.len();
    let items = found.items.iter().map(Change::key_value).collect();
    Ok(ListResponse { items, revision: found.revision, remaining })
}

/// What to look for.
#[derive(Clone, Debug)]
pub(crate) struct Range {
    pub(crate) scope: Scope,
    /// Only keys that sort after this one.
    pub(crate) after: Option<Arc<str>>,
    /// As of this revision; `None` for now.
    pub(crate) revision: Option<Revision>,
    /// At most so many values.
    pub(crate) limit: usize,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Ranged {
    /// The newest versions at the revision, in key order.
    pub(crate) items: Vec<Change>,
    /// How many keys there are, whether their values were read or not.
    pub(crate) count: usize,
    /// The revision that was looked at.
    pub(crate) revision: Revision,
    /// The newest revision at that time.
    pub(crate) newest: Revision,
}

/// The keys of a range, and the values of those `wanted`, up to the limit.
pub(super) async fn range_values(
    shared: &Arc<Shared>,
    range: &Range,
    wanted: impl Fn(&Version) -> bool,
) -> Result<Ranged, Error> {
    let found = find_again(shared, range, wanted)?;
    if found.versions.len() <= INLINE_VALUES {
        return found.read();
    }
    tokio::task::spawn_blocking(move || found.read()).await.map_err(|error| Error::Unavailable(error.to_string()))?
}

/// The same, for who may block.
pub(super) fn range_values_now(
    shared: &Shared,
    range: &Range,
    wanted: impl Fn(&Version) -> bool,
) -> Result<Ranged, Error> {
    find_again(shared, range, wanted)?.read()
}

fn find_again(shared: &Shared, range: &Range, wanted: impl Fn(&Version) -> bool) -> Result<Found, Error> {
    let mut attempt = 1;
    loop {
        match find(shared, range, &wanted) {
            Err(Error::Compacted { .. }) if range.revision.is_none() && attempt < LIST_ATTEMPTS => attempt += 1,
            found => return found,
        }
    }
}

/// What a range will answer, before its values are read.
struct Found {
    versions: Vec<(Arc<str>, Version)>,
    snapshot: Snapshot,
    count: usize,
    revision: Revision,
    newest: Revision,
}

impl Found {
    fn read(self) -> Result<Ranged, Error> {
        let mut items = Vec::with_capacity(self.versions.len());
        for (key, version) in &self.versions {
            let missing = || Error::Unavailable(format!("the log lacks {key} at revision {}", { version.at.revision }));
            items.push(self.snapshot.change(key, version.at)?.ok_or_else(missing)?);
        }
        Ok(Ranged { items, count: self.count, revision: self.revision, newest: self.newest })
    }
}

/// Finds the versions of a range, some keys at a time. The snapshot is taken with the first look, so the rows it needs
/// cannot go; that the index did not lose any meanwhile is checked with every look.
fn find(shared: &Shared, range: &Range, wanted: &impl Fn(&Version) -> bool) -> Result<Found, Error> {
    let mut state = shared.state.read();
    let (revision, newest) = (state.read_at(range.revision)?, state.revision);
    let mut found = Found { versions: Vec::new(), snapshot: shared.log.snapshot()?, count: 0, revision, newest };
    let mut after = range.after.clone();
    loop {
        after = state.index.walk(&range.scope, after.as_deref(), revision, KEYS_PER_LOCK, |key, version| {
            found.count += 1;
            if found.versions.len() < range.limit && wanted(&version) {
                found.versions.push((key.clone(), version));
            }
        });
        if after.is_none() {
            return Ok(found);
        }
        drop(state);
        state = shared.state.read();
        state.check_from(revision)?;
    }
}
