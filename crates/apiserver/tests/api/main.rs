//! The API as its clients see it: in process, and over TLS by stock kubectl.
#![allow(clippy::unwrap_used, missing_docs)]

mod access;
mod apply;
mod common;
mod crud;
mod kubectl;
mod lifecycle;
mod list_watch;
mod rbac;
mod resync;
mod reviews;
mod streams;
mod tls;
mod tokens;
