//! The whole program: flags, start, wait for a signal, stop.

use std::ffi::OsString;
use std::io::IsTerminal;

use anyhow::Result;

use crate::{DataCommand, Master, Options};

/// Runs a master until a signal ends it, or does with its data what is asked. `arguments` begin with the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> Result<()> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(command) = DataCommand::given(&arguments) {
        return change_data(command);
    }
    let options: Options = daemon::parse(arguments)?;
    daemon::run(&options.daemon.clone(), start(options), Master::stop)
}

async fn start(options: Options) -> Result<Master> {
    let master = Master::start(options.clone()).await?;
    say_how_to_join(&master, &options).await;
    Ok(master)
}

/// Only to somebody who looks on: a token is nothing for a log.
#[allow(clippy::print_stdout, reason = "a line to paste, for who started this by hand")]
async fn say_how_to_join(master: &Master, options: &Options) {
    if master.api_server().is_none() {
        // Where no API is served there is nothing to join.
        return;
    }
    match master.join_command(options).await {
        Some(command) if std::io::stdout().is_terminal() => {
            println!("To join another machine, run on it:\n\n    {command}\n");
        }
        _ => tracing::info!("a machine joins with what \"kctl token create --print-join-command\" prints"),
    }
}

#[allow(clippy::print_stdout, reason = "the answer to who typed the command")]
fn change_data(command: DataCommand) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    println!("{}", runtime.block_on(command.run())?);
    Ok(())
}
