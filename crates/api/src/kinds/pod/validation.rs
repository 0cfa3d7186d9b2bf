//! What is wrong with a pod's spec (`ValidatePodSpec` in `pkg/apis/core/validation` upstream).
//!
//! One module for each part of the spec, in the order errors are reported:
//! [`volumes`], [`containers`] (with [`env`], [`mounts`], [`probes`], [`resources`], [`security`]), then what concerns
//! the pod as a whole: [`dns`], [`affinity`], [`scheduling`].

mod affinity;
mod containers;
mod dns;
mod env;
mod mounts;
mod probes;
mod resources;
mod scheduling;
mod security;
mod volumes;

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::field::{ErrorList, Path, forbidden, invalid, required};
use crate::kinds::rules;
use crate::metadata::{validate_annotations, validate_labels};
use crate::names;
use crate::well_known::ANNOTATION_CONFIG_MIRROR;

pub(in crate::kinds) use affinity::node_selector_terms;
pub(in crate::kinds) use resources::resource_name;
pub(in crate::kinds) use scheduling::TAINT_EFFECTS;
pub(super) use scheduling::added_only;

/// Whether pods may restart their containers.
const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];

pub(super) fn pod(pod: &Pod, errors: &mut ErrorList) {
    let path = Path::new("spec");
    let Some(spec) = pod.spec.as_ref() else {
        errors.push(required(&path.child("containers"), ""));
        return;
    };
    pod_spec(spec, &path, errors);
    let mirror = pod.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_CONFIG_MIRROR));
    if let Some(hash) = mirror
        && spec.node_name.as_deref().unwrap_or("").is_empty()
    {
        let path = Path::new("metadata").child("annotations").key(ANNOTATION_CONFIG_MIRROR);
        errors.push(invalid(&path, hash.as_str(), "must set spec.nodeName if mirror pod annotation is set"));
    }
}

/// What is wrong with a pod as a new one.
pub(super) fn new_pod(pod: &Pod, errors: &mut ErrorList) {
    let ephemeral = pod.spec.as_ref().and_then(|s| s.ephemeral_containers.as_ref());
    if ephemeral.is_some_and(|containers| !containers.is_empty()) {
        errors.push(forbidden(&Path::new("spec").child("ephemeralContainers"), "cannot be set on create"));
    }
}

/// What is wrong with the template of the pods a controller makes. Labels and annotations of the template are checked
/// like those of any object.
pub(in crate::kinds) fn template(template: &PodTemplateSpec, path: &Path, errors: &mut ErrorList) {
    let metadata = template.metadata.as_ref();
    validate_labels(metadata.and_then(|m: &ObjectMeta| m.labels.as_ref()), &path.child("labels"), errors);
    validate_annotations(metadata.and_then(|m| m.annotations.as_ref()), &path.child("annotations"), errors);
    match template.spec.as_ref() {
        Some(spec) => {
            pod_spec(spec, &path.child("spec"), errors);
            if spec.ephemeral_containers.iter().flatten().next().is_some() {
                let path = path.child("spec").child("ephemeralContainers");
                errors.push(forbidden(&path, "ephemeral containers not allowed in pod template"));
            }
        }
        None => errors.push(required(&path.child("spec").child("containers"), "")),
    }
}

fn pod_spec(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let volumes = volumes::volumes(spec, &path.child("volumes"), errors);
    containers::containers(spec, &volumes, &path.child("containers"), errors);
    containers::init_containers(spec, &volumes, &path.child("initContainers"), errors);
    containers::ephemeral_containers(spec, &volumes, &path.child("ephemeralContainers"), errors);
    if let Some(resources) = spec.resources.as_ref() {
        resources::of_pod(resources, &path.child("resources"), errors);
    }
    containers::host_network_ports(spec, &path.child("containers"), errors);
    rules::one_of(spec.restart_policy.as_deref(), RESTART_POLICIES, &path.child("restartPolicy"), errors);
    dns::policy(spec.dns_policy.as_deref(), &path.child("dnsPolicy"), errors);
    validate_labels(spec.node_selector.as_ref(), &path.child("nodeSelector"), errors);
    security::of_pod(spec, &path.child("securityContext"), errors);
    affinity::affinity(spec.affinity.as_ref(), &path.child("affinity"), errors);
    dns::config(spec, &path.child("dnsConfig"), errors);
    scheduling::gates(spec, path, errors);
    scheduling::topology_spread(spec, &path.child("topologySpreadConstraints"), errors);
    names_in_spec(spec, path, errors);
    deadline(spec, &path.child("activeDeadlineSeconds"), errors);
    scheduling::tolerations(spec.tolerations.as_deref().unwrap_or(&[]), &path.child("tolerations"), errors);
    dns::host_aliases(spec, &path.child("hostAliases"), errors);
    scheduling::priority(spec, path, errors);
    for (name, amount) in spec.overhead.iter().flatten() {
        resources::amount(name, amount, &path.child("overhead").key(name), errors);
    }
    let os = spec.os.as_ref().map(|os| os.name.as_str());
    if os.is_some() {
        rules::one_of(os, &["linux", "windows"], &path.child("os").child("name"), errors);
    }
}

/// Names of other objects and of the pod on the network.
fn names_in_spec(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    let subdomains = [
        (&spec.service_account_name, "serviceAccountName"),
        (&spec.node_name, "nodeName"),
        (&spec.priority_class_name, "priorityClassName"),
        (&spec.runtime_class_name, "runtimeClassName"),
    ];
    for (name, field) in subdomains {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty()) {
            rules::dns_subdomain(name, &path.child(field), errors);
        }
    }
    for (name, field) in [(&spec.hostname, "hostname"), (&spec.subdomain, "subdomain")] {
        if let Some(name) = name.as_deref().filter(|n| !n.is_empty()) {
            rules::all(names::is_dns1123_label(name), name, &path.child(field), errors);
        }
    }
}

fn deadline(spec: &PodSpec, path: &Path, errors: &mut ErrorList) {
    if let Some(seconds) = spec.active_deadline_seconds {
        rules::all(names::is_in_range(seconds, 1, i32::MAX.into()), seconds, path, errors);
    }
}

#[cfg(test)]
mod tests;
