//! A Docker Engine of a test's own, to be restarted, hung and killed without harm to the machine's. It has files, a socket
//! and a containerd of its own, a bridge of its own, and leaves the machine's packet filter alone.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tokio::net::UnixDatagram;
use tokio::process::{Child, Command};

use crate::docker::{import_busybox_on, output};

/// An address for the engine's default bridge, on which nothing runs.
const BRIDGE_ADDRESS: &str = "10.254.253.1/24";

/// How long an engine may take to start or to stop.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether engines can be started. Where they cannot, a test says so and does nothing; in CI (`CI=true`) it fails.
pub fn available() -> bool {
    let answers = std::process::Command::new("dockerd").arg("--version").stdout(Stdio::null()).status();
    crate::docker::needed(answers.is_ok_and(|status| status.success()))
}

/// What an engine is to be like.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Whether containers outlive it (`live-restore`); else it ends them when it stops, and when it starts.
    pub live_restore: bool,
    /// Registries that are spoken to without TLS: `127.0.0.1:5000`.
    pub insecure_registries: Vec<String>,
    /// Also listens here, with TLS that both sides verify.
    pub tls: Option<Tls>,
}

/// An address, and files in PEM.
#[derive(Clone, Debug)]
pub struct Tls {
    /// `127.0.0.1:2376`.
    pub address: String,
    /// Who certifies clients.
    pub ca: PathBuf,
    /// The engine's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A running engine. Its containers, processes and files go when it is dropped.
pub struct Engine {
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Engine {
    /// Starts one; returns when it answers.
    pub async fn start(wanted: &Wanted) -> Result<Engine> {
        let folder = tempfile::Builder::new().prefix("coracle-engine-").tempdir()?;
        std::fs::write(folder.path().join("daemon.json"), wanted.config(folder.path()).to_string())?;
        let mut engine = Engine { folder, process: None };
        let bridge = bridge(engine.folder.path());
        ip(&["link", "add", &bridge, "type", "bridge"])?;
        ip(&["address", "add", BRIDGE_ADDRESS, "dev", &bridge])?;
        engine.start_again().await?;
        Ok(engine)
    }

    /// Starts it again where it was; returns when it answers.
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the engine runs");
        let (log, notify) = (self.path("log"), self.path("notify"));
        // One that was killed left the numbers of processes that are gone, or other programs' by now.
        for left in ["notify", "pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.path(left));
        }
        let told = UnixDatagram::bind(&notify)?;
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        let mut command = Command::new("dockerd");
        command.arg("--config-file").arg(self.path("daemon.json")).env("NOTIFY_SOCKET", &notify);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut process = command.spawn().context("run dockerd")?;
        let ready = async {
            let mut text = [0; 256];
            loop {
                let length = told.recv(&mut text).await?;
                if String::from_utf8_lossy(&text[..length]).lines().any(|line| line == "READY=1") {
                    return anyhow::Ok(());
                }
            }
        };
        tokio::select! {
            ready = tokio::time::timeout(PATIENCE, ready) => ready.context("the engine does not start")??,
            ended = process.wait() => bail!("the engine ended with {}: {}", ended?, self.last_words()),
        }
        self.process = Some(process);
        Ok(())
    }

    /// Asks it to stop, and waits until it has.
    pub async fn stop(&mut self) -> Result<()> {
        self.end(Signal::SIGTERM).await
    }

    /// Ends it without a warning. Its containerd ends with it; what its containers run does not.
    pub async fn kill(&mut self) -> Result<()> {
        self.end(Signal::SIGKILL).await
    }

    async fn end(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        let mut process = self.process.take().context("the engine does not run")?;
        tokio::time::timeout(PATIENCE, process.wait()).await.context("the engine does not stop")??;
        Ok(())
    }

