//! Snapshots: everything at one revision, as a file that etcd's tools read and write too.
//!
//! ```text
//!  key              revision and place, "t" behind a removal → mvccpb.KeyValue          in the order of revisions
//!  lease            id → leasepb.Lease
//!  meta             consistent_index, finishedCompactRev
//!  coracle.files    name → content       only in a backup that was asked to hold more than the store
//!  SHA-256 of all this at the end, as `etcdctl snapshot save` has it
//! ```
//!
//! So `etcdctl snapshot restore` makes an etcd of a backup, and [`Snapshot::restore`] an embedded store of what
//! `etcdctl snapshot save` brought: revisions stay what they were.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use etcd_client::proto::PbKeyValue;
use prost::Message;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use crate::bolt::read::Database;
use crate::bolt::write::{Layout, Pages, write};
use crate::embedded::{Change, Embedded, Loader, Position, Row, Whole};
use crate::{LeaseId, Revision};

/// The buckets etcd expects to be there; nothing of the embedded store belongs into them.
const EMPTY_BUCKETS: [&str; 7] = ["alarm", "auth", "authRoles", "authUsers", "cluster", "members", "members_removed"];
const KEY: &[u8] = b"key";
const LEASE: &[u8] = b"lease";
const META: &[u8] = b"meta";
const FILES: &[u8] = b"coracle.files";

/// Files are whole pages; what is over is the checksum.
const SECTOR_BYTES: u64 = 512;

/// The largest file beside the store that a backup takes along, and that is taken from one.
const MAX_FILE_BYTES: usize = 1 << 20;

/// The key that says where a restored store comes from. It gives the store a revision of its own beyond all that were
/// handed out before, so that it must stay.
const RESTORED: &str = "/coracle/restored";

/// How objects begin that a kube-apiserver has written in its binary form.
const KUBERNETES_PROTOBUF: &[u8] = b"k8s\0";

/// Why a snapshot was not made or not taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read or written.
    #[error("{what} {path}")]
    File {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The file is not what it was when it was written, or never was a snapshot.
    #[error("{path}: {reason}; nothing was changed")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] crate::Error),
}

/// A file that lies beside the store and goes with a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Its path within the data directory.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct LeaseValue {
    #[prost(int64, tag = "1")]
    id: i64,
    #[prost(int64, tag = "2")]
    ttl: i64,
}

