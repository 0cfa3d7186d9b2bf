//! `/portForward`: connections to ports of a pod, over streams of one connection.
//!
//! With SPDY, raw or in a WebSocket (KEP-4006), a connection is a pair of streams, for data and for what went wrong, that
//! name the port and a number they share (`k8s.io/kubelet/pkg/cri/streaming/portforward/httpstream.go`). With channels
//! each port of the query has two, 2i and 2i+1, each beginning with the port (`…/portforward/websocket.go`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio_util::sync::CancellationToken;
use tokio_util::time::delay_queue::{DelayQueue, Key};

use super::find::{self, Refusal};
use super::pump::Ends;
use super::remote_command::Pairs;
use super::upgrade::{self, Io, Spoken, Transport, Upgrade};
use super::{Shared, pump, websocket};
use crate::mux::{Reader, Writer};
use crate::runtime::Runtime;
use crate::spdy::{self, Incoming, Stream};

/// SPDY inside a WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const SPOKEN: Spoken = Spoken {
    spdy: &["portforward.k8s.io", ""],
    websocket: &[TUNNEL, "v4.channel.k8s.io", "v4.base64.channel.k8s.io", ""],
};

/// How long the second stream of a pair may take to come.
const PAIR_LIMIT: Duration = Duration::from_secs(30);
/// Ports of one WebSocket: the numbers of their channels go into one character.
const MAX_PORTS: usize = 32;

/// What connections are made to.
#[derive(Clone)]
struct Pod {
    runtime: Arc<dyn Runtime>,
    sandbox: String,
    /// As messages name it.
    name: String,
}

pub(super) async fn port_forward(
    State(shared): State<Shared>,
    Path(target): Path<Vec<String>>,
    Query(query): Pairs,
    mut request: Request,
) -> Response {
    let prepared = async {
        let text = |index: usize| target.get(index).map_or("", String::as_str);
        let found = find::pod(&shared, text(0), text(1), target.get(2).map(String::as_str))?;
        let sandbox = find::sandbox(&shared, &found).await?;
        let name = format!("{}, uid {}", crate::pod::full_name(&found), crate::pod::uid(&found));
        let pod = Pod { runtime: shared.kubelet.runtime.clone(), sandbox, name };
        let upgrade = Upgrade::of(&mut request, &SPOKEN)?;
        let channels = upgrade.transport == Transport::WebSocket && upgrade.protocol != TUNNEL;
        let ports = if channels { ports(&query)? } else { Vec::new() };
        Ok((pod, upgrade, ports))
    };
    let (pod, upgrade, ports) = match prepared.await {
        Ok(prepared) => prepared,
        Err(refusal) => return upgrade::refuse(refusal, &SPOKEN),
    };
    let (transport, protocol) = (upgrade.transport, upgrade.protocol);
    upgrade.answer(&shared, async move |io| match (transport, protocol) {
        (Transport::Spdy, _) => {
            let (reader, writer) = tokio::io::split(io);
            let (incoming, connection) = spdy::session(reader, writer);
            pump::beside(connection, pairs(incoming, pod)).await;
        }
        (Transport::WebSocket, TUNNEL) => {
            let (reader, writer) = websocket::tunnel(io).await;
            let (incoming, connection) = spdy::session(reader, writer);
            pump::beside(connection, pairs(incoming, pod)).await;
        }
        (Transport::WebSocket, _) => over_channels(io, protocol, ports, pod).await,
    })
}

/// `port=80&port=443` or `port=80,443`, in upstream's API also `ports`.
fn ports(query: &[(String, String)]) -> Result<Vec<u16>, Refusal> {
    let wrong = |message: String| (StatusCode::BAD_REQUEST, message);
    let values = query.iter().filter(|(name, _)| name == "port" || name == "ports");
    let ports: Result<Vec<u16>, Refusal> = values.flat_map(|(_, value)| value.split(',')).map(parse).collect();
    match ports? {
        ports if ports.is_empty() => Err(wrong("query parameter \"port\" is required".to_owned())),
        ports if ports.len() > MAX_PORTS => Err(wrong(format!("at most {MAX_PORTS} ports can be forwarded at once"))),
        ports => Ok(ports),
    }
}

fn parse(text: &str) -> Result<u16, Refusal> {
    let port = text.trim().parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| (StatusCode::BAD_REQUEST, format!("port {text:?} is not between 1 and 65535")))
}

async fn over_channels(io: Io, protocol: &str, ports: Vec<u16>, pod: Pod) {
    let numbers = (0_u8..).step_by(2).take(ports.len());
    let written: Vec<u8> = numbers.clone().collect();
    let (mut channels, connection) = websocket::channels(io, websocket::Form::of(protocol), &written);
    let mut forwards = FuturesUnordered::new();
    for (number, port) in numbers.zip(ports) {
        let (data, error) = (channels.writer(number), channels.writer(number + 1));
        let Some(reader) = channels.reader(number) else { continue };
        let pod = pod.clone();
        forwards.push(async move {
            for writer in [&data, &error] {
                let _ = writer.send(Bytes::copy_from_slice(&port.to_le_bytes())).await;
            }
            let link = Link { reader, data, error, ends: Ends::Together };
            pod.forward(port, link, CancellationToken::new()).await;
        });
    }
    drop(channels);
    pump::beside(connection, async { while forwards.next().await.is_some() {} }).await;
}

