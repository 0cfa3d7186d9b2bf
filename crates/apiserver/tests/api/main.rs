//! The API as its clients see it: in process, and over TLS. Outside judges are in `tests/tests/clients`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod access;
mod admission;
mod apply;
mod audit;
mod bad_requests;
mod client_go;
mod common;
mod concurrency;
mod crud;
mod edges;
#[path = "../../../api/src/kinds/tests/examples.rs"]
mod examples;
mod golden;
mod killed;
mod lifecycle;
mod limits;
mod list_watch;
mod quota;
mod rbac;
mod resize;
mod resync;
mod reviews;
mod streams;
#[path = "../../../store/tests/support/mod.rs"]
mod support;
mod swagger_ui;
mod tls;
mod tokens;
mod trust;
mod warnings;
mod written;
