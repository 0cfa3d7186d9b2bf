//! The daemons under measurement: started, waited for, looked at, ended.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use http::Method;

use crate::http::Target;

/// A child process that is ended when this is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts a program, its log going to `log`.
    pub(crate) fn start(
        program: &Path,
        arguments: &[String],
        environment: &[(&str, String)],
        log: &Path,
    ) -> Result<Process> {
        let log = std::fs::File::options().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().map(|(k, v)| (*k, v.as_str())))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        Ok(Process { child })
    }

    /// Resident memory in MiB, as the kernel counts it.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(kib.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
    }

    /// Processor seconds used so far, user and system.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after = stat.rsplit_once(')').context("odd /proc/stat")?.1;
        let fields: Vec<&str> = after.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    /// Ends it at once, as a power failure would.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Ends it with SIGTERM and waits.
    pub(crate) fn stop(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
        let _ = self.child.wait();
    }
}

/// A master with a data directory of its own.
pub(crate) struct MasterProcess {
    /// The process.
    pub(crate) process: Process,
    /// How to reach it as admin.
    pub(crate) target: Target,
    /// Its data directory.
    pub(crate) data_dir: PathBuf,
    /// From start to the first successful request for `/readyz`.
    pub(crate) ready_after: Duration,
}

/// The one who asks, and everything is allowed to.
pub(crate) const TOKENS: &str = "benchtoken,bench,bench,\"system:masters\"\n";

/// Starts a master on `port` and waits until it is ready.
pub(crate) async fn start_master(binaries: &Path, data_dir: &Path, port: u16, extra: &[&str]) -> Result<MasterProcess> {
    let mut arguments = vec![
        "--data-dir".to_owned(),
        data_dir.display().to_string(),
        "--bind-address".to_owned(),
        "127.0.0.1".to_owned(),
        "--secure-port".to_owned(),
        port.to_string(),
    ];
    let tokens = data_dir.with_extension("tokens");
    std::fs::write(&tokens, TOKENS)?;
    arguments.extend(["--token-auth-file".to_owned(), tokens.display().to_string()]);
    arguments.extend(extra.iter().map(|s| (*s).to_owned()));
    let begun = Instant::now();
    let log = data_dir.with_extension("log");
    let mut process = Process::start(&binaries.join("master"), &arguments, &[], &log)?;
    let address = format!("127.0.0.1:{port}");
    loop {
        if let Some(status) = process.child.try_wait()? {
            bail!("the master ended with {status}; see {}", log.display());
        }
        if begun.elapsed() > Duration::from_secs(30) {
            bail!("the master is not ready after 30 s; see {}", log.display());
        }
        if let Ok(target) = ready(&address, data_dir).await {
            return Ok(MasterProcess { process, target, data_dir: data_dir.to_owned(), ready_after: begun.elapsed() });
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn ready(address: &str, data_dir: &Path) -> Result<Target> {
    let ca = std::fs::read(data_dir.join("ca.crt"))?;
    let target = Target::with_token(address, &ca, "benchtoken")?;
    target.connect().await?.call(Method::GET, "/readyz", bytes::Bytes::new()).await?;
    Ok(target)
}
