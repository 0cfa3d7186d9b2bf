//! What the etcd face asks beyond the contract: intervals of keys, decisions that read before they write, leases in full.

use std::sync::Arc;
use std::time::Instant;

use super::index::Version;
use super::lease::LeaseState;
use super::queue::{Other, Work};
use super::read::{self, Range, Ranged};
use super::ring::Change;
use super::scope::Scope;
use super::watch::{self, Feed};
use super::{Embedded, Shared};
use crate::{Error, LeaseId, Op, Revision};

/// The store while nobody writes to it.
pub(crate) struct Still<'a>(&'a Shared);

impl Still<'_> {
    /// The newest revision; what is decided now makes the next.
    pub(crate) fn revision(&self) -> Revision {
        self.0.state.read().revision
    }

    /// Keys and values of a range. Blocks.
    pub(crate) fn range(&self, range: &Range) -> Result<Ranged, Error> {
        read::range_values_now(self.0, range, |_| true)
    }
}

impl Embedded {
    /// Keys of a range, and the values of those whose created and modified revision is wanted, up to the limit.
    pub(crate) async fn range(
        &self,
        range: &Range,
        wanted: impl Fn(Revision, Revision) -> bool,
    ) -> Result<Ranged, Error> {
        let wanted = |version: &Version| wanted(version.created, version.at.revision);
        read::range_values(&self.shared, range, wanted).await
    }

    /// Lets `decide` read, and commits what it says before anybody else can write. Its operations must expect nothing:
    /// it has looked. It may be as many as it likes.
    pub(crate) async fn decide<T: Send + 'static, E: From<Error> + Send + 'static>(
        &self,
        decide: impl FnOnce(&Still<'_>) -> Result<(Vec<Op>, T), E> + Send + 'static,
    ) -> Result<(Revision, T), E> {
        let asked = self.shared.queue.ask(|reply| {
            let work = move |committer: &mut super::commit::Committer| {
                drop(reply.send(committer.decide(|shared| decide(&Still(shared)))));
            };
            Work::Other(Other(Box::new(work)))
        });
        asked.await?
    }

    /// Changes of a scope after a revision.
    pub(crate) fn feed(&self, scope: Scope, after: Revision) -> Result<Feed, Error> {
        watch::feed(&self.shared, scope, after)
    }

    /// For each change the version of its key before it, where it is still held.
    pub(crate) async fn before(&self, changes: Vec<(Arc<str>, Revision)>) -> Result<Vec<Option<Change>>, Error> {
        let shared = self.shared.clone();
        let read = move || changes.iter().map(|(key, at)| before(&shared, key, *at)).collect();
        tokio::task::spawn_blocking(read).await.map_err(|error| Error::Unavailable(error.to_string()))?
    }

    /// The newest revision and the compacted one.
    pub(crate) fn revisions(&self) -> (Revision, Revision) {
        let state = self.shared.state.read();
        (state.revision, state.compacted)
    }

    /// Forgets as [`crate::Store::compact`], and returns when everything is gone.
    pub(crate) async fn compact_wholly(&self, revision: Revision) -> Result<(), Error> {
        self.shared.queue.ask(|reply| Work::Compact(revision, true, reply)).await?
    }

    /// A new lease under the wanted id or a free one, and for how many seconds it was granted.
    pub(crate) async fn grant(&self, wanted: Option<LeaseId>, ttl_seconds: i64) -> Result<(LeaseId, i64), Error> {
        let grant = self.shared.queue.ask(|reply| Work::Grant(wanted, ttl_seconds, reply)).await??;
        Ok((grant.id, grant.ttl_seconds()))
    }

    /// Lets a lease begin anew; returns for how many seconds.
    pub(crate) async fn renew(&self, lease: LeaseId) -> Result<i64, Error> {
        Ok(self.shared.queue.ask(|reply| Work::Renew(lease, reply)).await??.ttl_seconds())
    }

    /// All leases.
    pub(crate) async fn leases(&self) -> Result<Vec<LeaseId>, Error> {
        self.ask_committer(|committer| committer.leases().ids()).await
    }

    /// One lease.
    pub(crate) async fn lease(&self, id: LeaseId) -> Result<Option<LeaseState>, Error> {
        self.ask_committer(move |committer| committer.leases().state(id, Instant::now())).await
    }

    async fn ask_committer<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&super::commit::Committer) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let asked = self
            .shared
            .queue
            .ask(|reply| Work::Other(Other(Box::new(move |committer| drop(reply.send(ask(committer)))))));
        asked.await
    }

    /// Makes the file as small as it can be.
    pub(crate) async fn shrink(&self) -> Result<(), Error> {
        let asked = self.shared.queue.ask(|reply| {
            Work::Other(Other(Box::new(move |committer| drop(reply.send(committer.shared().log.shrink())))))
        });
        asked.await?
    }

    /// Bytes the store's files take.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.shared.log.file_bytes()
    }
}

fn before(shared: &Shared, key: &Arc<str>, at: Revision) -> Result<Option<Change>, Error> {
    let (version, snapshot) = {
        let state = shared.state.read();
        let Some(version) = state.index.at(key, at - 1) else { return Ok(None) };
        if let Some(change) = state.ring.change(version.at) {
            return Ok(Some(change.clone()));
        }
        (version, shared.log.snapshot()?)
    };
    snapshot.change(key, version.at)
}
