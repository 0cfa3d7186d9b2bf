//! Commands run in containers, and what containers wrote.

use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, StartExecResults};
use bollard::query_parameters::LogsOptionsBuilder;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};

use super::super::{Error, ExecResult, LogOptions, Result};

/// Output of a command that is kept.
const MAX_OUTPUT: usize = 10 << 10;

/// Runs `command` in the container `id`, at most for `limit`.
pub(super) async fn exec(docker: &Docker, id: &str, command: &[String], limit: Duration) -> Result<ExecResult> {
    let options = CreateExecOptions {
        cmd: Some(command.to_vec()),
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        ..CreateExecOptions::default()
    };
    let exec = docker.create_exec(id, options).await.map_err(super::error)?.id;
    let run = async {
        let started = docker.start_exec(&exec, None).await.map_err(super::error)?;
        let mut output = Vec::new();
        if let StartExecResults::Attached { output: mut chunks, .. } = started {
            while let Some(chunk) = chunks.next().await {
                let chunk = chunk.map_err(super::error)?.into_bytes();
                output.extend_from_slice(&chunk[..chunk.len().min(MAX_OUTPUT.saturating_sub(output.len()))]);
            }
        }
        let inspected = docker.inspect_exec(&exec).await.map_err(super::error)?;
        let output = String::from_utf8_lossy(&output).into_owned();
        Ok(ExecResult { code: inspected.exit_code.unwrap_or(0), output })
    };
    let timed_out = || Error::Refused(format!("command timed out after {}", crate::names::go_duration(limit)));
    tokio::time::timeout(limit, run).await.unwrap_or_else(|_| Err(timed_out()))
}

/// What the container `id` wrote.
pub(super) async fn logs(docker: &Docker, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>> {
    // A container that does not exist is an error now, not one in the middle of the stream.
    docker.inspect_container(id, None).await.map_err(super::error)?;
    let tail = options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let mut query = LogsOptionsBuilder::new().stdout(true).stderr(true).follow(options.follow).tail(&tail);
    query = query.timestamps(options.timestamps);
    if let Some(since) = options.since {
        query = query.since(i32::try_from(since.as_second()).unwrap_or(i32::MAX).max(0));
    }
    let chunks = docker.logs(id, Some(query.build()));
    Ok(chunks.map(|chunk| chunk.map(LogOutput::into_bytes).map_err(super::error)).boxed())
}
