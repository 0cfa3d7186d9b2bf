//! The revision log on disk. The only file that knows redb.
//!
//! ```text
//! log     (revision, op) → created, lease, previous position, key, value     one row per change, in revision order
//! meta    "compacted" → revision, "leases" → the last lease id given out
//! leases  id → deadline as milliseconds since 1970
//! ```
//!
//! One [`Log::write`] is one redb transaction with [`Durability::Immediate`]: redb writes the new pages and the new
//! root, flushes once, and checks the root's checksums when it opens after a crash, so a torn write leaves the state
//! before. The last row of the log is the store's newest revision: compaction never removes it.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::RwLock;
use redb::{Builder, Database, Durability, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition};

use crate::{Error, KeyValue, LeaseId, Revision};

const LOG: TableDefinition<(i64, u32), &[u8]> = TableDefinition::new("log");
const META: TableDefinition<&str, i64> = TableDefinition::new("meta");
const LEASES: TableDefinition<i64, i64> = TableDefinition::new("leases");
const COMPACTED: &str = "compacted";
const LAST_LEASE: &str = "leases";

/// The file inside the store's folder.
const FILE_NAME: &str = "store.redb";

/// Where a row is: the revision that wrote it and its place in that transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Position {
    pub(super) revision: Revision,
    pub(super) op: u32,
}

/// One change as the log holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row<'a> {
    /// 0 for a removal.
    pub(super) created: Revision,
    pub(super) lease: Option<LeaseId>,
    /// The live version this one took the place of.
    pub(super) previous: Option<Position>,
    pub(super) key: &'a str,
    pub(super) value: &'a [u8],
}

/// Bytes of a row before key and value: created, lease, previous revision, previous op, key length.
const HEADER_BYTES: usize = 8 + 8 + 8 + 4 + 4;

impl<'a> Row<'a> {
    fn len(&self) -> usize {
        HEADER_BYTES + self.key.len() + self.value.len()
    }

    fn encode(&self, out: &mut [u8]) {
        let previous = self.previous.unwrap_or(Position { revision: 0, op: 0 });
        let key_len = u32::try_from(self.key.len()).expect("a transaction is at most MAX_TXN_BYTES");
        out[0..8].copy_from_slice(&self.created.to_le_bytes());
        out[8..16].copy_from_slice(&self.lease.map_or(0, |lease| lease.0).to_le_bytes());
        out[16..24].copy_from_slice(&previous.revision.to_le_bytes());
        out[24..28].copy_from_slice(&previous.op.to_le_bytes());
        out[28..32].copy_from_slice(&key_len.to_le_bytes());
        let (key, value) = out[HEADER_BYTES..].split_at_mut(self.key.len());
        key.copy_from_slice(self.key.as_bytes());
        value.copy_from_slice(self.value);
    }

