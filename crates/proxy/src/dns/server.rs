//! The server: questions come in by datagram and stream, answers go out.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use client::Tasks;
use hickory_proto::op::{Message, Query, ResponseCode};
use hickory_proto::rr::Name;
use rand::seq::SliceRandom;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Semaphore, watch};

use super::answer::{Answer, Zone, answer, start_of_authority};
use super::cache::Key;
use super::forward::Forwarder;
use super::place::{Place, place};
use super::view::View;
use super::wire::{self, Request, Transport, failure};

/// The largest request by datagram.
const REQUEST_BYTES_MAX: usize = 4096;
/// Streams at a time; further ones wait to be accepted.
const STREAMS_MAX: usize = 128;
/// How long a stream may say nothing (RFC 7766 recommends some seconds).
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Requests that wait for others at a time, beyond which they are refused.
const WAITING_MAX: usize = 4096;
/// How often an alias in the cluster may lead to another.
const ALIASES_MAX: usize = 8;
/// Tasks that read datagrams.
const READERS: usize = 2;

/// What answers.
pub struct Server {
    /// The cluster's domain.
    pub zone: Zone,
    /// The cluster.
    pub view: Arc<dyn View>,
    /// Whether the view has been complete once.
    pub synced: watch::Receiver<bool>,
    /// The rest of the world.
    pub forwarder: Arc<Forwarder>,
    /// Bounds the requests that wait.
    waiting: Semaphore,
}

/// An answer, or the way to one.
enum Step {
    Done(Message),
    /// Only others know.
    Ask,
    /// These are aliases; what they stand for only others know.
    Chase(Message, Name),
}

impl Server {
    /// A server of `zone`.
    pub fn new(
        zone: Zone,
        view: Arc<dyn View>,
        synced: watch::Receiver<bool>,
        forwarder: Arc<Forwarder>,
    ) -> Arc<Server> {
        Arc::new(Server { zone, view, synced, forwarder, waiting: Semaphore::new(WAITING_MAX) })
    }

    /// Answers on these sockets until `tasks` stop.
    pub fn run(self: Arc<Self>, udp: UdpSocket, tcp: TcpListener, tasks: &Tasks) {
        let udp = Arc::new(udp);
        for _ in 0..READERS {
            tasks.spawn(self.clone().datagrams(udp.clone(), tasks.clone()));
        }
        tasks.spawn(self.streams(tcp, tasks.clone()));
    }

