//! Every program under its own name, in one file: tests that need them as programs link this once.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> Result<ExitCode> {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.as_str() {
        "master" => master::run(std::env::args_os()).map(|()| ExitCode::SUCCESS),
        "minion" => minion::run(std::env::args_os()).map(|()| ExitCode::SUCCESS),
        "kctl" => {
            Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(kctl::process::main()))
        }
        _ => bail!("call it master, minion or kctl"),
    }
}
