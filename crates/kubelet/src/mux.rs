//! Several streams over one connection: what SPDY and the channels of a WebSocket have in common, as those see it who
//! serve the streams. The connection's own future reads and writes; readers and writers are ends of bounded queues to
//! it, so whoever does not consume holds the connection back, and a connection that does not drain holds its writers.

use bytes::Bytes;
use tokio::sync::mpsc;

/// Pieces of data that wait to be written, over all streams of a connection.
pub(crate) const MAX_OUTGOING: usize = 16;
/// Pieces of data of one stream that wait to be consumed.
pub(crate) const MAX_INCOMING: usize = 8;
/// How long a connection is kept open for the peer to read the last words and close it.
pub(crate) const LINGER: std::time::Duration = std::time::Duration::from_secs(2);

/// The connection has ended, or the peer reset the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the client is gone")]
pub(crate) struct Gone;

/// What is to be written.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// Data of a stream.
    Data(u32, Bytes),
    /// The last of a stream.
    Finish(u32),
    /// A stream is given up in both directions.
    Reset(u32),
}

/// What the peer sends on one stream; ends where the peer ends it, or the connection ends.
pub(crate) type Reader = mpsc::Receiver<Bytes>;

/// What the peer is sent on one stream.
#[derive(Clone, Debug)]
pub(crate) struct Writer {
    id: u32,
    queue: mpsc::Sender<Outgoing>,
}

impl Writer {
    pub(crate) fn new(id: u32, queue: mpsc::Sender<Outgoing>) -> Writer {
        Writer { id, queue }
    }

    /// Sends `bytes`; waits while the connection does not drain.
    pub(crate) async fn send(&self, bytes: Bytes) -> Result<(), Gone> {
        self.queue.send(Outgoing::Data(self.id, bytes)).await.map_err(|_| Gone)
    }

    /// Says that no more comes.
    pub(crate) async fn finish(self) -> Result<(), Gone> {
        self.queue.send(Outgoing::Finish(self.id)).await.map_err(|_| Gone)
    }

    /// Gives the stream up.
    pub(crate) async fn reset(self) -> Result<(), Gone> {
        self.queue.send(Outgoing::Reset(self.id)).await.map_err(|_| Gone)
    }
}
