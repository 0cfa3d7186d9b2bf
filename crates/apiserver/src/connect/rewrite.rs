//! An answer on its way back through a proxy: its page is unpacked where it is packed, looked at, and packed again, a
//! piece at a time and never waiting for the next one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use http::header::{self, HeaderMap};
use http::{Method, StatusCode};
use http_body::{Body as _, Frame};

use super::html::Page;
use super::links::Links;
use crate::respond::ApiResponse;

/// As much is unpacked and looked at before it is handed on.
const PIECE_BYTES: usize = 16 * 1024;
/// The largest window of a gzip.
const WINDOW_BITS: u8 = 15;

/// Has an answer's addresses lead through the proxy.
pub(super) fn respond(links: Links, method: &Method, response: ApiResponse) -> ApiResponse {
    let (mut parts, body) = response.into_parts();
    let is_page = links.headers(&mut parts.headers);
    // Part of a page may begin anywhere, and its place in the whole would be wrong.
    let has_page = *method != Method::HEAD && !body.is_end_stream() && parts.status != StatusCode::PARTIAL_CONTENT;
    let packed = match is_page && has_page {
        true => Packing::of(&parts.headers),
        false => None,
    };
    let Some(packing) = packed else { return ApiResponse::from_parts(parts, body) };
    parts.headers.remove(header::CONTENT_LENGTH);
    let page = Rewritten {
        body,
        links,
        packing,
        page: Page::default(),
        input: Bytes::new(),
        has_more: false,
        is_open: false,
        is_waiting: false,
        is_over: false,
    };
    ApiResponse::from_parts(parts, Body::new(page))
}

/// How a page is packed.
enum Packing {
    Plain,
    /// Raw or with a head: what is called deflate should have one, which many leave out, and upstream knows only those.
    /// Its first byte tells.
    Deflate,
    Packed(Box<(Decompress, Compress)>),
}

impl Packing {
    /// `None` where it is not known how, so that the page stays as it is.
    fn of(headers: &HeaderMap) -> Option<Packing> {
        match headers.get(header::CONTENT_ENCODING).map_or(Ok(""), |value| value.to_str()) {
            Ok("") => Some(Packing::Plain),
            Ok("gzip") => {
                let pack = Compress::new_gzip(Compression::fast(), WINDOW_BITS);
                Some(Packing::Packed(Box::new((Decompress::new_gzip(WINDOW_BITS), pack))))
            }
            Ok("deflate") => Some(Packing::Deflate),
            _ => None,
        }
    }

    fn begin(&mut self, input: &[u8]) {
        if let (Packing::Deflate, Some(first)) = (&self, input.first()) {
            // RFC 1950, 2.2: the method is the lower half; no raw deflate that an encoder makes begins like that.
            let has_head = first & 0x0f == 8;
            let pack = Compress::new(Compression::fast(), has_head);
            *self = Packing::Packed(Box::new((Decompress::new(has_head), pack)));
        }
    }
}

/// The body of an answer.
struct Rewritten {
    body: Body,
    links: Links,
    packing: Packing,
    page: Page,
    /// What has come and has not been looked at.
    input: Bytes,
    /// Whether the unpacking has more of what it was given.
    has_more: bool,
    /// Whether what is packed has begun and not ended.
    is_open: bool,
    /// Whether the packing holds something back.
    is_waiting: bool,
    is_over: bool,
}

impl Rewritten {
    /// Looks at the next piece of the input.
    fn step(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.packing.begin(&self.input);
        let through = |address: &str| self.links.through(address);
        let Packing::Packed(packing) = &mut self.packing else {
            let piece = self.input.split_to(self.input.len().min(PIECE_BYTES));
            self.page.push(&piece, through, out);
            return Ok(());
        };
        let (unpack, pack) = &mut **packing;
        let (mut plain, before) = (Vec::with_capacity(PIECE_BYTES), unpack.total_in());
        let status = unpack.decompress_vec(&self.input, &mut plain, FlushDecompress::None)?;
        let read = usize::try_from(unpack.total_in() - before).unwrap_or(usize::MAX).min(self.input.len());
        let is_stuck = read == 0 && plain.is_empty() && !self.has_more;
        let _ = self.input.split_to(read);
        (self.has_more, self.is_open) = (plain.len() == plain.capacity(), status != Status::StreamEnd);
        if status == Status::StreamEnd {
            // What comes behind is nobody's.
            (self.input, self.has_more) = (Bytes::new(), false);
        } else if is_stuck {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut changed = Vec::with_capacity(plain.len() + 1024);
        self.page.push(&plain, through, &mut changed);
        self.is_waiting |= !changed.is_empty();
        pack_all(pack, &changed, FlushCompress::None, out)
    }

    /// The last of it.
    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.is_over = true;
        if self.is_open {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut last = Vec::new();
        self.page.finish(&mut last);
        match &mut self.packing {
            Packing::Packed(packing) => pack_all(&mut packing.1, &last, FlushCompress::Finish, out),
            _ => {
                out.append(&mut last);
                Ok(())
            }
        }
    }

    /// What the packing held back, so that a reader has what has come so far.
    fn flush(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.is_waiting = false;
        match &mut self.packing {
            Packing::Packed(packing) => pack_all(&mut packing.1, &[], FlushCompress::Sync, out),
            _ => Ok(()),
        }
    }
}

fn pack_all(pack: &mut Compress, mut plain: &[u8], flush: FlushCompress, out: &mut Vec<u8>) -> io::Result<()> {
    loop {
        out.reserve(plain.len() / 2 + 256);
        let before = pack.total_in();
        pack.compress_vec(plain, out, flush)?;
        plain = plain.get(usize::try_from(pack.total_in() - before).unwrap_or(usize::MAX)..).unwrap_or_default();
        if plain.is_empty() && out.len() < out.capacity() {
            return Ok(());
        }
    }
}

impl http_body::Body for Rewritten {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let mut out = Vec::new();
        let done = loop {
            if this.is_over {
                return Poll::Ready(None);
            }
            if this.has_more || !this.input.is_empty() {
                let step = this.step(&mut out);
                if step.is_err() || !out.is_empty() {
                    break step;
                }
                continue;
            }
            match Pin::new(&mut this.body).poll_frame(cx) {
                // Trailers were sums of what the page was.
                Poll::Ready(Some(Ok(frame))) => this.input = frame.into_data().unwrap_or_default(),
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(None) => break this.finish(&mut out),
                Poll::Pending if this.is_waiting => break this.flush(&mut out),
                Poll::Pending => return Poll::Pending,
            }
        };
        this.is_over |= done.is_err();
        let frame = done.map(|()| Frame::data(out.into())).map_err(axum::Error::new);
        Poll::Ready(Some(frame))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use flate2::{read, write};
    use futures::{StreamExt, stream};
    use http::{HeaderValue, Response};
    use http_body_util::BodyExt;

