//! What the kernel says about routes, links, addresses and neighbours (rtnetlink multicast), so that paths that someone
//! flushed are known at once and nobody has to look.

use std::net::Ipv4Addr;

use nix::sys::socket::SockProtocol;

use crate::netlink::{Listener, Message, attribute, messages, number16, number32};
use crate::overlay::DEVICE;
use crate::routes::PROTOCOL_NUMBER;

/// `RTMGRP_LINK`, `RTMGRP_NEIGH`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE` of `linux/rtnetlink.h`.
const GROUPS: u32 = 0x1 | 0x4 | ADDRESSES | 0x40;
const ADDRESSES: u32 = 0x10;
/// `RTM_…` of `linux/rtnetlink.h`.
const NEW_LINK: u16 = 16;
const DEL_LINK: u16 = 17;
const NEW_ADDRESS: u16 = 20;
const DEL_ADDRESS: u16 = 21;
const NEW_ROUTE: u16 = 24;
const DEL_ROUTE: u16 = 25;
const DEL_NEIGHBOUR: u16 = 29;
/// `RT_TABLE_MAIN`.
const MAIN_TABLE: u8 = 254;
/// `NUD_PERMANENT`.
const PERMANENT: u16 = 0x80;
/// `NUD_FAILED`: what the kernel makes of a neighbour before it deletes it for somebody.
const FAILED: u16 = 0x20;
/// `NTF_SELF`: an entry of the device itself, as VXLAN's are, not of a bridge it is a port of.
const OF_ITSELF: u8 = 0x2;
/// `AF_INET`.
const INET: u8 = 2;
/// `IFLA_IFNAME`.
const NAME: u16 = 3;
/// `IFA_LOCAL`.
const LOCAL: u16 = 2;
/// How the interfaces of containers are called by Docker: they come and go and carry no path of ours.
const CONTAINERS: &str = "veth";

/// What the kernel keeps for us until we read it: its default.
const BUFFER_BYTES: usize = 208 << 10;

/// A socket that hears of changes.
pub struct Notices {
    listener: Listener,
}

impl Notices {
    /// Listens from now on, in the network namespace of the calling thread.
    pub fn listen() -> std::io::Result<Notices> {
        Ok(Notices { listener: Listener::listen(SockProtocol::NetlinkRoute, GROUPS, BUFFER_BYTES)? })
    }

    /// Resolves when someone else may have changed what paths are made of.
    pub async fn changed(&self) -> std::io::Result<()> {
        let mut found = false;
        while !found {
            self.listener.drain(|datagram| found |= datagram.is_none_or(|d| matters(d, overlay_index))).await?;
        }
        Ok(())
    }
}

/// Hears of addresses that go.
pub struct Addresses {
    listener: Listener,
}

impl Addresses {
    /// Listens from now on, in the network namespace of the calling thread.
    pub fn listen() -> std::io::Result<Addresses> {
        Ok(Addresses { listener: Listener::listen(SockProtocol::NetlinkRoute, ADDRESSES, BUFFER_BYTES)? })
    }

    /// Resolves when `ip` may have been taken away.
    pub async fn lost(&self, ip: Ipv4Addr) -> std::io::Result<()> {
        let mut found = false;
        while !found {
            self.listener.drain(|datagram| found |= datagram.is_none_or(|d| is_loss(d, ip))).await?;
        }
        Ok(())
    }
}

fn is_loss(datagram: &[u8], ip: Ipv4Addr) -> bool {
    // struct ifaddrmsg, then attributes.
    let is_it =
        |m: Message<'_>| m.body.get(8..).and_then(|attributes| attribute(attributes, LOCAL)) == Some(&ip.octets()[..]);
    messages(datagram).filter(|m| m.kind == DEL_ADDRESS).any(is_it)
}

fn overlay_index() -> Option<u32> {
    nix::net::if_::if_nametoindex(DEVICE).ok()
}

/// Whether a message of the datagram is about something paths are made of and was not caused by putting them there.
/// `overlay` is asked for the index of the overlay's device, where that decides.
fn matters(datagram: &[u8], overlay: fn() -> Option<u32>) -> bool {
    messages(datagram).any(|message| message_matters(message.kind, message.body, overlay))
}

fn message_matters(kind: u16, body: &[u8], overlay: fn() -> Option<u32>) -> bool {
    let byte = |at: usize| body.get(at).copied().unwrap_or_default();
    match kind {
        // struct rtmsg: family, lengths, tos, table, protocol.
        NEW_ROUTE => byte(4) == MAIN_TABLE && byte(5) != PROTOCOL_NUMBER,
        DEL_ROUTE => byte(4) == MAIN_TABLE,
        // struct ifinfomsg, then attributes. Bridges speak of their ports as of family AF_BRIDGE.
        NEW_LINK | DEL_LINK => byte(0) == 0 && !name(body.get(16..).unwrap_or_default()).starts_with(CONTAINERS),
        NEW_ADDRESS | DEL_ADDRESS => true,
        // struct ndmsg: family, ifindex, state, flags. Others are forgotten all the time.
        DEL_NEIGHBOUR => {
            let state = number16(body, 8).unwrap_or_default();
            let ours = byte(0) == INET || byte(10) & OF_ITSELF != 0;
            let deleted = || state & FAILED != 0 && byte(0) == INET && number32(body, 4) == overlay();
            (state & PERMANENT != 0 && ours) || deleted()
        }
        _ => false,
    }
}

