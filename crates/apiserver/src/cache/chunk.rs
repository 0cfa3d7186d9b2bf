//! Watch events joined for one write.

use bytes::{Bytes, BytesMut};

/// How much is told at once: small enough to start at once, large enough for few writes.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Frames joined for one write.
#[derive(Default)]
pub(crate) struct Chunk {
    first: Option<Bytes>,
    rest: BytesMut,
}

impl Chunk {
    pub(crate) fn push(&mut self, frame: Bytes) {
        match self.first.take() {
            None if self.rest.is_empty() => self.first = Some(frame),
            None => self.rest.extend_from_slice(&frame),
            Some(first) => {
                self.rest.extend_from_slice(&first);
                self.rest.extend_from_slice(&frame);
            }
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.rest.len() + self.first.as_ref().map_or(0, Bytes::len) >= CHUNK_BYTES
    }

    /// One frame goes out as it is, several as one piece; `None` when there is none.
    pub(crate) fn finish(self) -> Option<Bytes> {
        self.first.or_else(|| (!self.rest.is_empty()).then(|| self.rest.freeze()))
    }
}
