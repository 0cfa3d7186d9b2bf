//! Minions on Docker Engines of the tests' own, which are restarted, hung and killed, or are on another machine; minions that
//! are killed themselves; images that come from a real registry; a thousand lives of
//! pods; minions that come back changed.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod engine;
mod killed;
mod lab;
mod lives;
mod registry;
mod rejoin;
mod statics;
