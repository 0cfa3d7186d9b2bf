//! Streams over a connection: one future that reads and writes, to be run beside whoever serves the streams.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::frame::{Decoder, Encoder, Frame, status};
use super::headers::Headers;
use crate::mux::{LINGER, MAX_INCOMING, MAX_OUTGOING, Outgoing, Reader, Writer};

/// Streams the peer may have open at a time; more are refused. A port-forward takes two for each connection.
const MAX_STREAMS: usize = 2048;
/// Streams that wait to be taken.
const MAX_WAITING: usize = 64;
/// Answers (to pings, to new streams) that wait to be written; a peer that asks for more without reading is cut off.
const MAX_ANSWERS: usize = 4096;
/// What is read at once.
const READ_BYTES: usize = 32 << 10;
/// A stream's receive window is topped up after so much of it was used (SPDY/3.1 starts with 64 KiB).
const WINDOW_STEP: u32 = 32 << 10;

/// A stream the peer opened, accepted.
pub(crate) struct Stream {
    /// Its number.
    pub(crate) id: u32,
    /// What it is for.
    pub(crate) headers: Headers,
    /// What the peer sends.
    pub(crate) reader: Reader,
    /// What the peer is sent.
    pub(crate) writer: Writer,
    /// Cancelled when the peer resets the stream.
    pub(crate) reset: CancellationToken,
}

/// Streams as the peer opens them. Once this and every writer is dropped, what was sent is flushed and the session ends.
pub(crate) struct Incoming {
    streams: mpsc::Receiver<Stream>,
    _outgoing: mpsc::Sender<Outgoing>,
}

impl Incoming {
    /// The next stream; `None` when the session has ended.
    pub(crate) async fn next(&mut self) -> Option<Stream> {
        self.streams.recv().await
    }
}

/// A session over the two halves of a connection: its streams, and the future that must run for anything to happen. The
/// future ends when the peer is gone, or when everything was sent that had to be and the peer has closed.
pub(crate) fn session(
    reader: impl AsyncRead + Send,
    writer: impl AsyncWrite + Send,
) -> (Incoming, impl Future<Output = ()> + Send) {
    let (outgoing, queue) = mpsc::channel(MAX_OUTGOING);
    let (answers, answer_queue) = mpsc::channel(MAX_ANSWERS);
    let (accepted, streams) = mpsc::channel(MAX_WAITING);
    let last = Arc::new(AtomicU32::new(0));
    let outgoing_again = outgoing.downgrade();
    let reading =
        Reading { answers, accepted, outgoing: outgoing_again, open: HashMap::new(), window: 0, last: last.clone() };
    let run = async move {
        let reading = reading.run(reader);
        tokio::pin!(reading);
        tokio::select! {
            () = &mut reading => return,
            written = write(writer, queue, answer_queue, &last) => if written.is_err() { return },
        }
        // Only the peer knows when it has read everything.
        let _ = tokio::time::timeout(LINGER, reading).await;
    };
    (Incoming { streams, _outgoing: outgoing }, run)
}

/// A stream in the direction from the peer.
struct Open {
    queue: mpsc::Sender<Bytes>,
    reset: CancellationToken,
    window: u32,
}

struct Reading {
    answers: mpsc::Sender<Frame>,
    accepted: mpsc::Sender<Stream>,
    outgoing: mpsc::WeakSender<Outgoing>,
    open: HashMap<u32, Open>,
    window: u32,
    last: Arc<AtomicU32>,
}

/// The peer asks and does not read the answers.
struct Flooded;

impl Reading {
    async fn run(mut self, reader: impl AsyncRead) {
        tokio::pin!(reader);
        let mut decoder = Decoder::new();
        loop {
            match decoder.next() {
                Ok(Some(frame)) => match self.handle(frame).await {
                    Ok(()) => {}
                    Err(Flooded) => return tracing::debug!("a SPDY peer does not read what it asks for"),
                },
                Ok(None) => {
                    let buffer = decoder.buffer();
                    buffer.reserve(READ_BYTES);
                    if !matches!(reader.read_buf(buffer).await, Ok(1..)) {
                        return;
                    }
                }
                Err(error) => return tracing::debug!(%error, "a SPDY session ends"),
            }
        }
    }

