//! A program on a box: its log, its end.

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use harness::wait::PATIENCE;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};
use tokio::sync::watch;

/// Says its process number and becomes the program; what that complains of is in its log as well.
const WRAPPER: &str = r#"echo $$; exec "$@" 2>&1"#;
/// How much of a log an error shows.
const LAST_LINES: usize = 20;
/// How long after a program's end its last lines may take.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A started program.
pub struct Process {
    name: String,
    pid: u32,
    log: PathBuf,
    /// Where this run's lines begin in the log.
    begins_at: u64,
    lines: watch::Receiver<u64>,
    end: watch::Receiver<Option<ExitStatus>>,
}

impl Process {
    /// Starts `arguments` by way of `enter`, which is a command line that enters the box. Its output is added to `log`.
    pub async fn start(enter: &[String], name: &str, arguments: &[&str], log: &Path) -> Result<Process> {
        let begins_at = std::fs::metadata(log).map_or(0, |file| file.len());
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).args(["sh", "-c", WRAPPER, "sh"]).args(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let mut output = BufReader::new(child.stdout.take().context("it is piped")?);
        let mut first = String::new();
        tokio::time::timeout(PATIENCE, output.read_line(&mut first)).await??;
        let pid = first.trim().parse().with_context(|| format!("{name} did not start: {first:?}"))?;
        let file = tokio::fs::File::options().create(true).append(true).open(log).await?;
        let (seen, lines) = watch::channel(0);
        let (ended, end) = watch::channel(None);
        tokio::spawn(copy(output, file, seen));
        tokio::spawn(bury(child, ended));
        Ok(Process { name: name.to_owned(), pid, log: log.to_owned(), begins_at, lines, end })
    }

    /// Its number on the box.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended.
    pub fn runs(&self) -> bool {
        self.end.borrow().is_none()
    }

    /// Waits until it has written a line that contains `words`; fails when it ends first.
    pub async fn says(&self, words: &str) -> Result<String> {
        self.says_within(words, PATIENCE).await
    }

    /// The same with another limit.
    pub async fn says_within(&self, words: &str, limit: Duration) -> Result<String> {
        let found = |text: &str| text.lines().find(|line| line.contains(words)).map(str::to_owned);
        self.until(&format!("{words:?}"), limit, found).await
    }

    /// Waits until something is found in what it has written; fails when it ends first.
    pub async fn until<T>(&self, what: &str, limit: Duration, found: impl Fn(&str) -> Option<T>) -> Result<T> {
        let (mut lines, mut end) = (self.lines.clone(), self.end.clone());
        let waiting = async {
            loop {
                lines.borrow_and_update();
                if let Some(found) = found(&self.text()) {
                    return Ok(found);
                }
                tokio::select! {
                    more = lines.changed() => if more.is_ok() { continue },
                    _ = end.wait_for(Option::is_some) => {}
                }
                // Its last words may still be in the pipe; whoever it started may hold that open for ever.
                let _ = tokio::time::timeout(LAST_WORDS, async { while lines.changed().await.is_ok() {} }).await;
                let text = self.text();
                return found(&text).with_context(|| format!("{} ended: {}", self.name, tail(&text)));
            }
        };
        match tokio::time::timeout(limit, waiting).await {
            Ok(found) => found,
            Err(_) => bail!("{} has not said {what} within {limit:?}: {}", self.name, tail(&self.text())),
        }
    }

    /// Waits until it has written this many lines.
    pub async fn says_more(&self, count: usize) -> Result<()> {
        let (mut lines, count) = (self.lines.clone(), u64::try_from(count)?);
        let waiting = tokio::time::timeout(PATIENCE, lines.wait_for(|lines| *lines >= count)).await;
        waiting.with_context(|| format!("{} has not written {count} lines within {PATIENCE:?}", self.name))??;
        Ok(())
    }

    /// What it has written since it was started.
    pub fn text(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        let from = usize::try_from(self.begins_at).unwrap_or(0).min(bytes.len());
        String::from_utf8_lossy(&bytes[from..]).into_owned()
    }

    /// Waits for its end.
    pub async fn ended(&self, limit: Duration) -> Result<ExitStatus> {
        let mut end = self.end.clone();
        let status = tokio::time::timeout(limit, end.wait_for(Option::is_some)).await;
        let status = status.with_context(|| format!("{} has not ended within {limit:?}", self.name))?;
        status?.context("it has ended")
    }
}

/// Copies the program's lines, and those of what it started, into its log.
async fn copy(mut output: BufReader<ChildStdout>, mut log: tokio::fs::File, seen: watch::Sender<u64>) {
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
        // A full disk shows in the lines a test waits for.
        let _ = log.write_all(&line).await;
        let _ = log.flush().await;
        line.clear();
        seen.send_modify(|count| *count += 1);
    }
}

async fn bury(mut child: Child, ended: watch::Sender<Option<ExitStatus>>) {
    if let Ok(status) = child.wait().await {
        ended.send_replace(Some(status));
    }
}

/// The last lines of a log.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

/// Runs a command to its good end, within [`PATIENCE`]; what it printed.
pub async fn output(line: &[String], input: &[u8]) -> Result<String> {
    let (program, arguments) = line.split_first().context("no program")?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().with_context(|| format!("run {program}"))?;
    let (mut stdin, input) = (child.stdin.take().context("it is piped")?, input.to_vec());
    let feed = tokio::spawn(async move {
        // A command may end before it has read everything.
        let _ = stdin.write_all(&input).await;
    });
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    feed.abort();
    let output = output.with_context(|| format!("{line:?} does not end"))??;
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{}: {}: {out}{error}", line.join(" "), output.status);
    Ok(out.trim_end().to_owned())
}
