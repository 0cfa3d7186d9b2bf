//! The Node object as a kubelet first makes it, and what of an existing one it sees to.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use kube::api::ObjectMeta;

use crate::config::Config;
use crate::runtime::Machine;

/// The labels a node is born with.
pub fn labels(config: &Config, machine: &Machine) -> BTreeMap<String, String> {
    let own = [
        (api::well_known::LABEL_HOSTNAME, config.node_name.as_str()),
        (api::well_known::LABEL_OS, &machine.operating_system),
        (api::well_known::LABEL_ARCH, &machine.architecture),
        ("beta.kubernetes.io/os", &machine.operating_system),
        ("beta.kubernetes.io/arch", &machine.architecture),
    ];
    let own = own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    config.node_labels.clone().into_iter().chain(own).collect()
}

/// The Node to create; its status follows once it exists.
pub fn node(config: &Config, machine: &Machine) -> Node {
    Node {
        metadata: ObjectMeta {
            name: Some(config.node_name.clone()),
            labels: Some(labels(config, machine)),
            ..ObjectMeta::default()
        },
        ..Node::default()
    }
}

/// The labels that an existing node lacks, or has with another value.
pub fn missing_labels(node: &Node, config: &Config, machine: &Machine) -> BTreeMap<String, String> {
    let present = node.metadata.labels.clone().unwrap_or_default();
    labels(config, machine).into_iter().filter(|(key, value)| present.get(key) != Some(value)).collect()
}