    fn answer(&self, frame: Frame) -> Result<(), Flooded> {
        match self.answers.try_send(frame) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => Ok(()),
            Err(mpsc::error::TrySendError::Full(_)) => Err(Flooded),
        }
    }

    async fn handle(&mut self, frame: Frame) -> Result<(), Flooded> {
        match frame {
            Frame::SynStream { id, fin, unidirectional, headers } => {
                self.open_stream(id, fin, unidirectional, headers).await
            }
            Frame::Data { id, fin, bytes } => self.data(id, fin, bytes).await,
            Frame::Headers { id, fin: true, .. } => self.data(id, true, Bytes::new()).await,
            Frame::Reset { id, .. } => {
                if let Some(open) = self.open.remove(&id) {
                    open.reset.cancel();
                }
                Ok(())
            }
            // Even ids are those of our own pings, of which there are none.
            Frame::Ping { id } if !id.is_multiple_of(2) => self.answer(Frame::Ping { id }),
            Frame::SynReply { .. }
            | Frame::Settings
            | Frame::Ping { .. }
            | Frame::GoAway { .. }
            | Frame::Headers { .. }
            | Frame::WindowUpdate { .. }
            | Frame::Unknown { .. } => Ok(()),
        }
    }

    async fn open_stream(&mut self, id: u32, fin: bool, one_way: bool, headers: Headers) -> Result<(), Flooded> {
        if self.open.len() >= MAX_STREAMS {
            // Streams the peer left half open and nobody reads any more.
            self.open.retain(|_, open| !open.queue.is_closed());
        }
        if id.is_multiple_of(2) || self.open.contains_key(&id) {
            return self.answer(Frame::Reset { id, status: status::PROTOCOL_ERROR });
        }
        let Some(outgoing) = self.outgoing.upgrade().filter(|_| self.open.len() < MAX_STREAMS) else {
            return self.answer(Frame::Reset { id, status: status::REFUSED_STREAM });
        };
        self.last.fetch_max(id, Ordering::Relaxed);
        let (queue, reader) = mpsc::channel(MAX_INCOMING);
        let reset = CancellationToken::new();
        if !fin {
            self.open.insert(id, Open { queue, reset: reset.clone(), window: 0 });
        }
        if !one_way {
            self.answer(Frame::SynReply { id, fin: false, headers: Headers::default() })?;
        }
        let stream = Stream { id, headers, reader, writer: Writer::new(id, outgoing), reset };
        if self.accepted.send(stream).await.is_err() {
            self.open.remove(&id);
            return self.answer(Frame::Reset { id, status: status::REFUSED_STREAM });
        }
        Ok(())
    }

    /// Passes data on, as fast as it is consumed. Data for a stream nobody reads is thrown away.
    async fn data(&mut self, id: u32, fin: bool, bytes: Bytes) -> Result<(), Flooded> {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.window = self.window.saturating_add(length);
        if let Some(open) = self.open.get_mut(&id) {
            open.window = open.window.saturating_add(length);
            if !bytes.is_empty() {
                let _ = open.queue.send(bytes).await;
            }
            if fin {
                self.open.remove(&id);
            } else if open.window >= WINDOW_STEP {
                let delta = std::mem::take(&mut open.window);
                self.answer(Frame::WindowUpdate { id, delta })?;
            }
        }
        if self.window >= WINDOW_STEP {
            let delta = std::mem::take(&mut self.window);
            self.answer(Frame::WindowUpdate { id: 0, delta })?;
        }
        Ok(())
    }
}

/// Writes answers first, then data, until nobody is left who could have more; then says goodbye.
async fn write(
    writer: impl AsyncWrite,
    mut queue: mpsc::Receiver<Outgoing>,
    mut answers: mpsc::Receiver<Frame>,
    last_good: &AtomicU32,
) -> std::io::Result<()> {
    tokio::pin!(writer);
    let mut encoder = Encoder::new();
    let mut bytes = BytesMut::new();
    loop {
        let frame = tokio::select! {
            biased;
            Some(answer) = answers.recv() => Some(answer),
            outgoing = queue.recv() => outgoing.map(frame),
        };
        let last = frame.is_none();
        let goodbye = || Frame::GoAway { last_good: last_good.load(Ordering::Relaxed), status: 0 };
        encoder.encode(&frame.unwrap_or_else(goodbye), &mut bytes);
        writer.write_all_buf(&mut bytes).await?;
        if last || (queue.is_empty() && answers.is_empty()) {
            writer.flush().await?;
        }
        if last {
            return writer.shutdown().await;
        }
    }
}

fn frame(outgoing: Outgoing) -> Frame {
    match outgoing {
        Outgoing::Data(id, bytes) => Frame::Data { id, fin: false, bytes },
        Outgoing::Finish(id) => Frame::Data { id, fin: true, bytes: Bytes::new() },
        Outgoing::Reset(id) => Frame::Reset { id, status: status::CANCEL },
    }
}
