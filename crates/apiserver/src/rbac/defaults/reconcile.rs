//! What must be given back to a default role or binding.

use api::{Object, Resource};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::AUTOUPDATE;

/// The role with what it lacks of `wanted`; `None` when it lacks nothing, or is not to be touched. Compare
/// `component-helpers/auth/rbac/reconciliation/reconcile_role.go`.
pub(crate) fn reconcile_role(have: &ClusterRole, wanted: &ClusterRole) -> Option<ClusterRole> {
    mended(have, wanted, |new| match &wanted.aggregation_rule {
        // Its rules are put together from others, by a controller.
        Some(aggregation) => {
            let selectors = new.aggregation_rule.get_or_insert_default().cluster_role_selectors.get_or_insert_default();
            for selector in aggregation.cluster_role_selectors.iter().flatten() {
                if !selectors.contains(selector) {
                    selectors.push(selector.clone());
                }
            }
        }
        None => add_rules(&mut new.rules, &wanted.rules),
    })
}

/// The same for a role of a namespace.
pub(crate) fn reconcile_namespaced_role(have: &Role, wanted: &Role) -> Option<Role> {
    mended(have, wanted, |new| add_rules(&mut new.rules, &wanted.rules))
}

/// The same for a binding. One that gives another role is made anew.
pub(crate) fn reconcile_binding(have: &ClusterRoleBinding, wanted: &ClusterRoleBinding) -> Option<ClusterRoleBinding> {
    mended(have, wanted, |new| {
        add_subjects((&mut new.role_ref, &mut new.subjects), (&wanted.role_ref, &wanted.subjects));
    })
}

/// The same for a binding in a namespace.
pub(crate) fn reconcile_namespaced_binding(have: &RoleBinding, wanted: &RoleBinding) -> Option<RoleBinding> {
    mended(have, wanted, |new| {
        add_subjects((&mut new.role_ref, &mut new.subjects), (&wanted.role_ref, &wanted.subjects));
    })
}

/// An object with the metadata it lacks, and what else `add` gives it.
fn mended<T: Resource + PartialEq>(have: &T, wanted: &T, add: impl FnOnce(&mut T)) -> Option<T> {
    if is_protected(Object::metadata(have)) {
        return None;
    }
    let mut new = have.clone();
    add_metadata(Object::metadata_mut(&mut new), Object::metadata(wanted));
    add(&mut new);
    (new != *have).then_some(new)
}

fn add_rules(have: &mut Option<Vec<PolicyRule>>, wanted: &Option<Vec<PolicyRule>>) {
    let held: Vec<_> = have.iter().flatten().collect();
    let missing = api::rbac::uncovered(&held, wanted.as_deref().unwrap_or_default());
    let missing = missing.expect("default roles are small");
    if !missing.is_empty() {
        have.get_or_insert_default().extend(missing);
    }
}

fn add_subjects(
    (role, have): (&mut RoleRef, &mut Option<Vec<Subject>>),
    (wanted_role, wanted): (&RoleRef, &Option<Vec<Subject>>),
) {
    role.clone_from(wanted_role);
    for subject in wanted.iter().flatten() {
        let subjects = have.get_or_insert_default();
        if !subjects.contains(subject) {
            subjects.push(subject.clone());
        }
    }
}

fn is_protected(metadata: &ObjectMeta) -> bool {
    metadata.annotations.as_ref().and_then(|a| a.get(AUTOUPDATE)).is_some_and(|value| value == "false")
}

fn add_metadata(have: &mut ObjectMeta, wanted: &ObjectMeta) {
    for (have, wanted) in [(&mut have.labels, &wanted.labels), (&mut have.annotations, &wanted.annotations)] {
        for (key, value) in wanted.iter().flatten() {
            have.get_or_insert_default().insert(key.clone(), value.clone());
        }
    }
}
