//! Nobody grants what he does not hold: who writes a role must have its rights or the verb `escalate` on it, who binds one
//! must have its rights or the verb `bind` on it.
//!
//! Compare `policybased` in `pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}` upstream.

use api::Object;
use api::kinds::rbac::GROUP;
use api::rbac::{ALL, describe, uncovered};
use api::well_known::GROUP_MASTERS;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef};
use serde_json::Value;

use super::{Attributes, Effects, Operation, Plugin};
use crate::authz::{self, Target};
use crate::status::{ApiError, Subject};

pub(super) struct Escalation;

impl Plugin for Escalation {
    fn validate(&self, a: &Attributes<'_>, object: Option<&dyn Object>, _: &mut Effects) -> Result<(), ApiError> {
        let is_rbac = a.kind.info.group == GROUP && a.operation != Operation::Delete;
        let Some(object) = object.filter(|_| is_rbac && !a.user.is_in(GROUP_MASTERS)) else { return Ok(()) };
        if a.old.is_some_and(|old| differ_in_owners_only(old, object)) {
            return Ok(());
        }
        let any = object.as_any();
        if let Some(role) = any.downcast_ref::<Role>() {
            return may_write(a, role.rules.as_deref());
        }
        if let Some(role) = any.downcast_ref::<ClusterRole>() {
            may_write(a, role.rules.as_deref())?;
            return may_aggregate(a, role);
        }
        let in_namespace = any.downcast_ref::<RoleBinding>().map(|b| &b.role_ref);
        let role = in_namespace.or_else(|| any.downcast_ref::<ClusterRoleBinding>().map(|b| &b.role_ref));
        role.map_or(Ok(()), |role| may_bind(a, role))
    }
}

/// What the garbage collector changes gives nobody anything (`IsOnlyMutatingGCFields`).
fn differ_in_owners_only(old: &dyn Object, new: &dyn Object) -> bool {
    let without_owners = |object: &dyn Object| {
        let mut value = object.to_value();
        if let Some(Value::Object(metadata)) = value.get_mut("metadata") {
            for field in ["finalizers", "ownerReferences", "managedFields", "resourceVersion"] {
                metadata.remove(field);
            }
        }
        value
    };
    without_owners(old) == without_owners(new)
}

fn may_write(a: &Attributes<'_>, rules: Option<&[PolicyRule]>) -> Result<(), ApiError> {
    if allowed(a, "escalate", a.kind.info.plural, a.name) { Ok(()) } else { holds(a, rules.unwrap_or_default()) }
}

/// An aggregation gathers whatever others will have: only who has everything may begin or change one.
fn may_aggregate(a: &Attributes<'_>, new: &ClusterRole) -> Result<(), ApiError> {
    let old = a.old.and_then(|old| old.as_any().downcast_ref::<ClusterRole>());
    if new.aggregation_rule.is_none() && old.is_none_or(|old| old.aggregation_rule.is_none()) {
        return Ok(());
    }
    if allowed(a, "escalate", a.kind.info.plural, a.name) {
        return Ok(());
    }
    let all = || vec![ALL.to_owned()];
    let everything = [
        PolicyRule { verbs: all(), api_groups: Some(all()), resources: Some(all()), ..PolicyRule::default() },
        PolicyRule { verbs: all(), non_resource_urls: Some(all()), ..PolicyRule::default() },
    ];
    holds(a, &everything).map_err(|_| a.forbidden("must have cluster-admin privileges to use the aggregationRule"))
}

fn may_bind(a: &Attributes<'_>, role: &RoleRef) -> Result<(), ApiError> {
    let plural = if role.kind == "Role" { "roles" } else { "clusterroles" };
    if allowed(a, "bind", plural, &role.name) {
        return Ok(());
    }
    let rights = a.cache.rights();
    let missing = || ApiError::NotFound(Subject::named(GROUP, plural, &role.name));
    holds(a, rights.rules_of(role, a.namespace).ok_or_else(missing)?)
}

/// Whether a role gives the writer `verb` on a role where the object is written.
fn allowed(a: &Attributes<'_>, verb: &str, resource: &str, name: &str) -> bool {
    let namespace = a.namespace.unwrap_or("");
    let target = authz::Resource { group: GROUP, resource, namespace, name: name.into(), ..Default::default() };
    let asked = authz::Attributes { user: a.user, verb, target: Target::Resource(target) };
    a.cache.rights().allows(&asked).is_some()
}

/// Whether the writer has all of `rules` himself (`ConfirmNoEscalation`).
fn holds(a: &Attributes<'_>, rules: &[PolicyRule]) -> Result<(), ApiError> {
    let rights = a.cache.rights();
    let held: Vec<&PolicyRule> = rights.of(a.user, a.namespace.unwrap_or("")).flat_map(|g| g.rules()).collect();
    let missing = uncovered(&held, rules).map_err(|e| a.forbidden(e.to_string()))?;
    if missing.is_empty() {
        return Ok(());
    }
    let mut missing: Vec<String> = missing.iter().map(describe).collect();
    missing.sort_unstable();
    let groups: Vec<String> = a.user.groups.iter().map(|g| format!("{g:?}")).collect();
    Err(a.forbidden(format!(
        "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
        a.user.name,
        groups.join(" "),
        missing.join("\n")
    )))
}
