//! The `master` program: flags, logging, start, wait for a signal, stop.

use anyhow::Result;
use clap::Parser;
use master::options::LogFormat;
use master::{Master, Options};
use tokio::signal::unix::{SignalKind, signal};

/// Gives memory back when objects go; the C library's keeps what once held ten thousand pods.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// What jemalloc reads before anything else; `_RJEM_MALLOC_CONF` in the environment has the last word.
///
/// Pages nobody uses go back after five seconds instead of ten. Fewer arenas than the default of four a processor were
/// tried: they hold no less, and cost some of the throughput.
#[allow(unsafe_code, reason = "the name is jemalloc's own, and nothing else in the program has it")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static MALLOC_CONF: &[u8; 20] = b"dirty_decay_ms:5000\0";

fn main() -> Result<()> {
    let options = Options::parse();
    options.validate()?;
    start_logging(&options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(options))
}

async fn run(options: Options) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let master = tokio::select! {
        master = Master::start(options) => master?,
        _ = terminate.recv() => return Ok(()),
        _ = interrupt.recv() => return Ok(()),
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    master.stop().await;
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
