//! Node selector terms, as pods write them in `nodeSelector` and `nodeAffinity`.
//!
//! Semantics of `k8s.io/component-helpers/scheduling/corev1/nodeaffinity`: terms are alternatives, the requirements of
//! one term must all hold, a term without requirements matches nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    NodeAffinity as NodeAffinitySpec, NodeSelectorRequirement, NodeSelectorTerm, PodSpec,
};

/// A node's labels.
pub type Labels = BTreeMap<String, String>;

/// Where a pod may go and would like to go, ready to be matched against many nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affinity {
    /// `spec.nodeSelector`: all of these.
    selector: Vec<(String, String)>,
    /// Alternatives, one of which must match; `None`: no demand.
    required: Option<Vec<Term>>,
    /// Weighted wishes.
    preferred: Vec<(i64, Term)>,
}

/// Alternatives, one of which must match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTerms(Vec<Term>);

impl NodeTerms {
    /// What `terms` say.
    pub fn of(terms: &[NodeSelectorTerm]) -> NodeTerms {
        NodeTerms(terms.iter().map(Term::of).collect())
    }

    /// Whether the node `name` with these labels is meant.
    pub fn admit(&self, name: &str, labels: &Labels) -> bool {
        self.0.iter().any(|term| term.matches(name, labels))
    }
}

/// One alternative.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    /// On labels.
    expressions: Vec<Requirement>,
    /// On `metadata.name`, the only field there is.
    fields: Vec<Requirement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
    GreaterThan(i64),
    LessThan(i64),
    /// Written so that it cannot hold: an unknown operator, a bound that is no number.
    Never,
}

impl Affinity {
    /// What `spec` says.
    pub fn of(spec: &PodSpec) -> Affinity {
        let selector = spec.node_selector.iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let affinity = spec.affinity.as_ref().and_then(|a| a.node_affinity.as_ref());
        Affinity {
            selector,
            required: affinity.and_then(required_terms),
            preferred: affinity.map(preferred_terms).unwrap_or_default(),
        }
    }

    /// Whether the pod may run on the node `name` with these labels.
    pub fn admits(&self, name: &str, labels: &Labels) -> bool {
        self.selector.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.required.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// The weights of the wishes that the node fulfils.
    pub fn preference(&self, name: &str, labels: &Labels) -> i64 {
        self.preferred.iter().filter(|(_, term)| term.matches(name, labels)).map(|(weight, _)| weight).sum()
    }

    /// Whether the pod has wishes at all.
    pub fn has_preferences(&self) -> bool {
        !self.preferred.is_empty()
    }
}

fn required_terms(affinity: &NodeAffinitySpec) -> Option<Vec<Term>> {
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    Some(required.node_selector_terms.iter().map(Term::of).collect())
}

fn preferred_terms(affinity: &NodeAffinitySpec) -> Vec<(i64, Term)> {
    let wishes = affinity.preferred_during_scheduling_ignored_during_execution.iter().flatten();
    wishes.map(|wish| (wish.weight.into(), Term::of(&wish.preference))).collect()
}

impl Term {
    fn of(term: &NodeSelectorTerm) -> Term {
        Term {
            expressions: term.match_expressions.iter().flatten().map(Requirement::of).collect(),
            fields: term.match_fields.iter().flatten().map(Requirement::of).collect(),
        }
    }

    fn matches(&self, name: &str, labels: &Labels) -> bool {
        if self.expressions.is_empty() && self.fields.is_empty() {
            return false;
        }
        self.expressions.iter().all(|r| r.holds_for_labels(labels))
            && self.fields.iter().all(|r| r.key == "metadata.name" && r.test.holds_for(Some(name)))
    }
}

impl Requirement {
    fn of(requirement: &NodeSelectorRequirement) -> Requirement {
        let values = requirement.values.clone().unwrap_or_default();
        let bound = || values.first().and_then(|v| v.parse::<i64>().ok());
        let test = match requirement.operator.as_str() {
            "In" => Test::In(values),
            "NotIn" => Test::NotIn(values),
            "Exists" => Test::Exists,
            "DoesNotExist" => Test::DoesNotExist,
            "Gt" => bound().map_or(Test::Never, Test::GreaterThan),
            "Lt" => bound().map_or(Test::Never, Test::LessThan),
            _ => Test::Never,
        };
        Requirement { key: requirement.key.clone(), test }
    }

