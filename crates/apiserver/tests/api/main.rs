//! The API as its clients see it: in process, and over TLS. Outside judges are in `tests/tests/clients`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod access;
mod admission;
mod apply;
mod audit;
mod client_go;
mod common;
mod concurrency;
mod crud;
mod golden;
mod lifecycle;
mod list_watch;
mod quota;
mod rbac;
mod resync;
mod reviews;
mod streams;
#[path = "../../../store/tests/support/mod.rs"]
mod support;
mod swagger_ui;
mod tls;
mod tokens;
