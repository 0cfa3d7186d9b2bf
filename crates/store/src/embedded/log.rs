//! The revision log on disk: [`tables`](super::tables) kept by redb, and a journal in front of it. With those,
//! [`reader`](super::reader) and [`overlay`](super::overlay) the only place that knows redb.
//!
//! One [`Log::write`] is one frame of the [`journal`](super::journal), which makes it durable. redb follows behind, with many
//! frames in one transaction that stays in memory ([`Durability::None`]): when enough of them are pending, when nothing
//! happened for a while, or when somebody reads ([`Log::snapshot`] always shows everything). For each commit redb alone
//! would write some eight scattered pages, and a transaction of its own costs as much as the journal's fsync.
//!
//! A commit the journal has no room for, and closing, make everything durable in redb and begin the journal anew. Opening
//! replays what the journal has; doing so again changes nothing, as a row is only ever written with the same content and
//! frames are replayed up to the last. The last row of the log is the store's newest revision: compaction never removes it.
//!
//! Locks are taken in the order writer, pending, database; only the writer's is held over an fsync of the journal.

use std::fs::{self, OpenOptions, TryLockError};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use redb::{Builder, Database, Durability, ReadableDatabase};

use super::Options;
use super::journal::Journal;
use super::overlay::Overlay;
use super::reader::{Reader, Snapshot};
use super::room::Room;
use super::row::{Position, Row, Writes};
use super::tables::{apply, forget_after, frame_writes, life, make_tables, memory, unavailable};
use crate::{Error, LeaseId, Revision};

/// A file that is not larger than what is in it, several times, and this is not made smaller.
const SHRINK_MIN_BYTES: u64 = 16 << 20;

/// How much may be in the journal but not in redb, and for how long after the first of it.
const PENDING_BYTES: usize = 256 << 10;
const PENDING_MAX: Duration = Duration::from_millis(50);

/// How many bytes of a file say that it is redb's.
const REDB_NAME_BYTES: u64 = 9;

/// The file inside the store's folder.
const FILE_NAME: &str = "store.redb";

/// What was in the log when it was opened, beside its rows.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    pub(super) compacted: Revision,
    pub(super) last_lease: i64,
    pub(super) leases: Vec<Granted>,
}

/// A lease as the disk has it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Granted {
    pub(super) id: LeaseId,
    pub(super) deadline_millis: i64,
    /// What was asked for; 0 where nobody wrote that.
    pub(super) ttl_seconds: i64,
}

/// Where the log is.
#[derive(Clone, Debug)]
struct Location {
    path: PathBuf,
    cache_bytes: usize,
}

/// The open log; no database once closed, so that the file is free even while streams still hold the store.
pub(super) struct Log {
    database: RwLock<Option<Database>>,
    pending: Mutex<Pending>,
    writer: Mutex<Writer>,
    /// Bytes of the rows in redb.
    row_bytes: AtomicU64,
}

/// What only who commits needs.
struct Writer {
    /// `None` for a log in memory.
    journal: Option<Journal>,
    /// `None` for a log in memory.
    location: Option<Location>,
    /// The newest revision whose write did not fail.
    newest: Revision,
}

/// Frames of the journal that are not in redb yet.
#[derive(Default)]
struct Pending {
    frames: Vec<Box<[u8]>>,
    bytes: usize,
    /// When the first of them has to be in redb at the latest.
    deadline: Option<Instant>,
    /// redb failed: it has to be opened again before anything is written.
    failed: bool,
    /// It failed, and its file is open under an overlay, for readers only.
    looks: bool,
}

impl Pending {
    fn push(&mut self, frame: &[u8]) {
        self.bytes += frame.len();
        self.frames.push(frame.into());
        self.deadline.get_or_insert_with(|| Instant::now() + PENDING_MAX);
    }

    /// Whether nobody can read.
    fn is_blind(&self) -> bool {
        self.failed && !self.looks
    }

    /// Brings redb up to the journal's last frame.
    fn flush(&mut self, database: &Database, row_bytes: &AtomicU64) -> Result<(), Error> {
        if self.is_blind() {
            return Err(not_written());
        }
        if self.frames.is_empty() {
            return Ok(());
        }
        let frames = self.frames.iter().map(|frame| frame_writes(frame));
        let applied = apply(database, frames, Durability::None, None, row_bytes);
        self.failed = applied.is_err();
        applied?;
        *self = Pending::default();
        Ok(())
    }
}

