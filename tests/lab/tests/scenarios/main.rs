//! The scenarios that need boxes: each is a sentence of the list of scenarios, proved on real daemons and real Docker
//! Engines. One lab serves many of them, one after another.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;
mod failure;
mod guide;
mod images;
mod members;
mod network;
mod overlay;
mod preflight;
mod rejoin;
mod resources;
mod setup;
