//! A stream that never waits for more to compress: pieces that stand for themselves, joined to one gzip (RFC 1952).
//!
//! Each piece is raw deflate that looks back at nothing before it, or at one known piece right before it, and ends on a byte (a sync flush, RFC 1951 3.2.4), so a
//! decoder hands it on when it has come, and the same bytes fit into the streams of all who are told the same. Only the
//! sum at the end is a stream's own.

use std::cell::RefCell;

use bytes::Bytes;
use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress};

/// Identification, deflate, no flags, no time, compressed fast, on an unknown system.
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 0xff];
/// A last block with nothing in it.
const LAST_BLOCK: [u8; 2] = [3, 0];
/// How far deflate looks back.
const WINDOW: usize = 32 * 1024;
/// What a piece that does not compress takes beyond its length, at most: five bytes for each block of 16 KiB, and the flush.
const fn most(len: usize) -> usize {
    len + 5 * (len / 16_384 + 2) + 64
}

thread_local! {
    /// Kept: it is a quarter of a megabyte.
    static DEFLATE: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
}

/// A piece of a stream, compressed.
#[derive(Clone, Debug)]
pub(crate) struct Packed {
    deflated: Bytes,
    sum: Hasher,
    len: usize,
}

impl Packed {
    /// `plain` packed for a stream in which `before` comes right before it; for any stream, where that is empty.
    pub(crate) fn new(plain: &[u8], before: &[u8]) -> Packed {
        let mut deflated = Vec::with_capacity(plain.len() / 4 + 64);
        DEFLATE.with_borrow_mut(|deflate| {
            deflate.reset();
            let before = &before[before.len().saturating_sub(WINDOW)..];
            if !before.is_empty() {
                // Only a broken library could refuse; then there is nothing to look back at.
                let _ = deflate.set_dictionary(before);
            }
            let begun = deflate.total_in();
            loop {
                let read = usize::try_from(deflate.total_in() - begun).unwrap_or(usize::MAX);
                // Only a broken library could refuse; the piece then is what it was before.
                let Ok(_) = deflate.compress_vec(&plain[read..], &mut deflated, FlushCompress::Sync) else { break };
                if deflated.len() < deflated.capacity() {
                    break;
                }
                deflated.reserve(most(plain.len()) / 2);
            }
        });
        let mut sum = Hasher::new();
        sum.update(plain);
        Packed { deflated: deflated.into(), sum, len: plain.len() }
    }

    /// Pieces in a row as one.
    pub(crate) fn joined<'a>(pieces: impl Iterator<Item = &'a Packed> + Clone) -> Packed {
        let mut first = pieces.clone();
        if let (Some(only), None) = (first.next(), first.next()) {
            return only.clone();
        }
        let mut deflated = Vec::with_capacity(pieces.clone().map(|piece| piece.deflated.len()).sum());
        let (mut sum, mut len) = (Hasher::new(), 0);
        for piece in pieces {
            deflated.extend_from_slice(&piece.deflated);
            sum.combine(&piece.sum);
            len += piece.len;
        }
        Packed { deflated: deflated.into(), sum, len }
    }
}

/// One stream.
#[derive(Debug, Default)]
pub(crate) struct GzipStream {
    is_begun: bool,
    sum: Hasher,
    /// Of what was packed, modulo 2^32 as it is sent.
    len: u32,
    /// What the last piece was, where others may look back at it.
    mark: Option<u64>,
}

impl GzipStream {
    /// What it ends with, if that has a mark.
    pub(crate) fn mark(&self) -> Option<u64> {
        self.mark
    }

    /// The bytes that bring `piece`, which ends with what `mark` names.
    pub(crate) fn push(&mut self, piece: &Packed, mark: Option<u64>) -> Bytes {
        self.mark = mark;
        self.sum.combine(&piece.sum);
        #[allow(clippy::cast_possible_truncation)] // the format wants it so
        let len = piece.len as u32;
        self.len = self.len.wrapping_add(len);
        if std::mem::replace(&mut self.is_begun, true) {
            return piece.deflated.clone();
        }
        [&HEAD, &*piece.deflated].concat().into()
    }

    /// The bytes that end it.
    pub(crate) fn finish(self) -> Bytes {
        let head: &[u8] = if self.is_begun { &[] } else { &HEAD };
        [head, &LAST_BLOCK, &self.sum.finalize().to_le_bytes(), &self.len.to_le_bytes()].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use flate2::{Decompress, FlushDecompress};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Two streams that share some pieces, in whatever order: both are whole gzips, and a reader has each piece before
        /// the next one comes.
        #[test]
        fn shared_pieces_make_whole_streams(
            pieces in prop::collection::vec(prop::collection::vec(prop_oneof![any::<u8>(), Just(b'a')], 0..4000), 1..5),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let packed: Vec<Packed> = pieces.iter().map(|p| Packed::new(p, &[])).collect();
            let (mut stream, mut sent, mut plain) = (GzipStream::default(), Vec::new(), Vec::new());
            let mut reader = Decompress::new_gzip(15);
            for index in order {
                let at = index.index(pieces.len());
                let bytes = stream.push(&packed[at], None);
                let mut read = Vec::with_capacity(pieces[at].len() + 1);
                let before = reader.total_in();
                reader.decompress_vec(&bytes, &mut read, FlushDecompress::None).unwrap();
                prop_assert_eq!(reader.total_in() - before, bytes.len() as u64);
                prop_assert_eq!(&read, &pieces[at]);
                sent.extend_from_slice(&bytes);
                plain.extend_from_slice(&pieces[at]);
            }
            sent.extend_from_slice(&stream.finish());
            let mut whole = Vec::new();
            GzDecoder::new(&*sent).read_to_end(&mut whole).unwrap();
            prop_assert_eq!(whole, plain);
        }
    }
    #[test]
    fn large_pieces_that_do_not_compress_are_whole() {
        let mut noise = 1_u32;
        let mut random = || {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            noise.to_be_bytes()[0]
        };
        let plain: Vec<u8> = (0..200_000).map(|_| random()).collect();
        let mut stream = GzipStream::default();
        let sent = [stream.push(&Packed::new(&plain, &[]), None), stream.finish()].concat();
        let mut whole = Vec::new();
        GzDecoder::new(&*sent).read_to_end(&mut whole).unwrap();
        assert!(whole == plain);
    }
}
