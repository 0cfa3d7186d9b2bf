//! A real registry (Debian's `docker-registry`) on a port of its own, without TLS, which Docker trusts on loopback; open,
//! or with one user. What it was asked is in its log.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Notify;

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(30);
/// Who may, where not everyone may, and his password.
pub const USER: &str = "user";
/// See [`USER`].
pub const PASSWORD: &str = "open sesame";
/// The same as `htpasswd -B` writes it.
const HTPASSWD: &str = "user:$2y$05$1R7QuQaRqcB7RRv.rM7dk.5.03FvFLGToTwamhvGc1Gulv9Ey6Bly";

/// A running registry; it goes with all it has when this is dropped.
pub struct Registry {
    _folder: tempfile::TempDir,
    _process: Child,
    address: String,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    grew: Notify,
}

/// Whether there is a registry to start. Where there is none, a test says so and does nothing; in CI it fails.
pub fn available() -> bool {
    let answers = std::process::Command::new("docker-registry").arg("--version").stdout(Stdio::null()).status();
    crate::docker::needed(answers.is_ok_and(|status| status.success()))
}

impl Registry {
    /// Starts one; with `users`, only [`USER`] is heard.
    pub async fn start(users: bool) -> Result<Registry> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:0'}}\n",
            path("data")
        );
        if users {
            std::fs::write(path("htpasswd"), HTPASSWD)?;
            config += &format!("auth: {{htpasswd: {{realm: tests, path: {}}}}}\n", path("htpasswd"));
        }
        std::fs::write(path("config.yml"), config)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(path("config.yml")).stdin(Stdio::null()).kill_on_drop(true);
        let mut process =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("run docker-registry")?;
        let log = Arc::new(Log::default());
        follow(process.stdout.take().context("stdout is piped")?, log.clone());
        follow(process.stderr.take().context("stderr is piped")?, log.clone());
        let listens = |line: &String| Some(line.split_once("listening on ")?.1.split('"').next()?.trim().to_owned());
        let address = log.until(|lines| lines.iter().find_map(listens)).await.context("the registry does not start")?;
        Ok(Registry { _folder: folder, _process: process, address, log })
    }

    /// The name under which `image` is here.
    pub fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.address)
    }

    /// Where it is: `127.0.0.1:…`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The requests since the log was last looked at: `GET /v2/app/manifests/1 200`.
    pub fn asked(&self) -> Vec<String> {
        let lines = std::mem::take(&mut *self.log.lines.lock());
        lines.iter().filter_map(|line| request(line)).collect()
    }
}

/// The request in a line of the access log: `… "GET /v2/ HTTP/1.1" 200 2 …`.
fn request(line: &str) -> Option<String> {
    let (_, rest) = line.split_once(" \"").filter(|(before, _)| before.contains(" - - ["))?;
    let (request, rest) = rest.split_once(" HTTP/1.1\" ")?;
    Some(format!("{request} {}", rest.split(' ').next()?))
}

fn follow(output: impl tokio::io::AsyncRead + Unpin + Send + 'static, log: Arc<Log>) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(output).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            log.lines.lock().push(line);
            log.grew.notify_one();
        }
    });
}

impl Log {
    async fn until<T>(&self, found: impl Fn(&[String]) -> Option<T>) -> Result<T> {
        let looking = async {
            loop {
                if let Some(found) = found(&self.lines.lock()) {
                    return found;
                }
                self.grew.notified().await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.with_context(|| self.lines.lock().join("\n"))
    }
}
