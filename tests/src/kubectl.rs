//! Stock kubectl in many versions, as outside judges.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::wait::PATIENCE;

/// Whether everything must be there that tests can use: `CI=true`. Elsewhere a test says what it leaves out.
pub fn nothing_may_be_missing() -> bool {
    std::env::var("CI").as_deref() == Ok("true")
}

/// Where `deploy/setup.sh test` keeps the clients it fetched.
pub fn fetched_clients() -> PathBuf {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")));
    cache.unwrap_or_else(std::env::temp_dir).join("coracle/clients")
}

/// The program of kubectl 1.`minor`: what `deploy/setup.sh` fetched, or one that lies beside the installed kubectl.
fn program(minor: u32) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed =
        std::env::split_paths(&path).map(|folder| folder.join("kubectl")).filter_map(|p| p.canonicalize().ok());
    let beside = installed.filter_map(|p| p.parent().map(Path::to_owned));
    let folders = std::iter::once(fetched_clients()).chain(beside);
    folders.map(|folder| folder.join(format!("kubectl.1.{minor}"))).find(|program| program.exists())
}

/// One kubectl with a home of its own, for one cluster. Clones are the same one.
#[derive(Clone)]
pub struct Kubectl {
    /// It is kubectl 1.`minor`.
    pub minor: u32,
    program: PathBuf,
    kubeconfig: PathBuf,
    home: Arc<tempfile::TempDir>,
    namespace: Option<String>,
}

impl Kubectl {
    /// Those of these versions that are on this machine.
    #[allow(clippy::print_stderr)] // A test that cannot run says so.
    pub fn all(kubeconfig: &Path, minors: &[u32]) -> Vec<Kubectl> {
        let mut found = Vec::new();
        for minor in minors.iter().copied() {
            match program(minor) {
                Some(program) => found.push(Kubectl {
                    minor,
                    program,
                    kubeconfig: kubeconfig.to_owned(),
                    home: Arc::new(tempfile::tempdir().expect("a temporary folder can be made")),
                    namespace: None,
                }),
                None => {
                    assert!(!nothing_may_be_missing(), "CI needs kubectl 1.{minor}");
                    eprintln!("skipped: there is no kubectl 1.{minor} on this machine");
                }
            }
        }
        found
    }

    /// The same, working in a namespace.
    pub fn inside(&self, namespace: &str) -> Kubectl {
        Kubectl { namespace: Some(namespace.to_owned()), ..self.clone() }
    }

    /// A folder of its own.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Writes a file into its folder; the path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).expect("the folder is ours");
        path.display().to_string()
    }

    /// The words a command line begins with.
    pub fn line(&self) -> String {
        format!("{} --kubeconfig {}", self.program.display(), self.kubeconfig.display())
    }

    /// A command, to be changed and started.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("--kubeconfig").arg(&self.kubeconfig);
        if let Some(namespace) = &self.namespace {
            command.arg("--namespace").arg(namespace);
        }
        command.args(arguments).env("HOME", self.home.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A started command that waits for input.
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdin(Stdio::piped()).spawn().expect("it is a program")
    }

    /// Runs to the end with this input.
    pub async fn run(&self, arguments: &[&str], input: &[u8]) -> Output {
        self.finish(arguments, self.spawn(arguments), input).await
    }

    /// Runs to its good end; what it printed.
    pub async fn ok(&self, arguments: &[&str], input: &[u8]) -> Vec<u8> {
        let output = self.run(arguments, input).await;
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{} {arguments:?}: {out}{error}", self.program.display());
        output.stdout
    }

    /// Runs a command line to its end, good or bad.
    pub async fn ends(&self, line: &str) -> Output {
        let words = words(line);
        self.run(&words.iter().map(String::as_str).collect::<Vec<_>>(), b"").await
    }

    /// What a command line prints when all is well.
    pub async fn says(&self, line: &str) -> String {
        let output = self.ends(line).await;
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "kubectl 1.{} {line}: {out}{error}", self.minor);
        out.into_owned()
    }

    /// A command line prints exactly this.
    pub async fn prints(&self, line: &str, expected: &str) {
        let printed = self.says(line).await;
        assert_eq!(printed, expected, "kubectl 1.{} {line}", self.minor);
    }

    /// What a command line prints contains all of these.
    pub async fn mentions(&self, line: &str, expected: &[&str]) {
        let printed = self.says(line).await;
        for part in expected {
            assert!(printed.contains(part), "kubectl 1.{} {line} has no {part:?}:\n{printed}", self.minor);
        }
    }

    /// A command line fails and complains of this.
    pub async fn fails(&self, line: &str, expected: &str) {
        let output = self.ends(line).await;
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let failed = !output.status.success() && error.contains(expected);
        assert!(failed, "kubectl 1.{} {line} does not complain of {expected:?}: {out}{error}", self.minor);
    }

    /// Waits for a started command that is fed with `input`.
    pub async fn finish(&self, arguments: &[&str], mut child: Child, input: &[u8]) -> Output {
        let mut stdin = child.stdin.take().expect("it was started with a pipe");
        let input = input.to_vec();
        let feed = tokio::spawn(async move {
            // A command may end before it has read everything.
            let _ = stdin.write_all(&input).await;
        });
        let output = tokio::time::timeout(2 * PATIENCE, child.wait_with_output()).await;
        feed.abort();
        let output = output.unwrap_or_else(|_| panic!("{} {arguments:?} does not end", self.program.display()));
        let mut output = output.expect("what it prints can be read");
        output.stderr = without_streams_too_early(&output.stderr);
        output
    }

    /// A port-forward, and the port it got.
    pub async fn forward(&self, target: &str, port: u16) -> Forward {
        let mut child = self.spawn(&["port-forward", target, &format!(":{port}")]);
        let mut printed = BufReader::new(child.stdout.take().expect("it is piped"));
        let line = line(&mut printed).await;
        let local = line.strip_prefix("Forwarding from 127.0.0.1:").and_then(|rest| rest.split(' ').next());
        let port = local.and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("{line}"));
        Forward { child, port, _printed: printed }
    }
}

/// A command line as words; what stands between single quotes stays together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted, mut begun) = (vec![String::new()], false, false);
    for letter in line.chars() {
        match letter {
            '\'' => (quoted, begun) = (!quoted, true),
            ' ' if !quoted && begun => {
                words.push(String::new());
                begun = false;
            }
            ' ' if !quoted => {}
            letter => {
                begun = true;
                if let Some(word) = words.last_mut() {
                    word.push(letter);
                }
            }
        }
    }
    words
}

/// As upstream's, our servers send an empty message first, to say that the connection stands. Where it comes before kubectl
/// has made its streams, it tells that it threw something away.
fn without_streams_too_early(said: &[u8]) -> Vec<u8> {
    let is_early = |line: &&[u8]| String::from_utf8_lossy(line).contains("Unknown stream id 1, discarding message");
    said.split_inclusive(|byte| *byte == b'\n').filter(|line| !is_early(line)).flatten().copied().collect()
}

/// A port-forward that stands. It dies when nobody can read what it prints.
pub struct Forward {
    /// The process.
    pub child: Child,
    /// The local port.
    pub port: u16,
    _printed: BufReader<ChildStdout>,
}

/// The next line of what a program prints; empty at the end.
pub async fn line(reader: &mut (impl AsyncBufRead + Unpin)) -> String {
    let mut line = String::new();
    let read = tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await;
    read.expect("it says something in time").expect("it can be read");
    line.trim_end().to_owned()
}
