//! WebSockets that carry streams: as channels, where the first byte of each message is the number of its stream
//! (`k8s.io/streaming/pkg/httpstream/wsstream`), or as a tunnel for another protocol's bytes (KEP-4006).

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes, BytesMut};
use futures::sink::Sink;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt, ready};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};

use super::upgrade::Io;
use crate::mux::{LINGER, MAX_INCOMING, MAX_OUTGOING, Outgoing, Reader, Writer};

/// The largest message, as upstream's server has it.
const MAX_MESSAGE_BYTES: usize = 32 << 20;
/// `v5.channel.k8s.io`: the channel whose messages name a channel of which no more comes.
const CLOSE_CHANNEL: u8 = 255;

async fn accept(io: Io) -> WebSocketStream<Io> {
    let config = WebSocketConfig::default().max_message_size(Some(MAX_MESSAGE_BYTES));
    let config = config.max_frame_size(Some(MAX_MESSAGE_BYTES));
    WebSocketStream::from_raw_socket(io, Role::Server, Some(config)).await
}

/// How channels are spelt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Form {
    /// Text messages: the channel as a digit, then base64.
    base64: bool,
    /// Channels can be closed one by one.
    close: bool,
}

impl Form {
    /// From a protocol's name.
    pub(super) fn of(protocol: &str) -> Form {
        Form { base64: protocol.contains("base64"), close: protocol.starts_with("v5.") }
    }

    fn decode(self, message: Bytes) -> Option<(u8, Bytes)> {
        let (channel, data) = (*message.first()?, message.slice(1..));
        if !self.base64 {
            return Some((channel, data));
        }
        Some((channel.checked_sub(b'0')?, STANDARD.decode(&data).ok()?.into()))
    }

    fn encode(self, channel: u32, data: &[u8]) -> Message {
        let channel = u8::try_from(channel).expect("we open a few channels only");
        if self.base64 {
            return Message::text(format!("{}{}", char::from(b'0' + channel), STANDARD.encode(data)));
        }
        let mut message = BytesMut::with_capacity(1 + data.len());
        message.put_u8(channel);
        message.extend_from_slice(data);
        Message::Binary(message.freeze())
    }
}

/// The channels of one connection: readers of those the client writes, and writers for any.
pub(super) struct Channels {
    readers: HashMap<u8, Reader>,
    outgoing: mpsc::Sender<Outgoing>,
}

impl Channels {
    /// What the client sends on a channel; it can be taken once.
    pub(super) fn reader(&mut self, channel: u8) -> Option<Reader> {
        self.readers.remove(&channel)
    }

    /// What the client is sent on a channel.
    pub(super) fn writer(&self, channel: u8) -> Writer {
        Writer::new(channel.into(), self.outgoing.clone())
    }
}

/// Channels over a connection, of which the client writes `written`, and the future that must run for anything to happen.
/// It ends when the client is gone; or when every writer is gone, all was sent and the client has closed, too.
pub(super) fn channels(io: Io, form: Form, written: &[u8]) -> (Channels, impl Future<Output = ()> + Send + use<>) {
    let (outgoing, queue) = mpsc::channel(MAX_OUTGOING);
    let (mut readers, mut open) = (HashMap::new(), HashMap::new());
    for channel in written {
        let (sender, reader) = mpsc::channel(MAX_INCOMING);
        readers.insert(*channel, reader);
        open.insert(*channel, sender);
    }
    let run = async move {
        let (mut sink, mut stream) = accept(io).await.split();
        tokio::select! {
            () = read(&mut stream, form, open) => return,
            written = write(&mut sink, form, queue) => if written.is_err() { return },
        }
        let Ok(mut socket) = sink.reunite(stream) else { return };
        // Clients that only look at the socket see the end, too. A reset would take from them what is still under way, so
        // what they send is read until they close.
        let ending = async {
            let _ = socket.get_mut().shutdown().await;
            while matches!(socket.next().await, Some(Ok(_))) {}
        };
        let _ = tokio::time::timeout(LINGER, ending).await;
    };
    (Channels { readers, outgoing }, run)
}

async fn read(stream: &mut SplitStream<WebSocketStream<Io>>, form: Form, mut open: HashMap<u8, mpsc::Sender<Bytes>>) {
    while let Some(Ok(message)) = stream.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Close(_) => return,
            _ => continue,
        };
        match form.decode(bytes) {
            Some((CLOSE_CHANNEL, named)) if form.close => {
                named.first().map(|channel| open.remove(channel));
            }
            Some((channel, data)) if !data.is_empty() => {
                if let Some(sender) = open.get(&channel) {
                    // Nobody reads it any more: it is thrown away.
                    let _ = sender.send(data).await;
                }
            }
            _ => {}
        }
    }
}

async fn write(
    sink: &mut SplitSink<WebSocketStream<Io>, Message>,
    form: Form,
    mut queue: mpsc::Receiver<Outgoing>,
) -> Result<(), Error> {
    while let Some(outgoing) = queue.recv().await {
        // The ends of single channels cannot be told in these protocols.
        if let Outgoing::Data(channel, data) = outgoing {
            sink.feed(form.encode(channel, &data)).await?;
        }
        if queue.is_empty() {
            sink.flush().await?;
        }
    }
    sink.send(normal_close()).await
}

/// Clients take any other code, and none, for a failure.
fn normal_close() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() }))
}

/// The two halves of a byte stream whose bytes travel in binary messages.
pub(super) async fn tunnel(io: Io) -> (impl AsyncRead + Send, impl AsyncWrite + Send) {
    let (sink, stream) = accept(io).await.split();
    let bytes = stream.filter_map(async |message| match message {
        Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
        Ok(_) => None,
        Err(error) => Some(Err(io::Error::other(error))),
    });
    let writer = SinkWriter::new(CopyToBytes::new(Tunnel { sink, closing: false }));
    (StreamReader::new(Box::pin(bytes)), writer)
}

/// Bytes as binary messages; closed with the code for an end that was meant.
struct Tunnel {
    sink: SplitSink<WebSocketStream<Io>, Message>,
    closing: bool,
}

impl Sink<Bytes> for Tunnel {
    type Error = io::Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sink.poll_ready_unpin(cx).map_err(io::Error::other)
    }

    fn start_send(mut self: Pin<&mut Self>, bytes: Bytes) -> io::Result<()> {
        self.sink.start_send_unpin(Message::Binary(bytes)).map_err(io::Error::other)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.sink.poll_flush_unpin(cx).map_err(io::Error::other)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closing {
            ready!(self.sink.poll_ready_unpin(cx)).map_err(io::Error::other)?;
            self.sink.start_send_unpin(normal_close()).map_err(io::Error::other)?;
            self.closing = true;
        }
        self.sink.poll_flush_unpin(cx).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_their_channel_in_either_form() {
        let binary = Form::of("v5.channel.k8s.io");
        assert_eq!(binary.encode(1, b"hi").into_data(), &b"\x01hi"[..]);
        assert_eq!(binary.decode(Bytes::from_static(b"\x00ls")), Some((0, Bytes::from_static(b"ls"))));
        assert_eq!(binary.decode(Bytes::new()), None);
        let text = Form::of("v4.base64.channel.k8s.io");
        assert_eq!(text.encode(1, b"hi"), Message::text("1aGk="));
        assert_eq!(text.decode(Bytes::from_static(b"0bHM=")), Some((0, Bytes::from_static(b"ls"))));
        assert_eq!(text.decode(Bytes::from_static(b"0!")), None);
        assert!(binary.close && !text.close);
    }
}
