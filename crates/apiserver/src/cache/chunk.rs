//! Watch events joined for one write.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use store::Revision;

use super::filter::Filter;
use super::ring::CacheEvent;
use crate::compress::Packed;

/// How much is told at once: small enough to start at once, large enough for few writes.
const CHUNK_BYTES: usize = 64 * 1024;

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

/// A chunk that many are told, and what it is compressed: made once, by the first who wants it so.
#[derive(Debug)]
pub(crate) struct SharedChunk {
    pub(crate) plain: Bytes,
    packed: OnceLock<Packed>,
}

impl SharedChunk {
    pub(crate) fn packed(&self) -> &Packed {
        self.packed.get_or_init(|| Packed::new(&self.plain))
    }
}

/// A chunk made of the same events for everyone who sees all of them: watchers of one part of a crowd come for it one
/// after the other, and it stays in the processor's cache meanwhile.
#[derive(Default)]
pub(super) struct Joined {
    prefix: Box<str>,
    /// The number of the first event, and of the first that is not in it.
    from: u64,
    to: u64,
    /// The revision of the last event.
    last: Revision,
    chunk: Option<Arc<SharedChunk>>,
}

impl Joined {
    /// What `filter`, which looks at nothing but keys, selects of `events`, whose first has the number `from`: the chunk
    /// with the revision of its last event, and the number of the event after it.
    pub(super) fn of<'a>(
        &mut self,
        filter: &Filter,
        from: u64,
        events: impl Iterator<Item = &'a Arc<CacheEvent>>,
    ) -> (Option<(Arc<SharedChunk>, Revision)>, u64) {
        if self.from != from || *self.prefix != *filter.prefix || self.to == from {
            self.join(filter, from, events);
        }
        (self.chunk.clone().map(|chunk| (chunk, self.last)), self.to)
    }

    fn join<'a>(&mut self, filter: &Filter, from: u64, events: impl Iterator<Item = &'a Arc<CacheEvent>>) {
        *self = Joined { prefix: filter.prefix.as_str().into(), from, to: from, last: 0, chunk: None };
        let mut chunk = Chunk::default();
        for event in events {
            self.to += 1;
            if let Some(change) = event.seen_through(filter) {
                self.last = event.entry.revision;
                chunk.push(event.frame(change));
            }
            if chunk.is_full() {
                break;
            }
        }
        self.chunk = chunk.finish().map(|plain| Arc::new(SharedChunk { plain, packed: OnceLock::new() }));
    }
}
