//! Finds a node for every pod that has none: observe, decide, bind.
//!
//! ```text
//!  nodes ──watch──▶ ┌────────────── Cluster ──────────────┐
//!  pods  ──watch──▶ │ Snapshot ◀──assume── schedule ◀─pop─ Queue │ ──Refuse──▶ Event, PodScheduled=False
//!                   │  nodes + usage      filter → score   active │
//!                   └──────▲──────────────────┬───────── back-off ┘
//!                          │ forget, confirm  │ Bind
//!                          └───────────── POST pods/<name>/binding (many at a time) ──▶ Event
//! ```
//!
//! Decisions are made one after the other on a picture of the cluster that is always up to date: the pod just decided
//! about is *assumed* on its node before the binding is written. The decision itself, [`schedule::schedule`], is an
//! ordinary function; so is everything up to and including [`cluster`], with time and chance as arguments.
//!
//! In reading order:
//! - [`pod`], [`node`]: what is kept of pods and nodes; [`resources`], [`taints`]: their parts.
//! - [`storage`]: claims, and where the volumes behind them are.
//! - [`snapshot`]: all nodes with what their pods use, updated event by event.
//! - [`filter`]: which nodes may take a pod, and why not the others. [`score`]: which of them suits it best.
//! - [`mod@schedule`]: the decision, its refusal in words, and what each node would say.
//! - [`queue`]: the pods that wait: active, back-off, unschedulable.
//! - [`cluster`]: observations in, steps out.
//! - [`driver`]: watches, the loop, bindings. Start here: [`start`].
//!
//! It does not preempt, binds no volumes, knows no affinity between pods yet, and never evicts.

mod bind;
pub mod cluster;
pub mod driver;
pub mod filter;
#[cfg(test)]
mod fixtures;
pub mod node;
pub mod pod;
pub mod queue;
pub mod resources;
pub mod schedule;
pub mod score;
pub mod snapshot;
pub mod storage;
pub mod taints;

pub use cluster::{Cluster, Step};
pub use driver::{Config, start};
pub use node::{NodeName, NodeSpec};
pub use pod::PodInfo;
pub use schedule::{Decision, Unschedulable, schedule};
pub use snapshot::Snapshot;

/// The scheduler that pods get if they name none.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";
