//! Runs the system's programs: `nft`, `ip`, `conntrack`.

use std::io::ErrorKind;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::SinkError;

/// Longer than any healthy run: 5,000 services take nft two seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How much of a program's complaint goes into an error.
pub const MESSAGE_CHARS_MAX: usize = 1000;

/// Runs `program` with `input` on its standard input and returns its standard output.
pub async fn run(program: &str, arguments: &[impl AsRef<str>], input: &str) -> Result<Vec<u8>, SinkError> {
    let output = tokio::time::timeout(TIMEOUT, output(program, arguments, input))
        .await
        .map_err(|_| SinkError::TimedOut(program.to_owned()))?;
    let output = output.map_err(|source| match source.kind() {
        ErrorKind::NotFound => SinkError::Missing(program.to_owned()),
        _ => SinkError::Io { program: program.to_owned(), source },
    })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().chars().take(MESSAGE_CHARS_MAX).collect();
    Err(SinkError::Failed { program: program.to_owned(), message })
}

/// Runs `program` and reads its output as JSON; no output is `null`.
pub async fn json(program: &str, arguments: &[impl AsRef<str>]) -> Result<Value, SinkError> {
    let output = run(program, arguments, "").await?;
    if output.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&output).map_err(|source| SinkError::Unreadable { program: program.to_owned(), source })
}

/// Runs an nft script as one transaction.
pub async fn nft(script: &str) -> Result<(), SinkError> {
    run("nft", &["-f", "-"], script).await.map(drop)
}

async fn output(
    program: &str,
    arguments: &[impl AsRef<str>],
    input: &str,
) -> Result<std::process::Output, std::io::Error> {
    let mut child = Command::new(program)
        .args(arguments.iter().map(AsRef::as_ref))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A program that ends without reading everything says why in its exit status.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
    };
    // Both at once: a program that writes much before it has read all would otherwise wait for us and we for it.
    let (_, output) = tokio::join!(feed, child.wait_with_output());
    output
}
