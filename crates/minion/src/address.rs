//! The node's address, where the flag does not say it: the one by which the masters are reached. Where that is not clear,
//! nothing is guessed.
//!
//! [`choose`] decides on what `machine` and `ways` have seen. What was chosen once stays as long as it is one of the
//! choices: another address on the interface, which some other program put there, is no reason not to come back.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};
use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::options::Options;
use crate::start::NODE_NAME;

/// The file below the data directory that keeps the address.
pub(crate) const NODE_IP: &str = "node-ip";
/// Documentation's addresses lead nowhere, so the way there is the way out of this network (RFC 5737).
const OUTSIDE: &str = "192.0.2.1:443";

/// An address of this machine, and the interface that has it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    pub(crate) interface: String,
    pub(crate) ip: Ipv4Addr,
}

/// The way to a server.
#[derive(Clone, Debug)]
pub(crate) struct Way {
    /// The server as the flag has it; nothing where there is none.
    pub(crate) to: String,
    /// The address packets to it come from, or why there is none.
    pub(crate) from: Result<Ipv4Addr, String>,
}

/// The node's address: as given, or as [`choose`] finds.
pub(crate) fn node_ip(options: &Options) -> Result<Ipv4Addr> {
    if let Some(std::net::IpAddr::V4(ip)) = options.node_ip {
        return Ok(ip);
    }
    let stored = std::fs::read_to_string(options.data_dir.join(NODE_IP)).ok().and_then(|ip| ip.trim().parse().ok());
    let ways = ways(&options.servers());
    // A node that is in the cluster from before addresses were kept has the one by which it reaches the master.
    let is_joined = || options.data_dir.join(NODE_NAME).exists();
    let reached_by = ways.iter().find_map(|way| way.from.as_ref().ok().copied());
    choose(&machine(), &ways, stored.or_else(|| reached_by.filter(|_| is_joined())))
}

/// Keeps the address for the next start.
pub(crate) fn remember(data_dir: &Path, ip: Ipv4Addr) -> std::io::Result<()> {
    std::fs::write(data_dir.join(NODE_IP), ip.to_string())
}

/// The one address by which all masters that can be reached are reached, if its interface has no other; else the only one
/// there is.
pub(crate) fn choose(machine: &[Candidate], ways: &[Way], stored: Option<Ipv4Addr>) -> Result<Ipv4Addr> {
    let from: BTreeSet<Ipv4Addr> = ways.iter().filter_map(|way| way.from.as_ref().ok().copied()).collect();
    // A master on this machine says nothing of how others reach it, if there are others.
    let outer: Vec<Ipv4Addr> = from.iter().copied().filter(|ip| !ip.is_loopback()).collect();
    let way_of = |ip: Ipv4Addr| {
        let to = ways.iter().find(|way| way.from == Ok(ip)).map(|way| way.to.as_str()).unwrap_or_default();
        if to.is_empty() { "other networks are".to_owned() } else { format!("{to} is") }
    };
    match outer.as_slice() {
        [ip] => {
            let interface = machine.iter().find(|candidate| candidate.ip == *ip).map(|found| &found.interface);
            let same: Vec<&Candidate> = machine.iter().filter(|c| Some(&c.interface) == interface).collect();
            match same.as_slice() {
                [] | [_] => Ok(*ip),
                several => pick(several, stored, &format!("the interface by which {} reached has", way_of(*ip))),
            }
        }
        [] if !from.is_empty() && ways.iter().all(|way| way.from.is_ok()) => {
            Ok(from.into_iter().next().unwrap_or(Ipv4Addr::LOCALHOST))
        }
        [] => {
            let whole: Vec<&Candidate> = machine.iter().filter(|candidate| is_outer(candidate)).collect();
            let why = ways.iter().find_map(|way| Some((&way.to, way.from.as_ref().err()?)));
            let why = why.filter(|(to, _)| !to.is_empty());
            let why = why.map(|(to, error)| format!("there is no way to {to} ({error}), and ")).unwrap_or_default();
            ensure!(!whole.is_empty(), "{why}this machine has no address but its own: give --node-ip");
            pick(&whole, stored, &format!("{why}this machine has"))
        }
        several => {
            let several: Vec<&Candidate> = machine.iter().filter(|c| several.contains(&c.ip)).collect();
            pick(&several, stored, "the masters are reached by different ways, from")
        }
    }
}

