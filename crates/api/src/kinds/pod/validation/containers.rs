//! Containers and init containers: what they have in common, and what each may not have.

use k8s_openapi::api::core::v1::{Container, ContainerPort, EphemeralContainer, PodSpec};

use super::volumes::Known;
use super::{env, mounts, probes, resources, security};
use crate::field::{ErrorList, Path, duplicate, forbidden, invalid, not_found, not_supported, required};
use crate::kinds::rules::{self, Unique};
use crate::names;
use crate::pods::is_sidecar;

const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["FallbackToLogsOnError", "File"];
const RESTART_POLICIES: &[&str] = &["Always", "Never", "OnFailure"];
/// The most rules about exit codes a container may have.
const MAX_RESTART_RULES: usize = 20;
/// The most exit codes one rule may name.
const MAX_EXIT_CODES: usize = 255;

pub(super) fn containers(spec: &PodSpec, volumes: &Known, path: &Path, errors: &mut ErrorList) {
    if spec.containers.is_empty() {
        errors.push(required(path, ""));
    }
    let mut names = Unique::new();
    for (index, container) in spec.containers.iter().enumerate() {
        let path = path.index(index);
        common(container, spec, volumes, &path, errors);
        names.add(container.name.as_str(), &path.child("name"), errors);
        probes::of_container(container, spec.termination_grace_period_seconds, &path, errors);
        restart_policy(container, &path, errors);
    }
    host_ports(&spec.containers, path, errors);
}

pub(super) fn init_containers(spec: &PodSpec, volumes: &Known, path: &Path, errors: &mut ErrorList) {
    let mut names = Unique::new();
    for container in &spec.containers {
        names.add(container.name.as_str(), path, &mut ErrorList::new());
    }
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let path = path.index(index);
        common(container, spec, volumes, &path, errors);
        if !container.name.is_empty() {
            names.add(container.name.as_str(), &path.child("name"), errors);
        }
        host_ports(std::slice::from_ref(container), &path, errors);
        restart_policy(container, &path, errors);
        if is_sidecar(container) {
            probes::of_container(container, spec.termination_grace_period_seconds, &path, errors);
        } else {
            runs_to_its_end(container, &path, errors);
        }
    }
}

/// An init container that ends before the next starts has no life to look after.
fn runs_to_its_end(container: &Container, path: &Path, errors: &mut ErrorList) {
    let fields = [
        (container.lifecycle.is_some(), "lifecycle"),
        (container.liveness_probe.is_some(), "livenessProbe"),
        (container.readiness_probe.is_some(), "readinessProbe"),
        (container.startup_probe.is_some(), "startupProbe"),
    ];
    for (_, field) in fields.into_iter().filter(|(is_set, _)| *is_set) {
        let detail = "may not be set for init containers without restartPolicy=Always";
        errors.push(forbidden(&path.child(field), detail));
    }
    if let Some(policies) = container.resize_policy.as_ref().filter(|p| !p.is_empty()) {
        let value = serde_json::json!(policies);
        errors.push(invalid(&path.child("resizePolicy"), value, "must not be set for init containers"));
    }
}

/// Containers that only look around: none of the pod's work may depend on them (`validateEphemeralContainers`).
pub(super) fn ephemeral_containers(spec: &PodSpec, volumes: &Known, path: &Path, errors: &mut ErrorList) {
    let others: Vec<&str> = crate::pods::all_containers(spec).map(|c| c.name.as_str()).collect();
    let mut names = Unique::new();
    others.iter().for_each(|name| names.add(*name, path, &mut ErrorList::new()));
    for (index, ephemeral) in spec.ephemeral_containers.iter().flatten().enumerate() {
        let path = path.index(index);
        common(&crate::pods::from_ephemeral(ephemeral), spec, volumes, &path, errors);
        names.add(ephemeral.name.as_str(), &path.child("name"), errors);
        let target = ephemeral.target_container_name.as_deref().unwrap_or("");
        if !target.is_empty() && !others.contains(&target) {
            errors.push(not_found(&path.child("targetContainerName"), target));
        }
        only_looks_around(ephemeral, &path, errors);
    }
}

fn only_looks_around(container: &EphemeralContainer, path: &Path, errors: &mut ErrorList) {
    const DETAIL: &str = "cannot be set for an Ephemeral Container";
    let fields = [
        (container.ports.as_ref().is_some_and(|p| !p.is_empty()), "ports"),
        (container.resources.as_ref().is_some_and(|r| *r != Default::default()), "resources"),
        (container.resize_policy.as_ref().is_some_and(|p| !p.is_empty()), "resizePolicy"),
        (container.restart_policy.is_some(), "restartPolicy"),
        (container.restart_policy_rules.as_ref().is_some_and(|r| !r.is_empty()), "restartPolicyRules"),
        (container.liveness_probe.is_some(), "livenessProbe"),
        (container.readiness_probe.is_some(), "readinessProbe"),
        (container.startup_probe.is_some(), "startupProbe"),
        (container.lifecycle.is_some(), "lifecycle"),
    ];
    for (_, field) in fields.into_iter().filter(|(is_set, _)| *is_set) {
        errors.push(forbidden(&path.child(field), DETAIL));
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = path.child("volumeMounts").index(index);
        for (value, field) in [(&mount.sub_path, "subPath"), (&mount.sub_path_expr, "subPathExpr")] {
            if value.as_ref().is_some_and(|v| !v.is_empty()) {
                errors.push(forbidden(&path.child(field), DETAIL));
            }
        }
    }
}

