//! Our words in etcd's, and etcd's intervals in ours.

use std::sync::Arc;

use bytes::Bytes;
use tonic::Status;

use crate::embedded::{Change, Scope};
use crate::etcd::proto::mvccpb::KeyValue;
use crate::{Error, LeaseId};

/// A version of a key, with its value or without.
pub(super) fn key_value(change: &Change, keys_only: bool) -> KeyValue {
    KeyValue {
        key: change.key.as_bytes().to_vec(),
        create_revision: change.created,
        mod_revision: change.at.revision,
        version: i64::from(change.writes),
        value: if keys_only { Bytes::new() } else { change.value.clone() },
        lease: change.lease.map_or(0, |lease| lease.0),
    }
}

/// The keys a request means: one, those up to an end, or, where that is a zero byte, all from the first on.
pub(super) fn scope(key: &[u8], end: &[u8]) -> Result<Scope, Status> {
    let to: Option<Box<[u8]>> = match end {
        _ if key.is_empty() => return Err(empty_key()),
        [] => Some([key, b"\0"].concat().into()),
        [0] => None,
        end => Some(end.into()),
    };
    Ok(Scope::Interval { from: key.into(), to })
}

/// A key that is to be written.
pub(super) fn text(key: Vec<u8>) -> Result<Arc<str>, Status> {
    match String::from_utf8(key) {
        Ok(key) if key.is_empty() => Err(empty_key()),
        Ok(key) => Ok(key.into()),
        Err(_) => Err(Status::invalid_argument("the embedded store's keys are UTF-8 text")),
    }
}

pub(super) fn empty_key() -> Status {
    Status::invalid_argument("etcdserver: key is not provided")
}

/// A lease as requests name it: 0 is none.
pub(super) fn lease(id: i64) -> Option<LeaseId> {
    Some(LeaseId(id)).filter(|lease| lease.0 != 0)
}

/// A number of things in a message.
pub(super) fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn value(bytes: Vec<u8>) -> Bytes {
    Bytes::from(bytes)
}

/// etcd's own words, which clients compare.
impl From<Error> for Status {
    fn from(error: Error) -> Status {
        match error {
            Error::Compacted { .. } => Status::out_of_range(COMPACTED),
            Error::Future { .. } => Status::out_of_range("etcdserver: mvcc: required revision is a future revision"),
            Error::LeaseNotFound(_) => Status::not_found("etcdserver: requested lease not found"),
            Error::LeaseExists(_) => Status::failed_precondition("etcdserver: lease already exists"),
            Error::TooLarge(_) => too_large(),
            Error::NoSpace(_) => Status::resource_exhausted("etcdserver: mvcc: database space exceeded"),
            Error::Conflict { .. } | Error::Lagged | Error::Unavailable(_) => Status::unavailable(error.to_string()),
        }
    }
}

pub(super) const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";

pub(super) fn too_large() -> Status {
    Status::invalid_argument("etcdserver: request is too large")
}