impl Location {
    /// Opens or makes redb's file, readable by its owner only (it holds Secrets).
    fn open(&self) -> Result<Database, Error> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            unavailable(format!("cannot {what} the store {}: {error}", self.path.display()))
        };
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = options.open(&self.path).map_err(|error| failed("open", &error))?;
        self.forget_unfinished(&file).map_err(|error| failed("open", &error))?;
        drop(file);
        let database = Builder::new().set_cache_size(self.cache_bytes).create(&self.path);
        database.map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => failed("open", &"it is in use by another process"),
            error => failed("open", &error),
        })
    }

    /// Empties a file whose maker died before it was one: redb writes its name into it last of all, and then the journal
    /// is made. Nothing was ever written to such a store.
    fn forget_unfinished(&self, file: &fs::File) -> io::Result<()> {
        if self.path.with_file_name(super::journal::FILE_NAME).exists() || file.metadata()?.len() == 0 {
            return Ok(());
        }
        match file.try_lock() {
            Ok(()) => {}
            // Somebody is at it, as redb will say.
            Err(TryLockError::WouldBlock) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let mut name = Vec::new();
        file.take(REDB_NAME_BYTES).read_to_end(&mut name)?;
        if name.iter().all(|byte| *byte == 0) { file.set_len(0) } else { Ok(()) }
    }

    /// Opens redb's file for readers only: what it takes to open it is done in memory.
    fn look(&self) -> Result<Database, Error> {
        let failed = |error: &dyn std::fmt::Display| {
            Error::Unavailable(format!("cannot read the store {}: {error}", self.path.display()))
        };
        let file = Overlay::open(&self.path).map_err(|error| failed(&error))?;
        let file = file.ok_or_else(|| failed(&"it is in use by another process"))?;
        let database = Builder::new().set_cache_size(self.cache_bytes).create_with_backend(file);
        database.map_err(|error| failed(&error))
    }
}

