//! The body of a LIST: chunks made as the connection takes them, so that a long list is never in memory twice.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use api::KindInfo;
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

/// An object as it stands in a list of its kind, but for the brace it begins with: its apiVersion and kind are left out, as
/// Go's typed lists do.
pub(super) fn item<'a>(info: &KindInfo, json: &'a [u8]) -> &'a [u8] {
    const METADATA: &str = r#""metadata":{"#;
    json.get(info.metadata_prefix().len() - METADATA.len()..).unwrap_or_default()
}

/// A list on its way out.
pub(super) struct ListBody {
    info: &'static KindInfo,
    start: Vec<u8>,
    items: Vec<Arc<Entry>>,
    /// The next item.
    next: usize,
    /// Bytes still to come.
    left: usize,
}

impl ListBody {
    pub(super) fn new(info: &'static KindInfo, metadata: &str, items: Vec<Arc<Entry>>) -> ListBody {
        let start = start(&format!("{}List", info.kind), &info.api_version(), metadata);
        let (braces, commas) = (items.len(), items.len().saturating_sub(1));
        let texts: usize = items.iter().map(|i| item(info, i.json()).len()).sum();
        let left = start.len() + braces + commas + texts + END.len();
        ListBody { info, start, items, next: 0, left }
    }

    fn chunk(&mut self) -> Vec<u8> {
        let mut chunk = std::mem::take(&mut self.start);
        chunk.reserve(self.left.min(CHUNK_BYTES + CHUNK_BYTES / 4).saturating_sub(chunk.len()));
        while let Some(entry) = self.items.get(self.next) {
            chunk.extend_from_slice(if self.next > 0 { b",{" } else { b"{" });
            chunk.extend_from_slice(item(self.info, entry.json()));
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
