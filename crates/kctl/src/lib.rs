//! The command line: what `kubectl` does, said the same way, for every kind the server serves.
//!
//! ```text
//!  arguments ─ cli ─▶ verbs/* ─▶ session (HTTP, errors) ─▶ API server
//!                        │  ▲
//!                        │  └── discovery: `po`, `pods`, `pod/web` → paths
//!                        └────▶ print: tables, YAML, JSON, names, JSONPath, columns
//! ```
//!
//! In reading order:
//! - [`cli`]: flags and verbs; [`run`] is the whole program but for the process around it.
//! - [`session`]: the connection, requests, streams; [`error`]: what went wrong, in kubectl's words.
//! - [`discovery`]: what the server serves, and what users call it; [`target`]: which objects the arguments name.
//! - [`manifest`]: objects from files.
//! - [`print`]: objects as text; [`jsonpath`]: kubectl's JSONPath; [`tabwriter`]: columns.
//! - [`verbs`]: one file for each.
//! - [`doctor`]: what on a machine keeps Coracle from working.
//! - [`process`]: what `main` does.
//!
//! Objects stay JSON here: the command line shows fields of later versions that it does not know.

pub mod cli;
pub mod console;
pub mod discovery;
pub mod doctor;
pub mod error;
pub mod jsonpath;
pub mod manifest;
pub mod object;
pub mod print;
pub mod process;
pub mod session;
pub mod tabwriter;
pub mod target;
pub mod verbs;

pub use cli::{Cli, run};
pub use console::Console;
pub use error::Error;
