//! A process in a container and someone connected to it.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{ExecResult, Result};

/// Output of a command that is kept where nobody reads it as it comes.
const MAX_KEPT_OUTPUT: usize = 10 << 10;

/// What of a process a client wants to be connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Its standard input.
    pub stdin: bool,
    /// Its standard output.
    pub stdout: bool,
    /// Its standard error; a terminal has none.
    pub stderr: bool,
    /// Whether it is to have a terminal, or has one.
    pub tty: bool,
}

/// A piece of what a process wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To standard output, or its terminal.
    Stdout(Bytes),
    /// To standard error.
    Stderr(Bytes),
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// A process someone is connected to.
pub struct Session {
    /// Its standard input, where wanted; shutting it down is the end of input.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// What it writes, to its end.
    pub output: BoxStream<'static, Result<Output>>,
    /// The process itself.
    pub process: Box<dyn Process>,
}

/// What can be asked of a process beyond its streams.
#[async_trait::async_trait]
pub trait Process: Send + Sync {
    /// Gives its terminal another size.
    async fn resize(&self, size: TerminalSize) -> Result<()>;

    /// Its exit code, once its output has ended. What one only attached to has none: 0.
    async fn wait(&self) -> Result<i64>;
}

/// Bytes both ways, each direction with an end of its own.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection to a port of a pod.
pub type Connection = Box<dyn Duplex>;

/// Waits for the end of a process and keeps the first of what it wrote.
pub(crate) async fn collect(mut session: Session) -> Result<ExecResult> {
    let mut kept = Vec::new();
    while let Some(output) = session.output.next().await {
        let (Output::Stdout(bytes) | Output::Stderr(bytes)) = output?;
        kept.extend_from_slice(&bytes[..bytes.len().min(MAX_KEPT_OUTPUT - kept.len())]);
    }
    let code = session.process.wait().await?;
    Ok(ExecResult { code, output: String::from_utf8_lossy(&kept).into_owned() })
}
