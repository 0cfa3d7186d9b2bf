//! The minion: kubelet and service proxy of one machine in one process.
//!
//! ```text
//!  flags ──▶ Options ──▶ join (certificate of its own) ──▶ kubelet ──▶ Docker
//!                                                     └──▶ proxy ────▶ nftables
//! ```
//!
//! In reading order:
//! - [`options`]: the flags, and what is wrong with them.
//! - `address`: the node's, where the flag does not say it.
//! - [`start`]: what is built from them, in which order, and how it stops.
//! - [`cleanup`]: `minion --cleanup`: nothing it ever made is left.
//! - [`run`](mod@run): the whole program.
//!
//! It decides nothing itself: every behaviour lives in the component's own crate.

mod address;
pub mod cleanup;
pub mod options;
pub mod run;
pub mod start;

pub use options::Options;
pub use run::run;
pub use start::Minion;
