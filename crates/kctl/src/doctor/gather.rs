//! Looks at a machine. Files are read below a root, so that tests can make a machine up; programs and sockets are only
//! asked on the machine itself.

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use client::expiry::{self, Ending};
use serde_json::Value;

use super::facts::{Disk, Docker, Facts, Ports};

mod sockets;
mod ufw;

/// How long the engine may take to answer.
const ENGINE_PATIENCE: Duration = Duration::from_secs(10);
/// The most of an answer that is read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Where programs look for their name servers.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Where to look.
#[derive(Clone, Debug)]
pub struct Place {
    /// What stands for `/`.
    pub root: PathBuf,
    /// The engine's socket.
    pub docker: PathBuf,
}

impl Place {
    fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.at(path)).ok()
    }

    fn is_machine(&self) -> bool {
        self.root == Path::new("/")
    }

    /// What a program prints, if it is there and ends well.
    fn output(&self, program: &str, arguments: &[&str]) -> Option<String> {
        if !self.is_machine() {
            return None;
        }
        // Those of administrators are not in everybody's path.
        let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        let output = Command::new(program).args(arguments).env("PATH", path).env("LC_ALL", "C").output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

/// Everything but what only the master can tell.
pub fn gather(place: &Place) -> Facts {
    let docker = docker(place);
    let settings = |daemon: &str| place.read(&format!("/etc/coracle/{daemon}.yaml")).unwrap_or_default();
    let (master, minion) = (settings("master"), settings("minion"));
    let usual = Ports::default();
    let images = docker.as_ref().map_or_else(|_| PathBuf::from("/var/lib/docker"), |d| d.root.clone());
    let resolv = |path: &Path| fs::read_to_string(path).map(|text| name_servers(&text)).unwrap_or_default();
    let own_resolver: Option<PathBuf> = told(&minion, "resolv-conf");
    let behind = place.at("/run/systemd/resolve/resolv.conf");
    Facts {
        architecture: place.output("uname", &["-m"]).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        kernel: place.read("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        docker,
        docker_endpoint: place.docker.display().to_string(),
        cgroups: cgroups(place),
        minion_installed: place.at("/usr/bin/minion").exists(),
        nft: place.output("nft", &["--version"]),
        iptables: place.output("iptables", &["--version"]),
        legacy_rules: place.read("/proc/net/ip_tables_names").is_some_and(|names| !names.trim().is_empty()),
        missing_programs: missing_programs(place),
        ip_forward: place.read("/proc/sys/net/ipv4/ip_forward").map(|v| v.trim() != "0"),
        ufw: ufw::read(place),
        ports: Ports {
            secure: told(&master, "secure-port").unwrap_or(usual.secure),
            kubelet: told(&minion, "kubelet-port").unwrap_or(usual.kubelet),
            healthz: told(&minion, "healthz-port").unwrap_or(usual.healthz),
            dns: own_dns(&minion),
            overlay: told(&minion, "overlay").unwrap_or(usual.overlay),
        },
        listening: sockets::listening(place),
        clock_ahead: None,
        addresses: place
            .output("ip", &["-j", "-4", "address", "show", "up"])
            .map(|t| addresses(&t))
            .unwrap_or_default(),
        node_ip: told(&minion, "node-ip"),
        name_servers: resolv(&place.at(&own_resolver.as_deref().unwrap_or(Path::new(RESOLV_CONF)).to_string_lossy())),
        // A file that is named is taken as it is.
        resolved_servers: if own_resolver.is_none() { resolv(&behind) } else { Vec::new() },
        resolv_conf: own_resolver.unwrap_or_else(|| PathBuf::from(RESOLV_CONF)),
        // Pods are evicted below these shares unless the minion is told otherwise (`--eviction-hard`).
        disks: [("the daemons' files", PathBuf::from("/var/lib"), 10), ("images", images, 15)]
            .into_iter()
            .filter_map(|(what, path, evicts_below)| disk(place, what, path, evicts_below))
            .collect(),
        certificates: certificates(place, &master, &minion),
        now: jiff::Timestamp::now(),
    }
}

/// The daemons' certificates, as far as they may be read.
fn certificates(place: &Place, master: &str, minion: &str) -> Vec<(PathBuf, Ending)> {
    let dir = |text, usual: &str| told(text, "data-dir").unwrap_or_else(|| PathBuf::from(usual)).join("pki");
    // What lies there from other days ends unnoticed.
    let served_as_etcd = master.lines().any(|line| line.starts_with("etcd-listen-client-urls:"));
    let (master, minion) = (dir(master, "/var/lib/coracle"), dir(minion, "/var/lib/coracle-minion"));
    let etcd = [
        ("the certificate of the CA for the store's clients", master.join("etcd/ca.crt")),
        ("the store's serving certificate as an etcd", master.join("etcd/server.crt")),
        ("the certificate for the store's clients", master.join("etcd/client.crt")),
    ];
    let all = [
        ("the certificate of the cluster's CA", master.join("ca.crt")),
        ("the API server's serving certificate", master.join("apiserver.crt")),
        ("the API server's certificate for kubelets", master.join("apiserver-kubelet-client.crt")),
        ("the node's client certificate", minion.join("kubelet-client.pem")),
        ("the node's serving certificate", minion.join("kubelet-serving.pem")),
    ];
    let read = |(what, path): (&str, PathBuf)| {
        let at = expiry::of_pem(&fs::read(place.at(path.to_str()?)).ok()?)?;
        Some((path, Ending::new(what, at)))
    };
    all.into_iter().chain(etcd.into_iter().filter(|_| served_as_etcd)).filter_map(read).collect()
}

fn missing_programs(place: &Place) -> Vec<&'static str> {
    let wanted = [("ip", "-V"), ("conntrack", "-V")];
    wanted.into_iter().filter(|(program, flag)| place.output(program, &[flag]).is_none()).map(|w| w.0).collect()
}

fn docker(place: &Place) -> Result<Docker, String> {
    let (info, version) = (ask(&place.docker, "/info")?, ask(&place.docker, "/version")?);
    let text = |value: &Value, key: &str| value[key].as_str().unwrap_or_default().to_owned();
    Ok(Docker {
        version: text(&version, "Version"),
        api: text(&version, "ApiVersion"),
        min_api: text(&version, "MinAPIVersion"),
        storage_driver: text(&info, "Driver"),
        cgroup_driver: text(&info, "CgroupDriver"),
        root: text(&info, "DockerRootDir").into(),
    })
}

/// One request on a socket. HTTP/1.0, whose answers end with the connection and are in one piece.
fn ask(socket: &Path, path: &str) -> Result<Value, String> {
    let asked = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ENGINE_PATIENCE))?;
        stream.set_write_timeout(Some(ENGINE_PATIENCE))?;
        // At once: who answers the first part may be gone before the second.
        stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: docker\r\n\r\n").as_bytes())?;
        let mut answer = String::new();
        stream.take(ANSWER_BYTES_MAX).read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer: String = asked().map_err(|error: std::io::Error| error.to_string())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("not an answer in HTTP")?;
    let status = head.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("200") {
        return Err(format!("{path}: {status}"));
    }
    serde_json::from_str(body).map_err(|error| format!("{path}: {error}"))
}