fn common(container: &Container, spec: &PodSpec, volumes: &Known, path: &Path, errors: &mut ErrorList) {
    rules::dns_label(&container.name, &path.child("name"), errors);
    image(container.image.as_deref().unwrap_or(""), &path.child("image"), errors);
    rules::one_of(
        container.termination_message_policy.as_deref(),
        MESSAGE_POLICIES,
        &path.child("terminationMessagePolicy"),
        errors,
    );
    ports(container, &path.child("ports"), errors);
    env::env(container, &path.child("env"), errors);
    env::env_from(container, &path.child("envFrom"), errors);
    mounts::mounts(container, volumes, &path.child("volumeMounts"), errors);
    mounts::devices(container, volumes, &path.child("volumeDevices"), errors);
    rules::one_of(container.image_pull_policy.as_deref(), PULL_POLICIES, &path.child("imagePullPolicy"), errors);
    if let Some(requirements) = container.resources.as_ref() {
        resources::of_container(requirements, spec, &path.child("resources"), errors);
    }
    resources::resize_policy(container, spec.restart_policy.as_deref(), &path.child("resizePolicy"), errors);
    if let Some(context) = container.security_context.as_ref() {
        security::of_container(context, &path.child("securityContext"), errors);
    }
}

pub(in crate::kinds::pod) fn image(image: &str, path: &Path, errors: &mut ErrorList) {
    if rules::given(image, path, errors) && image.trim() != image {
        errors.push(invalid(path, image, "must not have leading or trailing whitespace"));
    }
}

fn ports(container: &Container, path: &Path, errors: &mut ErrorList) {
    let mut names = Unique::new();
    for (index, port) in container.ports.iter().flatten().enumerate() {
        let path = path.index(index);
        if let Some(name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            let messages = names::is_port_name(name);
            if messages.is_empty() {
                names.add(name, &path.child("name"), errors);
            }
            rules::all(messages, name, &path.child("name"), errors);
        }
        match port.container_port {
            0 => errors.push(required(&path.child("containerPort"), "")),
            number => rules::port_number(number, &path.child("containerPort"), errors),
        }
        if let Some(number) = port.host_port.filter(|p| *p != 0) {
            rules::port_number(number, &path.child("hostPort"), errors);
        }
        rules::one_of(port.protocol.as_deref(), rules::PROTOCOLS, &path.child("protocol"), errors);
    }
}

/// No port of the node is taken twice.
fn host_ports(containers: &[Container], path: &Path, errors: &mut ErrorList) {
    let mut taken: Vec<String> = Vec::new();
    for (index, container) in containers.iter().enumerate() {
        let ports = path.index(index).child("ports");
        for (index, port) in container.ports.iter().flatten().enumerate() {
            let ContainerPort { host_port: Some(number @ 1..), host_ip, protocol, .. } = port else { continue };
            let (protocol, ip) = (protocol.as_deref().unwrap_or(""), host_ip.as_deref().unwrap_or(""));
            let key = format!("{protocol}/{ip}/{number}");
            if taken.contains(&key) {
                errors.push(duplicate(&ports.index(index).child("hostPort"), key));
            } else {
                taken.push(key);
            }
        }
    }
}

/// On the node's own network a container's port is the node's port.
pub(super) fn host_network_ports(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    if spec.host_network != Some(true) {
        return;
    }
    for (index, container) in spec.containers.iter().enumerate() {
        let ports = path.index(index).child("ports");
        for (index, port) in container.ports.iter().flatten().enumerate() {
            if port.host_port.is_some_and(|p| p != 0 && p != port.container_port) {
                let path = ports.index(index).child("containerPort");
                let detail = "must match `hostPort` when `hostNetwork` is true";
                errors.push(invalid(&path, port.container_port, detail));
            }
        }
    }
}

/// A container's own restart policy, and rules for single exit codes (`validateContainerRestartPolicy`).
fn restart_policy(container: &Container, path: &Path, errors: &mut ErrorList) {
    let policy = container.restart_policy.as_deref();
    rules::optional_one_of(policy, RESTART_POLICIES, &path.child("restartPolicy"), errors);
    let restart_rules = container.restart_policy_rules.as_deref().unwrap_or(&[]);
    let path = path.child("restartPolicyRules");
    if !restart_rules.is_empty() && policy.is_none() {
        errors.push(required(&path, "must specify restartPolicy when restart rules are used"));
    }
    if restart_rules.len() > MAX_RESTART_RULES {
        errors.push(crate::field::too_many(&path, restart_rules.len(), MAX_RESTART_RULES));
    }
    for (index, rule) in restart_rules.iter().enumerate() {
        let path = path.index(index);
        if !matches!(rule.action.as_str(), "Restart" | "RestartAllContainers") {
            errors.push(not_supported(&path.child("action"), rule.action.as_str(), &["Restart"]));
        }
        let Some(exit_codes) = rule.exit_codes.as_ref() else {
            errors.push(required(&path.child("exitCodes"), "must be specified"));
            continue;
        };
        let path = path.child("exitCodes");
        rules::optional_one_of(Some(&exit_codes.operator), &["In", "NotIn"], &path.child("operator"), errors);
        let values = exit_codes.values.as_ref().map_or(0, Vec::len);
        if values > MAX_EXIT_CODES {
            errors.push(crate::field::too_many(&path.child("values"), values, MAX_EXIT_CODES));
        }
    }
}
