//! A watch read with as little work as possible: a thousand of these share the processors with what they measure. One task,
//! no copies but TLS's own, one buffer for all watches of a thread.

use std::cell::RefCell;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use anyhow::{Result, ensure};
use flate2::{Decompress, FlushDecompress};
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

const BUFFER_BYTES: usize = 64 << 10;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_BYTES].into());
    static INFLATED: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER_BYTES].into());
}

/// What a watcher says it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Accepts {
    /// The object's JSON.
    Plain,
    /// The same, compressed, as Go's HTTP client asks for unless told not to.
    Gzip,
    /// Compressed, decrypted and counted, but not looked into: what is shown is what came.
    GzipUnread,
}

/// An open watch.
pub(crate) struct Stream {
    tls: TlsStream<TcpStream>,
    state: State,
    gzip: Option<Decompress>,
}

/// Where in an answer in chunks (RFC 9112, section 7.1) the next byte is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the head: how much of the empty line that ends it was seen.
    Head(usize),
    /// In a chunk's size.
    Size(usize),
    /// In a chunk, with so much to come.
    Data(usize),
    /// Behind a chunk.
    DataEnd,
}

impl Stream {
    /// Asks for `path`.
    pub(crate) async fn open(
        mut tls: TlsStream<TcpStream>,
        path: &str,
        authorization: Option<&str>,
        accepts: Accepts,
    ) -> Result<Stream> {
        let mut headers = authorization.map(|value| format!("authorization: {value}\r\n")).unwrap_or_default();
        let gzip = (accepts == Accepts::Gzip).then(|| Decompress::new_gzip(15));
        if accepts != Accepts::Plain {
            headers.push_str("accept-encoding: gzip\r\n");
        }
        tls.write_all(format!("GET {path} HTTP/1.1\r\nhost: bench\r\n{headers}\r\n").as_bytes()).await?;
        tls.flush().await?;
        let mut stream = Stream { tls, state: State::Head(0), gzip };
        // Until it is watched: nothing has happened yet that could be shown.
        while matches!(stream.state, State::Head(_)) && stream.read(|_| ()).await? {}
        Ok(stream)
    }

    /// Reads what is there, once there is something, and shows what belongs to the body; false at the end.
    pub(crate) async fn read(&mut self, mut show: impl FnMut(&[u8])) -> Result<bool> {
        std::future::poll_fn(|cx| self.poll_read(cx, &mut show)).await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, show: &mut impl FnMut(&[u8])) -> Poll<Result<bool>> {
        BUFFER.with_borrow_mut(|buffer| {
            let mut buffer = ReadBuf::new(buffer);
            ready!(Pin::new(&mut self.tls).poll_read(cx, &mut buffer))?;
            let mut rest = buffer.filled();
            if self.state == State::Head(0) {
                ensure_success(rest)?;
            }
            let more = !rest.is_empty();
            let mut failed = None;
            while !rest.is_empty() {
                rest = self.state.step(rest, &mut |data| match &mut self.gzip {
                    None => show(data),
                    Some(gzip) => failed = failed.take().or(inflate(gzip, data, show).err()),
                });
            }
            Poll::Ready(failed.map_or(Ok(more), Err))
        })
    }
}

fn inflate(gzip: &mut Decompress, mut data: &[u8], show: &mut impl FnMut(&[u8])) -> Result<()> {
    INFLATED.with_borrow_mut(|buffer| {
        loop {
            let (read, written) = (gzip.total_in(), gzip.total_out());
            gzip.decompress(data, buffer, FlushDecompress::None)?;
            data = &data[usize::try_from(gzip.total_in() - read)?..];
            let written = usize::try_from(gzip.total_out() - written)?;
            show(&buffer[..written]);
            if data.is_empty() && written < buffer.len() {
                return Ok(());
            }
        }
    })
}

fn ensure_success(head: &[u8]) -> Result<()> {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    ensure!(line.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(line));
    Ok(())
}

impl State {
    /// Takes some bytes, shows them if they are of the body, and leaves the rest.
    fn step<'a>(&mut self, bytes: &'a [u8], show: &mut impl FnMut(&[u8])) -> &'a [u8] {
        const HEAD_END: &[u8] = b"\r\n\r\n";
        *self = match *self {
            State::Data(left) => {
                let (data, rest) = bytes.split_at(left.min(bytes.len()));
                show(data);
                *self = if left > data.len() { State::Data(left - data.len()) } else { State::DataEnd };
                return rest;
            }
            State::Head(seen) if bytes[0] != HEAD_END[seen] => State::Head(usize::from(bytes[0] == HEAD_END[0])),
            State::Head(seen) if seen + 1 == HEAD_END.len() => State::Size(0),
            State::Head(seen) => State::Head(seen + 1),
            State::Size(size) => match char::from(bytes[0]).to_digit(16) {
                Some(digit) => State::Size(size * 16 + digit as usize),
                None if bytes[0] == b'\n' => State::Data(size),
                None => State::Size(size),
            },
            State::DataEnd if bytes[0] == b'\n' => State::Size(0),
            State::DataEnd => State::DataEnd,
        };
        &bytes[1..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_is_found_however_the_answer_is_cut() {
        let answer =
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n1a\r\nabcdefghijklmnopqrstuvwxy\n\r\n";
        for cut in 0..answer.len() {
            let (mut state, mut body) = (State::Head(0), Vec::new());
            for mut part in [&answer[..cut], &answer[cut..]] {
                while !part.is_empty() {
                    part = state.step(part, &mut |data: &[u8]| body.extend_from_slice(data));
                }
            }
            assert_eq!(body, b"helloabcdefghijklmnopqrstuvwxy\n", "cut at {cut}");
        }
    }
}
