//! `kctl doctor`: what on a machine keeps Coracle from working, and what to do about it.
//!
//! ```text
//!  machine ── gather ──▶ Facts ── checks ──▶ findings ──▶ text, exit code
//!                                                └─ --fix ─▶ repair
//! ```
//!
//! [`gather`] looks and decides nothing; [`checks`] decides and looks at nothing; [`repair`] does the few things that are
//! safe to do.

pub mod checks;
pub mod facts;
pub mod gather;
pub mod repair;

pub use checks::{Finding, Level, findings};
pub use facts::{Facts, Role};
