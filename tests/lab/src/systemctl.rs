//! `systemctl` on a box of the lab, whose first process is not systemd: starts what a unit says, as the user it says, waits
//! until that tells it is ready, and ends it. So what installs packages, and who follows a page, can do on a box what they
//! do elsewhere. Ordering, restarts and confinement are systemd's own, and are not here.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// What it is called on a box.
pub const NAME: &str = "systemctl";
/// Where packages put units.
const UNITS: &str = "/usr/lib/systemd/system";
/// What is told of a service that has ended.
const ENDED: &str = "ENDED";
/// How long a start and a stop may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Does what the arguments after the program's name say.
pub fn run(arguments: impl Iterator<Item = String>) -> Result<()> {
    let (flags, words): (Vec<String>, Vec<String>) = arguments.partition(|word| word.starts_with("--"));
    let is = |flag: &str| flags.iter().any(|given| given == flag);
    let (verb, units) = words.split_first().context("no verb")?;
    for unit in units.iter().map(|unit| Unit(unit.trim_end_matches(".service").to_owned())) {
        ensure!(unit.file().exists(), "Unit {}.service not found.", unit.0);
        match verb.as_str() {
            "enable" => {}
            "disable" if is("--now") => unit.stop()?,
            "disable" => {}
            "stop" => unit.stop()?,
            "start" => unit.start(is("--no-block"))?,
            "restart" => {
                unit.stop()?;
                unit.start(is("--no-block"))?;
            }
            other => bail!("{other}: not on a box of the lab"),
        }
    }
    ensure!(!units.is_empty() || verb == "daemon-reload", "{verb}: no unit");
    Ok(())
}

/// A service, by its name.
struct Unit(String);

impl Unit {
    fn file(&self) -> PathBuf {
        PathBuf::from(UNITS).join(format!("{}.service", self.0))
    }

    /// Where the number of its process is.
    fn number(&self) -> PathBuf {
        PathBuf::from(format!("/run/{}.pid", self.0))
    }

    /// What stands for the journal.
    fn log(&self) -> PathBuf {
        PathBuf::from(format!("/var/log/{}.log", self.0))
    }

    fn start(&self, no_block: bool) -> Result<()> {
        let text = std::fs::read_to_string(self.file())?;
        let said = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        let mut words: Vec<&str> = Vec::new();
        if let Some(user) = said("User") {
            words.extend(["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--"]);
        }
        words.extend(said("ExecStart").context("a unit starts something")?.split(' '));
        let socket = format!("/run/{}.notify", self.0);
        // What a start before this one left.
        let _ = std::fs::remove_file(&socket);
        let told = UnixDatagram::bind(&socket)?;
        std::fs::set_permissions(&socket, Permissions::from_mode(0o777))?;
        told.set_read_timeout(Some(PATIENCE))?;
        let log = File::options().create(true).append(true).open(self.log())?;
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).env("NOTIFY_SOCKET", &socket).process_group(0).current_dir("/");
        let mut child = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
        std::fs::write(self.number(), child.id().to_string())?;
        // Who ends before it is ready is not waited for.
        std::thread::spawn(move || {
            let _ = child.wait();
            UnixDatagram::unbound().and_then(|end| end.send_to(ENDED.as_bytes(), &socket))
        });
        ensure!(no_block || is_ready(&told)?, "{} does not get ready; see {}", self.0, self.log().display());
        Ok(())
    }

    fn stop(&self) -> Result<()> {
        let Ok(number) = std::fs::read_to_string(self.number()) else { return Ok(()) };
        let process = Pid::from_raw(number.parse()?);
        std::fs::remove_file(self.number())?;
        match kill(process, Signal::SIGTERM) {
            Err(Errno::ESRCH) => return Ok(()),
            other => other?,
        }
        // Not our child: who waits for it is the box's first process.
        let line = format!("timeout {} tail --pid {process} -f /dev/null", PATIENCE.as_secs());
        let ended = Command::new("sh").args(["-c", &line]).status()?;
        ensure!(ended.success(), "{} does not end", self.0);
        Ok(())
    }
}

/// Whether the service says that it is ready, in time.
fn is_ready(told: &UnixDatagram) -> Result<bool> {
    let mut message = [0; 4096];
    loop {
        let Ok(length) = told.recv(&mut message) else { return Ok(false) };
        let text = String::from_utf8_lossy(&message[..length]);
        match text.lines().find(|line| ["READY=1", ENDED].contains(line)) {
            Some(line) => return Ok(line != ENDED),
            None => continue,
        }
    }
}
