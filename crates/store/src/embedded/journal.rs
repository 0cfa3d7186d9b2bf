//! The journal: commits that redb has in memory, or not at all yet.
//!
//! ```text
//!  file of a fixed size, written full once:   frame 0 · frame 1 · … · frame n · (older bytes)
//!  frame:   length u32 · CRC-32 u32 · life u64 · number u64 · payload          the CRC covers all after it
//! ```
//!
//! A commit is one frame behind the last one and one `fdatasync`. As every block of the file was written before, that
//! touches no metadata of the file system: it is the cheapest durable write there is ([`Medium`]). When the file is full
//! the log is made durable itself, and the next frame goes to the start again, in a new *life* of the journal.
//!
//! Invariants:
//! - Frames of the present life are numbered from 0 without a gap; the first that is missing or torn ends the journal.
//! - The log names the life that is not in it yet. A life is a random number: neither older frames nor a value that
//!   looks like a frame can be taken for one of it.
//! - A frame that could not be written is not part of the journal: the next takes its place.

use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::Path;

use super::medium::{JournalFile, Medium};
use super::row::Writes;

/// The file inside the store's folder.
pub(super) const FILE_NAME: &str = "store.journal";

/// Bytes before a frame's payload.
const HEADER_BYTES: usize = 4 + 4 + 8 + 8;

/// The buffer a frame is built in is kept for the next one, unless it has grown beyond this.
const BUFFER_KEPT: usize = 256 << 10;

/// The journal of one log.
pub(super) struct Journal {
    medium: Box<dyn Medium>,
    capacity: usize,
    life: u64,
    /// Number of the next frame.
    next: u64,
    /// Where it goes.
    end: usize,
    buffer: Vec<u8>,
}

impl Journal {
    /// Opens or makes the journal in `dir`, readable by its owner only. Frames count only once a life is named.
    pub(super) fn open(dir: &Path, capacity: usize) -> io::Result<Journal> {
        Ok(Journal::on(Box::new(JournalFile::open(&dir.join(FILE_NAME), capacity)?), capacity))
    }

    /// The journal in `dir` to replay, and for nothing else.
    pub(super) fn look(dir: &Path) -> io::Result<Journal> {
        Ok(Journal::on(Box::new(JournalFile::look(&dir.join(FILE_NAME))?), 0))
    }

    pub(super) fn on(medium: Box<dyn Medium>, capacity: usize) -> Journal {
        Journal { medium, capacity, life: 0, next: 0, end: 0, buffer: Vec::new() }
    }

    /// Bytes of all its frames.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity as u64
    }

    /// The payloads of `life`, in the order they were written. Of the present life only those that counted.
    pub(super) fn replay(&self, life: u64, mut visit: impl FnMut(&[u8])) -> io::Result<()> {
        let bytes = self.medium.read_all()?;
        let end = if life == self.life { self.next } else { u64::MAX };
        let (mut rest, mut number) = (bytes.as_slice(), 0);
        while number < end
            && let Some((payload, after)) = frame(rest, life, number)
        {
            visit(payload);
            (rest, number) = (after, number + 1);
        }
        Ok(())
    }

    /// A new life, to be named in the log before anything is appended in it.
    pub(super) fn new_life(&self) -> u64 {
        // The standard library's seeds come from the operating system's random numbers; 0 means none.
        std::hash::RandomState::new().build_hasher().finish().max(1)
    }

    /// Begins a life at the start of the file.
    pub(super) fn begin(&mut self, life: u64) {
        (self.life, self.next, self.end) = (life, 0, 0);
    }

    /// Builds the next frame. Returns whether there is room for it.
    pub(super) fn prepare(&mut self, writes: &Writes<'_>) -> bool {
        self.buffer.clear();
        self.buffer.resize(HEADER_BYTES, 0);
        writes.encode(&mut self.buffer);
        self.end + self.buffer.len() <= self.capacity
    }

    /// Writes the frame that was prepared; durable when this returns.
    pub(super) fn append(&mut self) -> io::Result<()> {
        let length = u32::try_from(self.buffer.len() - HEADER_BYTES).map_err(io::Error::other)?;
        self.buffer[0..4].copy_from_slice(&length.to_le_bytes());
        self.buffer[8..16].copy_from_slice(&self.life.to_le_bytes());
        self.buffer[16..24].copy_from_slice(&self.next.to_le_bytes());
        let sum = crc32fast::hash(&self.buffer[8..]);
        self.buffer[4..8].copy_from_slice(&sum.to_le_bytes());
        self.medium.write_durably(&self.buffer, self.end as u64)
    }

    /// What the frame that was prepared holds.
    pub(super) fn payload(&self) -> &[u8] {
        &self.buffer[HEADER_BYTES..]
    }

    /// The frame that was appended counts: it is acknowledged.
    pub(super) fn advance(&mut self) {
        self.end += self.buffer.len();
        self.next += 1;
        self.buffer.shrink_to(BUFFER_KEPT);
    }
}