/// The only one, or the one of last time.
fn pick(choices: &[&Candidate], stored: Option<Ipv4Addr>, why: &str) -> Result<Ipv4Addr> {
    let again = choices.iter().find(|candidate| Some(candidate.ip) == stored);
    match (choices, again) {
        ([only], _) => Ok(only.ip),
        (_, Some(again)) => Ok(again.ip),
        _ => {
            let shown: Vec<String> = choices.iter().map(|c| format!("{} ({})", c.ip, c.interface)).collect();
            bail!(
                "{why} several addresses: {}; say by which one other machines reach this one: --node-ip",
                shown.join(", ")
            )
        }
    }
}

fn is_outer(candidate: &Candidate) -> bool {
    !candidate.ip.is_loopback() && candidate.interface != "lo" && !api::nodes::is_inner_interface(&candidate.interface)
}

/// This machine's addresses.
fn machine() -> Vec<Candidate> {
    let all = nix::ifaddrs::getifaddrs().into_iter().flatten();
    let candidate = |found: nix::ifaddrs::InterfaceAddress| {
        let ip = found.address.as_ref()?.as_sockaddr_in()?.ip();
        let up = found.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP);
        // An address with a label is told under that.
        let interface = found.interface_name.split(':').next()?.to_owned();
        (up && !ip.is_link_local()).then_some(Candidate { interface, ip })
    };
    let found: BTreeSet<Candidate> = all.filter_map(candidate).collect();
    found.into_iter().collect()
}

/// The ways to the servers, or out of this network where there are none. No packet is sent to find out, but for names.
fn ways(servers: &[String]) -> Vec<Way> {
    let way = |to: &String| Way { to: to.clone(), from: host_and_port(to).and_then(|host| source(&host)) };
    match servers {
        [] => vec![Way { to: String::new(), from: source(OUTSIDE) }],
        servers => servers.iter().map(way).collect(),
    }
}

fn host_and_port(server: &str) -> Result<String, String> {
    let uri: http::Uri = server.parse().map_err(|error: http::uri::InvalidUri| error.to_string())?;
    let host = uri.host().ok_or("there is no host in it")?;
    Ok(format!("{host}:{}", uri.port_u16().unwrap_or(443)))
}

