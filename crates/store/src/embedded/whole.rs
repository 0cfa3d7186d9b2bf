//! Everything at once: what a snapshot is made of, and a store made of one.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Instant, SystemTime};

use super::lease::Leases;
use super::log::{Log, Recovered};
use super::reader::Reader;
use super::ring::Change;
use super::row::{Position, Row, Writes};
use super::{Embedded, FIRST_REVISION, Options};
use crate::{Error, LeaseId, Revision};

/// How much a loader gathers before it writes.
const BATCH_BYTES: usize = 1 << 20;

/// The store at one revision. Holds the log's file as it was: not to be kept.
pub(crate) struct Whole {
    reader: Reader,
    recovered: Recovered,
    leases: Vec<(LeaseId, i64)>,
    revision: Revision,
}

impl Whole {
    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn compacted(&self) -> Revision {
        self.recovered.compacted
    }

    /// The leases and what they were granted for, by their ids.
    pub(crate) fn leases(&self) -> &[(LeaseId, i64)] {
        &self.leases
    }

    /// Visits every row in the order of revisions.
    pub(crate) fn rows(&self, mut visit: impl FnMut(Position, &Row<'_>) -> io::Result<()>) -> io::Result<()> {
        let mut failed = Ok(());
        let read = self.reader.rows(|at, row| {
            // Written after the revision was taken.
            if at.revision > self.revision {
                return false;
            }
            failed = visit(at, row);
            failed.is_ok()
        });
        read.map_err(io::Error::other)?;
        failed
    }
}

impl Whole {
    fn new(reader: Reader, revision: Revision) -> Result<Whole, Error> {
        let recovered = reader.recovered()?;
        let now = (Instant::now(), SystemTime::now());
        let leases = Leases::recover(recovered.last_lease, &recovered.leases, now);
        let leases: BTreeMap<LeaseId, i64> =
            leases.ids().into_iter().filter_map(|id| Some((id, leases.state(id, now.0)?.ttl_seconds))).collect();
        Ok(Whole { reader, recovered, leases: leases.into_iter().collect(), revision })
    }

    /// What a store's files hold while no process has it open. They are only read: leases that are over are still there.
    pub(crate) fn of_files<T>(dir: &Path, read: impl FnOnce(&Whole) -> T) -> Result<T, Error> {
        let log = Log::look(dir)?;
        let mut newest = FIRST_REVISION;
        log.recover(|at, _| newest = at.revision)?;
        Ok(read(&Whole::new(log.reader()?, newest)?))
    }
}

impl Embedded {
    /// The store as it is now.
    pub(crate) fn whole(&self) -> Result<Whole, Error> {
        let (revision, reader) = {
            let state = self.shared.state.read();
            (state.revision, self.shared.log.reader()?)
        };
        Whole::new(reader, revision)
    }

    /// Whether a row is what its key held at a revision.
    pub(crate) fn is_newest_at(&self, key: &str, at: Position, revision: Revision) -> bool {
        self.shared.state.read().index.at(key, revision).is_some_and(|version| version.at == at)
    }
}

/// Fills a store that is not open yet.
pub(crate) struct Loader {
    log: Log,
    leases: Leases,
    batch: Vec<Change>,
    bytes: usize,
}

impl Loader {
    /// A new store in `dir`.
    pub(crate) fn new(dir: &Path) -> Result<Loader, Error> {
        let log = Log::open(dir, &Options::default())?;
        Ok(Loader { log, leases: Leases::default(), batch: Vec::new(), bytes: 0 })
    }

    /// A lease that begins now.
    pub(crate) fn lease(&mut self, id: LeaseId, ttl_seconds: i64) -> Result<(), Error> {
        let grant = self.leases.next(Some(id), ttl_seconds, (Instant::now(), SystemTime::now()));
        let grant = grant.ok_or(Error::LeaseExists(id))?;
        self.log.write(&Writes { lease: Some(grant.change()), ..Writes::default() })?;
        self.leases.granted(grant);
        Ok(())
    }

    /// A version of a key.
    pub(crate) fn put(&mut self, change: Change) -> Result<(), Error> {
        self.bytes += change.key.len() + change.value.len();
        self.batch.push(change);
        if self.bytes >= BATCH_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), Error> {
        let batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        let rows = batch.iter().map(|change| (change.at, change.row())).collect();
        self.log.write(&Writes { rows, ..Writes::default() })
    }

    /// Everything is there; what was before `compacted` is not.
    pub(crate) fn finish(mut self, compacted: Revision) -> Result<(), Error> {
        self.write()?;
        self.log.write(&Writes { compacted: Some(compacted), ..Writes::default() })?;
        self.log.close()
    }
}
