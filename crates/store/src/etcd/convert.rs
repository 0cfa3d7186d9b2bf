//! etcd's words in ours.

use std::sync::Arc;

use bytes::Bytes;
use etcd_client::{EventType, ResponseHeader};
use tonic::Code;

use crate::{Error, Event, KeyValue, Revision};

/// Why etcd did not do what was asked, before the numbers etcd leaves out are known.
#[derive(Debug)]
pub(super) enum Failure {
    Compacted,
    Future,
    LeaseNotFound,
    TooLarge(String),
    NoSpace(String),
    Unavailable(String),
}

impl Failure {
    pub(super) fn into_error(self) -> Error {
        match self {
            Failure::TooLarge(message) => Error::TooLarge(message),
            Failure::NoSpace(message) => Error::NoSpace(message),
            Failure::Unavailable(message) => Error::Unavailable(message),
            other => Error::Unavailable(format!("etcd: unexpected answer {other:?}")),
        }
    }
}

/// The messages are etcd's, from `api/v3rpc/rpctypes/error.go`: several of its errors share one code.
impl From<etcd_client::Error> for Failure {
    fn from(error: etcd_client::Error) -> Failure {
        let etcd_client::Error::GRpcStatus(status) = &error else {
            return Failure::Unavailable(format!("etcd: {error}"));
        };
        let message = status.message();
        match status.code() {
            Code::OutOfRange if message.contains("has been compacted") => Failure::Compacted,
            Code::OutOfRange if message.contains("future revision") => Failure::Future,
            Code::NotFound if message.contains("lease not found") => Failure::LeaseNotFound,
            Code::InvalidArgument => Failure::TooLarge(message.to_owned()),
            Code::ResourceExhausted if message.contains("larger than max") => Failure::TooLarge(message.to_owned()),
            Code::ResourceExhausted if message.contains("database space exceeded") => {
                Failure::NoSpace("etcd raised its NOSPACE alarm".to_owned())
            }
            _ => Failure::Unavailable(format!("etcd: {message}")),
        }
    }
}

pub(super) fn header_revision(header: Option<&ResponseHeader>) -> Revision {
    header.map_or(0, ResponseHeader::revision)
}

pub(super) fn key_value(found: etcd_client::KeyValue) -> KeyValue {
    let (create_revision, mod_revision) = (found.create_revision(), found.mod_revision());
    let (key, value) = found.into_key_value();
    KeyValue { key: text(&key), value: Bytes::from(value), create_revision, mod_revision }
}

/// An event, where etcd sent one that is whole.
pub(super) fn event(event: &etcd_client::Event) -> Option<Event> {
    let current = event.kv()?;
    Some(match event.event_type() {
        EventType::Put => Event::Put { current: key_value(current.clone()) },
        EventType::Delete => Event::Delete { key: text(current.key()), revision: current.mod_revision() },
    })
}

/// The end of the range of keys that start with `prefix`; for the empty prefix etcd's word for "to the end".
pub(super) fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    b"\0".to_vec()
}

/// Our keys are text; a foreign one that is not is told as well as it can be.
fn text(key: &[u8]) -> Arc<str> {
    String::from_utf8_lossy(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_is_the_first_key_after_it() {
        for (prefix, end) in [("/registry/", &b"/registry0"[..]), ("a", b"b"), ("", b"\0")] {
            assert_eq!(prefix_end(prefix), end, "{prefix:?}");
        }
    }
}