    use super::*;
    use crate::connect::links::tests::links;

    fn page(encoding: &'static str, pieces: Vec<Vec<u8>>) -> ApiResponse {
        let body = Body::from_stream(stream::iter(pieces).map(Ok::<_, io::Error>));
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("1"));
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(encoding));
        response
    }

    fn packed(encoding: &str, head: bool, plain: &[u8]) -> Vec<u8> {
        let fast = Compression::fast();
        let mut packed = Vec::new();
        match (encoding, head) {
            ("gzip", _) => write::GzEncoder::new(&mut packed, fast).write_all(plain),
            ("deflate", true) => write::ZlibEncoder::new(&mut packed, fast).write_all(plain),
            ("deflate", false) => write::DeflateEncoder::new(&mut packed, fast).write_all(plain),
            _ => packed.write_all(plain),
        }
        .unwrap();
        packed
    }

    fn unpacked(encoding: &str, head: bool, packed: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        match (encoding, head) {
            ("gzip", _) => read::GzDecoder::new(packed).read_to_end(&mut plain),
            ("deflate", true) => read::ZlibDecoder::new(packed).read_to_end(&mut plain),
            ("deflate", false) => read::DeflateDecoder::new(packed).read_to_end(&mut plain),
            _ => (&mut &*packed).read_to_end(&mut plain),
        }
        .unwrap();
        plain
    }

    #[tokio::test]
    async fn pages_are_changed_however_they_are_packed_and_cut() {
        let before = "<a href='/x'>and many words</a>\n".repeat(9000).into_bytes();
        let after = "<a href='/p/proxy/x'>and many words</a>\n".repeat(9000).into_bytes();
        for (encoding, head, is_known) in [
            ("", true, true),
            ("gzip", true, true),
            ("deflate", true, true),
            ("deflate", false, true),
            ("br", true, false),
        ] {
            let expected = if is_known { &after } else { &before };
            for piece in [100, 4096, usize::MAX] {
                let sent = packed(encoding, head, &before);
                let pieces = sent.chunks(piece).map(<[u8]>::to_vec).collect();
                let response = respond(links(), &Method::GET, page(encoding, pieces));
                assert_eq!(response.headers().contains_key(header::CONTENT_LENGTH), !is_known);
                let told = response.into_body().collect().await.unwrap().to_bytes();
                assert!(&unpacked(encoding, head, &told) == expected, "{encoding} {head} {piece}");
            }
        }
    }

    #[tokio::test]
    async fn a_piece_is_told_before_the_next_one_comes() {
        for encoding in ["", "gzip"] {
            let mut pack = write::GzEncoder::new(Vec::new(), Compression::fast());
            pack.write_all(b"<a href='/x'>").unwrap();
            pack.flush().unwrap();
            let first = if encoding.is_empty() { b"<a href='/x'>".to_vec() } else { pack.get_ref().clone() };
            let mut response = page(encoding, vec![]);
            let pieces = stream::iter([Ok::<_, io::Error>(first)]).chain(stream::pending());
            *response.body_mut() = Body::from_stream(pieces);
            let mut body = respond(links(), &Method::GET, response).into_body();
            let mut told = Vec::new();
            let mut plain = Vec::with_capacity(100);
            while plain != b"<a href='/p/proxy/x'>" {
                told.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
                let mut unpack = Decompress::new_gzip(WINDOW_BITS);
                plain.clear();
                match encoding {
                    "" => plain.clone_from(&told),
                    _ => drop(unpack.decompress_vec(&told, &mut plain, FlushDecompress::None).unwrap()),
                }
            }
        }
    }

    #[tokio::test]
    async fn what_is_broken_ends_and_what_is_no_page_stays() {
        for sent in [b"no gzip".to_vec(), packed("gzip", true, b"<a>")[..12].to_vec()] {
            let response = respond(links(), &Method::GET, page("gzip", vec![sent]));
            assert!(response.into_body().collect().await.is_err());
        }
        let mut part = page("", vec![b"<a href=/x>".to_vec()]);
        *part.status_mut() = StatusCode::PARTIAL_CONTENT;
        let part = respond(links(), &Method::GET, part).into_body().collect().await.unwrap().to_bytes();
        assert_eq!(part, "<a href=/x>");
        let head = respond(links(), &Method::HEAD, page("gzip", vec![]));
        assert_eq!(head.headers()[header::CONTENT_LENGTH], "1", "of a page that is not sent");
    }
}
