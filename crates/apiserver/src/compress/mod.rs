//! Large answers go out compressed to clients that take gzip (`APIResponseCompression`), and so do watches that many may
//! share ([`stream`]), which upstream does not compress.

mod stream;

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderValue};
use http_body::{Body as _, Frame};

use crate::respond::ApiResponse;

pub(crate) use stream::{GzipStream, Packed};

/// Answers smaller than this are not worth it (`defaultGzipThresholdBytes`).
const MIN_BYTES: u64 = 128 * 1024;
/// Fast rather than small (`defaultGzipContentEncodingLevel`).
const LEVEL: Compression = Compression::new(1);
/// How much compressed data is handed on at once.
const CHUNK_BYTES: usize = 32 * 1024;

/// The answer, compressed where the client takes that and it pays. Streams of unknown length stay as they are.
pub(crate) fn respond(encodings: &[HeaderValue], response: ApiResponse) -> ApiResponse {
    // Of a stream without an end nothing is known.
    let is_large = response.body().size_hint().lower() >= MIN_BYTES;
    if !is_large || !takes_gzip(encodings) || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    is_gzip(&mut parts.headers);
    let encoder = Some(GzEncoder::new(Vec::with_capacity(CHUNK_BYTES), LEVEL));
    ApiResponse::from_parts(parts, Body::new(Gzip { body, encoder }))
}

/// Says of an answer that it is compressed.
pub(crate) fn is_gzip(headers: &mut HeaderMap) {
    headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
}

/// `encodings` are the values of `Accept-Encoding`.
pub(crate) fn takes_gzip<'a>(encodings: impl IntoIterator<Item = &'a HeaderValue>) -> bool {
    let values = encodings.into_iter().filter_map(|v| v.to_str().ok());
    values.flat_map(|v| v.split(',')).any(|clause| {
        let (name, parameters) = clause.split_once(';').unwrap_or((clause, ""));
        let refused =
            parameters.trim().strip_prefix("q=").and_then(|q| q.parse::<f32>().ok()).is_some_and(|q| q <= 0.0);
        name.trim().eq_ignore_ascii_case("gzip") && !refused
    })
}

/// A body on its way through the encoder.
struct Gzip {
    body: Body,
    /// `None` when everything has been handed on.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

impl http_body::Body for Gzip {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        loop {
            let Some(encoder) = self.encoder.as_mut() else { return Poll::Ready(None) };
            if encoder.get_ref().len() >= CHUNK_BYTES {
                let chunk = std::mem::replace(encoder.get_mut(), Vec::with_capacity(CHUNK_BYTES));
                return Poll::Ready(Some(Ok(Frame::data(chunk.into()))));
            }
            match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
                Some(Ok(frame)) => {
                    let (Ok(data), Some(encoder)) = (frame.into_data(), self.encoder.as_mut()) else { continue };
                    if let Err(error) = encoder.write_all(&data) {
                        return Poll::Ready(Some(Err(axum::Error::new(error))));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    let last = self.encoder.take().map(GzEncoder::finish);
                    let frame = last.map(|l| l.map(|data| Frame::data(Bytes::from(data))).map_err(axum::Error::new));
                    return Poll::Ready(frame);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_say_whether_they_take_gzip() {
        let cases = [("gzip", true), ("deflate, GZIP;q=0.5", true), ("gzip;q=0", false), ("br", false), ("", false)];
        for (value, expected) in cases {
            assert_eq!(takes_gzip(&[HeaderValue::from_static(value)]), expected, "{value}");
        }
    }
}
