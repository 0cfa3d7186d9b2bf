//! What a pod's author may leave out (`pkg/apis/core/v1/defaults.go` upstream).

pub(in crate::kinds) mod volumes;

use k8s_openapi::api::core::v1::{
    Container, EnvVar, GRPCAction, HTTPGetAction, LifecycleHandler, Pod, PodSpec, PodTemplateSpec, Probe,
    ResourceFieldSelector, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

use crate::quantity::canonicalize;

/// What `spec.terminationGracePeriodSeconds` is unless given.
const GRACE_PERIOD_SECONDS: i64 = 30;

/// Defaults of a pod that is to run. More than those of a template: what follows from other fields is filled in only
/// here (`SetDefaults_Pod`).
pub(super) fn pod(pod: &mut Pod) {
    let Some(spec) = pod.spec.as_mut() else { return };
    pod_spec(spec);
    spec.enable_service_links.get_or_insert(true);
    let host_network = spec.host_network == Some(true);
    for container in containers(spec) {
        if let Some(resources) = container.resources.as_mut() {
            requests_from_limits(resources);
        }
        for port in container.ports.iter_mut().flatten().filter(|_| host_network) {
            let free = port.host_port.unwrap_or(0) == 0;
            let same = Some(port.container_port).filter(|port| *port != 0);
            port.host_port = if free { same } else { port.host_port };
        }
    }
    if let Some(resources) = spec.resources.as_mut() {
        requests_from_limits(resources);
    }
}

/// Defaults of the pods a controller makes.
pub(in crate::kinds) fn template(template: &mut PodTemplateSpec) {
    if let Some(spec) = template.spec.as_mut() {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut PodSpec) {
    or_text(&mut spec.restart_policy, "Always");
    or_text(&mut spec.dns_policy, "ClusterFirst");
    or_text(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(GRACE_PERIOD_SECONDS);
    spec.security_context.get_or_insert_default();
    service_account(spec);
    for container in containers(spec) {
        self::container(container);
    }
    for ephemeral in spec.ephemeral_containers.iter_mut().flatten() {
        let mut container = crate::pods::from_ephemeral(ephemeral);
        self::container(&mut container);
        *ephemeral = crate::pods::to_ephemeral(container, ephemeral.target_container_name.take());
    }
    for volume in spec.volumes.iter_mut().flatten() {
        volumes::volume(volume);
    }
    if let Some(resources) = spec.resources.as_mut() {
        amounts(resources);
    }
    for amount in spec.overhead.iter_mut().flat_map(|o| o.values_mut()) {
        canonicalize(amount);
    }
}

fn containers(spec: &mut PodSpec) -> impl Iterator<Item = &mut Container> {
    spec.init_containers.iter_mut().flatten().chain(&mut spec.containers)
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always shown.
fn service_account(spec: &mut PodSpec) {
    let named = |name: &Option<String>| name.clone().filter(|n| !n.is_empty());
    if let Some(name) = named(&spec.service_account_name).or_else(|| named(&spec.service_account)) {
        spec.service_account_name = Some(name.clone());
        spec.service_account = Some(name);
    }
}

fn container(container: &mut Container) {
    let policy = pull_policy(container.image.as_deref().unwrap_or(""));
    or_text(&mut container.image_pull_policy, policy);
    or_text(&mut container.termination_message_path, "/dev/termination-log");
    or_text(&mut container.termination_message_policy, "File");
    amounts(container.resources.get_or_insert_default());
    for port in container.ports.iter_mut().flatten() {
        or_text(&mut port.protocol, "TCP");
    }
    for variable in container.env.iter_mut().flatten() {
        env(variable);
    }
    for probe in [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe] {
        probe.as_mut().into_iter().for_each(self::probe);
    }
    if let Some(lifecycle) = container.lifecycle.as_mut() {
        for handler in [&mut lifecycle.post_start, &mut lifecycle.pre_stop] {
            handler.as_mut().into_iter().for_each(self::handler);
        }
    }
}

/// Tagged `latest`, or without tag and digest: the image may change, so it is always pulled (`ParseImageName`).
pub(super) fn pull_policy(image: &str) -> &'static str {
    if !super::image::is_reference(image) {
        return "IfNotPresent";
    }
    let (name, digest) = match image.split_once('@') {
        Some((name, digest)) => (name, Some(digest)),
        None => (image, None),
    };
    let last = name.rsplit('/').next().unwrap_or(name);
    match (last.split_once(':'), digest) {
        (Some((_, "latest")), _) | (None, None) => "Always",
        _ => "IfNotPresent",
    }
}

fn env(variable: &mut EnvVar) {
    let Some(source) = variable.value_from.as_mut() else { return };
    if let Some(field) = source.field_ref.as_mut() {
        or_text(&mut field.api_version, "v1");
    }
    if let Some(field) = source.resource_field_ref.as_mut() {
        divisor(field);
    }
}

/// A divisor of zero means one; it is shown as upstream shows it.
fn divisor(field: &mut ResourceFieldSelector) {
    canonicalize(field.divisor.get_or_insert_with(|| Amount("0".to_owned())));
}

fn probe(probe: &mut Probe) {
    or_number(&mut probe.timeout_seconds, 1);
    or_number(&mut probe.period_seconds, 10);
    or_number(&mut probe.success_threshold, 1);
    or_number(&mut probe.failure_threshold, 3);
    probe.http_get.as_mut().into_iter().for_each(http_get);
    if let Some(GRPCAction { service, .. }) = probe.grpc.as_mut() {
        service.get_or_insert_default();
    }
}

fn handler(handler: &mut LifecycleHandler) {
    handler.http_get.as_mut().into_iter().for_each(http_get);
}

fn http_get(action: &mut HTTPGetAction) {
    or_text(&mut action.path, "/");
    or_text(&mut action.scheme, "HTTP");
}

/// Canonical quantities.
fn amounts(resources: &mut ResourceRequirements) {
    let (limits, requests) = (resources.limits.iter_mut(), resources.requests.iter_mut());
    limits.chain(requests).flat_map(|map| map.values_mut()).for_each(canonicalize);
}

/// Who limits without requesting requests as much.
fn requests_from_limits(resources: &mut ResourceRequirements) {
    for (name, limit) in resources.limits.iter().flatten() {
        let requests = resources.requests.get_or_insert_default();
        requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

/// The empty text counts as not given.
pub(in crate::kinds) fn or_text(field: &mut Option<String>, default: &str) {
    if field.as_deref().unwrap_or("").is_empty() {
        *field = Some(default.to_owned());
    }
}

/// Zero counts as not given.
pub(in crate::kinds) fn or_number(field: &mut Option<i32>, default: i32) {
    if field.unwrap_or(0) == 0 {
        *field = Some(default);
    }
}
