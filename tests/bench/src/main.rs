//! `make bench`: measures the release binaries on this machine and prints the table of docs/benchmarks.md.
//!
//! The load generator runs on the same processors as what it measures, over TLS. Every part starts a master of its own
//! on a fresh data directory below the system's temporary folder; everything is ended and removed at the end.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod docker;
mod etcd;
mod failover;
mod http;
mod load;
mod node;
mod parts;
mod process;
mod report;
mod services;
mod stream;
mod upstream;
mod watchers;

use std::path::PathBuf;

use anyhow::{Context, Result};
use parts::Bench;
use report::Report;

#[tokio::main]
async fn main() -> Result<()> {
    let binaries: PathBuf = match std::env::args().nth(1) {
        Some(folder) => folder.into(),
        None => std::env::current_exe()?.parent().context("this program lies in a folder")?.to_owned(),
    };
    let only: Vec<String> = std::env::args().skip(2).collect();
    let folder = tempfile::Builder::new().prefix("coracle-bench-").tempdir()?;
    let mut bench =
        Bench { binaries, folder: folder.path().to_owned(), port: 16443, upstream: None, report: Report::default() };
    for (name, part) in parts::ALL {
        if only.is_empty() || only.iter().any(|o| o == name) {
            eprintln!("{name}");
            part(&mut bench).await.with_context(|| format!("part {name}"))?;
        }
    }
    println!("{}", bench.report.markdown());
    Ok(())
}
