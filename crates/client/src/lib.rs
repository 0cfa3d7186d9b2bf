//! How components talk to the API server: on kube's client, with the parts a controller needs around it.
//!
//! ```text
//!  API ──watch──▶ Informer ──Change──▶ handlers ──key──▶ WorkQueue ──▶ workers ──▶ API
//!                    │                                       ▲            │
//!                    └── Lister (read handle) ◀──────────────┼── plan ────┘
//!                                                            └── back-off, deadlines
//! ```
//!
//! In reading order:
//! - [`connect`]: a client from a kubeconfig, or laid directly over a router in the same process.
//! - [`tasks`]: one start, one stop: every background task of a process is spawned and joined here.
//! - [`informer`]: a watched cache of one kind and its read handle.
//! - [`queue`]: a work queue that merges equal keys, runs each key once at a time and delays failures.
//! - [`events`]: writes Events, merging repeats.
//! - [`leader`]: leader election by Lease.
//! - [`expiry`]: warnings of certificates that end.
//!
//! It decides nothing about any kind.

pub mod connect;
pub mod events;
pub mod expiry;
pub mod informer;
pub mod leader;
pub mod queue;
pub mod tasks;

pub use events::{EventType, Recorder, object_reference};
pub use informer::{Change, Informer, Lister};
pub use queue::{Outcome, WorkQueue, run_workers};
pub use tasks::Tasks;
