//! The whole program: flags, start, wait for a signal, stop; or `--cleanup`.

use std::ffi::OsString;

use anyhow::Result;

use crate::{Minion, Options, cleanup};

/// Runs a minion until a signal ends it, or cleans up after one. `arguments` begin with the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    let options: Options = daemon::parse(arguments)?;
    if options.cleanup {
        return daemon::run::once(&options.daemon, cleanup::run(&options));
    }
    daemon::run(&options.daemon.clone(), Minion::start(options), Minion::stop)
}
