//! Frames and bytes. Pure: what was read goes in at one end, frames come out at the other, however it was cut.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::headers::{Compressor, Decompressor, Headers};

/// The most bytes of a control frame; data frames are passed on piece by piece and may have any size.
const MAX_CONTROL_BYTES: usize = 16 << 10;
/// The most data of one frame we send: others get their turn between.
pub(crate) const MAX_DATA_BYTES: usize = 32 << 10;
const HEAD_BYTES: usize = 8;
const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
const FIN: u8 = 0x01;
const UNIDIRECTIONAL: u8 = 0x02;
/// Stream ids and deltas have 31 bits.
const LOW_31: u32 = 0x7fff_ffff;

/// Why bytes are not SPDY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Error {
    /// Another version.
    #[error("SPDY version {0} is not 3")]
    Version(u16),
    /// A control frame without the fields of its type.
    #[error("malformed SPDY control frame of type {0}")]
    Malformed(u16),
    /// A control frame or header block beyond bounds.
    #[error("SPDY control frame too large")]
    TooLarge,
    /// A header block that does not unfold.
    #[error("malformed SPDY header block")]
    Headers,
}

/// Why a stream is reset.
pub(crate) mod status {
    /// The peer broke the rules of the stream.
    pub(crate) const PROTOCOL_ERROR: u32 = 1;
    /// The stream is not wanted.
    pub(crate) const REFUSED_STREAM: u32 = 3;
    /// The stream is no longer wanted.
    pub(crate) const CANCEL: u32 = 5;
}

/// A frame, or a piece of a data frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// Opens a stream.
    SynStream { id: u32, fin: bool, unidirectional: bool, headers: Headers },
    /// Accepts it.
    SynReply { id: u32, fin: bool, headers: Headers },
    /// Ends a stream in both directions at once.
    Reset { id: u32, status: u32 },
    /// Settings; none concerns us.
    Settings,
    /// Asks for the same frame back.
    Ping { id: u32 },
    /// No more streams will be served.
    GoAway { last_good: u32, status: u32 },
    /// More headers of a stream.
    Headers { id: u32, fin: bool, headers: Headers },
    /// So much more may be sent.
    WindowUpdate { id: u32, delta: u32 },
    /// Data of a stream; `fin` says that no more comes.
    Data { id: u32, fin: bool, bytes: Bytes },
    /// A control frame of a type nobody knows, which is to be skipped.
    Unknown { kind: u16 },
}

/// From bytes to frames.
pub(crate) struct Decoder {
    buffer: BytesMut,
    /// The data frame in the middle of which the buffer begins: stream, flag, bytes left.
    data: Option<(u32, bool, usize)>,
    decompressor: Decompressor,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { buffer: BytesMut::new(), data: None, decompressor: Decompressor::new() }
    }

    /// Where what is read is put.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// The next frame; `None` until more is read. After an error nothing sensible follows.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Error> {
        if let Some(data) = self.data.take() {
            return Ok(self.piece(data));
        }
        let Some(mut head) = self.buffer.get(..HEAD_BYTES) else { return Ok(None) };
        let (first, second) = (head.get_u32(), head.get_u32());
        let (flags, length) = ((second >> 24) as u8, (second & 0x00ff_ffff) as usize);
        let kind = (first & 0xffff) as u16;
        let control = (first >> 16) as u16;
        if control & CONTROL == 0 {
            self.buffer.advance(HEAD_BYTES);
            return Ok(self.piece((first, flags & FIN != 0, length)));
        }
        match control & !CONTROL {
            VERSION => {}
            other => return Err(Error::Version(other)),
        }
        if length > MAX_CONTROL_BYTES {
            return Err(Error::TooLarge);
        }
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        let frame = self.buffer.split_to(HEAD_BYTES + length);
        self.control(kind, flags, &frame[HEAD_BYTES..]).map(Some)
    }

    /// What is there of a data frame.
    fn piece(&mut self, (id, fin, left): (u32, bool, usize)) -> Option<Frame> {
        if left > 0 && self.buffer.is_empty() {
            self.data = Some((id, fin, left));
            return None;
        }
        let bytes = self.buffer.split_to(left.min(self.buffer.len())).freeze();
        let left = left - bytes.len();
        if left > 0 {
            self.data = Some((id, fin, left));
        }
        Some(Frame::Data { id, fin: fin && left == 0, bytes })
    }

    fn control(&mut self, kind: u16, flags: u8, mut body: &[u8]) -> Result<Frame, Error> {
        let fin = flags & FIN != 0;
        let mut number = || body.try_get_u32().map_err(|_| Error::Malformed(kind));
        let frame = match kind {
            1 => {
                let (id, _associated) = (number()? & LOW_31, number()?);
                let block = body.get(2..).ok_or(Error::Malformed(kind))?;
                let headers = self.decompressor.headers(block)?;
                Frame::SynStream { id, fin, unidirectional: flags & UNIDIRECTIONAL != 0, headers }
            }
            2 => Frame::SynReply { id: number()? & LOW_31, fin, headers: self.decompressor.headers(body)? },
            3 => Frame::Reset { id: number()? & LOW_31, status: number()? },
            4 => Frame::Settings,
            6 => Frame::Ping { id: number()? },
            7 => Frame::GoAway { last_good: number()? & LOW_31, status: number()? },
            8 => Frame::Headers { id: number()? & LOW_31, fin, headers: self.decompressor.headers(body)? },
            9 => Frame::WindowUpdate { id: number()? & LOW_31, delta: number()? & LOW_31 },
            kind => Frame::Unknown { kind },
        };
        Ok(frame)
    }
}