    fn holds_for_labels(&self, labels: &Labels) -> bool {
        self.test.holds_for(labels.get(&self.key).map(String::as_str))
    }
}

impl Test {
    fn holds_for(&self, value: Option<&str>) -> bool {
        let number = || value.and_then(|v| v.parse::<i64>().ok());
        match self {
            Test::In(values) => value.is_some_and(|v| values.iter().any(|candidate| candidate == v)),
            Test::NotIn(values) => value.is_none_or(|v| values.iter().all(|candidate| candidate != v)),
            Test::Exists => value.is_some(),
            Test::DoesNotExist => value.is_none(),
            Test::GreaterThan(bound) => number().is_some_and(|n| n > *bound),
            Test::LessThan(bound) => number().is_some_and(|n| n < *bound),
            Test::Never => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn labels() -> Labels {
        [("disk", "ssd"), ("cores", "8")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    }

    fn affinity(spec: serde_json::Value) -> Affinity {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        Affinity::of(&spec)
    }

    fn required(terms: serde_json::Value) -> Affinity {
        let selector = json!({"nodeSelectorTerms": terms});
        affinity(json!({"containers": [], "affinity": {"nodeAffinity":
            {"requiredDuringSchedulingIgnoredDuringExecution": selector}}}))
    }

    #[test]
    fn every_operator_holds_as_upstream_says() {
        let table = [
            ("a value among them", json!({"key": "disk", "operator": "In", "values": ["hdd", "ssd"]}), true),
            ("no value among them", json!({"key": "disk", "operator": "In", "values": ["hdd"]}), false),
            ("in, without the label", json!({"key": "zone", "operator": "In", "values": ["a"]}), false),
            ("another value", json!({"key": "disk", "operator": "NotIn", "values": ["hdd"]}), true),
            ("not in, without the label", json!({"key": "zone", "operator": "NotIn", "values": ["a"]}), true),
            ("a forbidden value", json!({"key": "disk", "operator": "NotIn", "values": ["ssd"]}), false),
            ("the label exists", json!({"key": "disk", "operator": "Exists"}), true),
            ("the label is missing", json!({"key": "zone", "operator": "Exists"}), false),
            ("must not exist", json!({"key": "disk", "operator": "DoesNotExist"}), false),
            ("does not exist", json!({"key": "zone", "operator": "DoesNotExist"}), true),
            ("greater", json!({"key": "cores", "operator": "Gt", "values": ["4"]}), true),
            ("not greater than itself", json!({"key": "cores", "operator": "Gt", "values": ["8"]}), false),
            ("less", json!({"key": "cores", "operator": "Lt", "values": ["9"]}), true),
            ("a label that is no number", json!({"key": "disk", "operator": "Gt", "values": ["1"]}), false),
            ("a bound that is no number", json!({"key": "cores", "operator": "Gt", "values": ["x"]}), false),
            ("an unknown operator", json!({"key": "disk", "operator": "Like", "values": ["s"]}), false),
        ];
        for (sentence, expression, expected) in table {
            let affinity = required(json!([{ "matchExpressions": [expression] }]));
            assert_eq!(affinity.admits("n1", &labels()), expected, "{sentence}");
        }
    }

    #[test]
    fn terms_are_alternatives_and_requirements_are_not() {
        let ssd = json!({"key": "disk", "operator": "In", "values": ["ssd"]});
        let hdd = json!({"key": "disk", "operator": "In", "values": ["hdd"]});
        let table = [
            ("one of two terms", json!([{"matchExpressions": [hdd]}, {"matchExpressions": [ssd]}]), true),
            ("both in one term", json!([{"matchExpressions": [hdd, ssd]}]), false),
            ("an empty term matches nothing", json!([{}]), false),
            ("no terms match nothing", json!([]), false),
            (
                "the node by name",
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}]),
                true,
            ),
            (
                "another by name",
                json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}]),
                false,
            ),
            (
                "an unknown field",
                json!([{"matchFields": [{"key": "spec.x", "operator": "NotIn", "values": ["n2"]}]}]),
                false,
            ),
        ];
        for (sentence, terms, expected) in table {
            assert_eq!(required(terms).admits("n1", &labels()), expected, "{sentence}");
        }
    }

    #[test]
    fn selector_and_affinity_must_both_hold() {
        assert!(affinity(json!({"containers": [], "nodeSelector": {"disk": "ssd"}})).admits("n1", &labels()));
        assert!(!affinity(json!({"containers": [], "nodeSelector": {"disk": "hdd"}})).admits("n1", &labels()));
        assert!(affinity(json!({"containers": []})).admits("n1", &labels()));
    }

    #[test]
    fn weights_of_fulfilled_wishes_add_up() {
        let wish = |weight: i32, value: &str| {
            json!({"weight": weight, "preference": {"matchExpressions":
                [{"key": "disk", "operator": "In", "values": [value]}]}})
        };
        let wishes = json!([wish(10, "ssd"), wish(5, "hdd"), wish(3, "ssd")]);
        let pod = affinity(json!({"containers": [], "affinity": {"nodeAffinity":
            {"preferredDuringSchedulingIgnoredDuringExecution": wishes}}}));
        assert_eq!(pod.preference("n1", &labels()), 13);
        assert!(pod.has_preferences());
    }
}
