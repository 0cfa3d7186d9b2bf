//! redb's file for whoever only looks: what redb writes while it opens (the repair after an unclean end, the journal's
//! frames) stays in memory, and the file is as it was.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use parking_lot::Mutex;

const PAGE_BYTES: u64 = 4096;

/// A file, under what was written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    /// Also holds the lock that keeps writers away.
    file: File,
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    len: u64,
    /// How much of the file still shows: what was cut off is zeros when the length grows again.
    file_len: u64,
    pages: BTreeMap<u64, Vec<u8>>,
}

impl Overlay {
    /// Opens a file that nobody writes to; `None` where somebody does.
    pub(super) fn open(path: &Path) -> io::Result<Option<Overlay>> {
        let file = File::open(path)?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        let len = file.metadata()?.len();
        Ok(Some(Overlay { file, written: Mutex::new(Written { len, file_len: len, pages: BTreeMap::new() }) }))
    }

    /// A page as it is now.
    fn page(&self, written: &Written, number: u64) -> io::Result<Vec<u8>> {
        if let Some(page) = written.pages.get(&number) {
            return Ok(page.clone());
        }
        let mut page = vec![0; PAGE_BYTES as usize];
        let start = number * PAGE_BYTES;
        let held = written.file_len.saturating_sub(start).min(PAGE_BYTES) as usize;
        self.file.read_exact_at(&mut page[..held], start)?;
        Ok(page)
    }
}

/// The parts of pages that `len` bytes at an offset are: the page, where in it, and where in the bytes.
fn parts(offset: u64, len: usize) -> impl Iterator<Item = (u64, std::ops::Range<usize>, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE_BYTES) as usize;
        let part = (PAGE_BYTES as usize - within).min(len - done);
        let found = (at / PAGE_BYTES, within..within + part, done..done + part);
        done += part;
        (part > 0).then_some(found)
    })
}

impl redb::StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written.lock().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written.lock();
        if offset + out.len() as u64 > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for (number, within, to) in parts(offset, out.len()) {
            out[to].copy_from_slice(&self.page(&written, number)?[within]);
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut written = self.written.lock();
        if len < written.len {
            drop(written.pages.split_off(&len.div_ceil(PAGE_BYTES)));
            written.file_len = written.file_len.min(len);
            let rest = (len % PAGE_BYTES) as usize;
            if let Some(page) = written.pages.get_mut(&(len / PAGE_BYTES)) {
                page[rest..].fill(0);
            }
        }
        written.len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written.lock();
        for (number, within, from) in parts(offset, data.len()) {
            let mut page = self.page(&written, number)?;
            page[within].copy_from_slice(&data[from]);
            written.pages.insert(number, page);
        }
        written.len = written.len.max(offset + data.len() as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redb::StorageBackend;

    use super::*;

    #[derive(Clone, Debug)]
    enum Change {
        Write(u64, Vec<u8>),
        SetLen(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        let bytes = prop::collection::vec(any::<u8>(), 1..9000);
        prop_oneof![
            3 => (0..20_000u64, bytes).prop_map(|(offset, bytes)| Change::Write(offset, bytes)),
            1 => (0..30_000u64).prop_map(Change::SetLen),
        ]
    }

    proptest! {
        #[test]
        fn it_reads_like_a_file_and_leaves_the_one_below_alone(
            before in prop::collection::vec(any::<u8>(), 0..20_000), changes in prop::collection::vec(change(), 0..12),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("file");
            std::fs::write(&path, &before).unwrap();
            let overlay = Overlay::open(&path).unwrap().unwrap();
            let mut model = before.clone();
            for change in changes {
                match change {
                    Change::Write(offset, bytes) => {
                        overlay.write(offset, &bytes).unwrap();
                        let end = offset as usize + bytes.len();
                        model.resize(model.len().max(end), 0);
                        model[offset as usize..end].copy_from_slice(&bytes);
                    }
                    Change::SetLen(len) => {
                        overlay.set_len(len).unwrap();
                        model.resize(len as usize, 0);
                    }
                }
                prop_assert_eq!(overlay.len().unwrap(), model.len() as u64);
                let mut read = vec![1; model.len()];
                overlay.read(0, &mut read).unwrap();
                prop_assert!(read == model);
                prop_assert!(overlay.read(model.len() as u64, &mut [0]).is_err());
            }
            prop_assert!(std::fs::read(&path).unwrap() == before);
        }
    }
}
