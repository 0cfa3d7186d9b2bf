//! Roles in the system's namespaces, and who gets them (`bootstrappolicy/namespace_policy.go`). Upstream's for the signer of
//! `cluster-info` and for clouds are left out: nobody here is either.

use api::well_known::NAMESPACE_SYSTEM;

use super::controllers::EVENTS;
use super::{Rule, may};

const AUTHENTICATION_READER: &str = "extension-apiserver-authentication-reader";
const CONTROLLER_MANAGER_LOCK: &str = "system::leader-locking-kube-controller-manager";
const SCHEDULER_LOCK: &str = "system::leader-locking-kube-scheduler";
const TOKEN_CLEANER: &str = "system:controller:token-cleaner";

const READ: &[&str] = &["get", "list", "watch"];

/// A kind of subject.
#[derive(Clone, Copy)]
pub(super) enum Who {
    User(&'static str),
    /// In the namespace of the binding.
    Account(&'static str),
}

/// One object of the API.
const fn one(verbs: &'static [&'static str], resource: &'static [&'static str], name: &'static [&'static str]) -> Rule {
    Rule::Resources { verbs, group: "", resources: resource, names: name }
}

/// Namespace, name and rules.
pub(super) const ROLES: &[(&str, &str, &[Rule])] = &[
    (NAMESPACE_SYSTEM, AUTHENTICATION_READER, &[one(READ, &["configmaps"], &["extension-apiserver-authentication"])]),
    (
        NAMESPACE_SYSTEM,
        CONTROLLER_MANAGER_LOCK,
        &[may(&["watch"], "", &["configmaps"]), one(&["get", "update"], &["configmaps"], &["kube-controller-manager"])],
    ),
    (
        NAMESPACE_SYSTEM,
        SCHEDULER_LOCK,
        &[may(&["watch"], "", &["configmaps"]), one(&["get", "update"], &["configmaps"], &["kube-scheduler"])],
    ),
    (NAMESPACE_SYSTEM, TOKEN_CLEANER, &[may(&["delete", "get", "list", "watch"], "", &["secrets"]), EVENTS]),
];

/// Namespace, name, role, and who gets it.
pub(super) const BINDINGS: &[(&str, &str, &str, &[Who])] = &[
    (
        NAMESPACE_SYSTEM,
        "system::extension-apiserver-authentication-reader",
        AUTHENTICATION_READER,
        &[Who::User("system:kube-controller-manager"), Who::User("system:kube-scheduler")],
    ),
    (
        NAMESPACE_SYSTEM,
        CONTROLLER_MANAGER_LOCK,
        CONTROLLER_MANAGER_LOCK,
        &[Who::User("system:kube-controller-manager"), Who::Account("kube-controller-manager")],
    ),
    (
        NAMESPACE_SYSTEM,
        SCHEDULER_LOCK,
        SCHEDULER_LOCK,
        &[Who::User("system:kube-scheduler"), Who::Account("kube-scheduler")],
    ),
    (NAMESPACE_SYSTEM, TOKEN_CLEANER, TOKEN_CLEANER, &[Who::Account("token-cleaner")]),
];
