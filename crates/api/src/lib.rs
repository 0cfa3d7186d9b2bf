//! The vocabulary every other crate speaks: which kinds exist and what they mean. Pure: no tokio, no sockets, no clock.
//!
//! ```text
//!  bytes ──decode──▶ Object ──set_defaults──▶ prepare_* ──▶ validate ──▶ encode ──▶ bytes
//!                      ▲                                        │
//!                    patch                                  field::ErrorList
//! ```
//!
//! In reading order:
//! - [`kinds`]: the table of kinds, one row each, and one file per kind with what is particular to it.
//! - [`object`]: the typed and the erased face of an object.
//! - [`scale`], [`binding`], [`token_request`]: what is written to a subresource under another kind's name.
//! - [`field`]: field paths and field errors.
//! - [`metadata`]: names, labels, owners: checked once for all kinds.
//! - [`names`]: rules for names, label keys and values.
//! - [`selector`]: label and field selectors.
//! - [`quantity`]: `100m`, `1Gi`: parse, compare, add, print.
//! - [`quota`]: what a ResourceQuota counts.
//! - [`decode`]: strict decoding.
//! - [`patch`]: JSON patch, merge patch, strategic merge patch, three-way apply.
//! - [`written`]: what Go's JSON says though nothing is in it.
//! - [`apply`]: server-side apply, and who manages which field.
//! - [`merge_keys`]: how lists of the built-in types merge.
//! - [`yaml`]: YAML as Kubernetes reads it.
//! - [`protobuf`]: protobuf bodies as JSON.
//! - [`printing`]: values for Table cells.
//! - [`rbac`]: what a rule of a role allows, and which rules cover which.
//! - [`pods`], [`nodes`], [`affinity`], [`owners`], [`well_known`]: what several components must agree on.
//! - [`interner`]: one copy of equal values, for those who keep many objects.
//!
//! It does not talk to anyone and keeps no state; HTTP belongs to `apiserver`, connections to `client`.

pub mod affinity;
pub mod apply;
pub mod binding;
pub mod decode;
pub mod eviction;
pub mod field;
pub mod interner;
pub mod kinds;
pub mod merge_keys;
pub mod metadata;
pub mod names;
pub mod nodes;
pub mod object;
mod omit;
pub mod owners;
pub mod patch;
pub mod pods;
pub mod printing;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod rbac;
pub mod scale;
pub mod selector;
pub mod token_request;
pub mod well_known;
pub mod written;
pub mod yaml;

pub use interner::Interner;
pub use kinds::{Kind, KindInfo, Scope, Subresource, Verb, kinds};
pub use object::{Object, Resource};