/// From frames to bytes.
pub(crate) struct Encoder {
    compressor: Compressor,
}

impl Encoder {
    pub(crate) fn new() -> Encoder {
        Encoder { compressor: Compressor::new() }
    }

    /// Appends the bytes of `frame`. What is only ever received (settings, unknown frames) has none.
    pub(crate) fn encode(&mut self, frame: &Frame, out: &mut BytesMut) {
        match frame {
            Frame::SynStream { id, fin, unidirectional, headers } => {
                let block = self.compressor.block(headers);
                let flags = u8::from(*fin) | if *unidirectional { UNIDIRECTIONAL } else { 0 };
                control(out, 1, flags, 10 + block.len());
                out.put_u32(*id);
                out.put_u32(0);
                out.put_u16(0);
                out.extend_from_slice(&block);
            }
            Frame::SynReply { id, fin, headers } => self.headers(out, 2, *id, *fin, headers),
            Frame::Headers { id, fin, headers } => self.headers(out, 8, *id, *fin, headers),
            Frame::Reset { id, status } => pair(out, 3, *id, *status),
            Frame::Ping { id } => {
                control(out, 6, 0, 4);
                out.put_u32(*id);
            }
            Frame::GoAway { last_good, status } => pair(out, 7, *last_good, *status),
            Frame::WindowUpdate { id, delta } => pair(out, 9, *id, *delta),
            Frame::Data { id, fin, bytes } => data(out, *id, *fin, bytes),
            Frame::Settings | Frame::Unknown { .. } => {}
        }
    }

    fn headers(&mut self, out: &mut BytesMut, kind: u16, id: u32, fin: bool, headers: &Headers) {
        let block = self.compressor.block(headers);
        control(out, kind, u8::from(fin), 4 + block.len());
        out.put_u32(id);
        out.extend_from_slice(&block);
    }
}

fn control(out: &mut BytesMut, kind: u16, flags: u8, length: usize) {
    out.put_u16(CONTROL | VERSION);
    out.put_u16(kind);
    flags_and_length(out, flags, length);
}

fn pair(out: &mut BytesMut, kind: u16, first: u32, second: u32) {
    control(out, kind, 0, 8);
    out.put_u32(first);
    out.put_u32(second);
}

/// As many frames as it takes; the last one, which may be empty, says whether more comes.
fn data(out: &mut BytesMut, id: u32, fin: bool, bytes: &[u8]) {
    let mut chunks = bytes.chunks(MAX_DATA_BYTES).peekable();
    loop {
        let chunk = chunks.next().unwrap_or_default();
        let last = chunks.peek().is_none();
        out.put_u32(id & LOW_31);
        flags_and_length(out, u8::from(fin && last), chunk.len());
        out.extend_from_slice(chunk);
        if last {
            return;
        }
    }
}

fn flags_and_length(out: &mut BytesMut, flags: u8, length: usize) {
    out.put_u8(flags);
    out.put_uint(length as u64, 3);
}
