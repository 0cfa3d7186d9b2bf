//! What the tests share: a whole cluster in one process.
//!
//! ```text
//!  Cluster ──▶ store (in memory) ──▶ ApiServer ──▶ scheduler, controller-manager
//!                                        ▲
//!                       kubelets on Hollow runtimes (one per node)
//! ```
//!
//! In reading order:
//! - [`cluster`]: starts it, waits for what a scenario expects, stops it.
//! - [`wait`]: waiting on a watch.
//! - [`boxes`]: a master and minions as daemons with all their TLS, on this machine's Docker Engine or hollow.
//! - [`kubectl`]: stock kubectl in many versions.
//! - [`docker`]: images for tests on the machine's Docker Engine, and whether there is one.
//! - [`packages`]: the packages of what is tested.
//! - [`engine`]: Docker Engines of tests' own, to be restarted, hung and killed; [`registry`]: a registry of images.
//!
//! Scenarios live in `tests/`, one file per theme; each reads like the sentence it proves. Nothing here sleeps to look
//! again: waiting is on a watch, with a time limit.

pub mod boxes;
pub mod cluster;
pub mod docker;
pub mod engine;
pub mod kubectl;
pub mod packages;
pub mod registry;
pub mod wait;

pub use cluster::Cluster;