impl Log {
    /// Opens or makes the log in `dir`, and replays what its journal has.
    pub(super) fn open(dir: &Path, options: &Options) -> Result<Log, Error> {
        let failed = |what: &str, error: &std::io::Error| {
            Error::Unavailable(format!("cannot {what} the store in {}: {error}", dir.display()))
        };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|error| failed("make", &error))?;
        let location = Location { path: dir.join(FILE_NAME), cache_bytes: options.cache_bytes };
        let is_new = !location.path.exists();
        // redb first: its lock keeps other processes from the journal.
        let database = location.open()?;
        let journal =
            Journal::open(dir, options.journal_bytes).map_err(|error| failed("open the journal of", &error))?;
        if is_new {
            // The files' content is synced; their names in the folder are not.
            fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| failed("sync", &error))?;
        }
        Log::with_tables(database, Some(journal), Some(location))
    }

    /// The log as the files in `dir` have it, which are only read.
    pub(super) fn look(dir: &Path) -> Result<Log, Error> {
        let location = Location { path: dir.join(FILE_NAME), cache_bytes: Options::default().cache_bytes };
        let database = location.look()?;
        let journal = Journal::look(dir).map_err(unavailable)?;
        let log = Log::with_tables(database, Some(journal), None)?;
        log.writer.lock().journal = None;
        Ok(log)
    }

    /// A log in memory.
    pub(super) fn in_memory(cache_bytes: usize) -> Result<Log, Error> {
        Log::with_tables(memory(cache_bytes)?, None, None)
    }

    fn with_tables(database: Database, journal: Option<Journal>, location: Option<Location>) -> Result<Log, Error> {
        let (mut writer, row_bytes) = (Writer { journal, location, newest: 0 }, AtomicU64::new(0));
        writer.replay(&database, &row_bytes)?;
        Ok(Log {
            database: RwLock::new(Some(database)),
            pending: Mutex::default(),
            writer: Mutex::new(writer),
            row_bytes,
        })
    }

    /// Reads the whole log once, in revision order.
    pub(super) fn recover(&self, mut visit: impl FnMut(Position, &Row<'_>)) -> Result<Recovered, Error> {
        let (reader, mut newest, mut bytes) = (self.reader()?, 0, 0);
        reader.rows(|at, row| {
            visit(at, row);
            newest = at.revision;
            bytes += row.len() as u64;
            true
        })?;
        self.writer.lock().newest = newest;
        self.row_bytes.store(bytes, Ordering::Relaxed);
        reader.recovered()
    }

    /// Everything as it is now.
    pub(super) fn reader(&self) -> Result<Reader, Error> {
        if self.pending.lock().is_blind() {
            self.look_on()?;
        }
        let mut pending = self.pending.lock();
        let database = self.database.read();
        let database = database.as_ref().ok_or_else(not_open)?;
        pending.flush(database, &self.row_bytes)?;
        Ok(Reader::new(database.begin_read().map_err(unavailable)?))
    }

    /// Writes everything at once, durably. After an error nothing of it is visible; only a crash before the next write
    /// can still bring it about.
    pub(super) fn write(&self, writes: &Writes<'_>) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        if self.pending.lock().failed {
            self.reopen(&mut writer)?;
        }
        if let Some(journal) = &mut writer.journal
            && journal.prepare(writes)
        {
            journal.append().map_err(unavailable)?;
            self.pending.lock().push(journal.payload());
            journal.advance();
        } else {
            self.checkpoint(&mut writer, writes)?;
        }
        writer.newest = writes.rows.last().map_or(writer.newest, |(position, _)| position.revision);
        Ok(())
    }

    /// Until when [`Log::flush`] should be called; now, where much is pending. Never while redb has to be opened again:
    /// the next write does that, and until then the journal has everything.
    pub(super) fn flush_deadline(&self) -> Option<Instant> {
        let pending = self.pending.lock();
        let deadline = pending.deadline.filter(|_| !pending.failed)?;
        Some(if pending.bytes >= PENDING_BYTES { Instant::now() } else { deadline })
    }

    /// Brings redb up to the journal's last frame.
    pub(super) fn flush(&self) -> Result<(), Error> {
        let mut pending = self.pending.lock();
        pending.flush(self.database.read().as_ref().ok_or_else(not_open)?, &self.row_bytes)
    }

    /// Makes redb durable, with one more commit, and begins a new life of the journal.
    fn checkpoint(&self, writer: &mut Writer, writes: &Writes<'_>) -> Result<(), Error> {
        if self.pending.lock().looks {
            return Err(not_written());
        }
        // First what others may be waiting to read, then, without holding them up, the disk.
        self.flush()?;
        let done = writer.checkpoint(self.database.read().as_ref().ok_or_else(not_open)?, writes, &self.row_bytes);
        self.pending.lock().failed = done.is_err();
        done
    }

    /// Opens redb's file again after it failed, and replays what the journal has. The failed handle goes first: it holds
    /// the lock on the file, as does every snapshot that is still being read.
    fn reopen(&self, writer: &mut Writer) -> Result<(), Error> {
        let location = writer.location.clone().ok_or_else(not_open)?;
        let mut pending = self.pending.lock();
        let mut database = self.database.write();
        database.take();
        pending.looks = false;
        let opened = location.open()?;
        writer.replay(&opened, &self.row_bytes)?;
        forget_after(&opened, writer.newest)?;
        *pending = Pending::default();
        *database = Some(opened);
        Ok(())
    }

    /// Lets readers go on although redb failed: its file, under an overlay, and what the journal has.
    fn look_on(&self) -> Result<(), Error> {
        let writer = self.writer.lock();
        let mut pending = self.pending.lock();
        if !pending.is_blind() {
            return Ok(());
        }
        let location = writer.location.as_ref().ok_or_else(not_open)?;
        let mut database = self.database.write();
        database.take();
        let opened = location.look()?;
        writer.replay_frames(&opened, &AtomicU64::new(0))?;
        forget_after(&opened, writer.newest)?;
        *pending = Pending { failed: true, looks: true, ..Pending::default() };
        *database = Some(opened);
        Ok(())
    }

    /// Bytes the files take.
    pub(super) fn file_bytes(&self) -> u64 {
        let Some(location) = self.writer.lock().location.clone() else { return 0 };
        let files = [location.path.clone(), location.path.with_file_name(super::journal::FILE_NAME)];
        files.iter().filter_map(|file| fs::metadata(file).ok()).map(|found| found.len()).sum()
    }

    /// Why a full disk is still too full, where it is.
    pub(super) fn lack_of_room(&self) -> Option<Error> {
        let writer = self.writer.lock();
        let dir = writer.location.as_ref()?.path.parent()?;
        Room::at(dir)?.lack(writer.journal.as_ref()?.capacity())
    }

    /// The log as it is now; later writes and removals do not show in it.
    pub(super) fn snapshot(&self) -> Result<Snapshot, Error> {
        self.reader()?.into_snapshot()
    }

    /// Bytes of the rows.
    pub(super) fn live_bytes(&self) -> u64 {
        self.row_bytes.load(Ordering::Relaxed)
    }

    /// How much of the files is worth giving back: nothing where most of it is used, or little would be won.
    pub(super) fn waste_bytes(&self) -> u64 {
        let used = self.row_bytes.load(Ordering::Relaxed);
        // The file holds pages that are not full, and two tables for each.
        let needed = 3 * used + SHRINK_MIN_BYTES;
        let Some(location) = self.writer.lock().location.clone() else { return 0 };
        let bytes = fs::metadata(&location.path).map_or(0, |found| found.len());
        if bytes > needed { bytes - used } else { 0 }
    }

    /// Makes redb's file as small as it can be. Nobody reads or writes meanwhile; refused while somebody still does.
    pub(super) fn shrink(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        if self.pending.lock().failed {
            self.reopen(&mut writer)?;
        }
        self.checkpoint(&mut writer, &Writes::default())?;
        let mut database = self.database.write();
        database.as_mut().ok_or_else(not_open)?.compact().map_err(unavailable)?;
        Ok(())
    }

    /// Makes everything durable in redb's file and lets go of it.
    pub(super) fn close(&self) -> Result<(), Error> {
        let mut writer = self.writer.lock();
        if self.database.read().is_none() {
            return Ok(());
        }
        let done = self.checkpoint(&mut writer, &Writes::default());
        if let Err(error) = &done {
            // The journal has it; the next open replays that.
            tracing::warn!(%error, "cannot write the store's journal to its file");
        }
        self.database.write().take();
        (writer.location, writer.journal) = (None, None);
        done
    }
}

