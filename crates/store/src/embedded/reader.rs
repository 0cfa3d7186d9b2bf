//! Reading the log as it was at one moment, whatever is written meanwhile.

use std::sync::Arc;

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};

use super::log::{Granted, Recovered};
use super::ring::Change;
use super::row::{Position, Row};
use super::tables::{COMPACTED, LAST_LEASE, LEASES, LOG, META, TTLS, unavailable};
use crate::{Error, LeaseId, Revision};

/// All of the log at one moment.
pub(super) struct Reader(ReadTransaction);

impl Reader {
    pub(super) fn new(transaction: ReadTransaction) -> Reader {
        Reader(transaction)
    }

    pub(super) fn into_snapshot(self) -> Result<Snapshot, Error> {
        Ok(Snapshot { table: self.0.open_table(LOG).map_err(unavailable)? })
    }

    /// Visits every row in revision order, until `visit` says stop (by `false`).
    pub(super) fn rows(&self, mut visit: impl FnMut(Position, &Row<'_>) -> bool) -> Result<(), Error> {
        for entry in self.0.open_table(LOG).map_err(unavailable)?.iter().map_err(unavailable)? {
            let (position, bytes) = entry.map_err(unavailable)?;
            let (revision, op) = position.value();
            if !visit(Position { revision, op }, &Row::decode(bytes.value())?) {
                break;
            }
        }
        Ok(())
    }

    /// Everything else.
    pub(super) fn recovered(&self) -> Result<Recovered, Error> {
        let meta = self.0.open_table(META).map_err(unavailable)?;
        let number = |name: &str| Ok(meta.get(name).map_err(unavailable)?.map_or(0, |value| value.value()));
        let mut recovered =
            Recovered { compacted: number(COMPACTED)?, last_lease: number(LAST_LEASE)?, leases: Vec::new() };
        let ttls = self.0.open_table(TTLS).map_err(unavailable)?;
        for entry in self.0.open_table(LEASES).map_err(unavailable)?.iter().map_err(unavailable)? {
            let (id, deadline) = entry.map_err(unavailable)?;
            let ttl_seconds = ttls.get(id.value()).map_err(unavailable)?.map_or(0, |ttl| ttl.value());
            let deadline_millis = deadline.value();
            recovered.leases.push(Granted { id: LeaseId(id.value()), deadline_millis, ttl_seconds });
        }
        Ok(recovered)
    }
}

/// The log's rows at one moment.
pub(super) struct Snapshot {
    table: ReadOnlyTable<(i64, u32), &'static [u8]>,
}

impl Snapshot {
    /// Reads one row; `None` where it has been compacted.
    pub(super) fn row<T>(&self, at: Position, read: impl FnOnce(&Row<'_>) -> T) -> Result<Option<T>, Error> {
        match self.table.get((at.revision, at.op)).map_err(unavailable)? {
            None => Ok(None),
            Some(bytes) => Ok(Some(read(&Row::decode(bytes.value())?))),
        }
    }

    /// One row as the version of its key it is.
    pub(super) fn change(&self, key: &Arc<str>, at: Position) -> Result<Option<Change>, Error> {
        self.row(at, |row| Change::of_row(key.clone(), at, row))
    }

    /// Rows of the revisions `from..=to` in order, until `visit` says stop (by `false`).
    pub(super) fn scan(
        &self,
        from: Revision,
        to: Revision,
        mut visit: impl FnMut(Position, &Row<'_>) -> bool,
    ) -> Result<(), Error> {
        for entry in self.table.range((from, 0)..=(to, u32::MAX)).map_err(unavailable)? {
            let (position, bytes) = entry.map_err(unavailable)?;
            let (revision, op) = position.value();
            if !visit(Position { revision, op }, &Row::decode(bytes.value())?) {
                return Ok(());
            }
        }
        Ok(())
    }
}
