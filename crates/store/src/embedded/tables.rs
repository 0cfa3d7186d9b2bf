//! What redb keeps of the log, and what is done to it.
//!
//! ```text
//! log     (revision, op) → created, lease, key, value     one row per change, in revision order
//! meta    "compacted" → revision, "leases" → the last lease id given out, "journal" → the life to replay
//! leases  id → deadline as milliseconds since 1970
//! ttls    id → the seconds the lease was granted for
//! ```

use std::borrow::Borrow;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};

use super::row::{LeaseChange, Writes};
use crate::{Error, Revision};

pub(super) const LOG: TableDefinition<(i64, u32), &[u8]> = TableDefinition::new("log");
pub(super) const META: TableDefinition<&str, i64> = TableDefinition::new("meta");
pub(super) const LEASES: TableDefinition<i64, i64> = TableDefinition::new("leases");
pub(super) const TTLS: TableDefinition<i64, i64> = TableDefinition::new("ttls");
pub(super) const COMPACTED: &str = "compacted";
pub(super) const LAST_LEASE: &str = "leases";
/// The life of the journal that is to be replayed.
const JOURNAL: &str = "journal";

/// What a full disk and a full quota read like (ENOSPC, EDQUOT).
const FULL: [&str; 2] = ["(os error 28)", "(os error 122)"];

pub(super) fn frame_writes(frame: &[u8]) -> Result<Writes<'_>, Error> {
    Writes::decode(frame).ok_or_else(|| unavailable("the journal holds a frame that cannot be read"))
}

pub(super) fn memory(cache_bytes: usize) -> Result<Database, Error> {
    let backend = redb::backends::InMemoryBackend::new();
    Builder::new().set_cache_size(cache_bytes).create_with_backend(backend).map_err(unavailable)
}

pub(super) fn make_tables(database: &Database) -> Result<(), Error> {
    let transaction = database.begin_write().map_err(unavailable)?;
    transaction.open_table(LOG).map_err(unavailable)?;
    transaction.open_table(META).map_err(unavailable)?;
    transaction.open_table(LEASES).map_err(unavailable)?;
    transaction.open_table(TTLS).map_err(unavailable)?;
    transaction.commit().map_err(unavailable)
}

/// The life of the journal that is not in redb yet.
pub(super) fn life(database: &Database) -> Result<Option<u64>, Error> {
    let transaction = database.begin_read().map_err(unavailable)?;
    let meta = transaction.open_table(META).map_err(unavailable)?;
    let life = meta.get(JOURNAL).map_err(unavailable)?;
    Ok(life.map(|life| life.value().cast_unsigned()))
}

/// Removes what redb wrote although it said it could not.
pub(super) fn forget_after(database: &Database, newest: Revision) -> Result<(), Error> {
    let transaction = database.begin_write().map_err(unavailable)?;
    {
        let mut log = transaction.open_table(LOG).map_err(unavailable)?;
        log.retain_in((newest, u32::MAX).., |_, _| false).map_err(unavailable)?;
    }
    transaction.commit().map_err(unavailable)
}

/// One redb transaction, with writes in their order.
pub(super) fn apply<'a, W: Borrow<Writes<'a>>>(
    database: &Database,
    writes: impl IntoIterator<Item = Result<W, Error>>,
    durability: Durability,
    life: Option<u64>,
    row_bytes: &AtomicU64,
) -> Result<(), Error> {
    let mut transaction = database.begin_write().map_err(unavailable)?;
    transaction.set_durability(durability).map_err(unavailable)?;
    // So that opening after a crash does not walk the whole file.
    transaction.set_quick_repair(life.is_some());
    let (mut compacted, mut leases, mut grown) = (None, Vec::new(), 0);
    {
        let mut log = transaction.open_table(LOG).map_err(unavailable)?;
        for writes in writes {
            let writes = writes?;
            let writes = writes.borrow();
            grown += change_rows(&mut log, writes)?;
            compacted = writes.compacted.or(compacted);
            leases.extend(writes.lease);
        }
    }
    let numbers = [(COMPACTED, compacted), (JOURNAL, life.map(u64::cast_signed))];
    for (name, number) in numbers.into_iter().filter_map(|(name, number)| Some((name, number?))) {
        transaction.open_table(META).map_err(unavailable)?.insert(name, number).map_err(unavailable)?;
    }
    for lease in leases {
        write_lease(&transaction, lease)?;
    }
    transaction.commit().map_err(unavailable)?;
    // What is replayed a second time is counted a second time: it is only asked for whether it is worth to shrink.
    row_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |bytes| Some(bytes.saturating_add_signed(grown))).ok();
    Ok(())
}

/// Returns by how many bytes the rows grew.
fn change_rows(log: &mut redb::Table<'_, (i64, u32), &'static [u8]>, writes: &Writes<'_>) -> Result<i64, Error> {
    let mut grown = 0;
    for (position, row) in &writes.rows {
        let mut slot = log.insert_reserve((position.revision, position.op), row.len()).map_err(unavailable)?;
        row.encode(slot.as_mut());
        grown += row.len() as i64;
    }
    for position in writes.removed.iter() {
        let removed = log.remove((position.revision, position.op)).map_err(unavailable)?;
        grown -= removed.map_or(0, |row| row.value().len() as i64);
    }
    Ok(grown)
}

fn write_lease(transaction: &redb::WriteTransaction, change: LeaseChange) -> Result<(), Error> {
    let mut leases = transaction.open_table(LEASES).map_err(unavailable)?;
    let mut ttls = transaction.open_table(TTLS).map_err(unavailable)?;
    match change {
        LeaseChange::Granted { id, deadline_millis, ttl_seconds } => {
            leases.insert(id.0, deadline_millis).map_err(unavailable)?;
            ttls.insert(id.0, ttl_seconds).map_err(unavailable)?;
            let mut meta = transaction.open_table(META).map_err(unavailable)?;
            let last = meta.get(LAST_LEASE).map_err(unavailable)?.map_or(0, |last| last.value());
            meta.insert(LAST_LEASE, last.max(id.0)).map_err(unavailable)?;
        }
        LeaseChange::Ended(id) => {
            leases.remove(id.0).map_err(unavailable)?;
            ttls.remove(id.0).map_err(unavailable)?;
        }
    }
    Ok(())
}

pub(super) fn unavailable(error: impl std::fmt::Display) -> Error {
    // redb and the standard library name the system's error alike, wherever in theirs it is.
    match error.to_string() {
        reason if FULL.iter().any(|number| reason.contains(number)) => Error::NoSpace(reason),
        reason => Error::Unavailable(reason),
    }
}
