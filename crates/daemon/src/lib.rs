//! What a daemon is around what it does: flags and their file, the log, the service manager, one start and one stop.
//!
//! ```text
//!  command line ┐
//!  environment  ├─▶ parse ──▶ Options (with Flags in it) ──▶ run ──▶ start … signal … stop
//!  --config     ┘                                             └──▶ READY=1, STOPPING=1
//! ```
//!
//! In reading order:
//! - [`flags`]: the flags every daemon has, and what all of its flags came out as.
//! - [`file`](mod@file): `--config`: flags in a file, each with its line.
//! - [`parse`](mod@parse): command line over environment over file over default; errors that name the line.
//! - [`run`](mod@run): logging, start, wait for a signal, stop.
//! - [`journal`]: how lines of the log look where they go to the journal.
//! - [`notify`]: telling the service manager, which is systemd.
//!
//! It knows nothing of clusters: [`Program`] is all it asks of `master` and `minion`.

pub mod file;
pub mod flags;
pub mod journal;
pub mod notify;
pub mod parse;
pub mod run;

pub use flags::Flags;
pub use parse::{Program, parse};
pub use run::run;
