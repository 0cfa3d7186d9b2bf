//! Outside judges: clients that were written for Kubernetes, unchanged, against a master and hollow minions with all their
//! TLS.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod client_go;
mod kube_rs;
mod kubectl;
mod python;
mod recorded;
