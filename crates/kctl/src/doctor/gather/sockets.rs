//! The ports of this machine that somebody has, as the kernel's tables of sockets have them.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::super::facts::{Listening, Protocol};
use super::Place;

/// The tables, and in which state a socket takes what comes to its port: one of TCP that listens, one of UDP that is not
/// connected.
const TABLES: [(&str, Protocol, &str); 4] = [
    ("/proc/net/tcp", Protocol::Tcp, "0A"),
    ("/proc/net/tcp6", Protocol::Tcp, "0A"),
    ("/proc/net/udp", Protocol::Udp, "07"),
    ("/proc/net/udp6", Protocol::Udp, "07"),
];
/// What stands for the file of a socket that is no process's but the kernel's own, as those of VXLAN are.
const KERNEL: &str = "0";

/// Ports that are listened on, and by whom.
pub(super) fn listening(place: &Place) -> Vec<Listening> {
    let holders = holders(place);
    let mut found = Vec::new();
    for (table, protocol, takes) in TABLES {
        for line in place.read(table).unwrap_or_default().lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (Some(local), Some(state), Some(inode)) = (fields.get(1), fields.get(3), fields.get(9)) else {
                continue;
            };
            let Some((address, port)) = local.split_once(':').filter(|_| *state == takes && *inode != KERNEL) else {
                continue;
            };
            let (Some(address), Ok(port)) = (address_of(address), u16::from_str_radix(port, 16)) else { continue };
            let pid = holders.get(&format!("socket:[{inode}]")).copied();
            let program = pid.and_then(|pid| place.read(&format!("/proc/{pid}/comm")));
            found.push(Listening { protocol, address, port, program: program.map(|p| p.trim().to_owned()), pid });
        }
    }
    found
}

/// An address as these tables write it: words of 32 bits as this machine keeps them in memory.
fn address_of(text: &str) -> Option<IpAddr> {
    let word = |digits: &[u8]| u32::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok();
    let words: Vec<u32> = text.as_bytes().chunks_exact(8).map(word).collect::<Option<_>>()?;
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    match <[u8; 4]>::try_from(bytes.as_slice()) {
        Ok(four) => Some(Ipv4Addr::from(four).into()),
        Err(_) => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?).into()),
    }
}

/// The sockets of all processes, as far as they can be seen.
fn holders(place: &Place) -> BTreeMap<String, u32> {
    let mut found = BTreeMap::new();
    let processes = fs::read_dir(place.at("/proc")).into_iter().flatten().flatten();
    for (process, pid) in processes.filter_map(|p| Some((p.path(), p.file_name().to_str()?.parse::<u32>().ok()?))) {
        for open in fs::read_dir(process.join("fd")).into_iter().flatten().flatten() {
            if let Some(target) = fs::read_link(open.path()).ok().and_then(|t| t.to_str().map(str::to_owned))
                && target.starts_with("socket:")
            {
                found.insert(target, pid);
            }
        }
    }
    found
}

#[test]
fn addresses_are_read_as_the_kernel_writes_them() {
    for (text, expected) in [
        ("0100007F", Some("127.0.0.1")),
        ("00000000", Some("0.0.0.0")),
        ("00000000000000000000000001000000", Some("::1")),
        ("B80D01200000000000000000FE000000", Some("2001:db8::fe")),
        ("00", None),
        ("0100007G", None),
    ] {
        assert_eq!(address_of(text), expected.map(|ip| ip.parse().unwrap()), "{text}");
    }
}
