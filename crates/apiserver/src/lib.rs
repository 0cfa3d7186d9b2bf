//! The API server: Kubernetes on the wire, over a [`store::Store`].
//!
//! ```text
//!  TLS / in process ─▶ route ─▶ authn ─▶ authz ─▶ verbs ──writes──▶ store
//!                                                   ▲                 │ one watch
//!                                                   └────reads──── cache ◀┘
//! ```
//!
//! In reading order:
//! - [`Config`], [`User`], [`ApiServer`]: what others use.
//! - `route`, `request`, `query`, `negotiate`: what a request asks for, and in which form.
//! - `authn`, `authz`, `admission`: who may do it, and what every write must satisfy.
//! - `rbac`: what roles and bindings give to whom, and the roles every cluster has.
//! - `audit`: what requests leave in the log.
//! - `verbs`: get, list, watch, create, update, patch, delete, written once over the table of kinds; `subresources`
//!   what lies below objects; `virtual_kinds` the kinds that are answered and not stored.
//! - `connect`: what passes through to kubelets, pods and services: exec, attach, port-forward, proxies.
//! - `storage`, `allocators`, `leases`, `turns`: writes as transactions of the store.
//! - `usage`: what nodes and pods use, asked of the kubelets.
//! - `component_status`: who of the control plane is there.
//! - `cache`: the watch cache, from which everything is read.
//! - `deprecation`: what is said to whoever uses a kind of yesterday.
//! - `status`, `respond`, `table`, `pretty`, `compress`, `discovery`, `openapi`, `openid`, `health`, `metrics`: answers.
//! - `held`: what an answer holds until it is read.
//! - `pki`, `serve`, `stalled`: certificates, HTTPS, and peers that take nothing.
//! - `bootstrap`, `authentication_trust`, `compaction`: what the server does on its own account.
//!
//! It knows no kind but through `api::kinds`, apart from the few whose writes touch more than themselves (Service,
//! Namespace, Pod, CertificateSigningRequest). It runs no controllers.

mod admission;
mod allocators;
mod audit;
mod authentication_trust;
mod authn;
mod authz;
mod body;
mod bootstrap;
mod cache;
mod call;
mod compaction;
mod component_status;
mod compress;
mod config;
mod connect;
mod connections;
mod deprecation;
mod discovery;
mod error;
mod health;
mod held;
mod inflight;
mod leases;
mod metadata;
mod metrics;
mod negotiate;
mod openapi;
mod openid;
mod options;
mod pki;
mod pretty;
mod query;
mod rbac;
mod request;
mod respond;
mod reviews;
mod route;
mod serve;
mod server;
mod stalled;
mod status;
mod storage;
mod subresources;
mod swagger_ui;
mod table;
mod tracking;
mod turns;
mod usage;
mod user;
mod verbs;
mod virtual_kinds;

pub use audit::{AuditConfig, AuditLogLimits};
pub use config::Config;
pub use error::Error;
pub use pki::{CertificateEnd, check_ca};
pub use server::ApiServer;
pub use user::User;
