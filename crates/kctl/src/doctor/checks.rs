//! What is wrong, of what is known.

use std::net::IpAddr;

use client::expiry;

use super::facts::{Docker, Facts, Role};
use super::repair::Repair;

mod ports;
mod ufw;

/// The oldest kernel Docker itself runs on.
const KERNEL_MIN: (u32, u32) = (3, 10);
/// The oldest kernel whose nftables has what the service proxy uses (`numgen`, `fib`).
const KERNEL_PROXY: (u32, u32) = (4, 10);
/// The oldest kernel that can open a part of a volume safely (`openat2`).
const KERNEL_SUBPATH: (u32, u32) = (5, 6);
/// The range of Docker's API the kubelet speaks.
const DOCKER_API_MIN: (u32, u32) = (1, 41);
const DOCKER_API_MAX: (u32, u32) = (1, 47);
/// Controllers without which containers have no limits.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Storage drivers that are known to work; others copy whole images, or are gone from Docker.
const STORAGE_DRIVERS: [&str; 5] = ["overlay2", "overlayfs", "btrfs", "zfs", "fuse-overlayfs"];
/// How much more must be free than where pods are evicted, so as not to be noted.
const DISK_FREE_MORE: u64 = 10;
/// Seconds two clocks may be apart: more, and tokens and certificates are not valid yet where they are shown.
const CLOCK_MAX: i64 = 60;
const CLOCK_NOTED: i64 = 5;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Fine,
    /// It works, but look at it.
    Warning,
    /// It does not work.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word.
    pub item: &'static str,
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do.
    pub fix: Option<String>,
    /// What `--fix` does about it.
    pub repair: Option<Repair>,
}

impl Finding {
    fn fine(item: &'static str, what: impl Into<String>) -> Finding {
        Finding { item, level: Level::Fine, what: what.into(), fix: None, repair: None }
    }

    fn new(level: Level, item: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding { item, level, what: what.into(), fix: Some(fix.into()), repair: None }
    }

    fn warning(item: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding::new(Level::Warning, item, what, fix)
    }

    fn failure(item: &'static str, what: impl Into<String>, fix: impl Into<String>) -> Finding {
        Finding::new(Level::Failure, item, what, fix)
    }

    fn repaired_by(self, repair: Repair) -> Finding {
        Finding { repair: Some(repair), ..self }
    }
}

/// Everything that was looked at for a machine of this role.
pub fn findings(facts: &Facts, role: Role) -> Vec<Finding> {
    let mut found = vec![architecture(facts), kernel(facts, role)];
    if role.runs_pods() {
        found.extend(docker(facts));
        found.push(cgroups(facts));
        found.extend([nftables(facts), iptables(facts), programs(facts), forwarding(facts), ufw::forwards(facts)]);
    }
    found.extend(ufw::lets_in(facts, role));
    if role.runs_pods() {
        found.push(resolver(facts));
    }
    found.extend(ports::are_free(facts, role));
    found.push(addresses(facts, role));
    found.extend(clock(facts));
    found.extend(disks(facts, role));
    found.extend(certificates(facts));
    found
}

fn architecture(facts: &Facts) -> Finding {
    match facts.architecture.as_str() {
        "x86_64" | "aarch64" => Finding::fine("architecture", &facts.architecture),
        other => Finding::failure(
            "architecture",
            format!("{other:?} is not a 64-bit machine Coracle runs on"),
            "use a machine with x86_64 or aarch64 and a 64-bit system on it",
        ),
    }
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).filter(|n| !n.is_empty());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn kernel(facts: &Facts, role: Role) -> Finding {
    let item = "kernel";
    let Some(found) = version(&facts.kernel) else {
        return Finding::failure(item, format!("its version {:?} cannot be read", facts.kernel), "is /proc mounted?");
    };
    let release = &facts.kernel;
    let upgrade = |(major, minor): (u32, u32)| format!("upgrade to Linux {major}.{minor} or later");
    if found < KERNEL_MIN {
        return Finding::failure(item, format!("Linux {release} is older than 3.10"), upgrade(KERNEL_SUBPATH));
    }
    if role.runs_pods() && found < KERNEL_PROXY {
        let what = format!("Linux {release} is older than 4.10, and its nftables cannot balance load");
        return Finding::failure(item, what, upgrade(KERNEL_SUBPATH));
    }
    if role.runs_pods() && found < KERNEL_SUBPATH {
        let what = format!("Linux {release} is older than 5.6: pods with subPath will not start");
        return Finding::warning(item, what, upgrade(KERNEL_SUBPATH));
    }
    Finding::fine(item, format!("Linux {release}"))
}

fn docker(facts: &Facts) -> Vec<Finding> {
    let docker = match &facts.docker {
        Ok(docker) => docker,
        Err(error) => {
            let what = format!("no Docker Engine answers on {}: {error}", facts.docker_endpoint);
            let fix = "apt-get install docker.io, then: systemctl start docker";
            return vec![Finding::failure("docker", what, fix).repaired_by(Repair::StartDocker)];
        }
    };
    vec![docker_version(docker), storage_driver(docker)]
}

