//! `NodeRestriction`: what a node writes is about itself and its own pods, and steers no others to it.
//!
//! Compare `plugin/pkg/admission/noderestriction` and, for labels, `k8s.io/kubelet/pkg/apis/well_known_labels.go`.

use std::collections::{BTreeMap, BTreeSet};

use api::well_known::{ANNOTATION_CONFIG_MIRROR, NAMESPACE_NODE_LEASE, SIGNER_KUBELET_CLIENT, SIGNER_KUBELET_SERVING};
use api::{Object, Subresource};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

use super::{Attributes, Effects, Operation, Plugin};
use crate::status::ApiError;

/// The labels below `kubernetes.io` and `k8s.io` that a kubelet may give its node.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];
/// The domains of other labels it may.
const KUBELET_LABEL_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
/// The domain of labels it may not, whatever else holds.
const RESTRICTED_LABEL_DOMAIN: &str = "node-restriction.kubernetes.io";

pub(super) struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn admit(&self, a: &Attributes<'_>, object: &mut dyn Object, _: &mut Effects) -> Result<(), ApiError> {
        match a.user.node() {
            Some(node) => restrict(a, node, Some(object)),
            None => Ok(()),
        }
    }

    fn validate(&self, a: &Attributes<'_>, object: Option<&dyn Object>, _: &mut Effects) -> Result<(), ApiError> {
        match a.user.node().filter(|_| object.is_none()) {
            Some(node) => restrict(a, node, None),
            None => Ok(()),
        }
    }
}

/// `object` is what a creation or update brings.
fn restrict(a: &Attributes<'_>, node: &str, object: Option<&dyn Object>) -> Result<(), ApiError> {
    let object = object.map(Object::as_any);
    match (a.kind.info.group, a.kind.info.plural) {
        ("", "pods") => restrict_pod(a, node, object.and_then(|o| o.downcast_ref())),
        ("", "nodes") => restrict_node(a, node, object.and_then(|o| o.downcast_ref())),
        ("", "persistentvolumeclaims") => Err(a.forbidden("may only update PVC status")),
        ("coordination.k8s.io", "leases") => restrict_lease(a, node),
        ("certificates.k8s.io", _) => restrict_request(a, node, object.and_then(|o| o.downcast_ref())),
        _ => Ok(()),
    }
}

fn restrict_pod(a: &Attributes<'_>, node: &str, pod: Option<&Pod>) -> Result<(), ApiError> {
    let old = a.old.and_then(|o| o.as_any().downcast_ref::<Pod>());
    match (a.operation, a.subresource, pod, old) {
        (Operation::Create, None, Some(pod), _) => restrict_new_pod(a, node, pod),
        (Operation::Update, Some(Subresource::Status), Some(pod), Some(old)) => {
            if api::pods::node_name(old) != Some(node) {
                let message = "can only update pod status for pods with spec.nodeName set to itself";
                return Err(a.forbidden(format!("node {node:?} {message}")));
            }
            if pod.metadata.labels != old.metadata.labels {
                return Err(a.forbidden(format!("node {node:?} cannot update labels through pod status")));
            }
            Ok(())
        }
        (Operation::Delete, None, _, Some(old)) if api::pods::node_name(old) != Some(node) => {
            Err(a.forbidden(format!("node {node:?} can only delete pods with spec.nodeName set to itself")))
        }
        (Operation::Delete, None, ..) => Ok(()),
        (Operation::Create, Some(Subresource::Eviction), _, Some(old)) => match api::pods::node_name(old) {
            Some(name) if name == node => Ok(()),
            _ => Err(a.forbidden(format!("node {node} can only evict pods with spec.nodeName set to itself"))),
        },
        (operation, None, ..) => {
            let operation = format!("{operation:?}").to_uppercase();
            let message =
                format!("unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods");
            Err(a.forbidden(message))
        }
        (_, Some(subresource), ..) => {
            let name = subresource.as_str();
            Err(a.forbidden(format!("unexpected pod subresource {name:?}, only 'status' and 'eviction' are allowed")))
        }
    }
}

/// A node creates only pictures of its own static pods, which need nothing of the API.
fn restrict_new_pod(a: &Attributes<'_>, node: &str, pod: &Pod) -> Result<(), ApiError> {
    let refuse = |message: &str| Err(a.forbidden(format!("node {node:?} {message}")));
    if !api::pods::is_mirror(pod) {
        let annotation = ANNOTATION_CONFIG_MIRROR;
        let message = format!("pod does not have {annotation:?} annotation, node {node:?} can only create mirror pods");
        return Err(a.forbidden(message));
    }
    if api::pods::node_name(pod) != Some(node) {
        return refuse("can only create pods with spec.nodeName set to itself");
    }
    match pod.metadata.owner_references.as_deref().unwrap_or_default() {
        [] => return refuse("can only create pods with an owner reference set to itself"),
        [owner] => restrict_owner(a, node, owner)?,
        _ => return refuse("can only create pods with a single owner reference set to itself"),
    }
    match referenced(pod) {
        Some(what) => refuse(&format!("can not create pods that reference {what}")),
        None => Ok(()),
    }
}

