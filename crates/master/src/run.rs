//! The whole program: flags, start, wait for a signal, stop.

use std::ffi::OsString;

use anyhow::Result;

use crate::{Master, Options};

/// Runs a master until a signal ends it. `arguments` begin with the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    let options: Options = daemon::parse(arguments)?;
    daemon::run(&options.daemon.clone(), Master::start(options), Master::stop)
}