impl Writer {
    fn checkpoint(&mut self, database: &Database, writes: &Writes<'_>, row_bytes: &AtomicU64) -> Result<(), Error> {
        let life = self.journal.as_ref().map(Journal::new_life);
        apply(database, [Ok(writes)], Durability::Immediate, life, row_bytes)?;
        if let (Some(journal), Some(life)) = (&mut self.journal, life) {
            journal.begin(life);
        }
        Ok(())
    }

    /// Brings redb up to the end of the journal, and begins a new life.
    fn replay(&mut self, database: &Database, row_bytes: &AtomicU64) -> Result<(), Error> {
        self.replay_frames(database, row_bytes)?;
        self.checkpoint(database, &Writes::default(), row_bytes)
    }

    fn replay_frames(&self, database: &Database, row_bytes: &AtomicU64) -> Result<(), Error> {
        make_tables(database)?;
        if let Some(journal) = &self.journal
            && let Some(life) = life(database)?
        {
            let mut frames: Vec<Box<[u8]>> = Vec::new();
            journal.replay(life, |payload| frames.push(payload.into())).map_err(unavailable)?;
            apply(database, frames.iter().map(|frame| frame_writes(frame)), Durability::None, None, row_bytes)?;
        }
        Ok(())
    }
}

fn not_written() -> Error {
    Error::Unavailable("the store's file could not be written".to_owned())
}

fn not_open() -> Error {
    Error::Unavailable("the store is not open".to_owned())
}

/// A log in memory, and the disk of its journal.
#[cfg(test)]
pub(super) fn on_a_disk() -> (Log, super::journal::tests::Disk) {
    let disk = super::journal::tests::Disk::default();
    let journal = Journal::on(Box::new(disk.clone()), 1 << 20);
    (Log::with_tables(memory(1 << 20).unwrap(), Some(journal), None).unwrap(), disk)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_redb_could_not_take_is_not_tried_again_and_again() {
        let (log, _disk) = on_a_disk();
        let writes = Writes { removed: vec![Position { revision: 1, op: 0 }].into(), ..Writes::default() };
        log.write(&writes).unwrap();
        assert!(log.flush_deadline().is_some());
        log.pending.lock().failed = true;
        assert_eq!(log.flush_deadline(), None);
        assert!(log.flush().is_err() && log.snapshot().is_err());
        log.pending.lock().failed = false;
        log.snapshot().unwrap();
        assert_eq!(log.flush_deadline(), None, "who reads has brought redb up to the journal");
    }

    #[test]
    fn a_file_whose_maker_died_is_made_anew_and_any_other_is_kept() {
        let (dir, options) = (tempfile::tempdir().unwrap(), Options::default());
        let (file, journal) = (dir.path().join(FILE_NAME), dir.path().join(super::super::journal::FILE_NAME));
        let open = || Log::open(dir.path(), &options).map(drop);
        fs::write(&file, vec![0; 100_000]).unwrap();
        open().unwrap();
        open().unwrap();
        for (content, has_journal) in [([0; 5000], true), ([7; 5000], false)] {
            let _ = fs::remove_file(&journal);
            if has_journal {
                fs::write(&journal, b"").unwrap();
            }
            fs::write(&file, content).unwrap();
            let refusal = open().unwrap_err().to_string();
            assert!(refusal.contains("magic number"), "{refusal}");
            assert_eq!(fs::read(&file).unwrap(), content, "nothing was changed");
        }
        // Somebody else is making it: he has it locked, and has written its length.
        let _ = fs::remove_file(&journal);
        fs::write(&file, [0; 5000]).unwrap();
        let held = fs::File::open(&file).unwrap();
        held.lock().unwrap();
        open().unwrap_err();
        assert_eq!(fs::read(&file).unwrap().len(), 5000);
    }
}
