//! What is written: rows, and everything else a commit changes.

use std::borrow::Cow;

use crate::{Error, LeaseId, Revision};

/// Where a row is: the revision that wrote it and its place in that transaction.
/// Packed, so that the index spends nothing on what lies between this and a count of four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(Rust, packed(4))]
pub(crate) struct Position {
    pub(crate) revision: Revision,
    pub(crate) op: u32,
}

/// One change as the log holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row<'a> {
    /// 0 for a removal.
    pub(crate) created: Revision,
    pub(crate) lease: Option<LeaseId>,
    /// How often the key was written since it came to be, this write included: etcd's "version". 0 for a removal, and in
    /// rows of a time when nobody counted.
    pub(super) writes: u32,
    pub(crate) key: &'a str,
    pub(crate) value: &'a [u8],
}

/// Bytes of a row before key and value: created, lease, writes, eight that mean nothing any more, key length.
const HEADER_BYTES: usize = 8 + 8 + 4 + 8 + 4;

impl<'a> Row<'a> {
    pub(super) fn len(&self) -> usize {
        HEADER_BYTES + self.key.len() + self.value.len()
    }

    pub(super) fn encode(&self, out: &mut [u8]) {
        let key_len = u32::try_from(self.key.len()).expect("a transaction is at most MAX_TXN_BYTES");
        out[0..8].copy_from_slice(&self.created.to_le_bytes());
        out[8..16].copy_from_slice(&self.lease.map_or(0, |lease| lease.0).to_le_bytes());
        out[16..20].copy_from_slice(&self.writes.to_le_bytes());
        out[20..28].fill(0);
        out[28..32].copy_from_slice(&key_len.to_le_bytes());
        let (key, value) = out[HEADER_BYTES..].split_at_mut(self.key.len());
        key.copy_from_slice(self.key.as_bytes());
        value.copy_from_slice(self.value);
    }

    pub(super) fn decode(bytes: &'a [u8]) -> Result<Row<'a>, Error> {
        Row::try_decode(bytes).ok_or_else(|| Error::Unavailable("the log holds a row that cannot be read".to_owned()))
    }

    fn try_decode(bytes: &'a [u8]) -> Option<Row<'a>> {
        let int = |at: usize| Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let short = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let (key, value) = bytes.get(HEADER_BYTES..)?.split_at_checked(short(28)? as usize)?;
        Some(Row {
            created: int(0)?,
            lease: Some(LeaseId(int(8)?)).filter(|lease| lease.0 != 0),
            writes: short(16)?,
            key: std::str::from_utf8(key).ok()?,
            value,
        })
    }
}

/// A change to the table of leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LeaseChange {
    /// A new lease, or a later deadline for one that is there.
    Granted {
        id: LeaseId,
        deadline_millis: i64,
        ttl_seconds: i64,
    },
    Ended(LeaseId),
}

/// Everything one commit writes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Writes<'a> {
    pub(super) rows: Vec<(Position, Row<'a>)>,
    pub(super) removed: Cow<'a, [Position]>,
    pub(super) compacted: Option<Revision>,
    pub(super) lease: Option<LeaseChange>,
}

/// The kinds of lease change as the journal writes them.
const GRANTED_WITHOUT_TTL: u8 = 1; // of a time when nobody asked for it
const ENDED: u8 = 2;
const GRANTED: u8 = 3;

impl<'a> Writes<'a> {
    /// Appends the journal's form: counts before what they count, integers in little endian.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_count(out, self.rows.len());
        for (position, row) in &self.rows {
            put_position(out, *position);
            put_count(out, row.len());
            let start = out.len();
            out.resize(start + row.len(), 0);
            row.encode(&mut out[start..]);
        }
        put_count(out, self.removed.len());
        self.removed.iter().for_each(|position| put_position(out, *position));
        out.extend_from_slice(&self.compacted.unwrap_or(0).to_le_bytes());
        let (tag, id, deadline, ttl) = match self.lease {
            None => (0, 0, 0, None),
            Some(LeaseChange::Granted { id, deadline_millis, ttl_seconds }) => {
                (GRANTED, id.0, deadline_millis, Some(ttl_seconds))
            }
            Some(LeaseChange::Ended(id)) => (ENDED, id.0, 0, None),
        };
        out.push(tag);
        [id, deadline].into_iter().chain(ttl).for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
    }

