//! Between the streams of a client and those of a process or a port.

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::mux::{Gone, Reader, Writer};
use crate::runtime::{self, Connection, Output, Process, Session, TerminalSize};

/// The most bytes a size may take on the resize stream.
const MAX_SIZE_BYTES: usize = 1024;
/// What is read from a port at once.
const READ_BYTES: usize = 32 << 10;

/// The streams of a client, as far as it has them.
#[derive(Default)]
pub(super) struct Streams {
    pub(super) stdin: Option<Reader>,
    pub(super) stdout: Option<Writer>,
    pub(super) stderr: Option<Writer>,
    pub(super) error: Option<Writer>,
    pub(super) resize: Option<Reader>,
}

/// Runs `session` while its connection stands, and the connection to its end once the session is over.
pub(super) async fn beside(connection: impl Future<Output = ()>, session: impl Future<Output = ()>) {
    tokio::pin!(connection);
    tokio::select! {
        () = &mut connection => return,
        () = session => {}
    }
    connection.await;
}

/// Carries the streams of a process until it ends; gives its exit code.
pub(super) async fn process(session: Session, streams: Streams) -> Result<runtime::Result<i64>, Gone> {
    let Session { stdin, mut output, process } = session;
    let input = async {
        tokio::join!(feed(streams.stdin, stdin), resize(streams.resize, &*process));
        std::future::pending::<()>().await;
    };
    let (stdout, stderr) = (streams.stdout, streams.stderr);
    let printed = async {
        while let Some(piece) = output.next().await {
            let (writer, bytes) = match piece {
                Ok(Output::Stdout(bytes)) => (&stdout, bytes),
                Ok(Output::Stderr(bytes)) => (&stderr, bytes),
                Err(error) => return Ok(Err(error)),
            };
            if let Some(writer) = writer {
                writer.send(bytes).await?;
            }
        }
        Ok(process.wait().await)
    };
    let result = tokio::select! {
        result = printed => result?,
        () = input => return Err(Gone),
    };
    for writer in [stdout, stderr].into_iter().flatten() {
        writer.finish().await?;
    }
    Ok(result)
}

/// Gives a process its input. What it does not take is thrown away, so that the connection goes on.
async fn feed(reader: Option<Reader>, stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    let (Some(mut reader), Some(mut stdin)) = (reader, stdin) else { return };
    let mut takes = true;
    while let Some(bytes) = reader.recv().await {
        takes = takes && stdin.write_all(&bytes).await.is_ok() && stdin.flush().await.is_ok();
    }
    let _ = stdin.shutdown().await;
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Size {
    width: u16,
    height: u16,
}

/// Follows the size of the client's terminal.
async fn resize(reader: Option<Reader>, process: &dyn Process) {
    let Some(mut reader) = reader else { return };
    let mut sizes = Sizes::default();
    while let Some(bytes) = reader.recv().await {
        for size in sizes.push(&bytes) {
            if let Err(error) = process.resize(size).await {
                tracing::debug!(%error, "cannot resize a terminal");
            }
        }
    }
}

/// JSON objects one after the other, however they were cut.
#[derive(Default)]
struct Sizes(Vec<u8>);

impl Sizes {
    fn push(&mut self, bytes: &Bytes) -> Vec<TerminalSize> {
        self.0.extend_from_slice(bytes);
        let mut stream = serde_json::Deserializer::from_slice(&self.0).into_iter::<Size>();
        let mut sizes = Vec::new();
        let broken = loop {
            match stream.next() {
                Some(Ok(Size { width, height })) => sizes.push(TerminalSize { width, height }),
                Some(Err(error)) => break !error.is_eof(),
                None => break false,
            }
        };
        let consumed = stream.byte_offset();
        self.0.drain(..consumed);
        if broken || self.0.len() > MAX_SIZE_BYTES {
            self.0.clear();
        }
        sizes
    }
}

/// When a connection to a port is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// When both directions have ended.
    Apart,
    /// When the pod has ended its own: the protocol has no way to say more.
    Together,
}

/// Carries bytes both ways between a client and a port.
pub(super) async fn port(connection: Connection, reader: Reader, writer: Writer, ends: Ends) -> std::io::Result<()> {
    let (from, to) = tokio::io::split(connection);
    let (inward, outward) = (inward(reader, to), outward(from, writer));
    if ends == Ends::Together {
        return tokio::select! {
            result = outward => result,
            // Input that was refused shows in the output, too.
            () = async { let _ = inward.await; std::future::pending().await } => Ok(()),
        };
    }
    // Whatever the pod said before it stopped listening is still passed on.
    let (inward, outward) = tokio::join!(inward, outward);
    outward.and(match inward {
        Err(error) if is_hang_up(&error) => Ok(()),
        inward => inward,
    })
}

fn is_hang_up(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

/// From the client to the pod. What the pod does not take is thrown away, so that the client's other streams go on.
async fn inward(mut reader: Reader, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut result = Ok(());
    while let Some(bytes) = reader.recv().await {
        if result.is_ok() {
            result = async {
                to.write_all(&bytes).await?;
                to.flush().await
            }
            .await;
        }
    }
    result.and(to.shutdown().await)
}

/// From the pod to the client.
async fn outward(mut from: impl AsyncRead + Unpin, writer: Writer) -> std::io::Result<()> {
    let gone = |Gone| std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    loop {
        let mut bytes = BytesMut::with_capacity(READ_BYTES);
        if from.read_buf(&mut bytes).await? == 0 {
            return writer.finish().await.map_err(gone);
        }
        writer.send(bytes.freeze()).await.map_err(gone)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_however_they_were_cut() {
        let text = "{\"Width\":80,\"Height\":24}\n{\"Width\":100,\"Height\":40}\n";
        for piece in 1..text.len() {
            let mut sizes = Sizes::default();
            let pieces = text.as_bytes().chunks(piece);
            let found: Vec<TerminalSize> = pieces.flat_map(|p| sizes.push(&Bytes::copy_from_slice(p))).collect();
            let expected = [TerminalSize { width: 80, height: 24 }, TerminalSize { width: 100, height: 40 }];
            assert_eq!(found, expected, "pieces of {piece}");
        }
    }

    #[test]
    fn nonsense_is_dropped_and_later_sizes_are_read() {
        let mut sizes = Sizes::default();
        assert!(sizes.push(&Bytes::from_static(b"{\"Width\":\"wide\"}")).is_empty());
        assert!(sizes.push(&Bytes::from(vec![b' '; 4000])).is_empty());
        assert_eq!(sizes.push(&Bytes::from_static(b"{\"Width\":1,\"Height\":2}")).len(), 1);
    }
}
