//! What is wrong with a node (`ValidateNode`, `ValidateNodeUpdate` upstream).

use k8s_openapi::api::core::v1::{Node, NodeSpec, Taint};
use serde_json::json;

use crate::field::{Error, ErrorList, Path, duplicate, forbidden, invalid};
use crate::kinds::pod::validation::TAINT_EFFECTS;
use crate::kinds::rules;
use crate::names;

/// One range of pod addresses for each IP family.
const MAX_POD_CIDRS: usize = 2;

pub(super) fn node(node: &Node, errors: &mut ErrorList) {
    if let Some(spec) = node.spec.as_ref() {
        // Upstream looks at them where it looks at the metadata.
        taints(spec.taints.as_deref().unwrap_or(&[]), &Path::new("metadata").child("taints"), errors);
        pod_cidrs(spec, &Path::new("spec"), errors);
    }
    status(node, errors);
}

/// The half that the node's kubelet writes.
pub(super) fn status(node: &Node, errors: &mut ErrorList) {
    let Some(status) = node.status.as_ref() else { return };
    let path = Path::new("status");
    for (amounts, field) in [(&status.capacity, "capacity"), (&status.allocatable, "allocatable")] {
        for (name, amount) in amounts.iter().flatten() {
            rules::quantity(amount, &path.child(field).child(name), errors);
        }
    }
    let addresses = status.addresses.as_deref().unwrap_or(&[]);
    for (index, address) in addresses.iter().enumerate() {
        if addresses[..index].contains(address) {
            errors.push(duplicate(&path.child("addresses").index(index), json!(address)));
        }
    }
}

fn taints(taints: &[Taint], path: &Path, errors: &mut ErrorList) {
    for (index, taint) in taints.iter().enumerate() {
        let path = path.index(index);
        rules::label_key(&taint.key, &path.child("key"), errors);
        let value = taint.value.as_deref().unwrap_or("");
        let messages = names::is_label_value(value);
        if !messages.is_empty() {
            errors.push(invalid(&path.child("value"), value, &messages.join(";")));
        }
        rules::one_of(Some(&taint.effect), TAINT_EFFECTS, &path.child("effect"), errors);
        if taints[..index].iter().any(|t| t.key == taint.key && t.effect == taint.effect) {
            let Error { error_type, field, message } = duplicate(&path, json!(taint));
            let message = format!("{message}: taints must be unique by key and effect pair");
            errors.push(Error { error_type, field, message });
        }
    }
}

fn pod_cidrs(spec: &NodeSpec, path: &Path, errors: &mut ErrorList) {
    let cidrs = spec.pod_cidrs.as_deref().unwrap_or(&[]);
    let path = path.child("podCIDRs");
    for (index, cidr) in cidrs.iter().enumerate() {
        if cidr.parse::<ipnet::IpNet>().is_err() {
            let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
            errors.push(invalid(&path.index(index), cidr.as_str(), detail));
        }
    }
    let has_v6 = |is_v6: bool| {
        cidrs.iter().any(|cidr| cidr.parse().is_ok_and(|net: ipnet::IpNet| net.addr().is_ipv6() == is_v6))
    };
    if cidrs.len() > MAX_POD_CIDRS || cidrs.len() == MAX_POD_CIDRS && !(has_v6(false) && has_v6(true)) {
        let detail = "may specify no more than one CIDR for each IP family";
        errors.push(invalid(&path, json!(cidrs), detail));
    }
    let mut seen = rules::Unique::new();
    for (index, cidr) in cidrs.iter().enumerate() {
        seen.add(cidr.as_str(), &path.index(index), errors);
    }
}