/// Lays out a store's content.
pub(super) fn layout(whole: &Whole, files: &[Attached]) -> io::Result<Layout> {
    Layout::of(&|pages: &mut Pages<'_>| fill(pages, whole, files))
}

/// Writes a store's content and the checksum behind it.
pub(super) fn write_whole(out: &mut dyn Write, layout: &Layout, whole: &Whole, files: &[Attached]) -> io::Result<()> {
    let mut summed = Summed { out, sum: Context::new(&SHA256) };
    write(&mut summed, layout, &|pages: &mut Pages<'_>| fill(pages, whole, files))?;
    summed.finish()
}

fn fill(pages: &mut Pages<'_>, whole: &Whole, files: &[Attached]) -> io::Result<()> {
    for name in EMPTY_BUCKETS {
        pages.bucket(name.as_bytes(), |_| Ok(()))?;
    }
    pages
        .bucket(KEY, |tree| whole.rows(|at, row| tree.push(&row_key(at, row), &row_value(at, row).encode_to_vec())))?;
    pages.bucket(LEASE, |tree| {
        for &(id, ttl) in whole.leases() {
            tree.push(&id.0.to_be_bytes(), &LeaseValue { id: id.0, ttl }.encode_to_vec())?;
        }
        Ok(())
    })?;
    pages.bucket(META, |tree| {
        tree.push(b"consistent_index", &whole.revision().to_be_bytes())?;
        match whole.compacted() {
            0 => Ok(()),
            compacted => tree.push(b"finishedCompactRev", &position_key(Position { revision: compacted, op: 0 })),
        }
    })?;
    match files {
        [] => Ok(()),
        files => {
            let sorted: BTreeMap<&str, &[u8]> = files.iter().map(|file| (&*file.name, &*file.content)).collect();
            pages
                .bucket(FILES, |tree| sorted.iter().try_for_each(|(name, content)| tree.push(name.as_bytes(), content)))
        }
    }
}

/// etcd's form of a revision: its number, "_", and the place of the change in it.
fn position_key(at: Position) -> Vec<u8> {
    let mut key = at.revision.to_be_bytes().to_vec();
    key.push(b'_');
    key.extend_from_slice(&i64::from(at.op).to_be_bytes());
    key
}

fn row_key(at: Position, row: &Row<'_>) -> Vec<u8> {
    let mut key = position_key(at);
    if row.created == 0 {
        key.push(b't');
    }
    key
}

fn row_value(at: Position, row: &Row<'_>) -> PbKeyValue {
    if row.created == 0 {
        return PbKeyValue { key: row.key.as_bytes().to_vec(), ..PbKeyValue::default() };
    }
    super::server::key_value(&Change::of_row(row.key.into(), at, row))
}

/// A sum as etcd's HashKV makes it (`hashByRev` in `mvcc/kvstore.go`): CRC-32C of the bucket's name, then of each key and value
/// in it up to a revision; of what is not newer than the last compaction only what keys still hold at that revision.
pub(super) fn hash_kv(whole: &Whole, upto: Revision, is_kept: impl Fn(&str, Position) -> bool) -> io::Result<u32> {
    let mut sum = Crc32c::default();
    sum.update(KEY);
    whole.rows(|at, row| {
        let compacted = whole.compacted();
        if at.revision <= upto && (at.revision > compacted || is_kept(row.key, at)) {
            sum.update(&row_key(at, row));
            sum.update(&row_value(at, row).encode_to_vec());
        }
        Ok(())
    })?;
    Ok(sum.finish())
}

/// CRC-32 with Castagnoli's polynomial.
struct Crc32c(u32);

impl Default for Crc32c {
    fn default() -> Self {
        Crc32c(!0)
    }
}

impl Crc32c {
    const TABLE: [u32; 256] = {
        let mut table = [0; 256];
        let mut n = 0;
        while n < 256 {
            let (mut sum, mut bit) = (n as u32, 0);
            while bit < 8 {
                sum = if sum & 1 == 1 { (sum >> 1) ^ 0x82f6_3b78 } else { sum >> 1 };
                bit += 1;
            }
            table[n] = sum;
            n += 1;
        }
        table
    };

    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 >> 8) ^ Self::TABLE[usize::from(self.0 as u8 ^ byte)];
        }
    }

    fn finish(self) -> u32 {
        !self.0
    }
}

/// Sums what is written.
struct Summed<'o> {
    out: &'o mut dyn Write,
    sum: Context,
}

impl Summed<'_> {
    fn finish(self) -> io::Result<()> {
        self.out.write_all(self.sum.finish().as_ref())?;
        self.out.flush()
    }
}

impl Write for Summed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.sum.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Writes a snapshot of a store, and files that go with it.
pub fn save(store: &Embedded, files: &[Attached], out: &mut dyn Write, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { what: "cannot write", path: path.to_owned(), source };
    let whole = store.whole()?;
    let layout = layout(&whole, files).map_err(failed)?;
    write_whole(out, &layout, &whole, files).map_err(failed)
}

/// A snapshot that was looked at and is whole.
pub struct Snapshot {
    database: Database,
    path: PathBuf,
    /// The newest version of each key, where it is one.
    newest: HashMap<Vec<u8>, (Position, bool)>,
    revision: Revision,
}

/// What was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restored {
    /// How many keys there are.
    pub keys: usize,
    /// How many leases.
    pub leases: usize,
    /// The revision of the snapshot.
    pub from: Revision,
    /// The revision the store begins with.
    pub revision: Revision,
}