    fn decode(bytes: &'a [u8]) -> Result<Row<'a>, Error> {
        Row::try_decode(bytes).ok_or_else(|| Error::Unavailable("the log holds a row that cannot be read".to_owned()))
    }

    fn try_decode(bytes: &'a [u8]) -> Option<Row<'a>> {
        let int = |at: usize| Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let short = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let previous = Position { revision: int(16)?, op: short(24)? };
        let (key, value) = bytes.get(HEADER_BYTES..)?.split_at_checked(short(28)? as usize)?;
        Some(Row {
            created: int(0)?,
            lease: Some(LeaseId(int(8)?)).filter(|lease| lease.0 != 0),
            previous: Some(previous).filter(|previous| previous.revision != 0),
            key: std::str::from_utf8(key).ok()?,
            value,
        })
    }
}

/// A change to the table of leases.
#[derive(Clone, Copy, Debug)]
pub(super) enum LeaseChange {
    Granted { id: LeaseId, deadline_millis: i64 },
    Ended(LeaseId),
}

/// Everything one commit writes.
#[derive(Default)]
pub(super) struct Writes<'a> {
    pub(super) rows: Vec<(Position, Row<'a>)>,
    pub(super) removed: &'a [Position],
    pub(super) compacted: Option<Revision>,
    pub(super) lease: Option<LeaseChange>,
}

/// What was in the log when it was opened, beside its rows.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) compacted: Revision,
    pub(super) last_lease: i64,
    pub(super) leases: Vec<(LeaseId, i64)>,
}

/// The open log; `None` once closed, so that the file is free even while streams still hold the store.
pub(super) struct Log {
    database: RwLock<Option<Database>>,
}

impl Log {
    /// Opens or makes the log in `dir`, readable by its owner only (it holds Secrets).
    pub(super) fn open(dir: &Path, cache_bytes: usize) -> Result<Log, Error> {
        let path = dir.join(FILE_NAME);
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Error::Unavailable(format!("cannot {what} the store {}: {error}", path.display()))
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failed("make", &error))?;
        let is_new = !path.exists();
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed("open", &error))?;
        let database = Builder::new().set_cache_size(cache_bytes).create(&path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => failed("open", &"it is in use by another process"),
            error => failed("open", &error),
        })?;
        if is_new {
            // The file's content is synced by redb; its name in the folder is not.
            fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| failed("sync", &error))?;
        }
        Log::with_tables(database)
    }

    /// A log in memory.
    pub(super) fn in_memory(cache_bytes: usize) -> Result<Log, Error> {
        let backend = redb::backends::InMemoryBackend::new();
        Log::with_tables(Builder::new().set_cache_size(cache_bytes).create_with_backend(backend).map_err(unavailable)?)
    }

    fn with_tables(database: Database) -> Result<Log, Error> {
        let transaction = database.begin_write().map_err(unavailable)?;
        transaction.open_table(LOG).map_err(unavailable)?;
        transaction.open_table(META).map_err(unavailable)?;
        transaction.open_table(LEASES).map_err(unavailable)?;
        transaction.commit().map_err(unavailable)?;
        Ok(Log { database: RwLock::new(Some(database)) })
    }

    /// Reads the whole log once, in revision order.
    pub(super) fn recover(&self, mut visit: impl FnMut(Position, &Row<'_>)) -> Result<Recovered, Error> {
        let database = self.database.read();
        let transaction = database.as_ref().ok_or_else(closed)?.begin_read().map_err(unavailable)?;
        let meta = transaction.open_table(META).map_err(unavailable)?;
        let number = |name: &str| Ok(meta.get(name).map_err(unavailable)?.map_or(0, |value| value.value()));
        let mut recovered =
            Recovered { compacted: number(COMPACTED)?, last_lease: number(LAST_LEASE)?, leases: Vec::new() };
        for entry in transaction.open_table(LEASES).map_err(unavailable)?.iter().map_err(unavailable)? {
            let (id, deadline) = entry.map_err(unavailable)?;
            recovered.leases.push((LeaseId(id.value()), deadline.value()));
        }
        for entry in transaction.open_table(LOG).map_err(unavailable)?.iter().map_err(unavailable)? {
            let (position, bytes) = entry.map_err(unavailable)?;
            let (revision, op) = position.value();
            visit(Position { revision, op }, &Row::decode(bytes.value())?);
        }
        Ok(recovered)
    }

    /// Writes everything in one durable transaction; when this returns an error nothing of it is there.
    pub(super) fn write(&self, writes: &Writes<'_>) -> Result<(), Error> {
        let database = self.database.read();
        let mut transaction = database.as_ref().ok_or_else(closed)?.begin_write().map_err(unavailable)?;
        transaction.set_durability(Durability::Immediate).map_err(unavailable)?;
        {
            let mut log = transaction.open_table(LOG).map_err(unavailable)?;
            for (position, row) in &writes.rows {
                let mut slot = log.insert_reserve((position.revision, position.op), row.len()).map_err(unavailable)?;
                row.encode(slot.as_mut());
            }
            for position in writes.removed {
                log.remove((position.revision, position.op)).map_err(unavailable)?;
            }
        }
        if let Some(compacted) = writes.compacted {
            let mut meta = transaction.open_table(META).map_err(unavailable)?;
            meta.insert(COMPACTED, compacted).map_err(unavailable)?;
        }
        if let Some(lease) = writes.lease {
            write_lease(&transaction, lease)?;
        }
        transaction.commit().map_err(unavailable)
    }

    /// The log as it is now; later writes and removals do not show in it.
    pub(super) fn snapshot(&self) -> Result<Snapshot, Error> {
        let database = self.database.read();
        let transaction = database.as_ref().ok_or_else(closed)?.begin_read().map_err(unavailable)?;
        Ok(Snapshot { table: transaction.open_table(LOG).map_err(unavailable)? })
    }

    /// Lets go of the file.
    pub(super) fn close(&self) {
        self.database.write().take();
    }
}

