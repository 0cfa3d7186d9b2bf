//! Who is asked for names outside the cluster: what the machine's own resolver asks, without ourselves.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use hickory_proto::rr::Name;
use parking_lot::Mutex;

/// Where a resolver's configuration is unless someone says otherwise.
pub const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What systemd-resolved asks, where `/etc/resolv.conf` names its stub only.
const RESOLVED_CONF: &str = "/run/systemd/resolve/resolv.conf";
/// Servers that are used (`MAXNS` of the C library).
const SERVERS_MAX: usize = 3;

/// The servers that a resolver configuration names.
pub fn parse(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        // An address may name its link: `fe80::1%eth0`. We have no use for those.
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    });
    servers.collect()
}

/// Those of `named` that may be asked, in order: not ourselves.
pub fn usable(named: &[IpAddr], own: IpAddr) -> Vec<IpAddr> {
    let mut servers: Vec<IpAddr> = Vec::new();
    for ip in named.iter().filter(|ip| **ip != own && !ip.is_unspecified()) {
        if !servers.contains(ip) {
            servers.push(*ip);
        }
    }
    servers.truncate(SERVERS_MAX);
    servers
}

/// Which file to read: the one that was named, or the machine's own unless a stub hides behind it.
fn source(configured: Option<&Path>) -> PathBuf {
    if let Some(path) = configured {
        return path.to_owned();
    }
    let named = std::fs::read_to_string(RESOLV_CONF).map(|text| parse(&text)).unwrap_or_default();
    let stub = !named.is_empty() && named.iter().all(IpAddr::is_loopback);
    if stub && Path::new(RESOLVED_CONF).exists() { RESOLVED_CONF.into() } else { RESOLV_CONF.into() }
}

/// The servers in use; follows its file.
#[derive(Debug)]
pub struct Upstreams {
    configured: Option<PathBuf>,
    own: IpAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When what was read was written; nothing was read before.
    version: Option<(PathBuf, SystemTime)>,
    servers: Vec<SocketAddr>,
    /// Names that only we ask for, each of one server: who brings them back is asked no more.
    probes: HashMap<Name, IpAddr>,
}

/// What is to be done after a look at the servers.
#[derive(Debug, Default)]
pub struct Look {
    /// Who may be asked.
    pub servers: Vec<SocketAddr>,
    /// Names to ask each new server for.
    pub probes: Vec<(SocketAddr, Name)>,
}

impl Upstreams {
    /// The servers of `configured`, or of the machine; `own` is our address.
    pub fn new(configured: Option<PathBuf>, own: IpAddr) -> Upstreams {
        Upstreams { configured, own, state: Mutex::default() }
    }

    /// The servers as they are now: the file is read again if it was written since.
    pub fn look(&self) -> Look {
        let path = source(self.configured.as_deref());
        let written = std::fs::metadata(&path).and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        let version = Some((path, written));
        let mut state = self.state.lock();
        if state.version == version {
            return Look { servers: state.servers.clone(), probes: Vec::new() };
        }
        let named = version.as_ref().and_then(|(path, _)| std::fs::read_to_string(path).ok());
        let servers = usable(&parse(&named.unwrap_or_default()), self.own);
        tracing::info!(?servers, "names outside the cluster are asked of these servers");
        // A new file is a new chance.
        let probes: Vec<(SocketAddr, Name)> = servers.iter().map(|ip| (SocketAddr::new(*ip, 53), probe())).collect();
        *state = State {
            version,
            servers: servers.into_iter().map(|ip| SocketAddr::new(ip, 53)).collect(),
            probes: probes.iter().map(|(server, name)| (name.clone(), server.ip())).collect(),
        };
        Look { servers: state.servers.clone(), probes }
    }

    /// Takes a question that came in; whether it was one of our own, come back by the server we asked. That one is asked no
    /// more, until the file changes.
    pub fn came_back(&self, name: &Name) -> bool {
        let mut state = self.state.lock();
        let Some(server) = state.probes.remove(name) else { return false };
        tracing::warn!(%server, "this server asks us in turn: it is asked no more");
        state.servers.retain(|s| s.ip() != server);
        true
    }
}

/// A name that nobody else asks for (compare CoreDNS's loop plugin).
fn probe() -> Name {
    let label = || rand::random::<u64>().to_string();
    Name::from_labels([label().as_bytes(), label().as_bytes()]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_in_order_without_ourselves() {
        let text = "# none: nameserver 1.1.1.1\nsearch example.org\nnameserver 10.96.0.10\nnameserver 9.9.9.9\n\
                    nameserver 9.9.9.9\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver 8.8.8.8\n\
                    nameserver 8.8.4.4\n";
        let servers = usable(&parse(text), "10.96.0.10".parse().unwrap());
        let texts: Vec<String> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["9.9.9.9", "2001:db8::1", "8.8.8.8"]);
    }

    #[test]
    fn a_server_that_asks_us_is_asked_no_more_until_the_file_changes() {
        let dir = std::env::temp_dir().join(format!("coracle-upstreams-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("resolv.conf");
        let write = |text: &str, seconds| {
            std::fs::write(&file, text).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            std::fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        };
        let upstreams = Upstreams::new(Some(file.clone()), "10.96.0.10".parse().unwrap());
        write("nameserver 192.0.2.1\nnameserver 192.0.2.2\n", 1);
        let first = upstreams.look();
        assert_eq!((first.servers.len(), first.probes.len()), (2, 2));
        assert!(!upstreams.came_back(&Name::from_ascii("www.example.org.").unwrap()));
        assert!(upstreams.came_back(&first.probes[0].1));
        let second = upstreams.look();
        assert_eq!(second.servers, [SocketAddr::new("192.0.2.2".parse().unwrap(), 53)]);
        assert!(second.probes.is_empty(), "nobody new");
        write("nameserver 192.0.2.1\n", 2);
        assert_eq!(upstreams.look().servers.len(), 1);
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
