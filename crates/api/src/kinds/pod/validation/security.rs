//! Security contexts of pods and containers.

use k8s_openapi::api::core::v1::{AppArmorProfile, PodSpec, SeccompProfile, SecurityContext};
use serde_json::json;

use crate::field::{ErrorList, Path, duplicate, invalid, not_supported, required};
use crate::kinds::rules;
use crate::names;

/// User and group ids fit a signed 32-bit integer.
const MAX_ID: i64 = i32::MAX as i64;

pub(super) fn of_pod(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    if spec.share_process_namespace == Some(true) && spec.host_pid == Some(true) {
        let path = path.child("shareProcessNamespace");
        errors.push(invalid(&path, true, "ShareProcessNamespace and HostPID cannot both be enabled"));
    }
    let Some(context) = spec.security_context.as_ref() else { return };
    id(context.fs_group, &path.child("fsGroup"), errors);
    id(context.run_as_user, &path.child("runAsUser"), errors);
    id(context.run_as_group, &path.child("runAsGroup"), errors);
    for (index, group) in context.supplemental_groups.iter().flatten().enumerate() {
        id(Some(*group), &path.child("supplementalGroups").index(index), errors);
    }
    let sysctls = path.child("sysctls");
    for (index, sysctl) in context.sysctls.iter().flatten().enumerate() {
        let path = sysctls.index(index).child("name");
        let before = context.sysctls.iter().flatten().take(index);
        if rules::given(&sysctl.name, &path, errors) && !is_sysctl(&sysctl.name) {
            errors.push(invalid(&path, sysctl.name.as_str(), "must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"));
        } else if before.into_iter().any(|s| s.name == sysctl.name) {
            errors.push(duplicate(&path, sysctl.name.as_str()));
        }
    }
    let policy = context.fs_group_change_policy.as_deref();
    rules::optional_one_of(policy, &["Always", "OnRootMismatch"], &path.child("fsGroupChangePolicy"), errors);
    let policy = context.supplemental_groups_policy.as_deref();
    rules::optional_one_of(policy, &["Merge", "Strict"], &path.child("supplementalGroupsPolicy"), errors);
    seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errors);
}

pub(super) fn of_container(context: &SecurityContext, path: &Path, errors: &mut ErrorList) {
    id(context.run_as_user, &path.child("runAsUser"), errors);
    id(context.run_as_group, &path.child("runAsGroup"), errors);
    rules::optional_one_of(context.proc_mount.as_deref(), &["Default", "Unmasked"], &path.child("procMount"), errors);
    seccomp(context.seccomp_profile.as_ref(), &path.child("seccompProfile"), errors);
    if context.allow_privilege_escalation == Some(false) {
        if context.privileged == Some(true) {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
            errors.push(invalid(path, json!(context), detail));
        }
        let added = context.capabilities.iter().flat_map(|c| c.add.iter().flatten());
        for _ in added.filter(|capability| *capability == "CAP_SYS_ADMIN") {
            let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
            errors.push(invalid(path, json!(context), detail));
        }
    }
    app_armor(context.app_armor_profile.as_ref(), &path.child("appArmorProfile"), errors);
}

fn id(id: Option<i64>, path: &Path, errors: &mut ErrorList) {
    if let Some(id) = id {
        rules::all(names::is_in_range(id, 0, MAX_ID), id, path, errors);
    }
}

fn is_sysctl(name: &str) -> bool {
    let is_part = |part: &str| {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        edge(part.chars().next())
            && edge(part.chars().next_back())
            && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
    };
    name.len() <= names::SUBDOMAIN_MAX_LENGTH && name.split(['.', '/']).all(is_part)
}

fn seccomp(profile: Option<&SeccompProfile>, path: &Path, errors: &mut ErrorList) {
    let Some(profile) = profile else { return };
    let types = ["Localhost", "RuntimeDefault", "Unconfined"];
    match profile.type_.as_str() {
        "" => errors.push(required(&path.child("type"), "type is required when seccompProfile is set")),
        known if types.contains(&known) => {}
        unknown => errors.push(not_supported(&path.child("type"), unknown, &types)),
    }
    let local = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None) => errors.push(required(&local, "must be set when seccomp type is Localhost")),
        ("Localhost", Some(file)) => rules::descending_path(file, &local, errors),
        (_, Some(file)) => {
            errors.push(invalid(&local, file, "can only be set when seccomp type is Localhost"));
        }
        (_, None) => {}
    }
}

fn app_armor(profile: Option<&AppArmorProfile>, path: &Path, errors: &mut ErrorList) {
    let Some(profile) = profile else { return };
    let local = path.child("localhostProfile");
    match (profile.type_.as_str(), profile.localhost_profile.as_deref()) {
        ("Localhost", None | Some("")) => {
            errors.push(required(&local, "must be set when AppArmor type is Localhost"));
        }
        ("Localhost", Some(_)) | (_, None) => {}
        (_, Some(file)) => {
            errors.push(invalid(&local, file, "can only be set when AppArmor type is Localhost"));
        }
    }
    let types = ["Localhost", "RuntimeDefault", "Unconfined"];
    match profile.type_.as_str() {
        "" => errors.push(required(&path.child("type"), "type is required when appArmorProfile is set")),
        known if types.contains(&known) => {}
        unknown => errors.push(not_supported(&path.child("type"), unknown, &types)),
    }
}
