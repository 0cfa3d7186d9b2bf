//! The body of a LIST: chunks made as the connection takes them, so that a long list is never in memory twice.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::cache::Entry;

/// How much is handed to the connection at once.
const CHUNK_BYTES: usize = 128 * 1024;

/// The end of every list.
pub(super) const END: &[u8] = b"]}";

/// The beginning of a list, up to its first item.
pub(super) fn start(kind: &str, api_version: &str, metadata: &str) -> Vec<u8> {
    format!(r#"{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{metadata},"items":["#).into_bytes()
}

/// A list on its way out.
pub(super) struct ListBody {
    start: Vec<u8>,
    items: Vec<Arc<Entry>>,
    /// The next item.
    next: usize,
    /// Bytes still to come.
    left: usize,
}

impl ListBody {
    pub(super) fn new(kind: &str, api_version: &str, metadata: &str, items: Vec<Arc<Entry>>) -> ListBody {
        let start = start(kind, api_version, metadata);
        let commas = items.len().saturating_sub(1);
        let left = start.len() + commas + items.iter().map(|i| i.json().len()).sum::<usize>() + END.len();
        ListBody { start, items, next: 0, left }
    }

    fn chunk(&mut self) -> Vec<u8> {
        let mut chunk = std::mem::take(&mut self.start);
        chunk.reserve(self.left.min(CHUNK_BYTES + CHUNK_BYTES / 4).saturating_sub(chunk.len()));
        while let Some(item) = self.items.get(self.next) {
            if self.next > 0 {
                chunk.push(b',');
            }
            chunk.extend_from_slice(item.json());
            self.next += 1;
            if chunk.len() >= CHUNK_BYTES {
                break;
            }
        }
        if self.next == self.items.len() {
            chunk.extend_from_slice(END);
        }
        chunk
    }
}

impl Body for ListBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::convert::Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let chunk = self.chunk();
        self.left = self.left.saturating_sub(chunk.len());
        Poll::Ready(Some(Ok(Frame::data(chunk.into()))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left as u64)
    }
}
