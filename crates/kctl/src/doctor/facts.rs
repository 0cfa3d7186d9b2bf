//! What is known of a machine. Everything is optional: what cannot be read is not known.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use client::expiry::Ending;
use jiff::Timestamp;

/// What the machine shall be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Role {
    /// Master and minion.
    #[default]
    All,
    /// Only a master.
    Master,
    /// Only a minion.
    Minion,
}

impl Role {
    /// Whether pods run here.
    pub fn runs_pods(self) -> bool {
        self != Role::Master
    }

    /// Whether the API is served here.
    pub fn serves(self) -> bool {
        self != Role::Minion
    }
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Facts {
    /// What the kernel calls it: `x86_64`, `i686`.
    pub architecture: String,
    /// The kernel's release: `6.1.0-18-amd64`.
    pub kernel: String,
    /// The engine's answer, or why there is none.
    pub docker: Result<Docker, String>,
    /// Where the engine was asked.
    pub docker_endpoint: String,
    /// Control groups: their version, and the controllers there are.
    pub cgroups: Option<(u8, Vec<String>)>,
    /// Whether the minion is installed, and with it what its package asks for.
    pub minion_installed: bool,
    /// What `nft --version` says.
    pub nft: Option<String>,
    /// What `iptables --version` says.
    pub iptables: Option<String>,
    /// Whether there are rules of the old iptables, beside those of nftables.
    pub legacy_rules: bool,
    /// Programs the proxy calls that are missing.
    pub missing_programs: Vec<&'static str>,
    /// Whether packets are forwarded between networks.
    pub ip_forward: Option<bool>,
    /// UFW, where it is installed.
    pub ufw: Option<Ufw>,
    /// The ports the daemons shall have.
    pub ports: Ports,
    /// Ports somebody listens on, and who.
    pub listening: Vec<Listening>,
    /// Seconds the master's clock is ahead, or why that is not known; nothing without a master to ask.
    pub clock_ahead: Option<Result<i64, String>>,
    /// The machine's own addresses that others may know it by.
    pub addresses: Vec<(String, IpAddr)>,
    /// Whether the minion was told which of them is the node's.
    pub node_ip: Option<String>,
    /// The file with the name servers of this machine, or the one the minion was told.
    pub resolv_conf: PathBuf,
    /// The name servers in it.
    pub name_servers: Vec<IpAddr>,
    /// The name servers behind systemd-resolved.
    pub resolved_servers: Vec<IpAddr>,
    /// Disks that fill up.
    pub disks: Vec<Disk>,
    /// Certificates of the daemons, and the files they are in.
    pub certificates: Vec<(PathBuf, Ending)>,
    /// What time it is.
    pub now: Timestamp,
}

/// A Docker Engine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Docker {
    /// `20.10.24`.
    pub version: String,
    /// The newest API it speaks: `1.41`.
    pub api: String,
    /// The oldest.
    pub min_api: String,
    /// `overlay2`.
    pub storage_driver: String,
    /// `systemd` or `cgroupfs`.
    pub cgroup_driver: String,
    /// Where its images are.
    pub root: PathBuf,
}

/// What UFW does with packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ufw {
    /// Whether it is switched on.
    pub enabled: bool,
    /// `DROP`, `REJECT`, `ACCEPT`, with packets that are not for this machine.
    pub forward_policy: String,
    /// The file that says so.
    pub file: PathBuf,
    /// The line of the file.
    pub line: usize,
    /// The same with packets that are for it.
    pub input_policy: String,
    /// What it was told of single ports, in its order; nothing where that cannot be read, as only root can.
    pub rules: Option<Vec<UfwRule>>,
}

/// A rule of UFW's for packets that come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UfwRule {
    /// Whether it lets them in.
    pub allows: bool,
    /// `None` for all.
    pub protocol: Option<Protocol>,
    /// The first and the last port of each of its ranges; none for all.
    pub ports: Vec<(u16, u16)>,
}

/// What has ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        })
    }
}

/// The daemons' ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The API's.
    pub secure: u16,
    /// The kubelet's.
    pub kubelet: u16,
    /// The kubelet's health.
    pub healthz: u16,
    /// Where the minion answers for names, unless pods ask another server.
    pub dns: Option<IpAddr>,
    /// Whether packets for other nodes' pods are carried in VXLAN.
    pub overlay: bool,
}

impl Default for Ports {
    fn default() -> Ports {
        let dns = Some(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10)));
        Ports { secure: 6443, kubelet: 10250, healthz: 10248, dns, overlay: false }
    }
}

/// A port that is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listening {
    /// Of which protocol.
    pub protocol: Protocol,
    /// On which of the machine's addresses.
    pub address: IpAddr,
    /// Its number.
    pub port: u16,
    /// The program, if it can be seen.
    pub program: Option<String>,
    /// Its number.
    pub pid: Option<u32>,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What is kept there.
    pub what: &'static str,
    /// Where.
    pub path: PathBuf,
    /// How much of it is free.
    pub free_percent: u64,
    /// Below which share pods are evicted.
    pub evicts_below: u64,
    /// Free, in MiB.
    pub free_mib: u64,
}
