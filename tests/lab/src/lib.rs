//! Boxes on this one machine: each has a network, a process table, mounts and a Docker Engine of its own, and they are
//! joined by a switch whose cables can be pulled. What runs on them are the real daemons.
//!
//! ```text
//!  test (a host of its own on the network)
//!    └─ Lab ──▶ Network (one segment, or two with a router between) ──▶ cut, part, lose, slow
//!         └──▶ Machine box1, box2, … ──▶ Process dockerd, master, minion, etcd, docker-registry ──▶ stop, kill -9
//! ```
//!
//! In reading order:
//! - [`lab`]: all of it together, and what a test starts with.
//! - [`network`]: the switch, in a network namespace of its own: the calling thread's.
//! - [`machine`]: a box: its namespaces, its files; power on, power off, reboot.
//! - [`init`]: the first process of a box, and what it mounts.
//! - [`process`]: a program on a box, followed by its log.
//! - [`engine`]: the Docker Engine of a box and the image of test pods; [`registry`]: where images come from;
//!   [`nginx`]: what may stand before the API.
//! - [`cluster`]: a master and minions on the boxes.
//! - [`sweep`]: what labs before us left on disk.
//! - [`systemctl`]: what stands for systemd on a box that packages are installed on.
//! - [`scenario`]: several scenarios on one lab, each with its name and its result.
//! - [`cli`]: `make lab` and `make lab-down`.
//!
//! Nothing outlives the process that made the lab, however it ends: the first process of a box reads a pipe of its
//! maker's to the end and goes then, and the kernel takes with it every process, mount and network interface of the box.
//! What remains are files in a folder and empty control groups, which the next lab removes.

pub mod cli;
pub mod cluster;
pub mod engine;
pub mod init;
pub mod lab;
pub mod machine;
pub mod network;
pub mod nginx;
pub mod process;
pub mod registry;
pub mod scenario;
pub mod sweep;
pub mod systemctl;

pub use cluster::Cluster;
pub use lab::{Lab, Plan};
pub use machine::Machine;
