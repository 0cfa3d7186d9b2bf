//! A snapshot somebody brought: looked at, restored, written anew.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};

use super::{Attached, Error, FILES, KEY, LEASE, LeaseValue, Summed};
use crate::bolt::read::Database;
use crate::bolt::write::{Layout, Pages, write};
use crate::embedded::{Change, Loader, Position};
use crate::etcd::proto::mvccpb::KeyValue;
use crate::{LeaseId, Revision};

/// Files are whole pages; what is over is the checksum.
const SECTOR_BYTES: u64 = 512;

/// The key that says where a restored store comes from. It gives the store a revision of its own beyond all that were
/// handed out before, so that it must stay.
const RESTORED: &str = "/coracle/restored";

/// How objects begin that a kube-apiserver has written in its binary form.
const KUBERNETES_PROTOBUF: &[u8] = b"k8s\0";

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
            if content.len() > super::MAX_FILE_BYTES {
                return Err(io::Error::other("a file in it is too large"));
            }
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

fn change(at: Position, found: KeyValue, lease: Option<i64>) -> io::Result<Change> {
    let key = String::from_utf8(found.key);
    let key: Arc<str> = key.map_err(|_| io::Error::other("it has a key that is not text"))?.into();
    if found.value.starts_with(KUBERNETES_PROTOBUF) {
        let reason = format!("{key} is in Kubernetes' binary form, which only a kube-apiserver reads");
        return Err(io::Error::other(reason));
    }
    let writes = u32::try_from(found.version).unwrap_or(u32::MAX).max(1);
    let (created, lease) = (found.create_revision, lease.map(LeaseId));
    Ok(Change { key, at, created, lease, writes, value: found.value })
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

fn parse_key_value(value: &[u8]) -> io::Result<KeyValue> {
    KeyValue::decode(value).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}
