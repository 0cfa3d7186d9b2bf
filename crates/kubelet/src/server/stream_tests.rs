//! Exec, attach and port-forward as their clients see them, over real TLS, in every protocol.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request};
use http_body_util::{BodyExt, Empty};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::tests::{Node, node, node_with};
use crate::runtime::hollow::CLOSED_PORT;
use crate::spdy::frame::{Decoder, Encoder, Frame};
use crate::spdy::headers::Headers;

const PATIENCE: Duration = Duration::from_secs(20);

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("in time")
}

impl Node {
    /// Asks for an upgrade as the API server does.
    async fn ask(&self, path: &str, headers: &[(&str, &str)]) -> (u16, HeaderMap, Result<TokioIo<Upgraded>, String>) {
        let master = self.ca.sign("kube-apiserver-kubelet-client", api::well_known::GROUP_MASTERS);
        let stream = self.connect(Some(&master)).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::post(path).header("connection", "Upgrade");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = soon(sender.send_request(request.body(Empty::<Bytes>::new()).unwrap())).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let result = match status {
            101 => Ok(TokioIo::new(hyper::upgrade::on(response).await.unwrap())),
            _ => {
                let body = response.into_body().collect().await.unwrap().to_bytes();
                Err(String::from_utf8_lossy(&body).into_owned())
            }
        };
        (status, headers, result)
    }

    async fn spdy(&self, path: &str, protocol: &str) -> Spdy<TokioIo<Upgraded>> {
        let headers = [("upgrade", "SPDY/3.1"), ("x-stream-protocol-version", protocol)];
        let (_, answered, io) = self.ask(path, &headers).await;
        assert_eq!(answered.get("x-stream-protocol-version").map_or("", |v| v.to_str().unwrap()), protocol);
        Spdy { io: io.unwrap(), encoder: Encoder::new(), decoder: Decoder::new() }
    }

