//! As much of D-Bus as it takes to talk to logind: calls with strings, their answers, signals, and files that come along
//! (the D-Bus specification, "Message Protocol"). Little-endian only, as all messages to us are that we ask for here.

use std::collections::VecDeque;
use std::io::{IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// The longest message that is read.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// The longest line while we say who we are.
const MAX_LINE_BYTES: usize = 4096;
/// Signals that may wait while an answer is waited for; older ones are lost, and none of ours is about the past.
const MAX_SIGNALS: usize = 64;
/// Files that may come with what is read at once.
const MAX_FILES: usize = 8;
const READ_BYTES: usize = 4096;

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

/// A call: who, which of its objects, which interface, which method.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// The name of the service.
    pub(super) destination: &'a str,
    /// The object.
    pub(super) path: &'a str,
    /// The interface.
    pub(super) interface: &'a str,
    /// The method.
    pub(super) member: &'a str,
}

/// The bus itself.
const fn of_bus(member: &str) -> Call<'_> {
    Call {
        destination: "org.freedesktop.DBus",
        path: "/org/freedesktop/DBus",
        interface: "org.freedesktop.DBus",
        member,
    }
}

/// A connection to a bus.
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    buffer: Vec<u8>,
    files: VecDeque<OwnedFd>,
    signals: VecDeque<Message>,
}

impl Bus {
    /// Connects to the bus that listens at `path`.
    pub(super) async fn connect(path: &Path) -> Result<Bus> {
        let stream = UnixStream::connect(path).await?;
        let (serial, buffer, files, signals) = (0, Vec::new(), VecDeque::new(), VecDeque::new());
        let mut bus = Bus { stream, serial, buffer, files, signals };
        bus.authenticate().await?;
        bus.call(of_bus("Hello"), &Body::default()).await?;
        Ok(bus)
    }

    /// Says who we are: whom the kernel says we are.
    async fn authenticate(&mut self) -> Result<()> {
        let uid = nix::unistd::geteuid().to_string();
        let uid = crate::names::hex(uid.as_bytes());
        self.stream.write_all(format!("\0AUTH EXTERNAL {uid}\r\n").as_bytes()).await?;
        self.line("OK").await?;
        self.stream.write_all(b"NEGOTIATE_UNIX_FD\r\n").await?;
        self.line("AGREE_UNIX_FD").await?;
        self.stream.write_all(b"BEGIN\r\n").await
    }

    async fn line(&mut self, expected: &str) -> Result<()> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() >= MAX_LINE_BYTES {
                return Err(broken("a line without end"));
            }
            line.push(self.stream.read_u8().await?);
        }
        let text = String::from_utf8_lossy(&line);
        if text.starts_with(expected) { Ok(()) } else { Err(broken(&format!("it says {:?}", text.trim_end()))) }
    }

    /// Has signals sent to us that this rule matches.
    pub(super) async fn add_match(&mut self, rule: &str) -> Result<()> {
        self.call(of_bus("AddMatch"), Body::default().string(rule)).await.map(drop)
    }

    /// Calls a method and waits for its answer.
    pub(super) async fn call(&mut self, call: Call<'_>, body: &Body) -> Result<Message> {
        self.serial += 1;
        let serial = self.serial;
        let fields = [(1, 'o', call.path), (2, 's', call.interface), (3, 's', call.member), (6, 's', call.destination)];
        let bytes = encode(1, serial, &fields, &[], body);
        self.stream.write_all(&bytes).await?;
        loop {
            let message = self.read().await?;
            match message.kind {
                Kind::Return if message.reply_serial == serial => return Ok(message),
                Kind::Error if message.reply_serial == serial => {
                    let why = message.strings().next().unwrap_or_default();
                    return Err(broken(&format!("{}: {why}", message.member)));
                }
                Kind::Signal => {
                    if self.signals.len() >= MAX_SIGNALS {
                        self.signals.pop_front();
                    }
                    self.signals.push_back(message);
                }
                _ => {}
            }
        }
    }

    /// The next signal.
    pub(super) async fn signal(&mut self) -> Result<Message> {
        loop {
            if let Some(signal) = self.signals.pop_front() {
                return Ok(signal);
            }
            let message = self.read().await?;
            if message.kind == Kind::Signal {
                return Ok(message);
            }
        }
    }

    /// The next message, whatever it is.
    pub(super) async fn read(&mut self) -> Result<Message> {
        loop {
            if let Some(length) = length(&self.buffer)?.filter(|length| *length <= self.buffer.len()) {
                let rest = self.buffer.split_off(length);
                let bytes = std::mem::replace(&mut self.buffer, rest);
                return self.decode(&bytes);
            }
            self.receive().await?;
        }
    }

    async fn receive(&mut self) -> Result<()> {
        let stream = &self.stream;
        let (bytes, files) = stream
            .async_io(Interest::READABLE, || {
                let mut bytes = [0; READ_BYTES];
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FILES))];
                let mut control = RecvAncillaryBuffer::new(&mut space);
                let read = recvmsg(stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
                let mut files = Vec::new();
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(rights) = message {
                        files.extend(rights);
                    }
                }
                Ok((bytes[..read.bytes].to_vec(), files))
            })
            .await?;
        if bytes.is_empty() {
            return Err(broken("the bus is gone"));
        }
        self.buffer.extend(bytes);
        self.files.extend(files);
        Ok(())
    }

    fn decode(&mut self, bytes: &[u8]) -> Result<Message> {
        let kind = match bytes.get(1) {
            Some(1) => Kind::Call,
            Some(2) => Kind::Return,
            Some(3) => Kind::Error,
            _ => Kind::Signal,
        };
        let mut reader = Reader { bytes, at: 8 };
        let (serial, fields) = (reader.u32()?, reader.u32()? as usize);
        let end = 16 + fields;
        let mut message = Message {
            kind,
            serial,
            reply_serial: 0,
            sender: String::new(),
            member: String::new(),
            signature: String::new(),
            body: bytes.get(pad(end, 8)..).unwrap_or_default().to_vec(),
            files: Vec::new(),
        };
        while reader.at < end {
            reader.at = pad(reader.at, 8);
            let code = reader.u8()?;
            match (reader.signature()?.as_str(), code) {
                ("u", 5) => message.reply_serial = reader.u32()?,
                ("u", 9) => {
                    let count = (reader.u32()? as usize).min(self.files.len());
                    message.files = self.files.drain(..count).collect();
                }
                ("u", _) => {
                    reader.u32()?;
                }
                ("s", 3 | 4) => message.member = reader.string()?,
                ("s", 7) => message.sender = reader.string()?,
                ("s" | "o", _) => drop(reader.string()?),
                ("g", 8) => message.signature = reader.signature()?,
                (other, _) => return Err(broken(&format!("a header of type {other:?}"))),
            }
        }
        Ok(message)
    }
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

