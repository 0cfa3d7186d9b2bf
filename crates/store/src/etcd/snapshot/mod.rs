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

mod castagnoli;
mod read;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use prost::Message;
use ring::digest::{Context, SHA256};

use self::castagnoli::Crc32c;
pub use self::read::{Restored, Snapshot};
use crate::Revision;
use crate::bolt::write::{Layout, Pages, write};
use crate::embedded::{Change, Embedded, Position, Row, Whole};
use crate::etcd::proto::mvccpb::KeyValue;

/// The buckets etcd expects to be there; nothing of the embedded store belongs into them.
const EMPTY_BUCKETS: [&str; 7] = ["alarm", "auth", "authRoles", "authUsers", "cluster", "members", "members_removed"];
const KEY: &[u8] = b"key";
const LEASE: &[u8] = b"lease";
const META: &[u8] = b"meta";
const FILES: &[u8] = b"coracle.files";

/// The largest file beside the store that a backup takes along, and that is taken from one.
const MAX_FILE_BYTES: usize = 1 << 20;

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
        // In the order of their bytes, in which one below zero comes last.
        let mut leases = whole.leases().to_vec();
        leases.sort_unstable_by_key(|(id, _)| id.0.to_be_bytes());
        for (id, ttl) in leases {
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

fn row_value(at: Position, row: &Row<'_>) -> KeyValue {
    if row.created == 0 {
        return KeyValue { key: row.key.as_bytes().to_vec(), ..KeyValue::default() };
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
    save_whole(&store.whole()?, files, out, path)
}

/// Writes a snapshot of the store in `dir`, which no process has open and which is only read.
pub fn save_files(dir: &Path, out: &mut dyn Write, path: &Path) -> Result<(), Error> {
    Whole::of_files(dir, |whole| save_whole(whole, &[], out, path))?
}

/// The keys that the store in `dir` holds, which no process has open and which is only read.
pub fn keys_of_files(dir: &Path) -> Result<BTreeSet<String>, Error> {
    let mut keys = BTreeSet::new();
    let read = Whole::of_files(dir, |whole| {
        whole.rows(|_, row| {
            if row.created == 0 {
                keys.remove(row.key)
            } else {
                keys.insert(row.key.to_owned())
            };
            Ok(())
        })
    })?;
    read.map_err(|source| Error::File { what: "cannot read", path: dir.to_owned(), source })?;
    Ok(keys)
}

fn save_whole(whole: &Whole, files: &[Attached], out: &mut dyn Write, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::File { what: "cannot write", path: path.to_owned(), source };
    let layout = layout(whole, files).map_err(failed)?;
    write_whole(out, &layout, whole, files).map_err(failed)
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
