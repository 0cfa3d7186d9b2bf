//! Commands run in containers, connections to what containers run, and what they wrote.

use std::sync::atomic::{AtomicBool, Ordering};

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::exec::{CreateExecOptions, ResizeExecOptions};
use bollard::models::ExecInspectResponse;
use bollard::query_parameters::{LogsOptionsBuilder, ResizeContainerTTYOptionsBuilder};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use serde_json::json;
use tokio::io::AsyncWrite;

use super::super::{LogOptions, LogStream, Process, Result, Session, TerminalSize, Wanted};
use super::hijack::Hijacker;
use super::{events, frames};

/// Starts `command` in the container `id`.
pub(super) async fn exec(
    docker: &Docker,
    hijacker: &Hijacker,
    id: &str,
    command: &[String],
    wanted: Wanted,
) -> Result<Session> {
    let options = CreateExecOptions {
        cmd: Some(command.to_vec()),
        attach_stdin: Some(wanted.stdin),
        attach_stdout: Some(wanted.stdout),
        attach_stderr: Some(wanted.stderr),
        tty: Some(wanted.tty),
        ..CreateExecOptions::default()
    };
    let exec = docker.create_exec(id, options).await.map_err(super::error)?.id;
    let path = format!("/exec/{exec}/start");
    // From here on the command may run, so whoever gives up now must end it.
    let process = Exec { docker: docker.clone(), container: id.to_owned(), exec, ended: AtomicBool::new(false) };
    let stream = hijacker.post(&path, &json!({"Detach": false, "Tty": wanted.tty})).await?;
    Ok(session(stream, wanted, Box::new(process)))
}

/// Connects to what the container `id` runs.
pub(super) async fn attach(docker: &Docker, hijacker: &Hijacker, id: &str, wanted: Wanted) -> Result<Session> {
    let Wanted { stdin, stdout, stderr, tty } = wanted;
    // On a terminal standard error is part of standard output.
    let query = format!("stream=1&stdin={stdin}&stdout={stdout}&stderr={}", stderr && !tty);
    let stream = hijacker.post(&format!("/containers/{id}/attach?{query}"), &json!({})).await?;
    let process = Attached { docker: docker.clone(), container: id.to_owned() };
    Ok(session(stream, wanted, Box::new(process)))
}

fn session(
    stream: hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>,
    wanted: Wanted,
    process: Box<dyn Process>,
) -> Session {
    let (reader, writer) = tokio::io::split(stream);
    let stdin = wanted.stdin.then(|| Box::new(writer) as Box<dyn AsyncWrite + Send + Unpin>);
    Session { stdin, output: frames::output(reader, wanted.tty), process }
}

/// A command in a container. Docker lets it run when nobody is connected any more, so it is ended here.
struct Exec {
    docker: Docker,
    container: String,
    exec: String,
    ended: AtomicBool,
}

#[async_trait::async_trait]
impl Process for Exec {
    async fn resize(&self, size: TerminalSize) -> Result<()> {
        let options = ResizeExecOptions { height: size.height, width: size.width };
        self.docker.resize_exec(&self.exec, options).await.map_err(super::error)
    }

    async fn wait(&self) -> Result<i64> {
        let inspected = ended(&self.docker, &self.container, &self.exec).await?;
        self.ended.store(true, Ordering::Relaxed);
        Ok(inspected.exit_code.unwrap_or(0))
    }
}

impl Drop for Exec {
    fn drop(&mut self) {
        if self.ended.load(Ordering::Relaxed) {
            return;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (docker, container, exec) = (self.docker.clone(), self.container.clone(), self.exec.clone());
        runtime.spawn(async move {
            let Ok(inspected) = docker.inspect_exec(&exec).await else { return };
            let pid = inspected.pid.filter(|_| inspected.running == Some(true));
            if let Some(Err(error)) = pid.map(|pid| kill(pid, &container)) {
                tracing::warn!(container, pid, %error, "cannot end a command whose client is gone");
            }
        });
    }
}

/// The state of a command that has ended, for which it waits: its output may end a moment before it does, or long before
/// where it closes its streams.
async fn ended(docker: &Docker, container: &str, exec: &str) -> Result<ExecInspectResponse> {
    // Events since before the first look: none is missed.
    let since = jiff::Timestamp::now();
    let inspected = docker.inspect_exec(exec).await.map_err(super::error)?;
    if inspected.running != Some(true) {
        return Ok(inspected);
    }
    events::exec_end(docker, container, exec, since).await?;
    docker.inspect_exec(exec).await.map_err(super::error)
}

/// Ends the process `pid` if it is one of the container's.
fn kill(pid: i64, container: &str) -> std::io::Result<()> {
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    if !cgroup.contains(container) {
        return Err(std::io::Error::other("the process is not of the container"));
    }
    let pid = i32::try_from(pid).map_err(std::io::Error::other)?;
    Ok(nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?)
}

/// A connection to what a container runs.
struct Attached {
    docker: Docker,
    container: String,
}

#[async_trait::async_trait]
impl Process for Attached {
    async fn resize(&self, size: TerminalSize) -> Result<()> {
        let options = ResizeContainerTTYOptionsBuilder::new().h(size.height.into()).w(size.width.into()).build();
        self.docker.resize_container_tty(&self.container, options).await.map_err(super::error)
    }

    async fn wait(&self) -> Result<i64> {
        Ok(0)
    }
}

/// What the container `id` wrote.
pub(super) async fn logs(docker: &Docker, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes>>> {
    // A container that does not exist is an error now, not one in the middle of the stream.
    docker.inspect_container(id, None).await.map_err(super::error)?;
    let tail = options.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let wants = |stream| options.only.is_none_or(|only| only == stream);
    let mut query = LogsOptionsBuilder::new()
        .stdout(wants(LogStream::Stdout))
        .stderr(wants(LogStream::Stderr))
        .follow(options.follow)
        .tail(&tail);
    query = query.timestamps(options.timestamps);
    if let Some(since) = options.since {
        query = query.since(i32::try_from(since.as_second()).unwrap_or(i32::MAX).max(0));
    }
    let chunks = docker.logs(id, Some(query.build()));
    Ok(chunks.map(|chunk| chunk.map(LogOutput::into_bytes).map_err(super::error)).boxed())
}
