//! Pod: containers that live and die together on one node.
//!
//! - [`defaults`]: what its author may leave out;
//! - [`validation`]: what may be wrong with its spec;
//! - [`warnings`]: what is accepted with a word;
//! - [`update`]: what may change later; [`resize`]: how much it asks for, too;
//! - [`printing`]: the columns of `kubectl get pods`.

pub(super) mod defaults;
mod image;
mod printing;
mod resize;
#[cfg(test)]
mod tests;
mod update;
pub(super) mod validation;
pub(super) mod warnings;

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{HostIP, Pod, PodCondition, PodIP, PodStatus};
use serde_json::Value;

use crate::Resource;
use crate::field::ErrorList;
use crate::kinds::{KindInfo, Scope, Subresource, Verb};
use crate::names::NameRule;

impl Resource for Pod {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[
            Subresource::Status,
            Subresource::Binding,
            Subresource::EphemeralContainers,
            Subresource::Eviction,
            Subresource::Log,
            Subresource::Exec,
            Subresource::Attach,
            Subresource::PortForward,
            Subresource::Proxy,
            Subresource::Resize,
        ],
        columns: printing::COLUMNS,
        selectable_fields: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        name_rule: NameRule::Dns1123Subdomain,
    };

    const HAS_GENERATION: bool = true;

    fn generation_changed(&self, old: &Self) -> bool {
        self.spec != old.spec
    }

    fn set_defaults(&mut self) {
        defaults::pod(self);
        if let Some(status) = self.status.as_mut() {
            first_addresses(status);
        }
    }

    fn prepare_create(&mut self) {
        self.status = Some(PodStatus {
            phase: Some("Pending".to_owned()),
            qos_class: Some(crate::pods::qos_class(self).to_owned()),
            conditions: gated(self).map(|condition| vec![condition]),
            ..PodStatus::default()
        });
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
        // Owners are the business of those who own the pod, not of those who watch over it.
        self.metadata.owner_references.clone_from(&old.metadata.owner_references);
        let status = self.status.get_or_insert_default();
        if status.qos_class.is_none() {
            status.qos_class = old.status.as_ref().and_then(|s| s.qos_class.clone());
        }
    }

    fn prepare_subresource_update(&mut self, subresource: Subresource, old: &Self) {
        match subresource {
            Subresource::Status => self.prepare_status_update(old),
            Subresource::EphemeralContainers => {
                let wanted = self.spec.take().and_then(|spec| spec.ephemeral_containers);
                self.clone_from(old);
                if let Some(spec) = self.spec.as_mut() {
                    spec.ephemeral_containers = wanted.filter(|containers| !containers.is_empty());
                }
            }
            Subresource::Resize => resize::prepare(self, old),
            _ => {}
        }
    }

    fn validate(&self, errors: &mut ErrorList) {
        validation::pod(self, errors);
    }

    fn warnings(&self, old: Option<&Self>) -> Vec<String> {
        old.map_or_else(|| warnings::pod(self), |_| Vec::new())
    }

    fn validate_create(&self, errors: &mut ErrorList) {
        validation::new_pod(self, errors);
    }

    fn validate_subresource_update(&self, subresource: Subresource, old: &Self, errors: &mut ErrorList) {
        match subresource {
            Subresource::Status => self.validate_status_update(old, errors),
            Subresource::EphemeralContainers => update::ephemeral_containers(self, old, errors),
            Subresource::Resize => resize::validate(self, old, errors),
            _ => {}
        }
    }

    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        update::spec(self, old, errors);
    }

    fn validate_status_update(&self, old: &Self, errors: &mut ErrorList) {
        update::status(self, old, errors);
    }

    fn selectable_fields(&self) -> Vec<Cow<'_, str>> {
        let (spec, status) = (self.spec.as_ref(), self.status.as_ref());
        let host_network = spec.and_then(|s| s.host_network).unwrap_or(false);
        vec![
            spec.and_then(|s| s.node_name.as_deref()).unwrap_or("").into(),
            spec.and_then(|s| s.restart_policy.as_deref()).unwrap_or("").into(),
            spec.and_then(|s| s.scheduler_name.as_deref()).unwrap_or("").into(),
            spec.and_then(|s| s.service_account_name.as_deref()).unwrap_or("").into(),
            if host_network { "true" } else { "false" }.into(),
            crate::pods::phase(self).into(),
            status.and_then(|s| s.pod_ip.as_deref()).unwrap_or("").into(),
            status.and_then(|s| s.nominated_node_name.as_deref()).unwrap_or("").into(),
        ]
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        printing::cells(self, now)
    }
}

/// The condition of a pod that waits for its scheduling gates to be removed.
fn gated(pod: &Pod) -> Option<PodCondition> {
    let gates = pod.spec.as_ref()?.scheduling_gates.as_ref()?;
    (!gates.is_empty()).then(|| PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("SchedulingGated".to_owned()),
        message: Some("Scheduling is blocked due to non-empty scheduling gates".to_owned()),
        ..PodCondition::default()
    })
}

/// `podIP` and the first of `podIPs` are one address, and so with the node's; whoever writes one writes both.
fn first_addresses(status: &mut PodStatus) {
    let first = status.pod_ips.as_ref().and_then(|ips| ips.first()).map(|ip| ip.ip.clone());
    match (status.pod_ip.clone().filter(|ip| !ip.is_empty()), first) {
        (None, first) => status.pod_ip = first,
        (Some(ip), first) if first.as_ref() != Some(&ip) => status.pod_ips = Some(vec![PodIP { ip }]),
        _ => {}
    }
    let first = status.host_ips.as_ref().and_then(|ips| ips.first()).map(|ip| ip.ip.clone());
    match (status.host_ip.clone().filter(|ip| !ip.is_empty()), first) {
        (None, first) => status.host_ip = first,
        (Some(ip), None) => status.host_ips = Some(vec![HostIP { ip }]),
        _ => {}
    }
}