/// Version 2 has a file of controllers at its top; version 1 a table of them.
fn cgroups(place: &Place) -> Option<(u8, Vec<String>)> {
    if let Some(controllers) = place.read("/sys/fs/cgroup/cgroup.controllers") {
        return Some((2, controllers.split_whitespace().map(str::to_owned).collect()));
    }
    let table = place.read("/proc/cgroups")?;
    let enabled = |line: &str| {
        let mut fields = line.split_whitespace();
        let name = fields.next().filter(|name| !name.starts_with('#'))?;
        // A controller nobody mounted is of no use.
        (fields.nth(2)? == "1" && place.at("/sys/fs/cgroup").join(name).is_dir()).then(|| name.to_owned())
    };
    let controllers: Vec<String> = table.lines().filter_map(enabled).collect();
    (!controllers.is_empty()).then_some((1, controllers))
}

/// The addresses of `ip -j address` by which other machines may know this one.
fn addresses(text: &str) -> Vec<(String, IpAddr)> {
    let interfaces: Value = serde_json::from_str(text).unwrap_or_default();
    let mut found = Vec::new();
    for interface in interfaces.as_array().into_iter().flatten() {
        let name = interface["ifname"].as_str().unwrap_or_default();
        if api::nodes::is_inner_interface(name) {
            continue;
        }
        for address in interface["addr_info"].as_array().into_iter().flatten() {
            // Where the minion answers for names, on each node the same.
            if address["label"].as_str().is_some_and(|label| label.ends_with(":coracle")) {
                continue;
            }
            let ip: Option<IpAddr> = address["local"].as_str().and_then(|ip| ip.parse().ok());
            if let Some(ip) = ip.filter(|ip| address["scope"] == "global" && !ip.is_loopback()) {
                found.push((name.to_owned(), ip));
            }
        }
    }
    found
}