    async fn datagrams(self: Arc<Self>, socket: Arc<UdpSocket>, tasks: Tasks) {
        let mut buffer = vec![0; REQUEST_BYTES_MAX];
        loop {
            let (length, peer) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                // An earlier answer found its client gone: the kernel tells it here.
                Err(error) => {
                    tracing::debug!(%error, "receiving");
                    tokio::task::yield_now().await;
                    continue;
                }
            };
            let request = match wire::read(&buffer[..length]) {
                Ok(request) => request,
                Err(refusal) => {
                    send(&socket, peer, refusal.and_then(|m| wire::write(&m, None, Transport::Udp))).await;
                    continue;
                }
            };
            // What is known is answered here; nobody behind waits for what is not.
            match self.step(&request) {
                Step::Done(message) => {
                    send(&socket, peer, wire::write(&message, Some(&request.message), Transport::Udp)).await;
                }
                step => {
                    let (server, socket) = (self.clone(), socket.clone());
                    tasks.spawn(async move {
                        let message = server.finish(&request, step).await;
                        send(&socket, peer, wire::write(&message, Some(&request.message), Transport::Udp)).await;
                    });
                }
            }
        }
    }

    async fn streams(self: Arc<Self>, listener: TcpListener, tasks: Tasks) {
        let free = Arc::new(Semaphore::new(STREAMS_MAX));
        loop {
            // It is closed by nobody.
            let Ok(place) = free.clone().acquire_owned().await else { return };
            let accepted = listener.accept().await;
            let server = self.clone();
            match accepted {
                Ok((stream, _)) => tasks.spawn(async move {
                    if let Err(error) = server.stream(stream).await {
                        tracing::debug!(%error, "a stream ended");
                    }
                    drop(place);
                }),
                // Out of descriptors, or the client is gone again.
                Err(error) => {
                    tracing::debug!(%error, "accepting");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Answers one request after the other until the client has no more.
    async fn stream(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let request = tokio::time::timeout(IDLE_MAX, receive(&mut stream)).await??;
            let Some(bytes) = request else { return Ok(()) };
            let answer = match wire::read(&bytes) {
                Ok(request) => {
                    let step = self.step(&request);
                    wire::write(&self.finish(&request, step).await, Some(&request.message), Transport::Tcp)
                }
                Err(refusal) => refusal.and_then(|m| wire::write(&m, None, Transport::Tcp)),
            };
            let Some(answer) = answer else { return Ok(()) };
            let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
            let answer = [&length.to_be_bytes(), answer.as_slice()].concat();
            tokio::time::timeout(IDLE_MAX, stream.write_all(&answer)).await??;
        }
    }

    /// What can be said without asking anyone.
    fn step(&self, request: &Request) -> Step {
        let mut response = failure(&request.message, ResponseCode::NoError);
        let mut name = request.query.name.clone();
        for hop in 0..ALIASES_MAX {
            let synced = *self.synced.borrow();
            let found = answer(&name, request.query.query_type, &self.zone, self.view.as_ref());
            let is_address = || matches!(place(&name, &self.zone.domain), Place::Reverse(_));
            if !synced && (found.as_ref().is_some_and(|f| f.records.is_empty()) || (found.is_none() && is_address())) {
                // Not: there is no such name, nor: others know the address. We do not know yet.
                return Step::Done(failure(&request.message, ResponseCode::ServFail));
            }
            let Some(found) = found else {
                return if hop == 0 { self.outside(request) } else { Step::Chase(response, name) };
            };
            let next = found.chase.clone();
            add(&mut response, found, &self.zone);
            match next {
                Some(target) => name = target,
                None => return Step::Done(response),
            }
        }
        tracing::debug!(name = %request.query.name, "aliases without end");
        Step::Done(failure(&request.message, ResponseCode::ServFail))
    }

    fn outside(&self, request: &Request) -> Step {
        if self.forwarder.came_back(&request.query) {
            return Step::Done(failure(&request.message, ResponseCode::Refused));
        }
        match self.forwarder.known(&key(&request.message, &request.query)) {
            Some(known) => Step::Done(relay(&request.message, known)),
            None => Step::Ask,
        }
    }

    /// Asks whoever has to be asked.
    async fn finish(&self, request: &Request, step: Step) -> Message {
        let (begun, query) = match step {
            Step::Done(message) => return message,
            Step::Ask => (None, request.query.clone()),
            Step::Chase(begun, target) => (Some(begun), Query::query(target, request.query.query_type)),
        };
        let Ok(_place) = self.waiting.try_acquire() else { return failure(&request.message, ResponseCode::Refused) };
        let theirs = self.forwarder.ask(key(&request.message, &query)).await;
        match (theirs, begun) {
            (None, _) => failure(&request.message, ResponseCode::ServFail),
            (Some(theirs), None) => relay(&request.message, theirs),
            (Some(theirs), Some(mut begun)) => {
                begun.metadata.response_code = theirs.metadata.response_code;
                begun.answers.extend(theirs.answers);
                begun.authorities.extend(theirs.authorities);
                begun
            }
        }
    }
}

fn key(message: &Message, query: &Query) -> Key {
    Key {
        name: query.name.to_lowercase(),
        wanted: query.query_type,
        dnssec_ok: message.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
        checking_disabled: message.metadata.checking_disabled,
    }
}

/// Adds what the cluster knows to a response.
fn add(response: &mut Message, mut found: Answer, zone: &Zone) {
    response.metadata.authoritative = true;
    response.metadata.response_code = found.code;
    if found.records.is_empty() {
        response.add_authority(start_of_authority(zone));
    }
    // Clients take the first: every one of many shall be it at times.
    if found.records.len() > 1 {
        found.records.shuffle(&mut rand::rng());
    }
    response.answers.extend(found.records);
    response.additionals.extend(found.additionals);
}

/// An answer of others, as our response to `request`.
fn relay(request: &Message, theirs: Message) -> Message {
    let mut response = failure(request, theirs.metadata.response_code);
    response.metadata.authentic_data = theirs.metadata.authentic_data;
    response.answers = theirs.answers;
    response.authorities = theirs.authorities;
    response.additionals = theirs.additionals;
    response
}

async fn send(socket: &UdpSocket, peer: SocketAddr, bytes: Option<Vec<u8>>) {
    let Some(bytes) = bytes else { return };
    if let Err(error) = socket.send_to(&bytes, peer).await {
        tracing::debug!(%error, %peer, "an answer that could not be sent");
    }
}

/// One request of a stream; none where the client has closed it.
async fn receive(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

/// Sockets on `ip`, also before the machine has that address.
pub fn bind(ip: IpAddr, port: u16) -> io::Result<(UdpSocket, TcpListener)> {
    use socket2::{Domain, Protocol, Socket, Type};
    let address = SocketAddr::new(ip, port);
    let open = |kind, protocol| {
        let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
        socket.set_nonblocking(true)?;
        if address.is_ipv4() {
            socket.set_freebind_v4(true)?;
        }
        io::Result::Ok(socket)
    };
    let udp = open(Type::DGRAM, Protocol::UDP)?;
    udp.bind(&address.into())?;
    let tcp = open(Type::STREAM, Protocol::TCP)?;
    // Streams of the last life may still be closing; a datagram socket with this would let another server in.
    tcp.set_reuse_address(true)?;
    tcp.bind(&address.into())?;
    tcp.listen(i32::try_from(STREAMS_MAX).unwrap_or(i32::MAX))?;
    Ok((UdpSocket::from_std(udp.into())?, TcpListener::from_std(tcp.into())?))
}