/// The client's side of one connection to a port.
struct Link {
    reader: Reader,
    data: Writer,
    error: Writer,
    ends: Ends,
}

impl Pod {
    /// One connection, from its opening to its end.
    async fn forward(&self, port: u16, link: Link, reset: CancellationToken) {
        let Link { reader, data, error, ends } = link;
        let work = async {
            match self.runtime.connect(&self.sandbox, port).await {
                Ok(connection) => pump::port(connection, reader, data, ends).await.map_err(|error| error.to_string()),
                Err(refused) => {
                    let _ = data.finish().await;
                    Err(refused.to_string())
                }
            }
        };
        let result = tokio::select! {
            result = work => result,
            () = reset.cancelled() => Ok(()),
        };
        if let Err(why) = result {
            let message = format!("error forwarding port {port} to pod {}: {why}", self.name);
            tracing::debug!(message);
            let _ = error.send(message.into()).await;
        }
        let _ = error.finish().await;
    }
}

/// What a stream is one half of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Data,
    Error,
}

/// The half, the port and the number of the pair that a stream's headers name. Clients that give no number open the
/// error stream first, and the data stream next.
fn half(stream: &Stream) -> Result<(Half, u16, u32), String> {
    let header = |name: &str| stream.headers.get(name).unwrap_or_default();
    let half = match header("streamtype") {
        "data" => Half::Data,
        "error" => Half::Error,
        other => return Err(format!("invalid stream type {other:?}")),
    };
    let port = parse(header("port")).map_err(|(_, message)| message)?;
    let number = match (header("requestid"), half) {
        ("", Half::Error) => stream.id,
        ("", Half::Data) => stream.id.saturating_sub(2),
        (text, _) => text.parse().map_err(|_| format!("invalid request id {text:?}"))?,
    };
    Ok((half, port, number))
}

/// Streams whose other half has not come yet.
#[derive(Default)]
struct Waiting {
    streams: HashMap<u32, (Half, Stream, Key)>,
    overdue: DelayQueue<u32>,
}

impl Waiting {
    /// The data and the error stream, if `stream` is the second of them; else what is to be given up, if anything.
    fn pair(&mut self, number: u32, half: Half, stream: Stream) -> Result<(Stream, Stream), Option<Stream>> {
        let first = self.streams.remove(&number).map(|(half, first, key)| {
            self.overdue.remove(&key);
            (half, first)
        });
        match (half, first) {
            (Half::Data, Some((Half::Error, error))) => Ok((stream, error)),
            (Half::Error, Some((Half::Data, data))) => Ok((data, stream)),
            (_, twin) => {
                let key = self.overdue.insert(number, PAIR_LIMIT);
                self.streams.insert(number, (half, stream, key));
                Err(twin.map(|(_, twin)| twin))
            }
        }
    }

    /// A stream that has waited too long. Does not answer while none waits.
    async fn overdue(&mut self) -> Option<Stream> {
        match self.overdue.next().await {
            Some(number) => self.streams.remove(number.get_ref()).map(|(_, stream, _)| stream),
            None => std::future::pending().await,
        }
    }
}

/// Makes a connection for every pair of streams.
async fn pairs(mut incoming: Incoming, pod: Pod) {
    let mut waiting = Waiting::default();
    let mut forwards = FuturesUnordered::new();
    loop {
        let given_up = tokio::select! {
            stream = incoming.next() => {
                let Some(stream) = stream else { return };
                match half(&stream).map(|(half, port, number)| (port, number, half)) {
                    Ok((port, number, half)) => match waiting.pair(number, half, stream) {
                        Ok((data, error)) => {
                            let Stream { reader, writer, reset, .. } = data;
                            let link = Link { reader, data: writer, error: error.writer, ends: Ends::Apart };
                            forwards.push(pod.forward(port, link, reset));
                            None
                        }
                        Err(given_up) => given_up,
                    },
                    Err(why) => {
                        tracing::debug!(why, "a stream that is no half of a connection");
                        Some(stream)
                    }
                }
            }
            Some(()) = forwards.next() => None,
            overdue = waiting.overdue() => overdue,
        };
        if let Some(stream) = given_up {
            let _ = stream.writer.reset().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_in_either_spelling_and_wrong_ones_named() {
        let query = |text: &str| vec![("port".to_owned(), text.to_owned())];
        assert_eq!(ports(&query("80,443")).unwrap(), [80, 443]);
        assert_eq!(ports(&[query("80"), query("81")].concat()).unwrap(), [80, 81]);
        for wrong in ["0", "x", "70000", "80,", "80,-1"] {
            assert_eq!(ports(&query(wrong)).unwrap_err().0, StatusCode::BAD_REQUEST, "{wrong}");
        }
        assert!(ports(&[]).is_err());
    }
}
