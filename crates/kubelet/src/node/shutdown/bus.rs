//! As much of D-Bus as it takes to talk to logind: calls with strings, their answers, signals, and files that come along
//! (the D-Bus specification, "Message Protocol").

use std::collections::VecDeque;
use std::io::{IoSliceMut, Result};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

use super::wire::{Body, Kind, Message, Reader, broken, encode, length, pad};

/// The longest line while we say who we are.
const MAX_LINE_BYTES: usize = 4096;
/// Signals that may wait while an answer is waited for; older ones are lost, and none of ours is about the past.
const MAX_SIGNALS: usize = 64;
/// Files that may come with what is read at once.
const MAX_FILES: usize = 8;
const READ_BYTES: usize = 4096;

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

/// The other side, which tests are.
#[cfg(test)]
impl Bus {
    /// Is called `name` from now on.
    pub(super) async fn request_name(&mut self, name: &str) -> Result<()> {
        let mut body = Body::default();
        body.string(name);
        super::wire::align(&mut body.bytes, 4);
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
