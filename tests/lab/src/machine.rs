//! A box: namespaces for its network, processes, mounts and host name, a folder for what it keeps, and a cable.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use harness::wait::PATIENCE;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::init::READY;
use crate::network::{Network, Place};
use crate::process::{self, Process};

/// What `unshare` separates; its child is the first process of the box.
const UNSHARE: [&str; 9] =
    ["--net", "--pid", "--mount", "--uts", "--ipc", "--fork", "--kill-child", "--mount-proc", "--propagation=private"];

/// What the first process of a box complains of; locked while the box runs.
pub(crate) const LOG: &str = "log/init";

/// A box.
pub struct Machine {
    name: String,
    place: Place,
    home: PathBuf,
    power: Option<Power>,
    processes: BTreeMap<String, Process>,
}

/// What a running box consists of.
struct Power {
    unshare: Child,
    /// While this is open, the box runs.
    _hold: ChildStdin,
    /// The box's first process, as the machine numbers it.
    init: i32,
    port: String,
}

impl Machine {
    /// A box without power that keeps its files below `home`.
    pub(crate) fn new(name: &str, place: Place, home: PathBuf) -> Result<Machine> {
        std::fs::create_dir_all(home.join("log"))?;
        Ok(Machine { name: name.to_owned(), place, home, power: None, processes: BTreeMap::new() })
    }

    /// Its name: host name and Node.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> std::net::Ipv4Addr {
        self.place.address
    }

    /// The address of the test on its segment, which is its way to everything else.
    pub fn gateway(&self) -> std::net::Ipv4Addr {
        self.place.gateway
    }

    /// Where a file lies that the box has written at this absolute path, below `/etc`, `/usr`, `/opt`, `/root`,
    /// `/var/lib` or `/var/log`.
    pub fn file(&self, path: &str) -> PathBuf {
        self.home.join("files").join(path.trim_start_matches('/'))
    }

    /// Writes a file of the box, whether it is on or off.
    pub async fn write(&self, path: &str, text: &str) -> Result<()> {
        if self.power.is_some() {
            let line = r#"mkdir -p "$(dirname "$0")" && cat > "$0""#;
            return self.feed(&["sh", "-c", line, path], text.as_bytes()).await.map(drop);
        }
        let file = self.file(path);
        std::fs::create_dir_all(file.parent().context("a file is in a folder")?)?;
        std::fs::write(&file, text).with_context(|| file.display().to_string())
    }

    /// Switches it on and plugs it in.
    pub async fn power_on(&mut self, network: &mut Network) -> Result<()> {
        ensure!(self.power.is_none(), "{} is on", self.name);
        let program = crate::lab::program()?;
        let mut command = Command::new("unshare");
        command.args(UNSHARE).arg(program).arg("init").arg(&self.home).arg(&self.name);
        let log = std::fs::File::options().create(true).append(true).open(self.home.join(LOG))?;
        // Held by `unshare`, which ends when the last process of the box has.
        log.try_lock().with_context(|| format!("{} still ends", self.name))?;
        let mut unshare = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log).spawn()?;
        let hold = unshare.stdin.take().context("it is piped")?;
        let mut says = BufReader::new(unshare.stdout.take().context("it is piped")?);
        let mut line = String::new();
        tokio::time::timeout(PATIENCE, says.read_line(&mut line)).await??;
        if line.trim() != READY {
            bail!("{} does not start: {}", self.name, std::fs::read_to_string(self.home.join(LOG))?);
        }
        let init = only_child(unshare.id().context("it runs")?)?;
        let port = network.plug(&self.place, init).await?;
        self.power = Some(Power { unshare, _hold: hold, init, port });
        let (address, gateway) = (self.place.address, self.place.gateway);
        let setup = format!(
            "ip addr add {address}/24 dev eth0 && ip link set eth0 up && ip route add default via {gateway} && \
             ip link set lo up"
        );
        self.run(&["sh", "-c", &setup]).await.map(drop)
    }

    /// Takes its power away: every process of it ends at once, containers too, and what it had mounted is gone. Files
    /// stay.
    pub async fn power_off(&mut self) -> Result<()> {
        let Some(mut power) = self.power.take() else { return Ok(()) };
        kill(Pid::from_raw(power.init), Signal::SIGKILL)?;
        // The kernel ends the first process last.
        tokio::time::timeout(PATIENCE, power.unshare.wait()).await.context("the box does not end")??;
        self.processes.clear();
        crate::sweep::control_groups(&self.control_group());
        Ok(())
    }

    /// The control group of its containers, on this machine.
    pub fn control_group(&self) -> String {
        let lab = self.home.parent().and_then(Path::file_name).unwrap_or_default();
        format!("{}-{}", lab.to_string_lossy(), self.name)
    }

    /// The switch's port that its cable is in.
    pub fn port(&self) -> Result<&str> {
        Ok(&self.power.as_ref().with_context(|| format!("{} is off", self.name))?.port)
    }

    /// The beginning of a command line that runs on the box.
    pub fn enter(&self) -> Result<Vec<String>> {
        let init = self.power.as_ref().with_context(|| format!("{} is off", self.name))?.init;
        let words = format!("nsenter -t {init} -m -n -p -u -i");
        Ok(words.split(' ').map(str::to_owned).collect())
    }

    /// Runs a program on the box to its good end; what it printed.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.feed(arguments, b"").await
    }

    /// The same with this input.
    pub async fn feed(&self, arguments: &[&str], input: &[u8]) -> Result<String> {
        let mut line = self.enter()?;
        line.extend(arguments.iter().map(|word| (*word).to_owned()));
        process::output(&line, input).await.with_context(|| format!("on {}", self.name))
    }

    /// Starts a program that goes on running, under this name.
    pub async fn start(&mut self, name: &str, arguments: &[&str]) -> Result<&Process> {
        ensure!(!self.processes.get(name).is_some_and(Process::runs), "{name} runs on {}", self.name);
        let log = self.home.join("log").join(name);
        let process = Process::start(&self.enter()?, name, arguments, &log).await?;
        self.processes.insert(name.to_owned(), process);
        self.process(name)
    }

    /// A program that was started.
    pub fn process(&self, name: &str) -> Result<&Process> {
        self.processes.get(name).with_context(|| format!("{name} was not started on {}", self.name))
    }

    /// Ends a program as a service manager would, and waits.
    pub async fn stop(&self, name: &str) -> Result<()> {
        self.signal(name, "TERM").await
    }

    /// Ends a program at once.
    pub async fn kill(&self, name: &str) -> Result<()> {
        self.signal(name, "KILL").await
    }

    async fn signal(&self, name: &str, signal: &str) -> Result<()> {
        let process = self.process(name)?;
        self.run(&["sh", "-c", &format!("kill -{signal} {}", process.pid())]).await?;
        process.ended(PATIENCE).await.map(drop)
    }
}

/// The one child of a process.
fn only_child(pid: u32) -> Result<i32> {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    children.split_whitespace().next().and_then(|pid| pid.parse().ok()).context("the box has no first process")
}
