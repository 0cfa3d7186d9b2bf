//! nf_tables, spoken to directly: a script is one message to the kernel, which does all of it or nothing.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, SockProtocol, getsockopt, recv, send, setsockopt, sockopt};

use crate::SinkError;
use crate::command::MESSAGE_CHARS_MAX;
use crate::compile::compile;
use crate::netlink;

/// What errors call it.
const NAME: &str = "nf_tables";
/// `NLMSG_ERROR`.
const ERROR: u16 = 2;
/// Enough of an error to see what it is and of which message; the rest is that message itself.
const ERROR_BYTES: usize = 64;
/// What the kernel adds when it counts a message.
const OVERHEAD_BYTES: usize = 4096;

/// A socket for transactions.
#[derive(Clone, Debug)]
pub struct Tables {
    socket: Arc<OwnedFd>,
    port: u32,
}

impl Tables {
    /// Opens it, in the network namespace of the calling thread.
    pub fn open() -> Result<Tables, SinkError> {
        let opened = netlink::open(SockProtocol::NetlinkNetFilter, SockFlag::empty(), 0);
        let opened = opened.and_then(|socket| Ok(Tables { port: netlink::port(&socket)?, socket: Arc::new(socket) }));
        opened.map_err(failed)
    }

    /// By this the kernel tells others whose transactions these are.
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Runs a script as one transaction.
    pub async fn run(&self, script: String) -> Result<(), SinkError> {
        let socket = self.socket.clone();
        // The kernel works while we send: a fifth of a second for 5,000 services.
        let sent = tokio::task::spawn_blocking(move || transact(&socket, &script)).await;
        sent.unwrap_or_else(|error| Err(failed(io::Error::other(error))))
    }
}

fn failed(source: io::Error) -> SinkError {
    SinkError::Io { program: NAME.to_owned(), source }
}

fn refused(message: &str) -> SinkError {
    SinkError::Failed { program: NAME.to_owned(), message: message.chars().take(MESSAGE_CHARS_MAX).collect() }
}

fn transact(socket: &OwnedFd, script: &str) -> Result<(), SinkError> {
    let bytes = compile(script).map_err(|line| refused(&format!("cannot be said: {line}")))?;
    let room = bytes.len() + OVERHEAD_BYTES;
    if room_of(socket)? < room {
        let forced = setsockopt(socket, sockopt::SndBufForce, &room);
        // Who administrates only a user namespace keeps to the machine's limit; what is too long for it is not sent.
        forced.or_else(|_| setsockopt(socket, sockopt::SndBuf, &room)).map_err(|error| failed(error.into()))?;
    }
    send(socket.as_raw_fd(), &bytes, MsgFlags::empty()).map_err(|error| failed(error.into()))?;
    // It is done by now, or was not: what there is to say has been said.
    match first_error(socket)? {
        None => Ok(()),
        Some((line, error)) => {
            let named = line.checked_sub(1).and_then(|line| script.lines().nth(line));
            let named = match named {
                // A commit that fails is answered as its first message.
                Some(first) if line == 1 => format!("the transaction, or in it: {first}"),
                Some(line) => line.to_owned(),
                None => "the transaction".to_owned(),
            };
            Err(refused(&format!("{error}: {named}")))
        }
    }
}

fn room_of(socket: &OwnedFd) -> Result<usize, SinkError> {
    getsockopt(socket, sockopt::SndBuf).map_err(|error| failed(error.into()))
}

/// Reads all errors; returns the first, with the number of the message it is about.
fn first_error(socket: &OwnedFd) -> Result<Option<(usize, io::Error)>, SinkError> {
    let (mut first, mut lost) = (None, None);
    let mut answer = [0; ERROR_BYTES];
    loop {
        let length = match recv(socket.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => length,
            Err(Errno::EAGAIN) => return Ok(first.or(lost)),
            Err(Errno::EINTR) => continue,
            // There were more errors than fit. It is said before those that did, and none may be left for the next one.
            Err(Errno::ENOBUFS) => {
                lost = Some((0, Errno::ENOBUFS.into()));
                continue;
            }
            Err(error) => return Err(failed(error.into())),
        };
        first = first.or_else(|| error_in(&answer[..length]));
    }
}

/// The error in an answer, which may be cut off: `struct nlmsgerr`.
fn error_in(answer: &[u8]) -> Option<(usize, io::Error)> {
    let sequence = netlink::number32(answer, 8)? as usize;
    let code = i32::from_ne_bytes(answer.get(16..20)?.try_into().ok()?);
    let is_error = netlink::number16(answer, 4)? == ERROR && code != 0;
    is_error.then(|| (sequence, io::Error::from_raw_os_error(-code)))
}
