//! Messages of D-Bus as bytes (the D-Bus specification, "Message Format"), as far as a talk with logind goes. Little-endian
//! only, as all messages to us are that we ask for here.

use std::io::Result;
use std::os::fd::OwnedFd;

/// The longest message that is read.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// What a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A method is called.
    Call,
    /// It answers.
    Return,
    /// It fails.
    Error,
    /// Something happened.
    Signal,
}

/// A message.
#[derive(Debug)]
pub(super) struct Message {
    /// What it is.
    pub(super) kind: Kind,
    /// Its number, by which it is answered.
    #[cfg_attr(not(test), expect(dead_code, reason = "we answer nobody"))]
    pub(super) serial: u32,
    /// Which call it answers.
    pub(super) reply_serial: u32,
    /// Who sent it.
    pub(super) sender: String,
    /// The method or signal; the name of an error.
    pub(super) member: String,
    /// The types of what it says.
    pub(super) signature: String,
    /// What it says.
    pub(super) body: Vec<u8>,
    /// The files it brings.
    pub(super) files: Vec<OwnedFd>,
}

impl Message {
    /// The strings it begins with.
    pub(super) fn strings(&self) -> impl Iterator<Item = String> {
        let count = self.signature.chars().take_while(|c| *c == 's').count();
        let mut reader = Reader { bytes: &self.body, at: 0 };
        std::iter::from_fn(move || reader.string().ok()).take(count).collect::<Vec<_>>().into_iter()
    }

    /// What it says, if that is a boolean.
    pub(super) fn boolean(&self) -> Option<bool> {
        let value = Reader { bytes: &self.body, at: 0 }.u32().ok()?;
        (self.signature == "b").then_some(value == 1)
    }

    /// The number of 64 bits in the variant it says.
    pub(super) fn variant_u64(&self) -> Option<u64> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        (self.signature == "v" && reader.signature().ok()? == "t").then_some(())?;
        reader.at = pad(reader.at, 8);
        Some(u64::from_le_bytes(reader.take(8).ok()?.try_into().ok()?))
    }
}

/// What a message says, as it is built.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    pub(super) signature: String,
    pub(super) bytes: Vec<u8>,
}

impl Body {
    /// And a string.
    pub(super) fn string(&mut self, text: &str) -> &mut Body {
        self.signature.push('s');
        string(&mut self.bytes, text);
        self
    }

    /// And a number.
    pub(super) fn int(&mut self, number: i32) -> &mut Body {
        self.signature.push('i');
        align(&mut self.bytes, 4);
        self.bytes.extend(number.to_le_bytes());
        self
    }

    /// Bytes that were put together elsewhere.
    #[cfg(test)]
    pub(super) fn raw(signature: &str, bytes: Vec<u8>) -> Body {
        Body { signature: signature.to_owned(), bytes }
    }
}

/// A whole message, with these strings and numbers in its header.
pub(super) fn encode(
    kind: u8,
    serial: u32,
    strings: &[(u8, char, &str)],
    numbers: &[(u8, u32)],
    body: &Body,
) -> Vec<u8> {
    let mut header = Vec::new();
    for (code, type_, text) in strings {
        align(&mut header, 8);
        header.extend([*code, 1, *type_ as u8, 0]);
        string(&mut header, text);
    }
    for (code, number) in numbers {
        align(&mut header, 8);
        header.extend([*code, 1, b'u', 0]);
        header.extend(number.to_le_bytes());
    }
    if !body.signature.is_empty() {
        align(&mut header, 8);
        header.extend([8, 1, b'g', 0, body.signature.len() as u8]);
        header.extend(body.signature.as_bytes());
        header.push(0);
    }
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = vec![b'l', kind, 0, 1];
    bytes.extend(size(&body.bytes));
    bytes.extend(serial.to_le_bytes());
    bytes.extend(size(&header));
    bytes.extend(header);
    align(&mut bytes, 8);
    bytes.extend(&body.bytes);
    bytes
}

/// How long the message at the beginning of `bytes` is, once that can be said.
pub(super) fn length(bytes: &[u8]) -> Result<Option<usize>> {
    if bytes.len() < 16 {
        return Ok(None);
    }
    if bytes[0] != b'l' {
        return Err(broken("a message in another byte order"));
    }
    let mut reader = Reader { bytes, at: 4 };
    let body = reader.u32()? as usize;
    reader.at = 12;
    let fields = reader.u32()? as usize;
    let length = pad(16usize.saturating_add(fields), 8).saturating_add(body);
    if length > MAX_MESSAGE_BYTES { Err(broken("a message that is too long")) } else { Ok(Some(length)) }
}

fn string(bytes: &mut Vec<u8>, text: &str) {
    align(bytes, 4);
    bytes.extend(u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

pub(super) fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(pad(bytes.len(), to), 0);
}

pub(super) fn pad(at: usize, to: usize) -> usize {
    at.saturating_add(to - 1) / to * to
}

pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.saturating_add(count);
        let taken = self.bytes.get(self.at..end).ok_or_else(|| broken("a message that is cut short"))?;
        self.at = end;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.at = pad(self.at, 4);
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    pub(super) fn string(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    pub(super) fn signature(&mut self) -> Result<String> {
        let length = usize::from(self.u8()?);
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }
}

pub(super) fn broken(why: &str) -> std::io::Error {
    std::io::Error::other(format!("D-Bus: {why}"))
}
