//! Logging, start, wait for a signal, stop.

use std::future::Future;
use std::io::IsTerminal;

use anyhow::Result;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::flags::{Flags, LogFormat};
use crate::journal;
use crate::notify::Notify;

/// Runs a daemon until a signal ends it: `start` gives what runs, `stop` ends that. A signal that comes before the
/// start is done ends the process at once.
pub fn run<T>(flags: &Flags, start: impl Future<Output = Result<T>>, stop: impl AsyncFnOnce(T)) -> Result<()> {
    start_logging(flags)?;
    let notify = Notify::from_environment();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut signals = [signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?];
        let running = tokio::select! {
            started = start => started?,
            () = any(&mut signals) => return Ok(()),
        };
        notify.ready();
        any(&mut signals).await;
        notify.stopping();
        stop(running).await;
        Ok(())
    })
}

async fn any([one, other]: &mut [Signal; 2]) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// Runs what ends by itself, with the log of a daemon.
pub fn once(flags: &Flags, work: impl Future<Output = Result<()>>) -> Result<()> {
    start_logging(flags)?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

fn start_logging(flags: &Flags) -> Result<()> {
    let filter = filter(flags)?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match flags.log_format() {
        LogFormat::Text if journal::is_connected() => log.event_format(journal::Line::default()).init(),
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}

/// What is logged, or what is wrong with `--log`.
pub(crate) fn filter(flags: &Flags) -> Result<EnvFilter> {
    EnvFilter::try_new(flags.log()).map_err(|error| anyhow::anyhow!("--log {:?}: {error}", flags.log()))
}
