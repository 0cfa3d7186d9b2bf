//! A throw-away etcd on loopback.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::process::Process;

/// A running etcd, ended when dropped.
pub(crate) struct Etcd {
    /// `http://127.0.0.1:PORT`.
    pub(crate) endpoint: String,
    /// The process.
    pub(crate) process: Process,
}

/// Starts etcd with its data below `folder`; `None` where none is installed.
pub(crate) fn start(folder: &Path) -> Result<Option<Etcd>> {
    let Some(program) = ["/usr/bin/etcd", "/usr/local/bin/etcd"].iter().map(Path::new).find(|p| p.exists()) else {
        return Ok(None);
    };
    let free = || TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).map(|a| a.port());
    let endpoint = format!("http://127.0.0.1:{}", free()?);
    let peer = format!("http://127.0.0.1:{}", free()?);
    let data = folder.join("etcd").display().to_string();
    let arguments: Vec<String> = [
        ["--data-dir", &data],
        ["--listen-client-urls", &endpoint],
        ["--advertise-client-urls", &endpoint],
        ["--listen-peer-urls", &peer],
        ["--initial-advertise-peer-urls", &peer],
        ["--initial-cluster", &format!("default={peer}")],
    ]
    .concat()
    .iter()
    .map(|s| (*s).to_owned())
    .collect();
    let process = Process::start(program, &arguments, &[], &folder.join("etcd.log"))?;
    let (address, begun) = (endpoint.trim_start_matches("http://"), Instant::now());
    while TcpStream::connect(address).is_err() {
        ensure!(begun.elapsed() < Duration::from_secs(10), "etcd does not listen after 10 s");
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(Some(Etcd { endpoint, process }))
}
