//! The `minion` program.

use clap::Parser;

fn main() -> anyhow::Result<()> {
    minion::run(minion::Options::parse())
}