/// The other side, which tests are.
#[cfg(test)]
impl Bus {
    /// Is called `name` from now on.
    pub(super) async fn request_name(&mut self, name: &str) -> Result<()> {
        let mut body = Body::default();
        body.string(name);
        align(&mut body.bytes, 4);
        body.bytes.extend(0u32.to_le_bytes());
        body.signature.push('u');
        self.call(of_bus("RequestName"), &body).await.map(drop)
    }

    /// Answers a call, with a file where there is one.
    pub(super) async fn reply(&mut self, to: &Message, body: &Body, file: Option<OwnedFd>) -> Result<()> {
        use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
        use std::os::fd::AsFd;
        self.serial += 1;
        let mut numbers = vec![(5, to.serial)];
        numbers.extend(file.as_ref().map(|_| (9, 1)));
        let bytes = encode(2, self.serial, &[(6, 's', to.sender.as_str())], &numbers, body);
        let Some(file) = file else { return self.stream.write_all(&bytes).await };
        let stream = &self.stream;
        stream
            .async_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut control = SendAncillaryBuffer::new(&mut space);
                let files = [file.as_fd()];
                control.push(SendAncillaryMessage::ScmRights(&files));
                let sent = sendmsg(stream, &[std::io::IoSlice::new(&bytes)], &mut control, SendFlags::empty())?;
                assert_eq!(sent, bytes.len(), "a short message goes at once");
                Ok(())
            })
            .await
    }

    /// Says that something happened to `path`.
    pub(super) async fn emit(&mut self, path: &str, interface: &str, member: &str, body: &Body) -> Result<()> {
        self.serial += 1;
        let bytes = encode(4, self.serial, &[(1, 'o', path), (2, 's', interface), (3, 's', member)], &[], body);
        self.stream.write_all(&bytes).await
    }
}

/// What a message says, as it is built.
#[derive(Clone, Debug, Default)]
pub(super) struct Body {
    signature: String,
    bytes: Vec<u8>,
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
fn encode(kind: u8, serial: u32, strings: &[(u8, char, &str)], numbers: &[(u8, u32)], body: &Body) -> Vec<u8> {
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
fn length(bytes: &[u8]) -> Result<Option<usize>> {
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

fn align(bytes: &mut Vec<u8>, to: usize) {
    bytes.resize(pad(bytes.len(), to), 0);
}

fn pad(at: usize, to: usize) -> usize {
    at.saturating_add(to - 1) / to * to
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.saturating_add(count);
        let taken = self.bytes.get(self.at..end).ok_or_else(|| broken("a message that is cut short"))?;
        self.at = end;
        Ok(taken)
    }

    fn u8(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn u32(&mut self) -> Result<u32> {
        self.at = pad(self.at, 4);
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn string(&mut self) -> Result<String> {
        let length = self.u32()? as usize;
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }

    fn signature(&mut self) -> Result<String> {
        let length = usize::from(self.u8()?);
        let text = String::from_utf8_lossy(self.take(length)?).into_owned();
        self.take(1)?;
        Ok(text)
    }
}

fn broken(why: &str) -> std::io::Error {
    std::io::Error::other(format!("D-Bus: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(bytes in proptest::collection::vec(0..255u8, 0..120), fields in 0..40u32) {
            let mut bytes = bytes;
            if bytes.len() > 16 {
                bytes[0] = b'l';
                bytes[12..16].copy_from_slice(&fields.to_le_bytes());
            }
            let known = length(&bytes);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            let _guard = runtime.enter();
            let (stream, _other) = UnixStream::pair().unwrap();
            let (serial, buffer, files, signals) = (0, Vec::new(), VecDeque::new(), VecDeque::new());
            let mut bus = Bus { stream, serial, buffer, files, signals };
            if let Ok(Some(length)) = known
                && let Ok(message) = bus.decode(&bytes[..length.min(bytes.len())])
            {
                let _ = (message.strings().count(), message.boolean(), message.variant_u64());
            }
        }
    }
}