/// What a node is to the network is said once.
pub(super) fn update(new: &Node, old: &Node, errors: &mut ErrorList) {
    let empty = NodeSpec::default();
    let (new, old) = (new.spec.as_ref().unwrap_or(&empty), old.spec.as_ref().unwrap_or(&empty));
    let path = Path::new("spec");
    let rest = |spec: &NodeSpec| NodeSpec { unschedulable: None, taints: None, config_source: None, ..spec.clone() };
    let cidrs = |spec: &NodeSpec| spec.pod_cidrs.clone().unwrap_or_default();
    if !cidrs(old).is_empty() && cidrs(new) != cidrs(old) {
        let detail = r#"node updates may not change podCIDR except from "" to valid"#;
        errors.push(forbidden(&path.child("podCIDRs"), detail));
    }
    let provider = old.provider_id.as_deref().unwrap_or("");
    if !provider.is_empty() && new.provider_id.as_deref() != Some(provider) {
        let detail = r#"node updates may not change providerID except from "" to valid"#;
        errors.push(forbidden(&path.child("providerID"), detail));
    }
    // What was not told before may be.
    let mut expected = rest(old);
    if cidrs(old).is_empty() {
        expected.pod_cidr.clone_from(&new.pod_cidr);
        expected.pod_cidrs.clone_from(&new.pod_cidrs);
    }
    if provider.is_empty() {
        expected.provider_id.clone_from(&new.provider_id);
    }
    if rest(new) != expected {
        let whole = Path::new("[]");
        errors.push(forbidden(&whole, "node updates may only change labels, taints, or capacity"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn with(spec: NodeSpec) -> Node {
        let mut node = Node { spec: Some(spec), ..Node::default() };
        Object::set_defaults(&mut node);
        node
    }

    fn cidr(cidr: &str) -> Node {
        with(NodeSpec { pod_cidr: Some(cidr.into()), ..NodeSpec::default() })
    }

    fn texts(errors: &ErrorList) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn pod_cidr_is_set_once() {
        let unset = with(NodeSpec::default());
        assert!(Object::validate_update(&cidr("10.244.1.0/24"), &unset).is_empty());
        let errors = Object::validate_update(&cidr("10.244.2.0/24"), &cidr("10.244.1.0/24"));
        let expected = r#"spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid"#;
        let only = "[]: Forbidden: node updates may only change labels, taints, or capacity";
        assert_eq!(texts(&errors), [expected, only]);
        let called = |id: &str| with(NodeSpec { external_id: Some(id.into()), ..NodeSpec::default() });
        assert_eq!(texts(&Object::validate_update(&called("a"), &called("b"))), [only]);
        let cordoned = with(NodeSpec { unschedulable: Some(true), ..NodeSpec::default() });
        assert!(Object::validate_update(&cordoned, &unset).is_empty());
        let expected =
            r#"spec.podCIDRs[0]: Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"#;
        assert_eq!(texts(&Object::validate(&cidr("x"))), [expected]);
    }

    #[test]
    fn a_node_has_one_pod_network_of_each_family() {
        let said = |cidrs: &[&str]| {
            let pod_cidrs = Some(cidrs.iter().map(ToString::to_string).collect());
            texts(&Object::validate(&with(NodeSpec { pod_cidrs, ..NodeSpec::default() })))
        };
        assert_eq!(said(&["10.0.0.0/24", "fd00::/64"]), [""; 0]);
        let one = "may specify no more than one CIDR for each IP family";
        let two = said(&["10.0.0.0/24", "10.0.1.0/24"]);
        assert_eq!(two, [format!(r#"spec.podCIDRs: Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: {one}"#)]);
        assert_eq!(said(&["10.0.0.0/24", "fd00::/64", "fd00:1::/64"]).len(), 1);
        let same = said(&["10.0.0.0/24", "10.0.0.0/24"]);
        assert_eq!(same[1], r#"spec.podCIDRs[1]: Duplicate value: "10.0.0.0/24""#);
    }

    #[test]
    fn taints_are_unique_by_key_and_effect() {
        let taint = |effect: &str| Taint { key: "a".into(), effect: effect.into(), ..Taint::default() };
        let tainted = |taints| Object::validate(&with(NodeSpec { taints: Some(taints), ..NodeSpec::default() }));
        assert!(tainted(vec![taint("NoSchedule"), taint("NoExecute")]).is_empty());
        let errors = texts(&tainted(vec![taint("NoSchedule"), taint("NoSchedule")]));
        assert!(errors[0].ends_with("taints must be unique by key and effect pair"), "{errors:?}");
        assert_eq!(texts(&tainted(vec![taint("")])), ["metadata.taints[0].effect: Required value"]);
    }

    #[test]
    fn what_a_kubelet_reports_makes_sense() {
        let reported: Node = serde_json::from_value(json!({"metadata": {}, "status": {
            "capacity": {"cpu": "abc", "memory": "1Gi"}, "allocatable": {"pods": "-1"},
            "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}, {"type": "InternalIP", "address": "10.0.0.1"}],
        }}))
        .unwrap();
        let errors = texts(&Object::validate_status_update(&reported, &Node::default()));
        assert_eq!(errors.len(), 3, "{errors:?}");
        assert!(
            errors[0].starts_with(r#"status.capacity.cpu: Invalid value: "abc": quantities must match"#),
            "{errors:?}"
        );
        assert!(
            errors[1].starts_with(r#"status.allocatable.pods: Invalid value: "-1": must be greater"#),
            "{errors:?}"
        );
        assert!(errors[2].starts_with("status.addresses[1]: Duplicate value"), "{errors:?}");
    }

    #[test]
    fn spec_and_status_are_written_apart() {
        let mut old = cidr("10.244.1.0/24");
        old.status.get_or_insert_default().phase = Some("Running".into());
        let mut new = with(NodeSpec { unschedulable: Some(true), ..NodeSpec::default() });
        Object::prepare_update(&mut new, &old);
        assert_eq!((new.status.clone(), new.spec.clone().unwrap().unschedulable), (old.status.clone(), Some(true)));
        Object::prepare_status_update(&mut new, &old);
        assert_eq!(new.spec, old.spec);
    }
}
