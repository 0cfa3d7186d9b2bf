//! `rbac.authorization.k8s.io/v1`: roles say what may be done, bindings who may do it.
//!
//! Rules are those of `pkg/apis/rbac/validation` and `pkg/apis/rbac/v1/defaults.go` upstream.

mod binding;
mod role;
#[cfg(test)]
mod tests;

use crate::kinds::{Column, KindInfo, Scope, Verb};
use crate::names::NameRule;

/// The API group of roles and bindings.
pub const GROUP: &str = "rbac.authorization.k8s.io";

/// The row of one of the four kinds.
const fn row(
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    scope: Scope,
    columns: &'static [Column],
) -> KindInfo {
    KindInfo {
        group: GROUP,
        version: "v1",
        kind,
        plural,
        singular,
        short_names: &[],
        categories: &[],
        scope,
        verbs: Verb::ALL,
        subresources: &[],
        columns,
        selectable_fields: &[],
        name_rule: NameRule::PathSegment,
    }
}