/// What a daemon was told in its file, where that is one word.
fn told<T: std::str::FromStr>(text: &str, flag: &str) -> Option<T> {
    let value = text.lines().find_map(|line| line.strip_prefix(flag)?.strip_prefix(':'))?;
    let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
    if value.is_empty() { None } else { value.parse().ok() }
}

/// Where the minion answers for names: at the tenth address of the services' range, unless pods are to ask another server.
fn own_dns(minion: &str) -> Option<IpAddr> {
    if told::<String>(minion, "cluster-dns").is_some() {
        return None;
    }
    let Some(range) = told::<String>(minion, "service-cluster-ip-range") else { return Ports::default().dns };
    let (network, length) = range.split_once('/')?;
    let (network, length) = (network.parse::<Ipv4Addr>().ok()?, length.parse::<u32>().ok()?);
    let mask = u32::MAX.checked_shl(32_u32.checked_sub(length)?).unwrap_or_default();
    Some(IpAddr::V4(Ipv4Addr::from((u32::from(network) & mask).checked_add(10)?)))
}

fn name_servers(text: &str) -> Vec<IpAddr> {
    let of_line = |line: &str| line.trim().strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok();
    text.lines().filter_map(of_line).collect()
}

fn disk(place: &Place, what: &'static str, path: PathBuf, evicts_below: u64) -> Option<Disk> {
    let found = nix::sys::statvfs::statvfs(&place.at(path.to_str()?)).ok()?;
    let (all, free) = (found.blocks(), found.blocks_available());
    let free_mib = free.saturating_mul(found.fragment_size()) >> 20;
    Some(Disk { what, path, free_percent: (free.saturating_mul(100)).checked_div(all)?, evicts_below, free_mib })
}

/// How many seconds the clock of a server is ahead, by the date on its answer. Its certificate is not checked, and
/// nothing is shown to it: a machine that has not joined yet knows neither.
pub async fn clock_ahead(server: &str) -> Result<i64, String> {
    // Of several masters the first stands for all.
    let server = server.split(',').next().unwrap_or(server);
    let url: http::Uri = server.parse().map_err(|error| format!("--server {server:?}: {error}"))?;
    let mut config = kube::Config::new(url);
    config.accept_invalid_certs = true;
    config.connect_timeout = Some(ENGINE_PATIENCE);
    let client = kube::Client::try_from(config).map_err(|error| error.to_string())?;
    let request = http::Request::get("/healthz").body(kube::client::Body::empty()).map_err(|e| e.to_string())?;
    let answer = tokio::time::timeout(ENGINE_PATIENCE, client.send(request)).await;
    let answer = answer.map_err(|_| format!("{server} says nothing"))?.map_err(|error| reason(&error))?;
    let date = answer.headers().get(http::header::DATE).and_then(|date| date.to_str().ok());
    let date = date.ok_or("its answer has no date")?;
    let there = jiff::fmt::rfc2822::parse(date).map_err(|error| format!("its date {date:?}: {error}"))?;
    Ok(there.timestamp().as_second() - jiff::Timestamp::now().as_second())
}

/// The innermost cause, which says what happened.
fn reason(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests;
