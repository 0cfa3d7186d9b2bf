//! The whole program: reads the arguments, runs one command, says how it went.

use std::process::ExitCode;

use clap::Parser;

use crate::{Cli, Console, run};

/// What `main` does.
pub async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let failed = error.use_stderr();
            // Where nobody listens there is nobody to tell.
            let _ = error.print();
            return if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
    };
    let mut console = Console::standard();
    match run(cli, &mut console).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            console.note(&error.to_string());
            ExitCode::FAILURE
        }
    }
}
