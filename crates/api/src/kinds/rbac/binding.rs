//! RoleBinding and ClusterRoleBinding: give a role to users, groups and service accounts.

use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::{GROUP, row};
use crate::Resource;
use crate::field::{ErrorList, Path, invalid, not_supported, required};
use crate::kinds::{AGE, Column, KindInfo, NAME, Scope, column, rules, wide};
use crate::names::{self, NameRule};

const COLUMNS: &[Column] = &[
    NAME,
    column("Role", "string", "The role that is given"),
    AGE,
    wide("Users", "string", "Users who get it"),
    wide("Groups", "string", "Groups who get it"),
    wide("ServiceAccounts", "string", "Service accounts that get it"),
];

impl Resource for RoleBinding {
    const INFO: KindInfo = row("RoleBinding", "rolebindings", "rolebinding", Scope::Namespaced, COLUMNS);

    fn set_defaults(&mut self) {
        set_defaults(&mut self.role_ref, self.subjects.as_mut());
    }

    fn validate(&self, errors: &mut ErrorList) {
        validate_role_ref(&self.role_ref, &["Role", "ClusterRole"], errors);
        validate_subjects(self.subjects.as_deref(), Scope::Namespaced, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        validate_same_role(&self.role_ref, &old.role_ref, errors);
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        cells(&self.metadata, &self.role_ref, self.subjects.as_deref(), now)
    }
}

impl Resource for ClusterRoleBinding {
    const INFO: KindInfo =
        row("ClusterRoleBinding", "clusterrolebindings", "clusterrolebinding", Scope::Cluster, COLUMNS);

    fn set_defaults(&mut self) {
        set_defaults(&mut self.role_ref, self.subjects.as_mut());
    }

    fn validate(&self, errors: &mut ErrorList) {
        validate_role_ref(&self.role_ref, &["ClusterRole"], errors);
        validate_subjects(self.subjects.as_deref(), Scope::Cluster, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        validate_same_role(&self.role_ref, &old.role_ref, errors);
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        cells(&self.metadata, &self.role_ref, self.subjects.as_deref(), now)
    }
}

fn set_defaults(role: &mut RoleRef, subjects: Option<&mut Vec<Subject>>) {
    if role.api_group.is_empty() {
        role.api_group = GROUP.to_owned();
    }
    for subject in subjects.into_iter().flatten() {
        if subject.api_group.as_deref().unwrap_or("").is_empty() {
            subject.api_group = matches!(&*subject.kind, "User" | "Group").then(|| GROUP.to_owned());
        }
    }
}

fn validate_role_ref(role: &RoleRef, kinds: &[&str], errors: &mut ErrorList) {
    let path = Path::new("roleRef");
    if role.api_group != GROUP {
        errors.push(not_supported(&path.child("apiGroup"), &*role.api_group, &[GROUP]));
    }
    if !kinds.contains(&&*role.kind) {
        errors.push(not_supported(&path.child("kind"), &*role.kind, kinds));
    }
    if role.name.is_empty() {
        errors.push(required(&path.child("name"), ""));
    } else {
        rules::all(
            names::validate_name(NameRule::PathSegment, &role.name),
            role.name.as_str(),
            &path.child("name"),
            errors,
        );
    }
}

fn validate_same_role(new: &RoleRef, old: &RoleRef, errors: &mut ErrorList) {
    if new != old {
        errors.push(invalid(&Path::new("roleRef"), json!(new), "cannot change roleRef"));
    }
}

fn validate_subjects(subjects: Option<&[Subject]>, scope: Scope, errors: &mut ErrorList) {
    for (index, subject) in subjects.unwrap_or_default().iter().enumerate() {
        validate_subject(subject, scope, &Path::new("subjects").index(index), errors);
    }
}

fn validate_subject(subject: &Subject, scope: Scope, path: &Path, errors: &mut ErrorList) {
    let (name, group) = (path.child("name"), subject.api_group.as_deref().unwrap_or(""));
    if subject.name.is_empty() {
        errors.push(required(&name, ""));
    }
    match &*subject.kind {
        "ServiceAccount" => {
            if !subject.name.is_empty() {
                let wrong = names::validate_name(NameRule::Dns1123Subdomain, &subject.name);
                rules::all(wrong, subject.name.as_str(), &name, errors);
            }
            if !group.is_empty() {
                errors.push(not_supported(&path.child("apiGroup"), group, &[""]));
            }
            if scope == Scope::Cluster && subject.namespace.as_deref().unwrap_or("").is_empty() {
                errors.push(required(&path.child("namespace"), ""));
            }
        }
        "User" | "Group" => {
            if group != GROUP {
                errors.push(not_supported(&path.child("apiGroup"), group, &[GROUP]));
            }
        }
        other => errors.push(not_supported(&path.child("kind"), other, &["ServiceAccount", "User", "Group"])),
    }
}

fn cells(metadata: &ObjectMeta, role: &RoleRef, subjects: Option<&[Subject]>, now: Timestamp) -> Vec<Value> {
    let shown = |subject: &Subject| match (&*subject.kind, subject.namespace.as_deref().unwrap_or("")) {
        ("ServiceAccount", namespace) => format!("{namespace}/{}", subject.name),
        _ => subject.name.clone(),
    };
    let joined = |kind: &str| {
        let subjects = subjects.unwrap_or_default().iter().filter(|s| s.kind == kind);
        json!(subjects.map(shown).collect::<Vec<_>>().join(", "))
    };
    vec![
        json!(metadata.name),
        json!(format!("{}/{}", role.kind, role.name)),
        crate::printing::age(metadata, now),
        joined("User"),
        joined("Group"),
        joined("ServiceAccount"),
    ]
}
