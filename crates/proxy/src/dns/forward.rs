//! Names outside the cluster: asked of the machine's own servers, each once at a time, and kept.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use client::Tasks;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RecordType};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::cache::{Cache, Key};
use super::upstreams::Upstreams;
use super::wire::{PAYLOAD_MAX, own_edns};

/// How long one server is waited for.
const TRY_TIMEOUT: Duration = Duration::from_millis(1500);
/// How long all of them are: a client's resolver waits five seconds.
const TIMEOUT: Duration = Duration::from_millis(4500);
/// How often the servers are gone through.
const ROUNDS: usize = 2;
/// Questions on their way at a time, each with a socket of its own.
const QUESTIONS_MAX: usize = 256;

type Outcome = Option<Arc<Message>>;
type Pending = Shared<BoxFuture<'static, Outcome>>;

/// Asks others.
pub struct Forwarder {
    upstreams: Upstreams,
    cache: Mutex<Cache>,
    pending: Mutex<HashMap<Key, Pending>>,
    /// Which server answered last: it is asked first.
    preferred: AtomicUsize,
    tasks: Tasks,
}

impl Forwarder {
    /// Asks `upstreams`; what it starts ends with `tasks`.
    pub fn new(upstreams: Upstreams, tasks: &Tasks) -> Arc<Forwarder> {
        let forwarder = Forwarder {
            upstreams,
            cache: Mutex::default(),
            pending: Mutex::default(),
            preferred: AtomicUsize::new(0),
            tasks: tasks.clone(),
        };
        Arc::new(forwarder)
    }

    /// Whether a question that came in is one of ours, led back to us by a server.
    pub fn came_back(&self, query: &Query) -> bool {
        query.query_type == RecordType::HINFO && self.upstreams.came_back(&query.name)
    }

    /// What is known already.
    pub fn known(&self, key: &Key) -> Option<Message> {
        self.cache.lock().get(key, Instant::now())
    }

    /// The answer of others; nothing where nobody answers.
    pub async fn ask(self: &Arc<Self>, key: Key) -> Option<Message> {
        if let Some(known) = self.known(&key) {
            return Some(known);
        }
        let pending = self.pending(key)?;
        pending.await.map(|message| Message::clone(&message))
    }

    /// The question on its way, which others may be waiting for as well; none where too many are.
    fn pending(self: &Arc<Self>, key: Key) -> Option<Pending> {
        let mut pending = self.pending.lock();
        if let Some(asked) = pending.get(&key) {
            return Some(asked.clone());
        }
        if pending.len() >= QUESTIONS_MAX {
            return None;
        }
        let (forwarder, question) = (self.clone(), key.clone());
        let asked = async move {
            let answer = tokio::time::timeout(TIMEOUT, forwarder.go_round(&question)).await.ok().flatten();
            if let Some(message) = &answer {
                forwarder.cache.lock().put(question.clone(), message, Instant::now());
            }
            forwarder.pending.lock().remove(&question);
            answer.map(Arc::new)
        };
        let asked = asked.boxed().shared();
        // On a task of its own: it goes on, and is taken off the list, whoever stops waiting.
        self.tasks.spawn(asked.clone().map(drop));
        pending.insert(key, asked.clone());
        Some(asked)
    }

    /// Asks one server after another until one has an answer; a failure of theirs is the answer where all fail.
    async fn go_round(self: &Arc<Self>, key: &Key) -> Option<Message> {
        let look = self.upstreams.look();
        for (server, name) in look.probes {
            self.tasks.spawn(probe(server, name));
        }
        let count = look.servers.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failure = None;
        for i in 0..count * ROUNDS {
            let at = (first + i) % count;
            match exchange(look.servers[at], key).await {
                Ok(answer) if is_answer(&answer) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return Some(answer);
                }
                Ok(answer) => failure = Some(answer),
                Err(error) => tracing::debug!(server = %look.servers[at], %error, name = %key.name, "no answer"),
            }
        }
        failure
    }
}

/// Whether the server knows: another may, where it does not.
fn is_answer(message: &Message) -> bool {
    !matches!(message.metadata.response_code, ResponseCode::ServFail | ResponseCode::Refused | ResponseCode::NotImp)
}

/// Asks a server for a name of our own making: if it comes back to us, the two of us would ask each other for ever.
async fn probe(server: SocketAddr, name: Name) {
    let key = Key { name, wanted: RecordType::HINFO, dnssec_ok: false, checking_disabled: false };
    // What it answers does not matter.
    let _ = exchange(server, &key).await;
}

/// Asks one server, and again in the words of 1987 where it does not understand newer ones (RFC 6891, 7).
async fn exchange(server: SocketAddr, key: &Key) -> io::Result<Message> {
    let answer = ask(server, key, Some(own_edns(key.dnssec_ok))).await?;
    match answer.metadata.response_code {
        ResponseCode::FormErr | ResponseCode::NotImp if answer.edns.is_none() => ask(server, key, None).await,
        _ => Ok(answer),
    }
}

/// Asks one server, over TCP where a datagram does not hold the answer.
async fn ask(server: SocketAddr, key: &Key, edns: Option<Edns>) -> io::Result<Message> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.metadata.checking_disabled = key.checking_disabled;
    message.add_query(Query::query(key.name.clone(), key.wanted));
    message.edns = edns;
    let bytes = message.to_vec().map_err(io::Error::other)?;
    let answer = tokio::time::timeout(TRY_TIMEOUT, over_udp(server, &message, &bytes)).await??;
    if !answer.metadata.truncation {
        return Ok(answer);
    }
    tokio::time::timeout(TRY_TIMEOUT, over_tcp(server, &message, &bytes)).await?
}

/// Every question from a socket, a port and a number of its own: a stranger would have to guess all of them.
async fn over_udp(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = [0; PAYLOAD_MAX as usize + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) if answers(&answer, question) => return Ok(answer),
            // Not what we asked, or damaged: the true one may still come.
            _ => tracing::debug!(%server, "a datagram that is no answer to our question"),
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &Message, bytes: &[u8]) -> io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let mut answer = vec![0; usize::from(stream.read_u16().await?)];
    stream.read_exact(&mut answer).await?;
    let answer = Message::from_vec(&answer).map_err(io::Error::other)?;
    if answers(&answer, question) { Ok(answer) } else { Err(io::Error::other("the answer to another question")) }
}

fn answers(answer: &Message, question: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && (answer.queries == question.queries
            || answer.queries.is_empty() && answer.metadata.response_code != ResponseCode::NoError)
}