/// The payload of the frame at the start of `bytes`, if it is that frame, and what is behind it.
fn frame(bytes: &[u8], life: u64, number: u64) -> Option<(&[u8], &[u8])> {
    let (header, rest) = bytes.split_at_checked(HEADER_BYTES)?;
    let short = |at: usize| Some(u32::from_le_bytes(header[at..at + 4].try_into().ok()?));
    let long = |at: usize| Some(u64::from_le_bytes(header[at..at + 8].try_into().ok()?));
    if long(8)? != life || long(16)? != number {
        return None;
    }
    let (payload, rest) = rest.split_at_checked(short(0)? as usize)?;
    let mut sum = crc32fast::Hasher::new();
    sum.update(&header[8..]);
    sum.update(payload);
    (sum.finalize() == short(4)?).then_some((payload, rest))
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use parking_lot::Mutex;
    use proptest::prelude::*;

    use super::*;
    use crate::embedded::row::Position;

    const CAPACITY: usize = 1 << 16;

    /// A disk in memory that fails once the flag is set, and waits while somebody holds the gate.
    #[derive(Clone, Default)]
    pub(in crate::embedded) struct Disk {
        pub(in crate::embedded) broken: Arc<AtomicBool>,
        pub(in crate::embedded) gate: Arc<Mutex<()>>,
        /// How often it was written to.
        pub(in crate::embedded) writes: Arc<AtomicUsize>,
        bytes: Arc<Mutex<Vec<u8>>>,
    }

    impl Medium for Disk {
        fn write_durably(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
            let _open = self.gate.lock();
            self.writes.fetch_add(1, Ordering::Relaxed);
            if self.broken.load(Ordering::Relaxed) {
                return Err(io::Error::other("the disk is broken"));
            }
            let (mut all, offset) = (self.bytes.lock(), offset as usize);
            let len = all.len().max(offset + bytes.len());
            all.resize(len, 0);
            all[offset..offset + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn read_all(&self) -> io::Result<Vec<u8>> {
            Ok(self.bytes.lock().clone())
        }
    }

    fn removal(revision: i64) -> Writes<'static> {
        Writes { removed: vec![Position { revision, op: 0 }; revision as usize % 7].into(), ..Writes::default() }
    }

    fn append(journal: &mut Journal, revision: i64) {
        assert!(journal.prepare(&removal(revision)));
        journal.append().unwrap();
        journal.advance();
    }

    fn replayed(disk: &Disk, life: u64) -> Vec<Writes<'static>> {
        let mut found = Vec::new();
        let owned = |payload: &[u8]| Writes {
            removed: Writes::decode(payload).unwrap().removed.into_owned().into(),
            ..Writes::default()
        };
        Journal::on(Box::new(disk.clone()), CAPACITY).replay(life, |payload| found.push(owned(payload))).unwrap();
        found
    }

    proptest! {
        #[test]
        fn wherever_the_file_is_cut_or_garbled_what_remains_is_a_prefix(
            older in 0..20i64, newer in 0..20i64, place in any::<prop::sample::Index>(), garbage in 1..=255u8,
        ) {
            let disk = Disk::default();
            let mut journal = Journal::on(Box::new(disk.clone()), CAPACITY);
            journal.begin(1);
            (0..older).for_each(|revision| append(&mut journal, revision));
            journal.begin(2);
            (0..newer).for_each(|revision| append(&mut journal, 100 + revision));
            let all: Vec<_> = (0..newer).map(|revision| removal(100 + revision)).collect();
            prop_assert_eq!(&replayed(&disk, 2), &all);
            prop_assert!(replayed(&disk, 3).is_empty());
            let whole = disk.bytes.lock().clone();
            if !whole.is_empty() {
                let place = place.index(whole.len());
                disk.bytes.lock()[place] ^= garbage;
                let garbled = replayed(&disk, 2);
                prop_assert!(all.starts_with(&garbled) && (place < journal.end || garbled == all));
                *disk.bytes.lock() = whole[..place].to_vec();
                prop_assert!(all.starts_with(&replayed(&disk, 2)));
            }
        }
    }

    #[test]
    fn a_frame_that_was_not_written_is_replaced_by_the_next() {
        let disk = Disk::default();
        let mut journal = Journal::on(Box::new(disk.clone()), CAPACITY);
        journal.begin(7);
        append(&mut journal, 1);
        disk.broken.store(true, Ordering::Relaxed);
        assert!(journal.prepare(&removal(2)));
        assert!(journal.append().is_err());
        disk.broken.store(false, Ordering::Relaxed);
        append(&mut journal, 3);
        assert_eq!(replayed(&disk, 7), [removal(1), removal(3)]);
    }

    #[test]
    fn a_full_journal_says_so() {
        let mut journal = Journal::on(Box::new(Disk::default()), CAPACITY);
        journal.begin(1);
        let big = Writes { removed: vec![Position { revision: 1, op: 0 }; CAPACITY / 30].into(), ..Writes::default() };
        assert!(journal.prepare(&big));
        journal.append().unwrap();
        journal.advance();
        assert!(journal.prepare(&removal(1)));
        assert!(journal.prepare(&big));
        journal.append().unwrap();
        journal.advance();
        assert!(!journal.prepare(&big));
    }
}