    /// From now on it neither answers nor refuses.
    pub fn hang(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    /// It goes on where it was.
    pub fn go_on(&self) -> Result<()> {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.process.as_ref().and_then(Child::id).context("the engine does not run")?;
        Ok(kill(Pid::from_raw(id.try_into()?), signal)?)
    }

    /// Where it listens: `unix:///…`.
    pub fn endpoint(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    /// What `docker` with these arguments prints, asked of this engine.
    pub fn docker(&self, arguments: &[&str]) -> Result<String> {
        output("docker", &[&["-H", &self.endpoint()], arguments].concat())
    }

    /// Imports the image of tests; see [`crate::docker::import_busybox`].
    pub fn import_busybox(&self, reference: &str) -> Result<()> {
        import_busybox_on(&["-H", &self.endpoint()], reference)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Wanted {
    /// `daemon.json` of an engine in `folder`.
    fn config(&self, folder: &Path) -> Value {
        let path = |name: &str| folder.join(name);
        let unique = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut hosts = vec![format!("unix://{}", path("docker.sock").display())];
        hosts.extend(self.tls.iter().map(|tls| format!("tcp://{}", tls.address)));
        let mut config = json!({
            "data-root": path("data"), "exec-root": path("exec"), "pidfile": path("pid"), "hosts": hosts,
            // Where the machine has a containerd, it is shared.
            "containerd-namespace": unique, "containerd-plugins-namespace": format!("{unique}-plugins"),
            "bridge": bridge(folder), "iptables": false, "ip6tables": false, "ip-forward": false,
            "live-restore": self.live_restore, "insecure-registries": self.insecure_registries,
        });
        if let Some(tls) = &self.tls {
            config["tlsverify"] = json!(true);
            config["tlscacert"] = json!(tls.ca);
            config["tlscert"] = json!(tls.certificate);
            config["tlskey"] = json!(tls.key);
        }
        config
    }
}

/// The engine's default bridge. One without would remove the machine's own, `docker0`, which belongs to another engine.
fn bridge(folder: &Path) -> String {
    let name = folder.to_string_lossy();
    format!("creng-{}", name.rsplit('-').next().unwrap_or_default())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let status = std::process::Command::new("ip").args(arguments).status()?;
    ensure!(status.success(), "ip {arguments:?}: {status}");
    Ok(())
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.go_on();
        if let Ok(ids) = self.docker(&["ps", "-aq"]) {
            let arguments: Vec<&str> = ["rm", "-f"].into_iter().chain(ids.lines()).collect();
            let _ = self.docker(&arguments);
        }
        // Its bridges are the machine's.
        let _ = self.docker(&["network", "prune", "-f"]);
        let _ = self.signal(Signal::SIGTERM);
        if let Some(id) = self.process.as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok()) {
            // Blocking, as this is a drop: an engine without containers stops at once.
            let _ = nix::sys::wait::waitpid(Pid::from_raw(id), None);
        }
        for id in processes_below(self.folder.path()) {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
        for mount in mounts_below(self.folder.path()) {
            let _ = nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = ip(&["link", "delete", &bridge(self.folder.path())]);
    }
}

/// What still runs with a file of `folder` in its command line: shims, of an engine that was killed, and their containers'
/// first processes.
fn processes_below(folder: &Path) -> Vec<i32> {
    let folder = OsString::from(folder).to_string_lossy().into_owned();
    let ids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = ids.filter_map(|entry| entry.file_name().to_string_lossy().parse::<i32>().ok());
    let ours = |id: &i32| {
        let command = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&folder)
    };
    let shims: Vec<i32> = ids.filter(|id| *id != std::process::id().cast_signed()).filter(ours).collect();
    let children = |id: &i32| {
        let text = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<i32>>()
    };
    shims.iter().flat_map(children).chain(shims.iter().copied()).collect()
}

/// Mounts below `folder`, the innermost first.
pub fn mounts_below(folder: &Path) -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let mut below: Vec<PathBuf> = places.filter(|place| place.starts_with(folder)).collect();
    below.reverse();
    below
}