    async fn websocket(&self, path: &str, protocol: &str) -> WebSocketStream<TokioIo<Upgraded>> {
        let mut headers = vec![
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        headers.extend(Some(("sec-websocket-protocol", protocol)).filter(|_| !protocol.is_empty()));
        let (_, answered, io) = self.ask(path, &headers).await;
        assert_eq!(answered["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", "the example of RFC 6455");
        WebSocketStream::from_raw_socket(io.unwrap(), Role::Client, None).await
    }

    async fn stop(self) {
        soon(self.hollow.until_sessions(0)).await;
        assert!(self.tasks.stop(PATIENCE).await);
    }
}

/// A client's end of a SPDY session.
struct Spdy<T> {
    io: T,
    encoder: Encoder,
    decoder: Decoder,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Spdy<T> {
    async fn send(&mut self, frame: Frame) {
        let mut bytes = BytesMut::new();
        self.encoder.encode(&frame, &mut bytes);
        self.io.write_all(&bytes).await.unwrap();
        self.io.flush().await.unwrap();
    }

    async fn open(&mut self, id: u32, headers: &[(&str, &str)]) {
        let headers = Headers(headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect());
        self.send(Frame::SynStream { id, fin: false, unidirectional: false, headers }).await;
    }

    async fn data(&mut self, id: u32, bytes: &[u8], fin: bool) {
        self.send(Frame::Data { id, fin, bytes: Bytes::copy_from_slice(bytes) }).await;
    }

    async fn next(&mut self) -> Option<Frame> {
        self.read_frame().await.unwrap()
    }

    /// The same where a connection that breaks is one that ends.
    async fn next_if_any(&mut self) -> Option<Frame> {
        self.read_frame().await.ok().flatten()
    }

    async fn read_frame(&mut self) -> std::io::Result<Option<Frame>> {
        loop {
            if let Some(frame) = self.decoder.next().unwrap() {
                return Ok(Some(frame));
            }
            if soon(self.io.read_buf(self.decoder.buffer())).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// What comes on these streams until each has ended.
    async fn read(&mut self, ids: &[u32]) -> Vec<Vec<u8>> {
        let mut texts = vec![Vec::new(); ids.len()];
        let mut open = ids.len();
        while open > 0 {
            if let Frame::Data { id, fin, bytes } = self.next().await.expect("the session stands")
                && let Some(index) = ids.iter().position(|i| *i == id)
            {
                texts[index].extend_from_slice(&bytes);
                open -= usize::from(fin);
            }
        }
        texts
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The messages of each channel until the server closes, and the code it closes with.
async fn drain(socket: &mut WebSocketStream<TokioIo<Upgraded>>) -> (Vec<Vec<u8>>, u16) {
    let mut channels = vec![Vec::new(); 5];
    loop {
        match soon(socket.next()).await.expect("a close frame first").unwrap() {
            Message::Binary(bytes) => channels[bytes[0] as usize].extend_from_slice(&bytes[1..]),
            Message::Text(text) => {
                let bytes = text.as_bytes();
                channels[(bytes[0] - b'0') as usize].extend(STANDARD.decode(&bytes[1..]).unwrap());
            }
            Message::Close(frame) => return (channels, frame.map_or(1005, |frame| frame.code.into())),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_of_commands_are_told_in_every_protocol() {
    let node = node().await;
    let path = "/exec/ns/web/c?output=1&error=1&command=sh&command=-c&command=exit%203";
    for (protocol, expected) in [
        ("v4.channel.k8s.io", r#""message":"3""#),
        ("v2.channel.k8s.io", "command terminated with non-zero exit code: exit status 3"),
        ("", "command terminated"),
    ] {
        let mut spdy = node.spdy(path, protocol).await;
        for (id, name) in [(1, "error"), (3, "stdout"), (5, "stderr")] {
            spdy.open(id, &[("streamtype", name)]).await;
        }
        let told = text(&spdy.read(&[1, 3, 5]).await[0]);
        assert!(told.contains(expected), "{protocol}: {told}");
    }
    for (protocol, expected) in [
        ("v5.channel.k8s.io", r#""reason":"NonZeroExitCode""#),
        ("v4.channel.k8s.io", r#""message":"3""#),
        ("v4.base64.channel.k8s.io", r#""message":"3""#),
        ("base64.channel.k8s.io", "command terminated"),
        ("", "command terminated"),
    ] {
        let mut socket = node.websocket(path, protocol).await;
        let (channels, code) = drain(&mut socket).await;
        assert!(text(&channels[3]).contains(expected), "{protocol}: {}", text(&channels[3]));
        assert_eq!(code, 1000, "{protocol}: anything else is a failure to clients");
    }
    let mut socket = node.websocket("/exec/ns/web/u1/c?output=1&command=true", "v4.channel.k8s.io").await;
    assert_eq!(text(&drain(&mut socket).await.0[3]), r#"{"metadata":{},"status":"Success"}"#);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_in_comes_out_and_the_end_of_input_is_seen() {
    let node = node().await;
    let path = "/exec/ns/web/c?input=1&output=1&command=cat";
    let sent: Vec<u8> = (0..3_000_000_u32).map(|i| (i * 7 % 251) as u8).collect();

    let mut spdy = node.spdy(path, "v4.channel.k8s.io").await;
    for (id, name) in [(1, "error"), (3, "stdin"), (5, "stdout")] {
        spdy.open(id, &[("streamtype", name)]).await;
    }
    let (reader, writer) = tokio::io::split(spdy.io);
    let mut writing =
        Spdy { io: tokio::io::join(tokio::io::empty(), writer), encoder: spdy.encoder, decoder: Decoder::new() };
    let mut reading =
        Spdy { io: tokio::io::join(reader, tokio::io::sink()), encoder: Encoder::new(), decoder: spdy.decoder };
    let ((), received) = tokio::join!(writing.data(3, &sent, true), reading.read(&[1, 5]));
    assert!(received[1] == sent, "{} bytes of {}", received[1].len(), sent.len());
    assert_eq!(text(&received[0]), r#"{"metadata":{},"status":"Success"}"#);

    let socket = node.websocket(path, "v5.channel.k8s.io").await;
    let (mut sink, mut stream) = socket.split();
    let write = async {
        for piece in sent.chunks(30_000) {
            sink.send(Message::Binary([&[0], piece].concat().into())).await.unwrap();
        }
        sink.send(Message::Binary(Bytes::from_static(&[255, 0]))).await.unwrap();
    };
    let read = async {
        let mut received = Vec::new();
        while let Some(Ok(message)) = soon(stream.next()).await {
            if let Message::Binary(bytes) = message
                && bytes[0] == 1
            {
                received.extend_from_slice(&bytes[1..]);
            }
        }
        received
    };
    let ((), received) = tokio::join!(write, read);
    assert!(received == sent, "{} bytes of {}", received.len(), sent.len());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn terminals_have_one_output_and_follow_the_clients_size() {
    let node = node().await;
    let path = "/exec/ns/web/c?input=1&output=1&error=1&tty=1&command=stty&command=size";
    let size: &[u8] = br#"{"Width":101,"Height":42}"#;
    let mut socket = node.websocket(path, "v5.channel.k8s.io").await;
    socket.send(Message::Binary([&[4], size].concat().into())).await.unwrap();
    assert_eq!(text(&drain(&mut socket).await.0[1]), "42 101\n");
    let mut spdy = node.spdy(path, "v3.channel.k8s.io").await;
    for (id, name) in [(1, "error"), (3, "stdin"), (5, "stdout"), (7, "resize")] {
        spdy.open(id, &[("streamtype", name)]).await;
    }
    spdy.data(7, size, false).await;
    assert_eq!(text(&spdy.read(&[1, 5]).await[1]), "42 101\n");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attached_clients_come_and_go_and_the_container_stays() {
    let node = node().await;
    let path = "/attach/ns/web/c?input=1&output=1";
    let mut socket = node.websocket(path, "v4.channel.k8s.io").await;
    socket.send(Message::Binary(Bytes::from_static(b"\0hello"))).await.unwrap();
    let mut echoed = Vec::new();
    while echoed.len() < 5 {
        let Message::Binary(bytes) = soon(socket.next()).await.unwrap().unwrap() else { continue };
        echoed.extend_from_slice(&bytes[1..]);
    }
    assert_eq!(echoed, b"hello");
    drop(socket);
    soon(node.hollow.until_sessions(0)).await;
    assert_eq!(node.hollow.running(), 1);
    let mut socket = node.websocket(path, "v4.channel.k8s.io").await;
    assert!(node.hollow.exit("ns", "web", "c", 0));
    assert_eq!(drain(&mut socket).await.1, 1000, "it ends with the container");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_vanish_take_their_commands_and_connections_with_them() {
    let node = node().await;
    let command = "/exec/ns/web/c?output=1&command=sleep&command=100000";
    let socket = node.websocket(command, "v5.channel.k8s.io").await;
    let mut spdy = node.spdy(command, "v4.channel.k8s.io").await;
    for (id, name) in [(1, "error"), (3, "stdout")] {
        spdy.open(id, &[("streamtype", name)]).await;
    }
    let mut forward = node.spdy("/portForward/ns/web", "portforward.k8s.io").await;
    for (id, half) in [(1, "error"), (3, "data")] {
        forward.open(id, &[("streamtype", half), ("port", "80"), ("requestid", "0")]).await;
    }
    soon(node.hollow.until_sessions(3)).await;
    forward.send(Frame::Reset { id: 3, status: 5 }).await;
    soon(node.hollow.until_sessions(2)).await;
    drop(socket);
    soon(node.hollow.until_sessions(1)).await;
    drop(spdy);
    soon(node.hollow.until_sessions(0)).await;
    // The server's end is the end of its sessions.
    let _socket = node.websocket(command, "v5.channel.k8s.io").await;
    soon(node.hollow.until_sessions(1)).await;
    assert!(node.tasks.stop(PATIENCE).await);
    soon(node.hollow.until_sessions(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_without_traffic_end_in_every_protocol() {
    let node = node_with(|config| config.streaming_idle_timeout = Duration::from_secs(2)).await;
    let command = "/exec/ns/web/c?input=1&output=1&command=sleep&command=100000";
    let websockets = [
        (command, "v5.channel.k8s.io"),
        ("/attach/ns/web/c?input=1&output=1", "v4.base64.channel.k8s.io"),
        ("/portForward/ns/web", "SPDY/3.1+portforward.k8s.io"),
        ("/portForward/ns/web?port=80", "v4.channel.k8s.io"),
    ];
    let websockets = websockets.map(async |(path, protocol)| {
        let mut socket = node.websocket(path, protocol).await;
        while matches!(soon(socket.next()).await, Some(Ok(_))) {}
    });
    let sessions = [
        (command, "v4.channel.k8s.io", &["error", "stdin", "stdout"][..]),
        ("/attach/ns/web/c?output=1", "v4.channel.k8s.io", &["error", "stdout"]),
        ("/portForward/ns/web", "portforward.k8s.io", &["error", "data"]),
    ];
    let sessions = sessions.map(async |(path, protocol, streams)| {
        let mut spdy = node.spdy(path, protocol).await;
        for (id, name) in (1..).step_by(2).zip(streams) {
            spdy.open(id, &[("streamtype", name), ("port", "80"), ("requestid", "0")]).await;
        }
        while spdy.next_if_any().await.is_some() {}
    });
    tokio::join!(futures::future::join_all(websockets), futures::future::join_all(sessions));
    assert_eq!(node.hollow.running(), 1, "the container stays");
    node.stop().await;
}

/// A connection through streams 1 + 2n (error) and 3 + 2n (data): what is sent comes back after the half-close.
async fn forward(
    spdy: &mut Spdy<impl AsyncRead + AsyncWrite + Unpin>,
    first: u32,
    port: u16,
    sent: &[u8],
) -> (String, Vec<u8>) {
    let (port, number) = (port.to_string(), first.to_string());
    for (id, half) in [(first, "error"), (first + 2, "data")] {
        spdy.open(id, &[("streamtype", half), ("port", &port), ("requestid", &number)]).await;
    }
    spdy.data(first, b"", true).await;
    spdy.data(first + 2, sent, true).await;
    let mut received = spdy.read(&[first, first + 2]).await;
    (text(&received[0]), received.remove(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_over_spdy_raw_and_in_a_websocket() {
    let node = node().await;
    let mut spdy = node.spdy("/portForward/ns/web", "portforward.k8s.io").await;
    assert_eq!(forward(&mut spdy, 1, 80, b"hello").await, (String::new(), b"hello".to_vec()));
    let (error, data) = forward(&mut spdy, 5, CLOSED_PORT, b"hello").await;
    assert!(error.starts_with("error forwarding port 1 to pod web_ns(u1), uid u1: "), "{error}");
    assert_eq!(data, b"");
    assert_eq!(forward(&mut spdy, 9, 80, &[7; 30_000]).await.1.len(), 30_000, "others go on");
    spdy.send(Frame::Ping { id: 1 }).await;
    assert_eq!(spdy.next().await, Some(Frame::Ping { id: 1 }));
    spdy.open(13, &[("streamtype", "nonsense")]).await;
    let reset = |frame: &Frame| matches!(frame, Frame::Reset { id: 13, .. });
    while !reset(&spdy.next().await.unwrap()) {}

    let socket = node.websocket("/portForward/ns/web", "SPDY/3.1+portforward.k8s.io").await;
    let (near, far) = tokio::io::duplex(1 << 16);
    let carrying = tokio::spawn(carry(socket, far));
    let mut tunnelled = Spdy { io: near, encoder: Encoder::new(), decoder: Decoder::new() };
    assert_eq!(forward(&mut tunnelled, 1, 80, b"hello").await, (String::new(), b"hello".to_vec()));
    drop((spdy, tunnelled));
    carrying.await.unwrap();
    node.stop().await;
}

/// Bytes as binary messages, both ways, until the near end is dropped.
async fn carry(socket: WebSocketStream<TokioIo<Upgraded>>, far: tokio::io::DuplexStream) {
    let (mut sink, mut stream) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(far);
    let inward = async {
        while let Some(Ok(Message::Binary(bytes))) = stream.next().await {
            writer.write_all(&bytes).await.unwrap();
        }
    };
    let outward = async {
        let mut bytes = BytesMut::new();
        while reader.read_buf(&mut bytes).await.unwrap() > 0 {
            sink.send(Message::Binary(bytes.split().freeze())).await.unwrap();
        }
    };
    tokio::select! { () = inward => {}, () = outward => {} }
}

#[tokio::test(flavor = "multi_thread")]
async fn ports_are_forwarded_over_channels() {
    let node = node().await;
    let mut socket = node.websocket("/portForward/ns/web?port=80&port=1", "v4.channel.k8s.io").await;
    socket.send(Message::Binary(Bytes::from_static(b"\0hello"))).await.unwrap();
    let mut channels = vec![Vec::new(); 4];
    while channels[0].len() < 7 || channels[3].len() < 3 {
        let Message::Binary(bytes) = soon(socket.next()).await.unwrap().unwrap() else { continue };
        channels[bytes[0] as usize].extend_from_slice(&bytes[1..]);
    }
    assert_eq!(channels[0], b"\x50\0hello", "the port first");
    assert_eq!((&channels[1][..], &channels[2][..]), (&b"\x50\0"[..], &b"\x01\0"[..]));
    assert!(text(&channels[3][2..]).starts_with("error forwarding port 1 to pod"));
    drop(socket);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_had_is_refused_before_the_upgrade() {
    let node = node().await;
    let spdy = ("upgrade", "SPDY/3.1");
    for (path, headers, status, message) in [
        ("/exec/ns/web/c?output=1&command=ls", vec![], 400, "Upgrade request required"),
        ("/exec/ns/web/c?output=1", vec![spdy], 400, "you must specify a command"),
        ("/exec/ns/web/c?command=ls", vec![spdy], 400, "you must specify at least 1 of stdin, stdout, stderr"),
        ("/exec/ns/none/c?output=1&command=ls", vec![spdy], 404, "pod \"none\" not found"),
        ("/exec/ns/web/u2/c?output=1&command=ls", vec![spdy], 404, "pod \"web\" not found"),
        ("/attach/ns/web/new?output=1", vec![spdy], 500, "container not found (\"new\")"),
        ("/portForward/ns/web", vec![spdy, ("x-stream-protocol-version", "v9")], 403, "unable to upgrade: "),
        (
            "/portForward/ns/web",
            vec![("upgrade", "websocket"), ("sec-websocket-protocol", "v4.channel.k8s.io")],
            400,
            "WebSocket version 13 is needed",
        ),
    ] {
        let (answered, _, result) = node.ask(path, &headers).await;
        let told = result.err().unwrap_or_default();
        assert!(answered == status && told.starts_with(message), "{path}: {answered} {told}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_answers_with_the_output() {
    let node = node().await;
    for (path, status, expected) in [
        ("/run/ns/web/c?cmd=echo%20hello%20you", 200, "hello you\n"),
        ("/run/ns/web/c?cmd=false", 500, "command 'false' exited with 1: "),
        ("/run/ns/web/c", 400, "you must specify cmd"),
    ] {
        let (answered, _, result) = node.ask(path, &[]).await;
        assert_eq!((answered, result.err().as_deref()), (status, Some(expected)), "{path}");
    }
    node.stop().await;
}
