//! `v1` Binding: gives a pod its node. Not stored: what it says goes into the pod (`pkg/registry/core/pod/storage`
//! upstream).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Binding, Pod, PodCondition};
use serde_json::{Value, json};

use crate::field::{ErrorList, Path, not_supported, required};
use crate::kinds::{AGE, Kind, KindInfo, NAME, Scope, Verb};
use crate::names::NameRule;
use crate::object::Resource;
use crate::pods;

/// Names and decoder of Binding.
pub static KIND: Kind = Kind::of::<Binding>();

impl Resource for Binding {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "Binding",
        plural: "bindings",
        singular: "binding",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::CREATE_ONLY,
        subresources: &[],
        columns: &[NAME, AGE],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn validate(&self, errors: &mut ErrorList) {
        let path = Path::new("target");
        let kind = self.target.kind.as_deref().unwrap_or("");
        if !matches!(kind, "" | "Node") {
            errors.push(not_supported(&path.child("kind"), kind, &["Node", "<empty>"]));
        }
        if self.target.name.as_deref().unwrap_or("").is_empty() {
            errors.push(required(&path.child("name"), ""));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), crate::printing::age(&self.metadata, now)]
    }
}

/// Why a pod cannot be bound; answered as a conflict, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BindError {
    /// It is on its way out.
    #[error("pod {0} is being deleted, cannot be assigned to a host")]
    Terminating(String),
    /// It has a node, and keeps it.
    #[error("pod {name} is already assigned to node {node:?}")]
    Assigned {
        /// The pod.
        name: String,
        /// Its node.
        node: String,
    },
    /// It waits for its scheduling gates.
    #[error("pod {0} has non-empty .spec.schedulingGates")]
    Gated(String),
    /// The binding is meant for another pod of the same name.
    #[error("the UID in the precondition ({wanted}) does not match the UID in record ({found})")]
    OtherUid {
        /// UID of the pod that was meant.
        wanted: String,
        /// UID of the pod that is there.
        found: String,
    },
}

/// Assigns `pod` to the node that `binding` names, with the binding's annotations and labels, and notes that it is
/// scheduled.
pub fn bind(binding: &Binding, pod: &mut Pod, now: Timestamp) -> Result<(), BindError> {
    refuse(binding, pod)?;
    let spec = pod.spec.get_or_insert_default();
    spec.node_name.clone_from(&binding.target.name);
    for (key, value) in binding.metadata.annotations.iter().flatten() {
        pod.metadata.annotations.get_or_insert_default().insert(key.clone(), value.clone());
    }
    for (key, value) in binding.metadata.labels.iter().flatten() {
        pod.metadata.labels.get_or_insert_default().insert(key.clone(), value.clone());
    }
    let scheduled =
        PodCondition { type_: "PodScheduled".to_owned(), status: "True".to_owned(), ..PodCondition::default() };
    pods::set_condition(pod.status.get_or_insert_default(), scheduled, now);
    Ok(())
}

fn refuse(binding: &Binding, pod: &Pod) -> Result<(), BindError> {
    let name = pod.metadata.name.clone().unwrap_or_default();
    let found = pod.metadata.uid.as_deref().unwrap_or("");
    if let Some(wanted) = binding.metadata.uid.as_deref().filter(|uid| !uid.is_empty() && *uid != found) {
        return Err(BindError::OtherUid { wanted: wanted.to_owned(), found: found.to_owned() });
    }
    if pods::is_terminating(pod) {
        return Err(BindError::Terminating(name));
    }
    if let Some(node) = pods::node_name(pod) {
        return Err(BindError::Assigned { name, node: node.to_owned() });
    }
    let gates = pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_ref());
    if gates.is_some_and(|g| !g.is_empty()) { Err(BindError::Gated(name)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(node: &str) -> Binding {
        let mut binding = Binding::default();
        binding.target.kind = Some("Node".into());
        binding.target.name = Some(node.into());
        binding
    }

    fn pod() -> Pod {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".into());
        pod.metadata.uid = Some("1".into());
        pod
    }

    #[test]
    fn bound_pod_has_its_node_and_is_scheduled() {
        let mut pod = pod();
        bind(&to("box1"), &mut pod, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(pods::node_name(&pod), Some("box1"));
        assert_eq!(pods::condition(&pod, "PodScheduled").unwrap().status, "True");
    }

    #[test]
    fn pod_keeps_the_node_it_has() {
        let mut pod = pod();
        bind(&to("box1"), &mut pod, Timestamp::UNIX_EPOCH).unwrap();
        let error = bind(&to("box2"), &mut pod, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(error.to_string(), r#"pod web is already assigned to node "box1""#);
    }

    #[test]
    fn binding_for_another_uid_is_refused() {
        let mut binding = to("box1");
        binding.metadata.uid = Some("2".into());
        assert!(matches!(bind(&binding, &mut pod(), Timestamp::UNIX_EPOCH), Err(BindError::OtherUid { .. })));
    }

    #[test]
    fn binding_names_a_node() {
        let mut binding = to("");
        binding.target.kind = Some("Minion".into());
        let errors: Vec<String> = crate::Object::validate(&binding).iter().map(ToString::to_string).collect();
        let kind = r#"target.kind: Unsupported value: "Minion": supported values: "Node", "<empty>""#;
        assert_eq!(errors, [kind, "target.name: Required value"]);
    }
}
