//! The real kube-apiserver, on an etcd of its own, for the time of a recording.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

use super::answer::Server;
use super::steps::Step;

/// How long it may take to be ready.
const READY_MAX: Duration = Duration::from_secs(60);
/// What was new in 1.20 and is everybody's today.
const FEATURES: &str = "IPv6DualStack=true,ServiceLBNodePortControl=true,MixedProtocolLBService=true,\
    GenericEphemeralVolume=true,EphemeralContainers=true,DownwardAPIHugePages=true";

/// Both, ended when dropped.
pub(super) struct Upstream {
    server: Server,
    _processes: [Child; 2],
    _folder: tempfile::TempDir,
}

impl Upstream {
    pub(super) fn server(&self) -> &Server {
        &self.server
    }
}

/// Starts `program` with an etcd; who holds one of `tokens` may ask.
pub(super) async fn start(program: &Path, tokens: &str) -> Result<Upstream> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (client, peer, address) = (free()?, free()?, free()?);
    std::fs::write(at("tokens"), tokens)?;
    let key = rcgen::KeyPair::generate()?;
    std::fs::write(at("sa.key"), key.serialize_pem())?;
    std::fs::write(at("sa.pub"), key.public_key_pem())?;
    let (etcd_url, peer) = (format!("http://{client}"), format!("http://{peer}"));
    let etcd = [
        ("data-dir", at("etcd")),
        ("listen-client-urls", etcd_url.clone()),
        ("advertise-client-urls", etcd_url.clone()),
        ("listen-peer-urls", peer.clone()),
        ("initial-advertise-peer-urls", peer.clone()),
        ("initial-cluster", format!("default={peer}")),
    ];
    let etcd = spawn(Path::new("etcd"), &etcd, &at("etcd.log"))?;
    let flags = [
        ("etcd-servers", etcd_url),
        ("bind-address", "127.0.0.1".to_owned()),
        ("advertise-address", "127.0.0.1".to_owned()),
        ("secure-port", address.port().to_string()),
        ("cert-dir", at("certificates")),
        ("token-auth-file", at("tokens")),
        ("authorization-mode", "Node,RBAC".to_owned()),
        ("enable-admission-plugins", "NodeRestriction".to_owned()),
        ("allow-privileged", "true".to_owned()),
        ("feature-gates", FEATURES.to_owned()),
        ("service-cluster-ip-range", "10.96.0.0/12".to_owned()),
        ("service-account-issuer", "https://kubernetes.default.svc.cluster.local".to_owned()),
        ("service-account-key-file", at("sa.pub")),
        ("service-account-signing-key-file", at("sa.key")),
    ];
    let mut process = spawn(program, &flags, &at("log"))?;
    let server = Server::at(address)?;
    let begun = Instant::now();
    while !server.answers(&Step::get("/readyz")).await {
        let lives = process.try_wait()?.is_none();
        ensure!(
            lives && begun.elapsed() < READY_MAX,
            "kube-apiserver is not ready: {}",
            std::fs::read_to_string(at("log"))?
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(Upstream { server, _processes: [etcd, process], _folder: folder })
}

fn free() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn spawn(program: &Path, flags: &[(&str, String)], log: &str) -> Result<Child> {
    let log = std::fs::File::create(log)?;
    let flags = flags.iter().map(|(flag, value)| format!("--{flag}={value}"));
    let mut command = Command::new(program);
    command.args(flags).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).kill_on_drop(true);
    command.spawn().with_context(|| format!("start {}", program.display()))
}
