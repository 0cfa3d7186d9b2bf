//! SCTP by sockets, and by hand where the kernel has no such sockets: connection tracking knows the protocol all the same.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// `IPPROTO_SCTP`.
const SCTP: i32 = 132;
/// `INIT` and `INIT ACK`.
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const PATIENCE: Duration = Duration::from_secs(5);

/// A listening socket, where the kernel has such.
pub(crate) fn listen(port: u16) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(SCTP)))?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
    socket.listen(1)?;
    Ok(socket)
}

/// Says one thing to the first who comes.
pub(crate) fn accept_and_say(listener: &Socket, word: &[u8]) {
    listener.accept().unwrap().0.write_all(word).unwrap();
}

/// What is said at `address`.
pub(crate) fn connect_and_hear(address: &str) -> Vec<u8> {
    let mut socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::from(SCTP))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.connect_timeout(&address.parse::<SocketAddr>().unwrap().into(), PATIENCE).unwrap();
    let mut word = vec![0; 4];
    socket.read_exact(&mut word).unwrap();
    word
}

/// A socket for whole packets.
pub(crate) fn raw() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(SCTP))).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// The first packet of an association.
pub(crate) fn send_init(socket: &Socket, to: &str, from_port: u16, to_port: u16) {
    send(socket, to, &packet(INIT, from_port, to_port, 0));
}

/// The answer to it.
pub(crate) fn send_init_ack(socket: &Socket, to: &str, from_port: u16, to_port: u16) {
    send(socket, to, &packet(INIT_ACK, from_port, to_port, TAG));
}

/// Where the next packet came from, and its ports.
pub(crate) fn hear(socket: &Socket) -> (String, u16, u16) {
    let mut packet = [0; 256];
    let mut reader: &Socket = socket;
    assert!(reader.read(&mut packet).unwrap() >= 32, "an IPv4 header and an SCTP header");
    let header = usize::from(packet[0] & 0xf) * 4;
    let port = |at: usize| u16::from_be_bytes([packet[header + at], packet[header + at + 1]]);
    let from = Ipv4Addr::new(packet[12], packet[13], packet[14], packet[15]);
    (from.to_string(), port(0), port(2))
}

/// What one side of the association wants to see in the other's packets.
const TAG: u32 = 7;

fn send(socket: &Socket, to: &str, packet: &[u8]) {
    socket.send_to(packet, &SocketAddr::from((to.parse::<Ipv4Addr>().unwrap(), 0)).into()).unwrap();
}

/// A packet with one chunk (RFC 9260, 3.3.2).
fn packet(chunk: u8, from_port: u16, to_port: u16, tag: u32) -> Vec<u8> {
    let mut packet = [from_port.to_be_bytes(), to_port.to_be_bytes()].concat();
    packet.extend(tag.to_be_bytes());
    packet.extend([0; 4]);
    packet.extend([chunk, 0, 0, 20]);
    packet.extend(TAG.to_be_bytes());
    packet.extend([0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1]);
    let checksum = crc32c(&packet).to_le_bytes();
    packet[8..12].copy_from_slice(&checksum);
    packet
}

/// Castagnoli's, as in every SCTP packet.
fn crc32c(bytes: &[u8]) -> u32 {
    let bit = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| bit(crc)))
}
