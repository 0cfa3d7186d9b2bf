//! Reads: the index says which version, the ring or a snapshot of the log has its value.

use std::sync::Arc;

use super::index::Version;
use super::log::Snapshot;
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
    Ok((snapshot.key_value(&Arc::from(key), version.at)?, at))
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
    match snapshot.key_value(&Arc::from(key), version.at)? {
        Some(found) => Ok(Some(found)),
        None => Ok(get(shared, key, None)?.0),
    }
}

/// Keys of a prefix.
pub(super) async fn list(shared: &Arc<Shared>, request: ListRequest) -> Result<ListResponse, Error> {
    let mut attempt = 1;
    let found = loop {
        match find(shared, &request) {
            Err(Error::Compacted { .. }) if request.revision.is_none() && attempt < LIST_ATTEMPTS => attempt += 1,
            found => break found?,
        }
    };
    if found.versions.len() <= INLINE_VALUES {
        return found.read();
    }
    tokio::task::spawn_blocking(move || found.read()).await.map_err(|error| Error::Unavailable(error.to_string()))?
}

/// What a list will answer, before its values are read.
struct Found {
    versions: Vec<(Arc<str>, Version)>,
    snapshot: Snapshot,
    revision: Revision,
    remaining: usize,
}

impl Found {
    fn read(self) -> Result<ListResponse, Error> {
        let mut items = Vec::with_capacity(self.versions.len());
        for (key, version) in &self.versions {
            let missing = || Error::Unavailable(format!("the log lacks {key} at revision {}", version.at.revision));
            items.push(self.snapshot.key_value(key, version.at)?.ok_or_else(missing)?);
        }
        Ok(ListResponse { items, revision: self.revision, remaining: self.remaining })
    }
}

/// Finds the versions of a list, some keys at a time. The snapshot is taken with the first look, so the rows it needs
/// cannot go; that the index did not lose any meanwhile is checked with every look.
fn find(shared: &Shared, request: &ListRequest) -> Result<Found, Error> {
    let limit = request.limit.unwrap_or(usize::MAX);
    let mut state = shared.state.read();
    let revision = state.read_at(request.revision)?;
    let mut found = Found { versions: Vec::new(), snapshot: shared.log.snapshot()?, revision, remaining: 0 };
    let mut after = request.after.as_deref().map(Arc::from);
    loop {
        after =
            state.index.walk(&request.prefix, after.as_deref(), revision, KEYS_PER_LOCK, |key, version| {
                match found.versions.len() < limit {
                    true => found.versions.push((key.clone(), version)),
                    false => found.remaining += 1,
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
