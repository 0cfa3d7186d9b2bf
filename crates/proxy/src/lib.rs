//! The service proxy of one node: services × endpoint slices become one nftables table, replaced atomically.
//!
//! ```text
//!  Services ─┐                        ┌─ apply ────────▶ table ip coracle ───────── nf_tables ──┐
//!  Slices ───┼─ ruleset() ─▶ RuleSink ┤                                                         ├─ disturbed: again
//!  Nodes ────┴─ paths() ───▶          └─ apply_paths ──▶ routes, VXLAN (others' pods) ─ rtnetlink ┘
//! ```
//!
//! In reading order:
//! - [`config`]: what the proxy must know about its node.
//! - [`services`], [`endpoints`]: the parts of the API objects that rules are made of, cleaned and typed.
//! - [`ruleset()`]: the decision: which chains and map elements there must be.
//! - [`part`]: what each service needs, put together and compared.
//! - [`render`]: a rule set, or the difference of two, as an nft script.
//! - [`compile`]: such a script as messages to the kernel. [`netlink`]: what messages are made of.
//! - [`conntrack`]: which UDP flows still lead to endpoints that are gone.
//! - [`forward`]: accept rules in the chains of others that drop forwarded traffic (Docker, UFW).
//! - [`routes`]: the way to other nodes' pods, and to the service range on a box without a default route.
//! - [`overlay`]: the VXLAN device that these ways may take, and who is at its other ends.
//! - [`sink`]: where decisions go ([`RuleSink`]) and its twin in memory.
//! - [`health`]: tells load balancers whether there are endpoints here.
//! - [`nft`], [`nf_tables`], [`monitor`], [`host`], [`paths`], [`notices`], [`command`]: the real sink; nothing else starts
//!   programs.
//! - [`driver`]: follows the API and keeps the sink in step.
//! - [`dns`]: the cluster's names, answered on the node.
//!
//! A packet costs two or three map look-ups whatever the number of services. NodePorts answer on every address of
//! the node but loopback, unless told otherwise. IPv4 only.

pub mod command;
pub mod compile;
pub mod config;
pub mod conntrack;
pub mod dns;
pub mod driver;
pub mod endpoints;
pub mod forward;
pub mod health;
pub mod host;
pub mod monitor;
pub mod netlink;
pub mod nf_tables;
pub mod nft;
pub mod notices;
pub mod overlay;
pub mod part;
pub mod paths;
pub mod render;
pub mod routes;
pub mod ruleset;
pub mod services;
pub mod sink;

pub use config::Config;
pub use driver::start;
pub use nft::{NftSink, cleanup};
pub use ruleset::{Part, RuleSet, ruleset};
pub use sink::{MemorySink, RuleSink, SinkError};
