//! The store: a multi-version key-value space with watches, behind one small contract and two backends.
//!
//! ```text
//!  apiserver ──▶ Store ──▶ embedded::Embedded   one file, group commit, one process
//!                     └──▶ etcd::Etcd           a real etcd cluster
//! ```
//!
//! Every committed transaction gets the next revision; every version of a key is kept until it is compacted. What
//! [`Store::commit`] acknowledged is durable.
//!
//! In reading order:
//! - this file: the contract ([`Store`]) and its words.
//! - [`embedded`]: the single-node backend.
//! - [`etcd`]: the backend for a cluster that outgrows one machine; the etcd face of the embedded one; snapshots.
//! - `bolt`: the file format of those.
//!
//! It knows nothing of kinds or JSON: keys are text, values are bytes.

mod bolt;
pub mod embedded;
pub mod etcd;
mod limits;

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

/// A point in the store's history. Revision 0 is before everything; every transaction makes the next one.
pub type Revision = i64;

/// Names a lease; keys put under it vanish when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub i64);

/// One version of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Arc<str>,
    /// Its value at [`KeyValue::mod_revision`].
    pub value: Bytes,
    /// The revision at which the key came to be.
    pub create_revision: Revision,
    /// The revision that wrote this version.
    pub mod_revision: Revision,
}

/// What a write expects of its key, checked in the same transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The key does not exist.
    Absent,
    /// The key exists and was last written at this revision.
    Unchanged(Revision),
    /// Anything.
    Any,
}

/// What a write does to its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Gives the key a value, optionally bound to a lease (replacing the lease it was bound to).
    Put(Bytes, Option<LeaseId>),
    /// Removes the key; removing an absent key changes nothing.
    Delete,
    /// Leaves the key alone: only [`Op::expect`] counts.
    Check,
}

/// One key's part in a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The key.
    pub key: String,
    /// The condition.
    pub expect: Expect,
    /// The change.
    pub action: Action,
}

/// What to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListRequest {
    /// Keys that start with this.
    pub prefix: String,
    /// Only keys that sort after this one (for the next page).
    pub after: Option<String>,
    /// At most this many; `None` for all.
    pub limit: Option<usize>,
    /// As of this revision; `None` for now.
    pub revision: Option<Revision>,
}

/// The answer to a [`ListRequest`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListResponse {
    /// In key order.
    pub items: Vec<KeyValue>,
    /// The revision the list is consistent at.
    pub revision: Revision,
    /// How many keys of the prefix sort after the last item (0: the list is complete).
    pub remaining: usize,
}

/// A change of one key, as a watch tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The key got this value. `create_revision == mod_revision` means it is new.
    Put {
        /// The new version.
        current: KeyValue,
    },
    /// The key was removed, by a transaction or by the end of its lease.
    Delete {
        /// The key.
        key: Arc<str>,
        /// The revision that removed it.
        revision: Revision,
    },
}

impl Event {
    /// The revision of the change.
    pub fn revision(&self) -> Revision {
        match self {
            Event::Put { current } => current.mod_revision,
            Event::Delete { revision, .. } => *revision,
        }
    }

    /// The key that changed.
    pub fn key(&self) -> &Arc<str> {
        match self {
            Event::Put { current } => &current.key,
            Event::Delete { key, .. } => key,
        }
    }
}

/// A step of a watch. A batch never splits a revision: when it arrives, everything up to `revision` has been told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchBatch {
    /// The changes, in revision order; empty for a progress notice.
    pub events: Vec<Event>,
    /// The revision the watcher has now seen everything up to.
    pub revision: Revision,
}

/// Changes in order. The stream ends with an error when the watcher fell too far behind or the store went away; the
/// watcher then watches again from the revision after the last batch.
pub type WatchStream = futures::stream::BoxStream<'static, Result<WatchBatch, Error>>;

/// Why the store did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An expectation did not hold. Nothing was written.
    #[error("key {key} is not as expected")]
    Conflict {
        /// The first key whose expectation failed.
        key: String,
        /// What the key holds.
        current: Option<KeyValue>,
    },
    /// The revision has been compacted.
    #[error("revision {requested} has been compacted, the oldest is {compacted}")]
    Compacted {
        /// What was asked for.
        requested: Revision,
        /// Everything before this is gone.
        compacted: Revision,
    },
    /// The revision is not there yet.
    #[error("revision {requested} is in the future, the newest is {current}")]
    Future {
        /// What was asked for.
        requested: Revision,
        /// The newest.
        current: Revision,
    },
    /// The transaction is not one the store takes: a value too large, too many operations, a key twice.
    #[error("{0}")]
    TooLarge(String),
    /// No such lease, or it has ended.
    #[error("lease {0:?} not found")]
    LeaseNotFound(LeaseId),
    /// A lease with this id is there already.
    #[error("lease {0:?} exists already")]
    LeaseExists(LeaseId),
    /// A watcher was slower than the store holds events for; watch again.
    #[error("the watcher fell behind")]
    Lagged,
    /// There is no room to write; what is there can be read, and writing goes on when there is room again. In etcd's
    /// words, as upstream's clients know them.
    #[error("etcdserver: mvcc: database space exceeded ({0})")]
    NoSpace(String),
    /// The backend cannot be reached or failed; whether a write took effect is unknown.
    #[error("store unavailable: {0}")]
    Unavailable(String),
}

/// The largest value a key may hold, as etcd's default request limit.
pub const MAX_VALUE_BYTES: usize = 3 * 1024 * 1024 / 2;

/// The most operations in one transaction, as etcd's `--max-txn-ops`.
pub const MAX_TXN_OPS: usize = 128;

/// The most bytes of keys and values in one transaction: one value of the largest size and its keys.
pub const MAX_TXN_BYTES: usize = MAX_VALUE_BYTES + 64 * 1024;

/// The contract. Both backends pass `tests/suite.rs`.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// One key, now or as of `revision`, with the revision the answer is consistent at.
    async fn get(&self, key: &str, revision: Option<Revision>) -> Result<(Option<KeyValue>, Revision), Error>;

    /// Keys of a prefix, in order.
    async fn list(&self, request: ListRequest) -> Result<ListResponse, Error>;

    /// All operations or none. On success the change is durable and the returned revision is the one it made (or the
    /// present one where nothing changed). No key may occur twice.
    async fn commit(&self, ops: Vec<Op>) -> Result<Revision, Error>;

    /// Changes to keys of `prefix` at revisions greater than `after`, first past ones, then live ones.
    /// [`Error::Compacted`] if `after + 1` is no longer held.
    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream, Error>;

    /// Whether it takes writes as far as is known without one: not where the last one failed.
    async fn health(&self) -> Result<(), Error> {
        self.revision().await.map(drop)
    }

    /// Asks every open watch to tell how far it is (a [`WatchBatch`] without events where nothing happened).
    async fn request_progress(&self) -> Result<(), Error>;

    /// The newest revision, linearizable.
    async fn revision(&self) -> Result<Revision, Error>;

    /// Forgets versions that are not the newest at `revision`.
    async fn compact(&self, revision: Revision) -> Result<(), Error>;

    /// A new lease that ends after `ttl_seconds`, durable like any write.
    async fn grant_lease(&self, ttl_seconds: i64) -> Result<LeaseId, Error>;

    /// Ends a lease now; its keys are deleted in one transaction.
    async fn revoke_lease(&self, lease: LeaseId) -> Result<(), Error>;
}