fn docker_version(docker: &Docker) -> Finding {
    let what = format!("Engine {}, API {} to {}", docker.version, docker.min_api, docker.api);
    let (oldest, newest) = (version(&docker.min_api).unwrap_or_default(), version(&docker.api).unwrap_or_default());
    if newest < DOCKER_API_MIN {
        return Finding::failure("docker", format!("{what}: too old"), "upgrade to Docker Engine 20.10 or later");
    }
    if oldest > DOCKER_API_MAX {
        return Finding::failure("docker", format!("{what}: too new"), "use Docker Engine 29 or earlier");
    }
    Finding::fine("docker", what)
}

fn storage_driver(docker: &Docker) -> Finding {
    let driver = docker.storage_driver.as_str();
    if STORAGE_DRIVERS.contains(&driver) {
        return Finding::fine("storage driver", driver);
    }
    let what = format!("{driver:?}: images are copied for each container, or it is gone from newer engines");
    let fix = "set \"storage-driver\": \"overlay2\" in /etc/docker/daemon.json (images have to be pulled again)";
    Finding::warning("storage driver", what, fix)
}

fn cgroups(facts: &Facts) -> Finding {
    let item = "cgroups";
    let Some((version, controllers)) = &facts.cgroups else {
        return Finding::failure(item, "none are mounted", "mount cgroup2 at /sys/fs/cgroup, or boot with systemd");
    };
    let missing: Vec<&str> = CONTROLLERS.into_iter().filter(|c| !controllers.iter().any(|there| there == c)).collect();
    let driver = facts.docker.as_ref().map(|d| d.cgroup_driver.as_str()).unwrap_or_default();
    let what = format!("version {version}, {driver} driver").replace(",  driver", "");
    if missing.is_empty() {
        return Finding::fine(item, what);
    }
    let fix = "boot with cgroup_enable=memory swapaccount=1 on the kernel's command line (/etc/default/grub)";
    let level = if missing.contains(&"memory") { Level::Failure } else { Level::Warning };
    Finding::new(level, item, format!("{what}: without {}, containers have no such limit", missing.join(", ")), fix)
}

fn nftables(facts: &Facts) -> Finding {
    let fix = "apt-get install nftables";
    match &facts.nft {
        Some(version) => Finding::fine("nftables", version),
        None if facts.minion_installed => {
            Finding::failure("nftables", "there is no nft: services have no addresses", fix)
        }
        None => {
            Finding::warning("nftables", "there is no nft yet; it is installed with the package of the minion", fix)
        }
    }
}

fn iptables(facts: &Facts) -> Finding {
    let item = "iptables";
    let Some(version) = &facts.iptables else {
        return Finding::fine(item, "not installed; Docker needs it, Coracle does not");
    };
    let legacy = version.contains("legacy");
    if facts.legacy_rules && !legacy {
        return Finding::warning(
            item,
            format!("{version}, but there are rules of the old iptables too: packets pass both, and one may drop them"),
            "look with iptables-legacy-save, remove what is not needed, or reboot",
        );
    }
    if legacy {
        let fix = "update-alternatives --set iptables /usr/sbin/iptables-nft, then restart Docker";
        let what = format!("{version}: its rules are not seen by nft, so what they drop cannot be opened for pods");
        return Finding::warning(item, what, fix);
    }
    Finding::fine(item, version)
}

fn programs(facts: &Facts) -> Finding {
    if facts.missing_programs.is_empty() {
        return Finding::fine("programs", "ip, conntrack");
    }
    let fix = "apt-get install iproute2 conntrack";
    let missing = facts.missing_programs.join(", ");
    if !facts.minion_installed {
        let what = format!("missing: {missing}; installed with the package of the minion");
        return Finding::warning("programs", what, fix);
    }
    // Without conntrack, UDP clients find out by themselves, later.
    let level = if facts.missing_programs.contains(&"ip") { Level::Failure } else { Level::Warning };
    Finding::new(level, "programs", format!("missing: {missing}"), fix)
}

fn forwarding(facts: &Facts) -> Finding {
    match facts.ip_forward {
        Some(false) => Finding::failure(
            "forwarding",
            "net.ipv4.ip_forward is 0: packets do not reach pods",
            "sysctl -w net.ipv4.ip_forward=1, and the same line in /etc/sysctl.d/99-coracle.conf",
        )
        .repaired_by(Repair::Forwarding),
        _ => Finding::fine("forwarding", "net.ipv4.ip_forward is 1"),
    }
}