fn write_lease(transaction: &redb::WriteTransaction, change: LeaseChange) -> Result<(), Error> {
    let mut leases = transaction.open_table(LEASES).map_err(unavailable)?;
    match change {
        LeaseChange::Granted { id, deadline_millis } => {
            leases.insert(id.0, deadline_millis).map_err(unavailable)?;
            let mut meta = transaction.open_table(META).map_err(unavailable)?;
            meta.insert(LAST_LEASE, id.0).map_err(unavailable)?;
        }
        LeaseChange::Ended(id) => {
            leases.remove(id.0).map_err(unavailable)?;
        }
    }
    Ok(())
}

/// The log at one moment.
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
    pub(super) fn key_value(&self, key: &Arc<str>, at: Position) -> Result<Option<KeyValue>, Error> {
        self.row(at, |row| KeyValue {
            key: key.clone(),
            value: Bytes::copy_from_slice(row.value),
            create_revision: row.created,
            mod_revision: at.revision,
        })
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

fn unavailable(error: impl std::fmt::Display) -> Error {
    Error::Unavailable(error.to_string())
}

fn closed() -> Error {
    Error::Unavailable("the store is closed".to_owned())
}

/// A log in memory whose disk fails once the flag is set.
#[cfg(test)]
pub(super) fn failing() -> (Log, Arc<std::sync::atomic::AtomicBool>) {
    let broken = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let disk = tests::Disk { memory: redb::backends::InMemoryBackend::new(), broken: broken.clone() };
    (Log::with_tables(Builder::new().create_with_backend(disk).unwrap()).unwrap(), broken)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use proptest::prelude::*;
    use redb::StorageBackend;

    use super::*;

    #[derive(Debug)]
    pub(super) struct Disk {
        pub(super) memory: redb::backends::InMemoryBackend,
        pub(super) broken: Arc<AtomicBool>,
    }

    impl StorageBackend for Disk {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.memory.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.memory.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            match self.broken.load(Ordering::Relaxed) {
                true => Err(io::Error::other("the disk is broken")),
                false => self.memory.sync_data(),
            }
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.memory.write(offset, data)
        }
    }

    proptest! {
        #[test]
        fn a_row_is_read_as_it_was_written_and_garbage_is_no_panic(
            created in 0..i64::MAX, lease in prop::option::of(1..i64::MAX),
            previous in prop::option::of((1..i64::MAX, any::<u32>())),
            key in "[a-z/]{1,40}", value in prop::collection::vec(any::<u8>(), 0..200), cut in 0..40usize,
        ) {
            let previous = previous.map(|(revision, op)| Position { revision, op });
            let row = Row { created, lease: lease.map(LeaseId), previous, key: &key, value: &value };
            let mut bytes = vec![0; row.len()];
            row.encode(&mut bytes);
            prop_assert_eq!(Row::decode(&bytes).unwrap(), row);
            let _ = Row::decode(&bytes[..cut.min(bytes.len())]);
            let _ = Row::decode(&value);
        }
    }
}
