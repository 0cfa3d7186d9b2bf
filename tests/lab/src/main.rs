//! The program of the lab, and on its boxes every daemon under its own name.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&called).file_name().unwrap_or_default().to_string_lossy().into_owned();
    match name.as_str() {
        "master" => end(master::run(std::env::args_os())),
        "minion" => end(minion::run(std::env::args_os())),
        "kctl" => kctl(),
        lab::systemctl::NAME => end(lab::systemctl::run(std::env::args().skip(1))),
        _ => end(lab::cli::run(lab::cli::Cli::parse())),
    }
}

/// As `main` ends with an error.
#[allow(clippy::print_stderr)]
fn end(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:?}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn kctl() -> ExitCode {
    kctl::process::main().await
}