/// The interface's name among a message's attributes.
fn name(attributes: &[u8]) -> String {
    let name = attribute(attributes, NAME).unwrap_or_default();
    String::from_utf8_lossy(name).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_BYTES: usize = 16;

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = HEADER_BYTES + body.len();
        let mut bytes = u32::try_from(length).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(body);
        bytes.resize(length.next_multiple_of(4), 0);
        bytes
    }

    fn route(table: u8, protocol: u8) -> Vec<u8> {
        vec![INET, 24, 0, 0, table, protocol, 0, 1, 0, 0, 0, 0]
    }

    fn link(family: u8, name: &str) -> Vec<u8> {
        let mut body = vec![0; 16];
        body[0] = family;
        // Another attribute first.
        body.extend([8, 0, 4, 0, 0xdc, 5, 0, 0]);
        body.extend(u16::try_from(5 + name.len()).unwrap().to_ne_bytes());
        body.extend(NAME.to_ne_bytes());
        body.extend(name.as_bytes());
        body.push(0);
        body
    }

    fn neighbour(family: u8, state: u16, flags: u8) -> Vec<u8> {
        neighbour_on(7, family, state, flags)
    }

    fn neighbour_on(index: u32, family: u8, state: u16, flags: u8) -> Vec<u8> {
        let mut body = vec![family, 0, 0, 0];
        body.extend(index.to_ne_bytes());
        body.extend(state.to_ne_bytes());
        body.extend([flags, 0]);
        body
    }

    #[test]
    fn only_what_paths_are_made_of_matters() {
        let overlay = || Some(9);
        let table: [(&str, u16, Vec<u8>, bool); 14] = [
            ("our route is put there", NEW_ROUTE, route(MAIN_TABLE, 119), false),
            ("our route is deleted", DEL_ROUTE, route(MAIN_TABLE, 119), true),
            ("a default route comes", NEW_ROUTE, route(MAIN_TABLE, 3), true),
            ("an address's own route", NEW_ROUTE, route(255, 2), false),
            ("a container comes", NEW_LINK, link(0, "veth12ab34c"), false),
            ("a port of a bridge", NEW_LINK, link(7, "coracle0"), false),
            ("the cable is pulled", NEW_LINK, link(0, "eth0"), true),
            ("an address goes", DEL_ADDRESS, vec![INET, 24, 0, 0, 2, 0, 0, 0], true),
            ("a neighbour is forgotten", DEL_NEIGHBOUR, neighbour(INET, 0x4, 0), false),
            ("a neighbour of ours is deleted", DEL_NEIGHBOUR, neighbour(INET, PERMANENT, 0), true),
            ("it is, by hand", DEL_NEIGHBOUR, neighbour_on(9, INET, FAILED, 0), true),
            ("one that did not answer is given up", DEL_NEIGHBOUR, neighbour(INET, FAILED, 0), false),
            ("a frame's way of ours is deleted", DEL_NEIGHBOUR, neighbour(7, PERMANENT, OF_ITSELF), true),
            ("a container's frame's way is deleted", DEL_NEIGHBOUR, neighbour(7, PERMANENT, 0), false),
        ];
        for (sentence, kind, body, expected) in &table {
            assert_eq!(matters(&message(*kind, body), overlay), *expected, "{sentence}");
        }
        let quiet = message(NEW_ROUTE, &route(MAIN_TABLE, 119));
        assert!(
            matters(&[quiet.clone(), message(DEL_LINK, &link(0, "eth0"))].concat(), overlay),
            "the second one counts as well"
        );
        for length in 0..quiet.len() {
            assert!(!matters(&quiet[..length], overlay), "a piece of a message");
        }
        assert!(!matters(&[0; 64], overlay), "nonsense");
    }

    #[test]
    fn only_the_address_that_goes_is_missed() {
        let address = |kind, ip: Ipv4Addr| {
            let mut body = vec![INET, 32, 0, 0, 1, 0, 0, 0, 8, 0, 2, 0];
            body.extend(ip.octets());
            message(kind, &body)
        };
        let (ip, other) = (Ipv4Addr::new(10, 96, 0, 10), Ipv4Addr::new(10, 96, 0, 100));
        assert!(is_loss(&[address(DEL_ADDRESS, other), address(DEL_ADDRESS, ip)].concat(), ip));
        assert!(!is_loss(&[address(NEW_ADDRESS, ip), address(DEL_ADDRESS, other)].concat(), ip));
    }
}
