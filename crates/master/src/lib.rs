//! The master: API server, scheduler and controller-manager in one process, over an embedded store or etcd.
//!
//! ```text
//!  flags ──▶ Options ──▶ Master::start ──▶ store ──▶ ApiServer ──▶ listener
//!                                                       │
//!                          scheduler, controller-manager (kube::Client over its router)
//! ```
//!
//! In reading order:
//! - [`options`]: the flags, and what is wrong with them.
//! - [`start`]: what is built from them, in which order, and how it stops.
//! - [`run`](mod@run): the whole program.
//! - [`etcd`]: the etcd to keep the state in, if there is one.
//! - [`etcd_face`]: the socket, and the addresses, under which the embedded store is an etcd.
//! - `certificates`: warnings of those that end.
//! - [`data`], [`restore`]: `master backup` and `master restore`; [`keys`]: what a second master needs of the first.
//! - `place`: the data directory, who is in it, and a restore that was cut short.
//!
//! It decides nothing itself: every behaviour lives in the component's own crate.

mod certificates;
pub mod data;
pub mod etcd;
pub mod etcd_face;
pub mod keys;
pub mod options;
mod place;
pub mod restore;
pub mod run;
pub mod start;

pub use data::DataCommand;
pub use options::Options;
pub use run::run;
pub use start::Master;
