//! `TaintNodesByCondition`: a new node takes no pods before it has said that it is ready. The controller of nodes takes the
//! taint away then.
//!
//! Compare `plugin/pkg/admission/nodetaint`.

use api::Object;
use api::well_known::TAINT_NOT_READY;
use k8s_openapi::api::core::v1::{Node, Taint};

use super::{Attributes, Effects, Operation, Plugin};
use crate::status::ApiError;

const NO_SCHEDULE: &str = "NoSchedule";

pub(super) struct TaintNodesByCondition;

impl Plugin for TaintNodesByCondition {
    fn admit(&self, a: &Attributes<'_>, object: &mut dyn Object, _: &mut Effects) -> Result<(), ApiError> {
        if a.is(Operation::Create, "nodes")
            && let Some(node) = object.as_any_mut().downcast_mut::<Node>()
        {
            taint(node);
        }
        Ok(())
    }
}

fn taint(node: &mut Node) {
    let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
    if !taints.iter().any(|taint| taint.key == TAINT_NOT_READY && taint.effect == NO_SCHEDULE) {
        taints.push(Taint { key: TAINT_NOT_READY.into(), effect: NO_SCHEDULE.into(), ..Taint::default() });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_new_node_is_tainted_once_beside_its_own_taints() {
        let not_ready = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"});
        let evicting = json!({"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"});
        for (sentence, given, expected) in [
            ("a plain one", json!({}), json!([not_ready])),
            ("one that says so itself", json!({"taints": [not_ready]}), json!([not_ready])),
            ("another taint", json!({"taints": [evicting]}), json!([evicting, not_ready])),
        ] {
            let mut node: Node = serde_json::from_value(json!({"metadata": {}, "spec": given})).unwrap();
            taint(&mut node);
            taint(&mut node);
            assert_eq!(json!(node.spec.unwrap().taints), expected, "{sentence}");
        }
    }
}
