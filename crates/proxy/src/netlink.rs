//! Netlink as bytes: messages with nested attributes, written and read, and the socket they go through. The crates there are
//! for nf_tables want its C library, have another licence, or know half of the expressions our rules are made of.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, setsockopt,
    socket, sockopt,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// More than the kernel puts into one datagram.
const DATAGRAM_BYTES: usize = 32 << 10;
/// Datagrams that are read before their reader hears of them: a flood must not keep it waiting for ever.
const BURST_MAX: usize = 1 << 14;
/// `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// `struct nlattr`.
const ATTRIBUTE_BYTES: usize = 4;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// Messages for the kernel, one behind the other.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
}

/// A message or attribute that is not complete yet: where it began.
#[must_use]
pub struct Begun(usize);

impl Writer {
    /// Begins a message with what comes before its attributes; its sequence number tells it from others in an error.
    pub fn message(&mut self, kind: u16, flags: u16, sequence: u32, head: &[u8]) -> Begun {
        let begun = Begun(self.bytes.len());
        self.bytes.extend([0; 4]);
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend((REQUEST | flags).to_ne_bytes());
        self.bytes.extend(sequence.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend(head);
        begun
    }

    /// Ends a message; nothing where it became longer than a message can be.
    pub fn end_message(&mut self, begun: Begun) -> Option<()> {
        let length = u32::try_from(self.bytes.len() - begun.0).ok()?;
        self.bytes[begun.0..begun.0 + 4].copy_from_slice(&length.to_ne_bytes());
        Some(())
    }

    /// Begins an attribute made of attributes.
    pub fn nest(&mut self, kind: u16) -> Begun {
        let begun = Begun(self.bytes.len());
        self.bytes.extend([0; 2]);
        self.bytes.extend((kind | NESTED).to_ne_bytes());
        begun
    }

    /// Ends it; nothing where it became longer than an attribute can be.
    pub fn end(&mut self, begun: Begun) -> Option<()> {
        let length = u16::try_from(self.bytes.len() - begun.0).ok()?;
        self.bytes[begun.0..begun.0 + 2].copy_from_slice(&length.to_ne_bytes());
        Some(())
    }

    /// An attribute of bytes; nothing where they are too many.
    pub fn bytes(&mut self, kind: u16, value: &[u8]) -> Option<()> {
        let length = u16::try_from(value.len() + ATTRIBUTE_BYTES).ok()?;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        Some(())
    }

    /// An attribute of text.
    pub fn text(&mut self, kind: u16, value: &str) -> Option<()> {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.bytes(kind, &bytes)
    }

    /// An attribute of a number, in the network's order.
    pub fn number(&mut self, kind: u16, value: u32) -> Option<()> {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// What was written.
    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// A message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// What it says.
    pub kind: u16,
    /// The number of the message it answers.
    pub sequence: u32,
    /// The socket whose message caused it.
    pub port: u32,
    /// Everything behind its header.
    pub body: &'a [u8],
}

/// The messages of a datagram, as far as they can be read.
pub fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = number32(rest, 0)? as usize;
        let body = rest.get(HEADER_BYTES..length)?;
        let message =
            Message { kind: number16(rest, 4)?, sequence: number32(rest, 8)?, port: number32(rest, 12)?, body };
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Kind and value of each attribute, as far as they can be read.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(number16(rest, 0)?);
        let value = rest.get(ATTRIBUTE_BYTES..length)?;
        let kind = number16(rest, 2)? & !NESTED;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The value of the first attribute of that kind.
pub fn attribute(bytes: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

/// Two bytes in the machine's order.
pub fn number16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// Four bytes in the machine's order.
pub fn number32(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Opens a socket in the network namespace of the calling thread. It hears what the kernel tells the `groups`.
pub fn open(protocol: SockProtocol, flags: SockFlag, groups: u32) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags | SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// What the kernel calls a socket: messages caused through it say so.
pub fn port(socket: &OwnedFd) -> io::Result<u32> {
    Ok(getsockname::<NetlinkAddr>(socket.as_raw_fd())?.pid())
}

/// A socket that hears of changes.
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
}

impl Listener {
    /// Listens from now on; the kernel keeps up to `buffer_bytes` for us.
    pub fn listen(protocol: SockProtocol, groups: u32, buffer_bytes: usize) -> io::Result<Listener> {
        let socket = open(protocol, SockFlag::SOCK_NONBLOCK, groups)?;
        // Who administrates only a user namespace keeps to the machine's limit.
        setsockopt(&socket, sockopt::RcvBufForce, &buffer_bytes)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &buffer_bytes))?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe for descriptors that can be exchanged; this one is owned"
        )]
        Ok(Listener { socket: AsyncFd::with_interest(socket, Interest::READABLE)? })
    }

    /// Waits until something was said, and hands all of it to `each`: a burst is one change. Nothing stands for what
    /// was lost.
    pub async fn drain(&self, mut each: impl FnMut(Option<&[u8]>)) -> io::Result<()> {
        let mut datagram = vec![0; DATAGRAM_BYTES];
        let mut ready = self.socket.readable().await?;
        for _ in 0..BURST_MAX {
            match ready.try_io(|fd| Ok(recv(fd.as_raw_fd(), &mut datagram, MsgFlags::empty())?)) {
                Ok(Ok(length)) => each(Some(&datagram[..length])),
                Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
                Ok(Err(error)) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => each(None),
                Ok(Err(error)) => return Err(error),
                Err(_) => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_a_piece_of_it_is_no_error() {
        let mut writer = Writer::default();
        for sequence in [7, 8] {
            let message = writer.message(0xa06, 0x400, sequence, &[2, 0, 0, 0]);
            writer.text(1, "coracle").unwrap();
            let nested = writer.nest(4);
            writer.number(2, 80).unwrap();
            writer.end(nested).unwrap();
            writer.end_message(message).unwrap();
        }
        let bytes = writer.finish();
        let read: Vec<Message<'_>> = messages(&bytes).collect();
        assert_eq!(read.iter().map(|m| (m.kind, m.sequence)).collect::<Vec<_>>(), [(0xa06, 7), (0xa06, 8)]);
        let body = &read[1].body[4..];
        assert_eq!(attribute(body, 1), Some(&b"coracle\0"[..]));
        assert_eq!(attribute(attribute(body, 4).unwrap(), 2), Some(&[0, 0, 0, 80][..]));
        for length in 0..bytes.len() {
            assert!(messages(&bytes[..length]).count() < 2, "a piece");
            attributes(&bytes[..length]).for_each(drop);
        }
        assert_eq!(messages(&[0; 64]).count(), 0, "nonsense ends");
    }

    #[test]
    fn what_is_too_long_is_not_written() {
        let mut writer = Writer::default();
        assert_eq!(writer.bytes(1, &[0; 70_000]), None);
        let nested = writer.nest(4);
        writer.bytes(1, &[0; 40_000]).unwrap();
        writer.bytes(1, &[0; 40_000]).unwrap();
        assert_eq!(writer.end(nested), None);
    }
}