fn restrict_owner(a: &Attributes<'_>, node: &str, owner: &OwnerReference) -> Result<(), ApiError> {
    let refuse = |message: &str| Err(a.forbidden(format!("node {node:?} {message}")));
    if owner.api_version != "v1" || owner.kind != "Node" || owner.name != node {
        return refuse("can only create pods with an owner reference set to itself");
    }
    if owner.controller != Some(true) {
        return refuse("can only create pods with a controller owner reference set to itself");
    }
    if owner.block_owner_deletion == Some(true) {
        return refuse("must not set blockOwnerDeletion on an owner reference");
    }
    Ok(())
}

/// The first thing of the API a pod needs.
fn referenced(pod: &Pod) -> Option<&'static str> {
    let spec = pod.spec.as_ref()?;
    if spec.service_account_name.as_deref().is_some_and(|n| !n.is_empty()) {
        return Some("a service account");
    }
    let spec = serde_json::to_value(spec).unwrap_or_default();
    let kinds: [(&str, &[&str]); 4] = [
        ("secrets", &["secret", "secretRef", "secretKeyRef", "imagePullSecrets"]),
        ("configmaps", &["configMap", "configMapRef", "configMapKeyRef"]),
        ("clustertrustbundles", &["clusterTrustBundle"]),
        ("persistentvolumeclaims", &["persistentVolumeClaim"]),
    ];
    kinds.into_iter().find(|(_, fields)| mentions(&spec, fields)).map(|(what, _)| what)
}

/// Whether a structure has one of `fields`, at any depth. Text under such a key is a label, not a reference.
fn mentions(value: &Value, fields: &[&str]) -> bool {
    match value {
        Value::Array(items) => items.iter().any(|item| mentions(item, fields)),
        Value::Object(map) => map.iter().any(|(key, value)| {
            fields.contains(&key.as_str()) && (value.is_object() || value.is_array()) || mentions(value, fields)
        }),
        _ => false,
    }
}

fn restrict_node(a: &Attributes<'_>, node: &str, new: Option<&Node>) -> Result<(), ApiError> {
    if a.name != node {
        return Err(a.forbidden(format!("node {node:?} is not allowed to modify node {:?}", a.name)));
    }
    let Some(new) = new else { return Ok(()) };
    let old = a.old.and_then(|o| o.as_any().downcast_ref::<Node>());
    let labels = |node: &Node| node.metadata.labels.clone().unwrap_or_default();
    let changed = restricted_changes(&labels(new), &old.map(labels).unwrap_or_default());
    let Some(old) = old else {
        let message = format!("node {node:?} is not allowed to set the following labels: {changed}");
        return if changed.is_empty() { Ok(()) } else { Err(a.forbidden(message)) };
    };
    let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    if taints(old) != taints(new) {
        return Err(a.forbidden(format!("node {node:?} is not allowed to modify taints")));
    }
    if !changed.is_empty() {
        return Err(a.forbidden(format!("is not allowed to modify labels: {changed}")));
    }
    Ok(())
}

/// The labels that differ and that a node may not touch, joined for a message.
fn restricted_changes(new: &BTreeMap<String, String>, old: &BTreeMap<String, String>) -> String {
    let keys: BTreeSet<&str> = new.keys().chain(old.keys()).map(String::as_str).collect();
    let changed = keys.into_iter().filter(|key| new.get(*key) != old.get(*key) && is_restricted(key));
    changed.collect::<Vec<_>>().join(", ")
}

fn is_restricted(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let within = |of: &str| domain.strip_suffix(of).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let is_kubelets = KUBELET_LABELS.contains(&key) || KUBELET_LABEL_DOMAINS.iter().any(|d| within(d));
    within(RESTRICTED_LABEL_DOMAIN) || (within("kubernetes.io") || within("k8s.io")) && !is_kubelets
}

fn restrict_lease(a: &Attributes<'_>, node: &str) -> Result<(), ApiError> {
    if a.namespace != Some(NAMESPACE_NODE_LEASE) {
        return Err(a.forbidden(format!("can only access leases in the {NAMESPACE_NODE_LEASE:?} system namespace")));
    }
    if a.name != node {
        return Err(a.forbidden("can only access node lease with the same name as the requesting node"));
    }
    Ok(())
}

/// A node asks for no certificate but its own. Upstream leaves that to who approves.
fn restrict_request(a: &Attributes<'_>, node: &str, csr: Option<&CertificateSigningRequest>) -> Result<(), ApiError> {
    match csr.map(|c| c.spec.signer_name.as_str()).filter(|_| a.operation == Operation::Create) {
        None | Some(SIGNER_KUBELET_SERVING | SIGNER_KUBELET_CLIENT) => Ok(()),
        Some(other) => Err(a.forbidden(format!("node {node:?} may not ask signer {other:?} for a certificate"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gives_itself_only_labels_that_steer_nothing_to_it() {
        for (label, expected) in [
            ("rack", false),
            ("example.com/rack", false),
            ("kubernetes.io/hostname", false),
            ("node.kubernetes.io/anything", false),
            ("x.kubelet.kubernetes.io/anything", false),
            ("kubernetes.io/other", true),
            ("node-role.kubernetes.io/control-plane", true),
            ("node-restriction.kubernetes.io/pci", true),
            ("x.node-restriction.kubernetes.io/pci", true),
            ("notkubernetes.io/x", false),
        ] {
            assert_eq!(is_restricted(label), expected, "{label}");
        }
    }
}
