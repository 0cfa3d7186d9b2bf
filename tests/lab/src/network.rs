//! The switch that joins the boxes: bridges in the network namespace of the calling thread, which is a host of its own on
//! the network. With two segments it is also the router between them, and knows the way to nodes only, not to pods.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};

use crate::process::output;

/// Where a segment's router, which is the test, has its address: the last host of a /24.
const ROUTER: u8 = 254;
/// The table that drops what a test wants dropped.
const TABLE: &str = "ip lab";
/// Shows bridged packets to that table. Not every kernel shows them to tables of the family `bridge`.
const BRIDGE_CALL: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
/// What is said by a kernel that cannot let packets wait.
const NO_NETEM: &str = "qdisc kind is unknown";

/// How the boxes are joined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Topology {
    /// All on one segment: they reach each other without a router.
    #[default]
    OneSegment,
    /// Each on a segment of its own, with a router between that knows nothing of pods.
    Routed,
}

/// The network of a lab.
pub struct Network {
    topology: Topology,
    bridges: Vec<String>,
    cables: u32,
    /// The ports whose packets wait.
    slowed: BTreeSet<String>,
}

/// A box's place on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The box's address, in a /24.
    pub address: Ipv4Addr,
    /// Its way to everything else.
    pub gateway: Ipv4Addr,
    bridge: String,
}

/// Moves the calling thread, and whatever it starts from now on, into a network namespace of its own.
pub fn leave_the_machine() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("a network namespace of our own")
}

impl Network {
    /// Makes the bridges; the thread must have left the machine's own network.
    pub async fn start(topology: Topology) -> Result<Network> {
        ip("link set lo up").await?;
        let mut network = Network { topology, bridges: Vec::new(), cables: 0, slowed: BTreeSet::new() };
        if topology == Topology::Routed {
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("a router between the segments")?;
        }
        // Where it is no module there is nothing to load.
        let _ = std::process::Command::new("modprobe").arg("br_netfilter").output();
        std::fs::write(BRIDGE_CALL, "1").context("this kernel has no br_netfilter")?;
        run("nft", &format!("add table {TABLE}")).await?;
        for hook in ["forward", "output"] {
            let chain = format!("add chain {TABLE} {hook} {{ type filter hook {hook} priority 0; }}");
            output(&["nft".to_owned(), chain], b"").await?;
        }
        network.segment().await?;
        Ok(network)
    }

    async fn segment(&mut self) -> Result<String> {
        let (number, name) = (self.bridges.len(), format!("segment{}", self.bridges.len()));
        ip(&format!("link add {name} type bridge")).await?;
        ip(&format!("addr add {}/24 dev {name}", host(number, ROUTER))).await?;
        ip(&format!("link set {name} up")).await?;
        self.bridges.push(name.clone());
        Ok(name)
    }

    /// The place of the box with this number, from 0.
    pub async fn place(&mut self, number: u8) -> Result<Place> {
        let segment = if self.topology == Topology::Routed { usize::from(number) } else { 0 };
        while self.bridges.len() <= segment {
            self.segment().await?;
        }
        Ok(Place {
            address: host(segment, number + 1),
            gateway: host(segment, ROUTER),
            bridge: self.bridges[segment].clone(),
        })
    }

    /// Lays a cable to the namespace of a process; what it is called at the other end is `eth0`. Returns the port's name.
    pub async fn plug(&mut self, place: &Place, pid: i32) -> Result<String> {
        self.cables += 1;
        let port = format!("port{}", self.cables);
        ip(&format!("link add {port} type veth peer name eth0 netns {pid}")).await?;
        ip(&format!("link set {port} master {} up", place.bridge)).await?;
        Ok(port)
    }

    /// Lays a cable to the machine's own network, so that a person there reaches the boxes. `pid` is a process there. The
    /// cable goes when the lab goes.
    pub async fn open_to_machine(&mut self, pid: i32) -> Result<()> {
        let bridge = &self.bridges[0];
        ip(&format!("link add door type veth peer name coracle-lab netns {pid}")).await?;
        ip(&format!("link set door master {bridge} up")).await?;
        let address = host(0, ROUTER - 1);
        run("nsenter", &format!("-t {pid} -n ip addr add {address}/24 dev coracle-lab")).await?;
        run("nsenter", &format!("-t {pid} -n ip link set coracle-lab up")).await
    }

    /// Pulls a cable.
    pub async fn cut(&self, port: &str) -> Result<()> {
        ip(&format!("link set {port} down")).await
    }

    /// Puts it back.
    pub async fn mend(&self, port: &str) -> Result<()> {
        ip(&format!("link set {port} up")).await
    }

    /// Loses every packet between two boxes, both ways, and none of others. Their cables stay in: they notice nothing but
    /// silence.
    pub async fn part(&self, one: Ipv4Addr, other: Ipv4Addr) -> Result<()> {
        for (from, to) in [(one, other), (other, one)] {
            self.drop(&format!("ip saddr {from} ip daddr {to} drop")).await?;
        }
        Ok(())
    }

    /// Loses this share of the packets from and to a box.
    pub async fn lose(&self, address: Ipv4Addr, percent: u8) -> Result<()> {
        // nft takes a number that is always less for a mistake.
        let chance = if percent >= 100 { String::new() } else { format!("numgen random mod 100 < {percent} ") };
        for end in ["saddr", "daddr"] {
            self.drop(&format!("ip {end} {address} {chance}drop")).await?;
        }
        Ok(())
    }

    /// Lets packets to a box wait; says whether this kernel can do that.
    pub async fn slow(&mut self, port: &str, delay: Duration) -> Result<bool> {
        let words = format!("qdisc replace dev {port} root netem delay {}ms", delay.as_millis());
        match run("tc", &words).await {
            Err(error) if format!("{error:#}").contains(NO_NETEM) => return Ok(false),
            other => other?,
        }
        self.slowed.insert(port.to_owned());
        Ok(true)
    }

    /// Loses nothing any more, and lets nothing wait.
    pub async fn join(&mut self) -> Result<()> {
        for chain in ["forward", "output"] {
            run("nft", &format!("flush chain {TABLE} {chain}")).await?;
        }
        for port in std::mem::take(&mut self.slowed) {
            // The port of a box that was switched off meanwhile is gone.
            let _ = run("tc", &format!("qdisc del dev {port} root")).await;
        }
        Ok(())
    }

    async fn drop(&self, rule: &str) -> Result<()> {
        for chain in ["forward", "output"] {
            run("nft", &format!("add rule {TABLE} {chain} {rule}")).await?;
        }
        Ok(())
    }
}

/// The address of a host on a segment: of a /16 that neither pods nor services nor Docker have.
fn host(segment: usize, number: u8) -> Ipv4Addr {
    let segment = u8::try_from(segment).unwrap_or(u8::MAX);
    Ipv4Addr::new(10, 55, segment, number)
}

async fn ip(words: &str) -> Result<()> {
    run("ip", words).await
}

async fn run(program: &str, words: &str) -> Result<()> {
    let line: Vec<String> = std::iter::once(program).chain(words.split(' ')).map(str::to_owned).collect();
    output(&line, b"").await.map(drop)
}
