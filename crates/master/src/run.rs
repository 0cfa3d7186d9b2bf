//! The whole program: flags, start, wait for a signal, stop.

use std::ffi::OsString;

use anyhow::Result;

use crate::{DataCommand, Master, Options};

/// Runs a master until a signal ends it, or does with its data what is asked. `arguments` begin with the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(command) = DataCommand::given(&arguments) {
        return change_data(command);
    }
    let options: Options = daemon::parse(arguments)?;
    daemon::run(&options.daemon.clone(), Master::start(options), Master::stop)
}

#[allow(clippy::print_stdout, reason = "the answer to who typed the command")]
fn change_data(command: DataCommand) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("{}", runtime.block_on(command.run())?);
    Ok(())
}