/// The address that packets to a server come from.
fn source(server: &str) -> Result<Ipv4Addr, String> {
    let text = |error: std::io::Error| error.to_string();
    let addresses: Vec<SocketAddr> = server.to_socket_addrs().map_err(text)?.collect();
    let Some(address) = addresses.iter().find(|address| address.is_ipv4()) else {
        return Err("only IPv4 is served".to_owned());
    };
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).map_err(text)?;
    socket.connect(address).map_err(text)?;
    match socket.local_addr().map_err(text)? {
        SocketAddr::V4(local) => Ok(*local.ip()),
        SocketAddr::V6(local) => Err(format!("the way is by {}, and only IPv4 is served", local.ip())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> Ipv4Addr {
        text.parse().unwrap()
    }

    /// `eth0=10.0.0.5 eth1=...`
    fn candidates(text: &str) -> Vec<Candidate> {
        let of = |word: &str| {
            let (interface, address) = word.split_once('=').unwrap();
            Candidate { interface: interface.to_owned(), ip: ip(address) }
        };
        text.split_whitespace().map(of).collect()
    }

    fn way(to: &str, from: &str) -> Way {
        Way { to: to.to_owned(), from: from.parse().map_err(|_| from.to_owned()) }
    }

    /// What it shows, the machine, the ways, the address of last time, what comes of it.
    type Case<'a> = (&'a str, &'a str, &'a [Way], Option<&'a str>, &'a str);

    #[test]
    fn the_way_to_the_master_decides_or_nobody_does() {
        let (one, two) = ("lo=127.0.0.1 eth0=10.0.0.5", "lo=127.0.0.1 eth0=10.0.0.5 eth1=192.168.0.5");
        let inner = "lo=127.0.0.1 lo=10.96.0.10 docker0=172.17.0.1 eth0=10.0.0.5 coracle0=10.244.1.1 br-0a1b2c3d4e5f=172.18.0.1";
        let twice = "lo=127.0.0.1 eth0=10.0.0.5 eth0=10.0.0.6 eth1=192.168.0.5";
        let (a, b) = ("https://10.0.0.1:6443", "https://192.168.0.1:6443");
        let table: &[Case<'_>] = &[
            ("one address", one, &[way(a, "10.0.0.5")], None, "10.0.0.5"),
            ("the route decides", two, &[way(b, "192.168.0.5")], None, "192.168.0.5"),
            ("whatever was before", two, &[way(b, "192.168.0.5")], Some("10.0.0.5"), "192.168.0.5"),
            ("containers' networks do not count", inner, &[way("", "unreachable")], None, "10.0.0.5"),
            (
                "a bridge of the machine's own does",
                "br-lan=10.0.0.5 docker0=172.17.0.1",
                &[way("", "unreachable")],
                None,
                "10.0.0.5",
            ),
            ("the master is here", inner, &[way("https://127.0.0.1:6443", "127.0.0.1")], None, "127.0.0.1"),
            (
                "and elsewhere",
                two,
                &[way("https://localhost", "127.0.0.1"), way(b, "192.168.0.5")],
                None,
                "192.168.0.5",
            ),
            (
                "it is here, and another one is away",
                two,
                &[way("https://localhost", "127.0.0.1"), way(b, "no such host")],
                Some("192.168.0.5"),
                "192.168.0.5",
            ),
            ("two masters by one way", two, &[way(a, "10.0.0.5"), way(b, "10.0.0.5")], None, "10.0.0.5"),
            ("one of them is away", two, &[way(a, "no such host"), way(b, "192.168.0.5")], None, "192.168.0.5"),
            (
                "two masters by two ways",
                two,
                &[way(a, "10.0.0.5"), way(b, "192.168.0.5")],
                None,
                "the masters are reached by different ways, from several addresses: 10.0.0.5 (eth0), 192.168.0.5 (eth1); \
                 say by which one other machines reach this one: --node-ip",
            ),
            (
                "the interface has two",
                twice,
                &[way(a, "10.0.0.5")],
                None,
                "the interface by which https://10.0.0.1:6443 is reached has several addresses: 10.0.0.5 (eth0), \
                 10.0.0.6 (eth0); say by which one other machines reach this one: --node-ip",
            ),
            ("the interface has two, and one was chosen", twice, &[way(a, "10.0.0.5")], Some("10.0.0.6"), "10.0.0.6"),
            ("the other interface has two", twice, &[way(b, "192.168.0.5")], None, "192.168.0.5"),
            (
                "what was chosen is gone",
                twice,
                &[way(a, "10.0.0.5")],
                Some("10.0.0.9"),
                "the interface by which https://10.0.0.1:6443 is reached has several",
            ),
            ("no way, one address", one, &[way(a, "Network is unreachable")], None, "10.0.0.5"),
            (
                "no way, several addresses",
                two,
                &[way(a, "Network is unreachable")],
                None,
                "there is no way to https://10.0.0.1:6443 (Network is unreachable), and this machine has several \
                 addresses: 10.0.0.5 (eth0), 192.168.0.5 (eth1); say by which",
            ),
            (
                "no master, several addresses",
                two,
                &[way("", "unreachable")],
                None,
                "this machine has several addresses",
            ),
            ("no master, a way out", two, &[way("", "10.0.0.5")], None, "10.0.0.5"),
            (
                "no master, a way out by one of two",
                twice,
                &[way("", "10.0.0.5")],
                None,
                "the interface by which other networks are reached has several",
            ),
            (
                "nothing",
                "lo=127.0.0.1",
                &[way("", "unreachable")],
                None,
                "this machine has no address but its own: give --node-ip",
            ),
        ];
        for (sentence, machine, ways, stored, expected) in table {
            let chosen = choose(&candidates(machine), ways, stored.map(ip));
            let said = chosen.as_ref().map_or_else(ToString::to_string, ToString::to_string);
            assert!(said.starts_with(expected), "{sentence}: {said}");
            if let Ok(chosen) = chosen {
                let again = choose(&candidates(machine), ways, Some(chosen)).unwrap();
                assert_eq!(again, chosen, "{sentence}: the next start chooses the same");
            }
        }
    }

    #[test]
    fn the_kernel_and_the_resolver_are_asked() {
        let lo = Candidate { interface: "lo".to_owned(), ip: Ipv4Addr::LOCALHOST };
        assert!(machine().contains(&lo), "{:?}", machine());
        let ways =
            ways(&["https://127.0.0.1:6443/".to_owned(), "https://localhost".to_owned(), "https://[::1]".to_owned()]);
        let from: Vec<_> = ways.iter().map(|way| way.from.clone()).collect();
        assert_eq!(from[..2], [Ok(Ipv4Addr::LOCALHOST), Ok(Ipv4Addr::LOCALHOST)]);
        assert_eq!(from[2], Err("only IPv4 is served".to_owned()));
    }
}