fn addresses(facts: &Facts, role: Role) -> Finding {
    let item = "address";
    let shown = |(name, ip): &(String, IpAddr)| format!("{ip} ({name})");
    let all = facts.addresses.iter().map(shown).collect::<Vec<_>>().join(", ");
    match (facts.addresses.as_slice(), &facts.node_ip) {
        ([], _) => Finding::failure(item, "this machine has no address but its own", "bring a network up"),
        (_, Some(told)) if !facts.addresses.iter().any(|(_, ip)| ip.to_string() == *told) => Finding::failure(
            item,
            format!("node-ip is {told}, which this machine does not have; it has {all}"),
            "put it right in /etc/coracle/minion.yaml",
        ),
        (_, Some(told)) => Finding::fine(item, format!("node-ip is {told}")),
        ([_], None) => Finding::fine(item, all),
        (_, None) => {
            let (flag, file) =
                if role.runs_pods() { ("node-ip", "minion.yaml") } else { ("advertise-address", "master.yaml") };
            let what = match crowded(facts).filter(|_| role.runs_pods()) {
                Some(name) => {
                    format!("{name} has several: {all}; if it leads to the master, the minion does not choose")
                }
                None => format!("there are several: {all}; the one that leads to the master is taken"),
            };
            Finding::warning(item, what, format!("say which one other machines use: {flag} in /etc/coracle/{file}"))
        }
    }
}

/// An interface with more than one address.
fn crowded(facts: &Facts) -> Option<&str> {
    let addresses = |name: &str| facts.addresses.iter().filter(|(other, _)| other == name).count();
    facts.addresses.iter().map(|(name, _)| name.as_str()).find(|name| addresses(name) > 1)
}

fn resolver(facts: &Facts) -> Finding {
    let (item, file) = ("resolver", facts.resolv_conf.display());
    let local = |ip: &&IpAddr| ip.is_loopback();
    let Some(stub) = facts.name_servers.iter().find(local) else {
        let all: Vec<String> = facts.name_servers.iter().map(ToString::to_string).collect();
        return match all.is_empty() {
            true => Finding::warning(
                item,
                format!("{file} names no server: pods resolve no names of the Internet"),
                format!("add a line nameserver ADDRESS to {file}"),
            ),
            false => Finding::fine(item, all.join(", ")),
        };
    };
    if facts.resolved_servers.iter().any(|ip| !ip.is_loopback()) {
        return Finding::fine(item, format!("{stub} is systemd-resolved's; pods are given the servers behind it"));
    }
    Finding::warning(
        item,
        format!("{file} names {stub}, which in a pod with dnsPolicy Default is the pod itself"),
        format!("write the real server into {file}, or use systemd-resolved (it has them in /run/systemd/resolve)"),
    )
}

fn clock(facts: &Facts) -> Option<Finding> {
    let fix = "switch time synchronisation on, on both machines: timedatectl set-ntp true";
    Some(match facts.clock_ahead.as_ref()? {
        Err(error) => {
            Finding::failure("master", format!("it does not answer: {error}"), "is it running, and reachable?")
        }
        Ok(ahead) => {
            let way = if *ahead < 0 { "behind" } else { "ahead of" };
            let what = format!("the master's is {} s {way} this one", ahead.abs());
            match ahead.abs() {
                apart if apart > CLOCK_MAX => Finding::failure("clock", what, fix),
                apart if apart > CLOCK_NOTED => Finding::warning("clock", what, fix),
                _ => Finding::fine("clock", "as the master's"),
            }
        }
    })
}

fn disks(facts: &Facts, role: Role) -> Vec<Finding> {
    let finding = |disk: &super::facts::Disk| {
        let what = format!(
            "{} % ({} MiB) free for {} in {}",
            disk.free_percent,
            disk.free_mib,
            disk.what,
            disk.path.display()
        );
        let fix = "make room: docker system df shows what images and containers take, journalctl --vacuum-size=200M";
        match disk.free_percent {
            free if free < disk.evicts_below && role.runs_pods() => {
                Finding::failure("disk", format!("{what}: pods will be evicted"), fix)
            }
            free if free < disk.evicts_below + DISK_FREE_MORE => Finding::warning("disk", what, fix),
            _ => Finding::fine("disk", what),
        }
    };
    facts.disks.iter().map(finding).collect()
}

fn certificates(facts: &Facts) -> Vec<Finding> {
    let item = "certificates";
    let (mut found, mut until) = (Vec::new(), Vec::new());
    for (file, ending) in &facts.certificates {
        until.push(ending.at);
        let Some(said) = expiry::warning(ending, facts.now) else { continue };
        let level = if ending.at <= facts.now { Level::Failure } else { Level::Warning };
        // A CA is not made anew: every certificate it signed hangs on it.
        let fix = match file.file_name().and_then(|name| name.to_str()) {
            Some("ca.crt") if file.ends_with("etcd/ca.crt") => {
                "stop the master, remove that folder and start it: its clients need the new client.crt, client.key and ca.crt"
            }
            Some("ca.crt") => "plan a new cluster, or a new CA: docs/security.md, \"When a certificate ends\"",
            _ => "it is renewed by its daemon, which says in its log why it could not: journalctl -p warning",
        };
        found.push(Finding::new(level, item, format!("{said} ({})", file.display()), fix));
    }
    let first = until.iter().min().filter(|_| found.is_empty());
    found.extend(first.map(|first| Finding::fine(item, format!("good until {first} at least"))));
    found
}

#[cfg(test)]
mod tests;