impl Snapshot {
    /// Opens a file and checks its sum and all that is in it.
    pub fn open(path: &Path) -> Result<Snapshot, Error> {
        let failed = |source| Error::File { what: "cannot read", path: path.to_owned(), source };
        let wrong = |reason: String| Error::Damaged { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(failed)?;
        check_sum(&mut file).map_err(failed)?.map_err(wrong)?;
        let explain = |error: io::Error| wrong(format!("it cannot be restored: {error}"));
        let database = Database::new(file).map_err(explain)?;
        let mut newest: HashMap<Vec<u8>, (Position, bool)> = HashMap::new();
        let mut revision = 0;
        let is_there = database.each(KEY, |key, value| {
            let (at, is_removal) = parse_position(key)?;
            let found = parse_key_value(value)?;
            newest.insert(found.key, (at, is_removal));
            revision = at.revision.max(revision);
            Ok(())
        });
        if !is_there.map_err(explain)? {
            return Err(wrong("it is a database, but not one of etcd's: it has no keys".to_owned()));
        }
        Ok(Snapshot { database, path: path.to_owned(), newest, revision })
    }

    /// The newest revision in it.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// How many keys it has.
    pub fn keys(&self) -> usize {
        self.newest.values().filter(|(_, is_removal)| !is_removal).count()
    }

    /// The files that lay beside the store.
    pub fn files(&self) -> Result<Vec<Attached>, Error> {
        let mut files = Vec::new();
        let read = self.database.each(FILES, |name, content| {
            let name = String::from_utf8(name.to_vec()).map_err(io::Error::other)?;
            files.push(Attached { name, content: content.to_vec() });
            Ok(())
        });
        read.map_err(|error| self.damaged(&error))?;
        Ok(files)
    }

    /// Makes an embedded store of it in `dir`, which must not exist. Only what keys hold now is taken. Revisions go on
    /// `bump` after the snapshot's: whoever watched at a later one than the snapshot's finds it gone and lists again,
    /// instead of taking what happens from now on for what it has seen already.
    pub fn restore(&self, dir: &Path, bump: Revision) -> Result<Restored, Error> {
        let mut loader = Loader::new(dir)?;
        let mut lent = std::collections::HashSet::new();
        let read = self.database.each(LEASE, |_, value| {
            let lease = LeaseValue::decode(value).map_err(io::Error::other)?;
            lent.insert(lease.id);
            loader.lease(LeaseId(lease.id), lease.ttl).map_err(io::Error::other)
        });
        read.map_err(|error| self.damaged(&error))?;
        let mut keys = 0;
        let read = self.database.each(KEY, |key, value| {
            let (at, is_removal) = parse_position(key)?;
            let found = parse_key_value(value)?;
            if is_removal || found.key == RESTORED.as_bytes() || self.newest.get(&found.key) != Some(&(at, false)) {
                return Ok(());
            }
            keys += 1;
            let lease = Some(found.lease).filter(|lease| lent.contains(lease));
            loader.put(change(at, found, lease)?).map_err(io::Error::other)
        });
        read.map_err(|error| self.damaged(&error))?;
        let revision = self.revision.saturating_add(bump.max(1));
        let value = format!("{{\"fromRevision\":{}}}", self.revision).into_bytes().into();
        let at = Position { revision, op: 0 };
        loader.put(Change { key: RESTORED.into(), at, created: revision, lease: None, writes: 1, value })?;
        loader.finish(revision)?;
        Ok(Restored { keys, leases: lent.len(), from: self.revision, revision })
    }

    /// Writes it anew, with files that go with it.
    pub fn save_with(&self, files: &[Attached], out: &mut dyn Write) -> Result<(), Error> {
        let fill = |pages: &mut Pages<'_>| {
            for name in self.database.names()?.iter().filter(|name| *name != FILES) {
                pages.bucket(name, |tree| self.database.each(name, |key, value| tree.push(key, value)).map(drop))?;
            }
            let sorted: BTreeMap<&str, &[u8]> = files.iter().map(|file| (&*file.name, &*file.content)).collect();
            pages
                .bucket(FILES, |tree| sorted.iter().try_for_each(|(name, content)| tree.push(name.as_bytes(), content)))
        };
        let layout = Layout::of(&fill).map_err(|error| self.damaged(&error))?;
        let mut summed = Summed { out, sum: Context::new(&SHA256) };
        let written = write(&mut summed, &layout, &fill).and_then(|()| summed.finish());
        written.map_err(|source| Error::File { what: "cannot write", path: self.path.clone(), source })
    }

