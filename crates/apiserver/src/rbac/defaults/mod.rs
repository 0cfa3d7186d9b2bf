//! The roles and bindings every cluster has, written at start. What was taken from them since is given back, unless they
//! are annotated `rbac.authorization.kubernetes.io/autoupdate: "false"`; what was added stays.
//!
//! Compare `plugin/pkg/auth/authorizer/rbac/bootstrappolicy` and `pkg/registry/rbac/rest/storage_rbac.go` upstream.

mod bindings;
mod controllers;
mod namespaced;
mod reconcile;
mod roles;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::rbac::v1::{
    AggregationRule, ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use api::kinds::rbac::GROUP;
use namespaced::Who;

pub(crate) use reconcile::{
    reconcile_binding, reconcile_namespaced_binding, reconcile_namespaced_role, reconcile_role,
};

/// The annotation that says whether a default role or binding is kept up to date.
const AUTOUPDATE: &str = "rbac.authorization.kubernetes.io/autoupdate";
/// The label of everything written here.
const BOOTSTRAPPING: (&str, &str) = ("kubernetes.io/bootstrapping", "rbac-defaults");
/// The prefix of labels that make a role part of another.
const AGGREGATE_TO: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// A rule, as it is written in the tables.
enum Rule {
    Resources {
        verbs: &'static [&'static str],
        group: &'static str,
        resources: &'static [&'static str],
        names: &'static [&'static str],
    },
    Paths(&'static [&'static str]),
}

/// `verbs` on `resources` of a group.
const fn may(verbs: &'static [&'static str], group: &'static str, resources: &'static [&'static str]) -> Rule {
    Rule::Resources { verbs, group, resources, names: &[] }
}

/// A default role.
struct DefaultRole {
    name: &'static str,
    /// The role it is a part of: `admin`, `edit`, `view`.
    part_of: Option<&'static str>,
    /// Whether it is made of the parts that name it, instead of rules of its own.
    is_sum: bool,
    rules: &'static [Rule],
}

const fn role(name: &'static str, rules: &'static [Rule]) -> DefaultRole {
    DefaultRole { name, part_of: None, is_sum: false, rules }
}

/// Every default role.
pub(crate) fn cluster_roles() -> Vec<ClusterRole> {
    let controllers = controllers::ROLES.iter().map(|(controller, rules)| {
        let events = rule(&controllers::EVENTS);
        let rules = rules.iter().map(rule).chain([events]).collect();
        ClusterRole {
            metadata: metadata(&controllers::role_name(controller), None),
            rules: Some(rules),
            ..Default::default()
        }
    });
    roles::ROLES.iter().map(cluster_role).chain(controllers).collect()
}

fn cluster_role(row: &DefaultRole) -> ClusterRole {
    let aggregation = || {
        let label = (format!("{AGGREGATE_TO}{}", row.name), "true".to_owned());
        let selector = LabelSelector { match_labels: Some([label].into()), ..LabelSelector::default() };
        AggregationRule { cluster_role_selectors: Some(vec![selector]) }
    };
    ClusterRole {
        aggregation_rule: row.is_sum.then(aggregation),
        metadata: metadata(row.name, row.part_of),
        rules: (!row.is_sum).then(|| row.rules.iter().map(rule).collect()),
    }
}

/// Every default binding.
pub(crate) fn cluster_role_bindings() -> Vec<ClusterRoleBinding> {
    let of_controllers = controllers::ROLES.iter().map(|(controller, _)| {
        let name = controllers::role_name(controller);
        binding(&name, &name, vec![account(controller, api::well_known::NAMESPACE_SYSTEM)])
    });
    let others = bindings::BINDINGS.iter().map(|(name, role, subjects)| {
        let subject = |(kind, name): &(&str, &str)| Subject {
            kind: (*kind).to_owned(),
            name: (*name).to_owned(),
            api_group: Some(GROUP.to_owned()),
            namespace: None,
        };
        binding(name, role, subjects.iter().map(subject).collect())
    });
    others.chain(of_controllers).collect()
}

/// Every default role of a namespace.
pub(crate) fn roles() -> Vec<Role> {
    let role = |(namespace, name, rules): &(&str, &str, &[Rule])| Role {
        metadata: ObjectMeta { namespace: Some((*namespace).to_owned()), ..metadata(name, None) },
        rules: Some(rules.iter().map(rule).collect()),
    };
    namespaced::ROLES.iter().map(role).collect()
}

/// Every default binding in a namespace.
pub(crate) fn role_bindings() -> Vec<RoleBinding> {
    let subject = |namespace: &str, who: &Who| match who {
        Who::User(name) => Subject {
            kind: "User".to_owned(),
            name: (*name).to_owned(),
            api_group: Some(GROUP.to_owned()),
            namespace: None,
        },
        Who::Account(name) => account(name, namespace),
    };
    let binding = |(namespace, name, role, who): &(&str, &str, &str, &[Who])| RoleBinding {
        metadata: ObjectMeta { namespace: Some((*namespace).to_owned()), ..metadata(name, None) },
        role_ref: RoleRef { api_group: GROUP.to_owned(), kind: "Role".to_owned(), name: (*role).to_owned() },
        subjects: Some(who.iter().map(|who| subject(namespace, who)).collect()),
    };
    namespaced::BINDINGS.iter().map(binding).collect()
}

fn account(name: &str, namespace: &str) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(namespace.to_owned()),
        api_group: None,
    }
}

fn binding(name: &str, role: &str, subjects: Vec<Subject>) -> ClusterRoleBinding {
    let role_ref = RoleRef { api_group: GROUP.to_owned(), kind: "ClusterRole".to_owned(), name: role.to_owned() };
    ClusterRoleBinding { metadata: metadata(name, None), role_ref, subjects: Some(subjects).filter(|s| !s.is_empty()) }
}

fn metadata(name: &str, part_of: Option<&str>) -> ObjectMeta {
    let mut labels: BTreeMap<String, String> = [(BOOTSTRAPPING.0.to_owned(), BOOTSTRAPPING.1.to_owned())].into();
    labels.extend(part_of.map(|whole| (format!("{AGGREGATE_TO}{whole}"), "true".to_owned())));
    let annotations = [(AUTOUPDATE.to_owned(), "true".to_owned())].into();
    ObjectMeta {
        name: Some(name.to_owned()),
        labels: Some(labels),
        annotations: Some(annotations),
        ..ObjectMeta::default()
    }
}

fn rule(row: &Rule) -> PolicyRule {
    let owned = |list: &[&str]| -> Vec<String> { list.iter().map(|s| (*s).to_owned()).collect() };
    match row {
        Rule::Resources { verbs, group, resources, names } => PolicyRule {
            verbs: owned(verbs),
            api_groups: Some(owned(&[group])),
            resources: Some(owned(resources)),
            resource_names: Some(owned(names)).filter(|n| !n.is_empty()),
            non_resource_urls: None,
        },
        Rule::Paths(paths) => {
            let verb = if *paths == ["*"] { "*" } else { "get" };
            PolicyRule { verbs: owned(&[verb]), non_resource_urls: Some(owned(paths)), ..PolicyRule::default() }
        }
    }
}
