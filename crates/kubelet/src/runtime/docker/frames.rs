//! What Docker sends on a hijacked connection: as it is where there is a terminal; otherwise in frames of a stream's
//! number (1 or 2), three zeros and a length, so that standard output and standard error can be told apart.

use bytes::{Buf, Bytes, BytesMut};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::super::{Error, Output, Result};

const HEAD_BYTES: usize = 8;
const STDERR: u8 = 2;
/// What is read at once; a frame of any size is passed on in pieces.
const READ_BYTES: usize = 32 << 10;

/// The output on a connection, to its end.
pub(super) fn output(reader: impl AsyncRead + Send + Unpin + 'static, tty: bool) -> BoxStream<'static, Result<Output>> {
    let frames = Frames { buffer: BytesMut::new(), stream: 0, left: if tty { usize::MAX } else { 0 }, tty };
    stream::try_unfold((reader, frames), |(mut reader, mut frames)| async move {
        loop {
            if let Some(output) = frames.next() {
                return Ok(Some((output, (reader, frames))));
            }
            frames.buffer.reserve(READ_BYTES);
            let read = reader.read_buf(&mut frames.buffer).await;
            if read.map_err(|error| Error::Unreachable(error.to_string()))? == 0 {
                return Ok(None);
            }
        }
    })
    .boxed()
}

/// Takes frames apart, however they were cut.
struct Frames {
    buffer: BytesMut,
    stream: u8,
    left: usize,
    tty: bool,
}

impl Frames {
    fn next(&mut self) -> Option<Output> {
        while self.left == 0 {
            let mut head = self.buffer.get(..HEAD_BYTES)?;
            self.stream = head.get_u32().to_be_bytes()[0];
            self.left = head.get_u32() as usize;
            self.buffer.advance(HEAD_BYTES);
        }
        if self.buffer.is_empty() {
            return None;
        }
        let bytes: Bytes = self.buffer.split_to(self.left.min(self.buffer.len())).freeze();
        if !self.tty {
            self.left -= bytes.len();
        }
        Some(if self.stream == STDERR { Output::Stderr(bytes) } else { Output::Stdout(bytes) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn read(bytes: &[u8], tty: bool, piece: usize) -> (Vec<u8>, Vec<u8>) {
        let pieces: Vec<std::io::Result<Bytes>> =
            bytes.chunks(piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let reader = tokio_util::io::StreamReader::new(stream::iter(pieces));
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut outputs = output(reader, tty);
        while let Some(output) = outputs.next().await {
            match output.unwrap() {
                Output::Stdout(bytes) => out.extend_from_slice(&bytes),
                Output::Stderr(bytes) => err.extend_from_slice(&bytes),
            }
        }
        (out, err)
    }

    #[tokio::test]
    async fn the_streams_are_told_apart_however_they_were_cut() {
        let bytes = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x01e\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\x02rr";
        for piece in 1..bytes.len() {
            assert_eq!(read(bytes, false, piece).await, (b"out".to_vec(), b"err".to_vec()), "pieces of {piece}");
        }
    }

    #[tokio::test]
    async fn what_a_terminal_shows_is_never_taken_for_frames() {
        let bytes = b"\x01abc\x02\0\0\0\x33";
        assert_eq!(read(bytes, true, 4).await, (bytes.to_vec(), Vec::new()));
    }
}