    /// Reads the journal's form; `None` where it is not one.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Writes<'a>> {
        let mut rest = Reader(bytes);
        let mut rows = Vec::new();
        for _ in 0..rest.count()? {
            let position = rest.position()?;
            let len = rest.count()?;
            rows.push((position, Row::try_decode(rest.take(len)?)?));
        }
        let mut removed = Vec::new();
        for _ in 0..rest.count()? {
            removed.push(rest.position()?);
        }
        let compacted = Some(rest.long()?).filter(|revision| *revision != 0);
        let (tag, id, deadline_millis) = (rest.take(1)?[0], LeaseId(rest.long()?), rest.long()?);
        let lease = match tag {
            0 => None,
            GRANTED => Some(LeaseChange::Granted { id, deadline_millis, ttl_seconds: rest.long()? }),
            GRANTED_WITHOUT_TTL => Some(LeaseChange::Granted { id, deadline_millis, ttl_seconds: 0 }),
            ENDED => Some(LeaseChange::Ended(id)),
            _ => return None,
        };
        rest.0.is_empty().then_some(Writes { rows, removed: Cow::Owned(removed), compacted, lease })
    }
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    let count = u32::try_from(count).expect("a commit is some MiB at most");
    out.extend_from_slice(&count.to_le_bytes());
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    out.extend_from_slice(&position.revision.to_le_bytes());
    out.extend_from_slice(&position.op.to_le_bytes());
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(u32::from_le_bytes(self.take(4)?.try_into().ok()?)).ok()
    }

    fn long(&mut self) -> Option<i64> {
        Some(i64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn position(&mut self) -> Option<Position> {
        let revision = self.long()?;
        Some(Position { revision, op: u32::from_le_bytes(self.take(4)?.try_into().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_is_read_as_it_was_written_and_garbage_is_no_panic(
            created in 0..i64::MAX, lease in prop::option::of(1..i64::MAX), writes in any::<u32>(),
            key in "[a-z/]{1,40}", value in prop::collection::vec(any::<u8>(), 0..200), cut in 0..40usize,
        ) {
            let row = Row { created, lease: lease.map(LeaseId), writes, key: &key, value: &value };
            let mut bytes = vec![0; row.len()];
            row.encode(&mut bytes);
            prop_assert_eq!(Row::decode(&bytes).unwrap(), row);
            let _ = Row::decode(&bytes[..cut.min(bytes.len())]);
            let _ = Row::decode(&value);
        }
    }

    proptest! {
        #[test]
        fn a_commit_is_read_as_it_was_written_and_garbage_is_no_panic(
            rows in prop::collection::vec((1..9i64, any::<u32>(), "[a-z/]{1,9}", prop::collection::vec(any::<u8>(), 0..50)), 0..5),
            removed in prop::collection::vec((1..9i64, any::<u32>()), 0..5),
            compacted in prop::option::of(1..i64::MAX), lease in 0..3usize, cut in any::<prop::sample::Index>(),
        ) {
            let position = |(revision, op): (i64, u32)| Position { revision, op };
            let writes = Writes {
                rows: rows.iter().map(|(revision, op, key, value)| {
                    (position((*revision, *op)), Row { created: 1, lease: None, writes: 3, key, value })
                }).collect(),
                removed: removed.into_iter().map(position).collect(),
                compacted,
                lease: [None, Some(LeaseChange::Ended(LeaseId(7))), Some(LeaseChange::Granted { id: LeaseId(7), deadline_millis: 9, ttl_seconds: 5 })][lease],
            };
            let mut bytes = Vec::new();
            writes.encode(&mut bytes);
            let read = Writes::decode(&bytes);
            prop_assert_eq!(read.as_ref(), Some(&writes));
            let cut = cut.index(bytes.len());
            prop_assert!(Writes::decode(&bytes[..cut]).is_none(), "a part is no commit");
            let _ = Writes::decode(&bytes[cut..]);
        }
    }
}