    fn damaged(&self, error: &io::Error) -> Error {
        Error::Damaged { path: self.path.clone(), reason: error.to_string() }
    }
}

fn change(at: Position, found: PbKeyValue, lease: Option<i64>) -> io::Result<Change> {
    let key = String::from_utf8(found.key);
    let key: Arc<str> = key.map_err(|_| io::Error::other("it has a key that is not text"))?.into();
    if found.value.starts_with(KUBERNETES_PROTOBUF) {
        let reason = format!("{key} is in Kubernetes' binary form, which only a kube-apiserver reads");
        return Err(io::Error::other(reason));
    }
    let writes = u32::try_from(found.version).unwrap_or(u32::MAX).max(1);
    let (created, lease) = (found.create_revision, lease.map(LeaseId));
    Ok(Change { key, at, created, lease, writes, value: found.value.into() })
}

/// Whether the checksum at the end is that of all before; the file is left without it to read.
fn check_sum(file: &mut File) -> io::Result<Result<(), String>> {
    let length = file.metadata()?.len();
    if length < SECTOR_BYTES || length % SECTOR_BYTES != SHA256_OUTPUT_LEN as u64 {
        let reason = "it is no whole snapshot: one made by \"master backup\" or \"etcdctl snapshot save\" ends with its checksum";
        return Ok(Err(reason.to_owned()));
    }
    let (mut sum, mut left) = (Context::new(&SHA256), length - SHA256_OUTPUT_LEN as u64);
    let mut buffer = vec![0; 1 << 16];
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        file.read_exact(&mut buffer[..part])?;
        sum.update(&buffer[..part]);
        left -= part as u64;
    }
    let mut expected = [0; SHA256_OUTPUT_LEN];
    file.read_exact(&mut expected)?;
    file.seek(SeekFrom::Start(0))?;
    let is_right = sum.finish().as_ref() == expected;
    Ok(if is_right { Ok(()) } else { Err("its content is not what its checksum says: it is damaged".to_owned()) })
}

fn parse_position(key: &[u8]) -> io::Result<(Position, bool)> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "a revision cannot be read");
    let number = |at: usize| key.get(at..).and_then(|rest| rest.first_chunk()).map(|bytes| i64::from_be_bytes(*bytes));
    let (revision, op) = (number(0).ok_or_else(wrong)?, number(9).ok_or_else(wrong)?);
    let is_removal = key.get(17) == Some(&b't');
    if revision <= 0 || key.get(8) != Some(&b'_') || key.len() != 17 + usize::from(is_removal) {
        return Err(wrong());
    }
    Ok((Position { revision, op: u32::try_from(op).map_err(|_| wrong())? }, is_removal))
}

fn parse_key_value(value: &[u8]) -> io::Result<PbKeyValue> {
    PbKeyValue::decode(value).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a file that is to go with a backup.
pub fn attach(data_dir: &Path, name: &str) -> Result<Option<Attached>, Error> {
    let path = data_dir.join(name);
    let failed = |source| Error::File { what: "cannot read", path: path.clone(), source };
    match std::fs::read(&path) {
        Ok(content) if content.len() <= MAX_FILE_BYTES => Ok(Some(Attached { name: name.to_owned(), content })),
        Ok(_) => Err(failed(io::Error::other("it is too large to go with a backup"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_castagnolis() {
        let mut sum = Crc32c::default();
        sum.update(b"123456789");
        assert_eq!(sum.finish(), 0xe306_9283);
    }
}
