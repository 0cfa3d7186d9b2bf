//! RBAC: what roles and bindings give to whom, compiled from the watch cache, and the roles every cluster has.
//!
//! ```text
//!  watch cache ──something of the four kinds changed──▶ View ──decodes what is new──▶ Rights ──▶ authz, reviews, admission
//! ```
//!
//! Nothing is decoded for a request: it compares four version numbers and looks its user and groups up.

pub(crate) mod defaults;
mod rights;
mod view;

pub(crate) use rights::{Grant, Rights};
pub(crate) use view::View;
