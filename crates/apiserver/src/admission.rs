//! What a write must still satisfy, and is completed with, once it is authorised: the plugins upstream turns on by
//! default that matter for the kinds served here.

use api::Object;
use api::well_known::{
    GROUP_NODES, SIGNER_KUBELET_CLIENT, SIGNER_KUBELET_SERVING, TAINT_NOT_READY, TAINT_UNREACHABLE, USER_NODE_PREFIX,
};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Toleration};

use crate::status::{ApiError, Subject};
use crate::user::User;

/// How long pods stay on a node that is not ready or not reachable (`DefaultTolerationSeconds`).
const DEFAULT_TOLERATION_SECONDS: i64 = 300;

/// The prefix of labels a node may not give itself.
const RESTRICTED_LABELS: &str = "node-restriction.kubernetes.io/";

/// The annotation that marks the API's picture of a static pod.
const MIRROR_POD: &str = "kubernetes.io/config.mirror";

/// Completes and checks a new object.
pub(crate) fn create(user: &User, subject: &Subject, object: &mut dyn Object) -> Result<(), ApiError> {
    if let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() {
        if let Some(spec) = pod.spec.as_mut() {
            default_service_account(spec);
            default_tolerations(spec);
        }
        return restrict_new_pod(user, subject, pod);
    }
    restrict_new_object(user, subject, object)?;
    if let Some(csr) = object.as_any_mut().downcast_mut::<CertificateSigningRequest>() {
        csr.spec.username = Some(user.name.clone());
        csr.spec.groups = Some(user.groups.clone());
        csr.spec.uid = user.uid.clone();
        csr.spec.extra = Some(user.extra.clone()).filter(|e| !e.is_empty());
    }
    Ok(())
}

/// Checks a changed object.
pub(crate) fn update(user: &User, subject: &Subject, old: &dyn Object, new: &mut dyn Object) -> Result<(), ApiError> {
    if let (Some(old), Some(new)) = (old.as_any().downcast_ref::<Node>(), new.as_any().downcast_ref::<Node>()) {
        restrict_node(user, subject, old, new)?;
    }
    if let (Some(old), Some(new)) = (
        old.as_any().downcast_ref::<CertificateSigningRequest>(),
        new.as_any_mut().downcast_mut::<CertificateSigningRequest>(),
    ) {
        // Who asked is told at creation, once.
        new.spec = old.spec.clone();
    }
    Ok(())
}

/// `ServiceAccount`: a pod runs as its namespace's `default` account unless it says otherwise.
fn default_service_account(spec: &mut PodSpec) {
    let name = spec.service_account_name.take().filter(|n| !n.is_empty());
    let name = name.or_else(|| spec.service_account.take().filter(|n| !n.is_empty()));
    let name = name.unwrap_or_else(|| "default".to_owned());
    spec.service_account = Some(name.clone());
    spec.service_account_name = Some(name);
}

/// `DefaultTolerationSeconds`: a pod is not evicted at once when its node stumbles.
fn default_tolerations(spec: &mut PodSpec) {
    for key in [TAINT_NOT_READY, TAINT_UNREACHABLE] {
        let tolerations = spec.tolerations.get_or_insert_default();
        let covered = tolerations.iter().any(|t| {
            t.key.as_deref().is_none_or(|k| k.is_empty() || k == key)
                && t.effect.as_deref().is_none_or(|e| e.is_empty() || e == "NoExecute")
        });
        if !covered {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(DEFAULT_TOLERATION_SECONDS),
                ..Toleration::default()
            });
        }
    }
}

fn node_of(user: &User) -> Option<&str> {
    user.name.strip_prefix(USER_NODE_PREFIX).filter(|_| user.is_in(GROUP_NODES))
}

/// `NodeRestriction`: a node creates only pictures of its own static pods.
fn restrict_new_pod(user: &User, subject: &Subject, pod: &Pod) -> Result<(), ApiError> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let refuse = |message: String| Err(ApiError::Forbidden(subject.clone(), message));
    if !pod.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(MIRROR_POD)) {
        return refuse(format!("node {node:?} can only create mirror pods"));
    }
    if api::pods::node_name(pod) != Some(node) {
        return refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    Ok(())
}

/// `NodeRestriction`: the Node and the Lease a node makes are its own, and it asks for no certificate but its own.
fn restrict_new_object(user: &User, subject: &Subject, object: &dyn Object) -> Result<(), ApiError> {
    let Some(node) = node_of(user) else { return Ok(()) };
    if matches!(&*subject.resource, "nodes" | "leases") && subject.name != node {
        let message = format!("node {node:?} is not allowed to create {} {:?}", subject.resource, subject.name);
        return Err(ApiError::Forbidden(subject.clone(), message));
    }
    let signer = object.as_any().downcast_ref::<CertificateSigningRequest>().map(|c| c.spec.signer_name.as_str());
    match signer {
        None | Some(SIGNER_KUBELET_SERVING | SIGNER_KUBELET_CLIENT) => Ok(()),
        Some(other) => {
            let message = format!("node {node:?} may not ask signer {other:?} for a certificate");
            Err(ApiError::Forbidden(subject.clone(), message))
        }
    }
}

/// `NodeRestriction`: a node changes neither its taints nor the labels reserved for its administrators.
fn restrict_node(user: &User, subject: &Subject, old: &Node, new: &Node) -> Result<(), ApiError> {
    let Some(node) = node_of(user) else { return Ok(()) };
    let taints = |n: &Node| n.spec.as_ref().and_then(|s| s.taints.clone()).unwrap_or_default();
    if taints(old) != taints(new) {
        return Err(ApiError::Forbidden(subject.clone(), format!("node {node:?} is not allowed to modify taints")));
    }
    let restricted = |n: &Node| -> Vec<(String, String)> {
        let labels = n.metadata.labels.clone().unwrap_or_default();
        labels.into_iter().filter(|(k, _)| k.starts_with(RESTRICTED_LABELS)).collect()
    };
    if restricted(old) != restricted(new) {
        let message = format!("is not allowed to modify labels with the prefix {RESTRICTED_LABELS}");
        return Err(ApiError::Forbidden(subject.clone(), format!("node {node:?} {message}")));
    }
    Ok(())
}
