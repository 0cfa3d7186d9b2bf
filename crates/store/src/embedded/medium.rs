//! What a journal is written to: a file, past the kernel's page cache where its file system lets us.
//!
//! A write through the page cache waits for its pages to be taken up, written and marked clean, each a turn of other
//! threads; beside busy processors one write in a hundred then takes ten times as long. A direct write (`O_DIRECT`) goes
//! to the device as it is, and the `fdatasync` behind it only has the device's own cache left to empty. It is made of
//! whole blocks: what the first one held before is written again, what is behind the last byte becomes zeros.

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::uio;

/// What direct writes are aligned to: as much as any disk's or file system's blocks in common use.
const BLOCK_BYTES: usize = 4096;

/// Blocks given to the kernel at once (`IOV_MAX` is 1,024), and kept in memory for the next write.
const BLOCKS_MAX: usize = 256;

/// Where a journal lies.
pub(super) trait Medium: Send + Sync {
    /// Writes at an offset and returns once it is durable. What is behind may change as far as the block's end.
    fn write_durably(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Everything there is.
    fn read_all(&self) -> io::Result<Vec<u8>>;
}

/// A file on disk.
pub(super) struct JournalFile {
    file: File,
    direct: Option<Direct>,
}

impl JournalFile {
    /// Opens or makes the file, with room for `capacity` bytes, readable by its owner only.
    pub(super) fn open(path: &Path, capacity: usize) -> io::Result<JournalFile> {
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(0o600);
        let file = options.open(path)?;
        let whole_blocks = capacity.next_multiple_of(BLOCK_BYTES);
        if file.metadata()?.len() < whole_blocks as u64 {
            // Content, not just length: a block that was never written costs a change of metadata later.
            file.write_all_at(&vec![0; whole_blocks], 0)?;
            file.sync_all()?;
        }
        Ok(JournalFile { file, direct: Direct::open(path)? })
    }

    /// The file, only to be read.
    pub(super) fn look(path: &Path) -> io::Result<JournalFile> {
        let file = File::open(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        Ok(JournalFile { file, direct: None })
    }
}

impl Medium for JournalFile {
    fn write_durably(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if let Some(direct) = &mut self.direct {
            match direct.write(bytes, offset, &self.file) {
                // A file system that wants another alignment: never again.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.direct = None,
                written => return written.and_then(|()| direct.file.sync_data()),
            }
        }
        self.file.write_all_at(bytes, offset)?;
        self.file.sync_data()
    }

    fn read_all(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.file.metadata()?.len()).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    }
}

#[derive(Clone)]
#[repr(C, align(4096))]
struct Block([u8; BLOCK_BYTES]);

const EMPTY: Block = Block([0; BLOCK_BYTES]);

/// The file for direct writes, and the blocks of the last one.
struct Direct {
    file: File,
    /// Number of the first one in the file.
    first: u64,
    blocks: Vec<Block>,
}

impl Direct {
    /// `None` on a file system that has no such writes.
    fn open(path: &Path) -> io::Result<Option<Direct>> {
        match OpenOptions::new().write(true).custom_flags(OFlag::O_DIRECT.bits()).open(path) {
            Ok(file) => Ok(Some(Direct { file, first: 0, blocks: Vec::new() })),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes at an offset of a file that `content` reads.
    fn write(&mut self, bytes: &[u8], offset: u64, content: &File) -> io::Result<()> {
        let (first, within) = (offset / BLOCK_BYTES as u64, (offset % BLOCK_BYTES as u64) as usize);
        // Mostly the block where the last write ended, or began if it failed.
        let held = first.checked_sub(self.first).and_then(|index| self.blocks.get(usize::try_from(index).ok()?));
        let mut head = EMPTY;
        match held {
            Some(block) => head.0[..within].copy_from_slice(&block.0[..within]),
            None => content.read_exact_at(&mut head.0[..within], first * BLOCK_BYTES as u64)?,
        }
        let (in_head, rest) = bytes.split_at(bytes.len().min(BLOCK_BYTES - within));
        head.0[within..within + in_head.len()].copy_from_slice(in_head);
        self.blocks.clear();
        self.blocks.shrink_to(BLOCKS_MAX);
        self.blocks.push(head);
        self.blocks.extend(rest.chunks(BLOCK_BYTES).map(|part| {
            let mut block = EMPTY;
            block.0[..part.len()].copy_from_slice(part);
            block
        }));
        self.first = first;
        let mut at = first * BLOCK_BYTES as u64;
        for blocks in self.blocks.chunks(BLOCKS_MAX) {
            let mut slices: Vec<_> = blocks.iter().map(|block| IoSlice::new(&block.0)).collect();
            let mut slices = slices.as_mut_slice();
            while !slices.is_empty() {
                match uio::pwritev(&self.file, slices, i64::try_from(at).map_err(io::Error::other)?) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => {
                        at += written as u64;
                        IoSlice::advance_slices(&mut slices, written);
                    }
                    Err(nix::errno::Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAPACITY: usize = 5 * BLOCK_BYTES - 100;

    /// Writes each behind the last one that counted.
    fn written(folder: &Path, writes: &[(usize, bool)], direct: bool) -> (Vec<u8>, Vec<u8>) {
        let path = folder.join("journal");
        let mut file = JournalFile::open(&path, CAPACITY).unwrap();
        if !direct {
            file.direct = None;
        }
        let mut expected = Vec::new();
        for (number, (len, counts)) in writes.iter().enumerate() {
            if expected.len() + len > CAPACITY {
                break;
            }
            let bytes = vec![u8::try_from(number).unwrap() + 1; *len];
            file.write_durably(&bytes, expected.len() as u64).unwrap();
            if *counts {
                expected.extend(bytes);
            }
        }
        let read = JournalFile::look(&path).unwrap().read_all().unwrap();
        assert_eq!(read, file.read_all().unwrap());
        (expected, read)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_counted_is_there_whole(
            writes in prop::collection::vec((1..7000usize, any::<bool>()), 1..12), direct in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let (expected, read) = written(folder.path(), &writes, direct);
            prop_assert_eq!(read.len(), 5 * BLOCK_BYTES);
            prop_assert!(read.starts_with(&expected));
        }
    }

    #[test]
    fn a_file_that_is_opened_again_goes_on_within_a_block() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        JournalFile::open(&path, CAPACITY).unwrap().write_durably(&[1; 5000], 0).unwrap();
        JournalFile::open(&path, CAPACITY).unwrap().write_durably(&[2; 5000], 5000).unwrap();
        let read = JournalFile::look(&path).unwrap().read_all().unwrap();
        assert_eq!((&read[..5000], &read[5000..10_000]), (&[1; 5000][..], &[2; 5000][..]));
    }

    #[test]
    fn a_write_of_more_blocks_than_go_at_once_arrives_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let bytes: Vec<u8> = (0..BLOCKS_MAX * BLOCK_BYTES * 2 + 10).map(|at| (at / 1000) as u8).collect();
        let mut file = JournalFile::open(&path, bytes.len() + 7).unwrap();
        file.write_durably(&[9; 7], 0).unwrap();
        file.write_durably(&bytes, 7).unwrap();
        assert!(file.read_all().unwrap()[7..].starts_with(&bytes));
    }

    /// Kernels before 6.6 have no direct writes on tmpfs: they open no such file.
    #[test]
    fn a_file_system_without_direct_writes_is_written_to_all_the_same() {
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let (expected, read) = written(folder.path(), &[(3000, true), (3000, false), (3000, true)], true);
        assert!(read.starts_with(&expected));
    }
}
