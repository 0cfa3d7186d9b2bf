//! Servers of other names, for the tests of those who ask them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hickory_proto::op::{Message, MessageType, ResponseCode};
use hickory_proto::rr::rdata::{A, SOA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use parking_lot::Mutex;

/// A server for `example.org`. Its threads end with the test's process.
pub(crate) struct Upstream {
    asked: Arc<Mutex<BTreeMap<String, u32>>>,
}

impl Upstream {
    /// Starts one in the namespace of the calling thread.
    pub(crate) fn start() -> Upstream {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 53));
        let (udp, tcp) = (UdpSocket::bind(any).unwrap(), TcpListener::bind(any).unwrap());
        let upstream = Upstream { asked: Arc::default() };
        let asked = upstream.asked.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, peer)) = udp.recv_from(&mut buffer) {
                let question = Message::from_vec(&buffer[..length]).unwrap();
                *asked.lock().entry(question.queries[0].name.to_string()).or_default() += 1;
                let mut answer = answer(&question);
                if answer.answers.len() > 10 {
                    answer = answer.truncate();
                }
                let _ = udp.send_to(&answer.to_vec().unwrap(), peer);
            }
        });
        std::thread::spawn(move || {
            for mut stream in tcp.incoming().map_while(Result::ok) {
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut bytes).unwrap();
                let answer = answer(&Message::from_vec(&bytes).unwrap()).to_vec().unwrap();
                let length = u16::try_from(answer.len()).unwrap().to_be_bytes();
                stream.write_all(&[&length, answer.as_slice()].concat()).unwrap();
            }
        });
        upstream
    }

    /// How often it was asked for a name by datagram.
    pub(crate) fn asked(&self, name: &str) -> u32 {
        self.asked.lock().get(name).copied().unwrap_or_default()
    }
}

fn answer(question: &Message) -> Message {
    let mut answer = question.clone();
    answer.metadata.message_type = MessageType::Response;
    answer.metadata.recursion_available = true;
    let query = question.queries[0].clone();
    let address = |i| Record::from_rdata(query.name.clone(), 60, RData::A(A::new(192, 0, 2, i)));
    match query.name.to_string().as_str() {
        "www.example.org." if query.query_type == RecordType::A => answer.answers.push(address(80)),
        "big.example.org." => answer.answers.extend((1..=60).map(address)),
        "old.example.org." if question.edns.is_some() => {
            answer.metadata.response_code = ResponseCode::FormErr;
            answer.edns = None;
        }
        "old.example.org." => answer.answers.push(address(81)),
        "failing.example.org." => answer.metadata.response_code = ResponseCode::ServFail,
        _ => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            let name = |text| Name::from_ascii(text).unwrap();
            let soa = SOA::new(name("ns.example.org."), name("root.example.org."), 1, 1, 1, 1, 30);
            answer.authorities.push(Record::from_rdata(name("example.org."), 30, RData::SOA(soa)));
        }
    }
    answer
}

/// A server that asks another whatever it is asked.
pub(crate) struct Relay {
    asked: Arc<AtomicU32>,
}

impl Relay {
    /// How often it was asked.
    pub(crate) fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// Starts a relay at `ip`, in the namespace of the calling thread, that asks `target`.
pub(crate) fn relay(ip: &str, target: Ipv4Addr) -> Relay {
    let socket = Arc::new(UdpSocket::bind((ip, 53)).unwrap());
    let relay = Relay { asked: Arc::default() };
    let asked = relay.asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            asked.fetch_add(1, Ordering::SeqCst);
            let (question, socket) = (buffer[..length].to_vec(), socket.clone());
            // Threads inherit the namespace.
            std::thread::spawn(move || {
                let way = UdpSocket::bind("0.0.0.0:0").unwrap();
                way.set_read_timeout(Some(std::time::Duration::from_secs(5))).unwrap();
                way.send_to(&question, (target, 53)).unwrap();
                let mut answer = [0; 4096];
                if let Ok(length) = way.recv(&mut answer) {
                    let _ = socket.send_to(&answer[..length], peer);
                }
            });
        }
    });
    relay
}
