//! The program around [`Minion`]: logging, start, wait for a signal, stop.

use anyhow::Result;
use tokio::signal::unix::{SignalKind, signal};

use crate::options::LogFormat;
use crate::{Minion, Options};

/// Runs a minion until a signal ends it, or cleans up after one.
pub fn run(options: Options) -> Result<()> {
    options.validate()?;
    start_logging(&options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(until_signal(options))
}

async fn until_signal(options: Options) -> Result<()> {
    if options.cleanup {
        return crate::cleanup::run(&options).await;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let minion = tokio::select! {
        minion = Minion::start(options) => minion?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    minion.stop().await;
    Ok(())
}

fn start_logging(options: &Options) -> Result<()> {
    let filter = tracing_subscriber::EnvFilter::try_new(&options.log)
        .map_err(|e| anyhow::anyhow!("--log {:?}: {e}", options.log))?;
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match options.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().init(),
    }
    Ok(())
}
