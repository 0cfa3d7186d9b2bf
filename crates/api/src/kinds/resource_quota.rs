//! ResourceQuota: how much all objects of a namespace together may be and ask for.
//!
//! The `ResourceQuota` admission plugin and the quota controller act on it; what counts is in [`crate::quota`].

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ResourceQuota, ResourceQuotaSpec, ResourceQuotaStatus, ScopedResourceSelectorRequirement,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use serde_json::{Value, json};

use super::rules;
use crate::Resource;
use crate::field::{ErrorList, Path, invalid, required};
use crate::kinds::{AGE, KindInfo, NAME, Scope, Subresource, Verb, column};
use crate::names::NameRule;
use crate::quantity::{self, canonicalize};

/// What is counted in whole pieces.
const COUNTED: &[&str] = &[
    "configmaps",
    "persistentvolumeclaims",
    "pods",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "services",
    "services.loadbalancers",
    "services.nodeports",
];
/// What is measured.
const MEASURED: &[&str] = &[
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// What a scope that selects pods may go with.
const OF_PODS: &[&str] = &["pods", "cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
/// Scopes that select pods by what they are, with what they exclude.
const CONFLICTING: &[[&str; 2]] = &[["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

impl Resource for ResourceQuota {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "ResourceQuota",
        plural: "resourcequotas",
        singular: "resourcequota",
        short_names: &["quota"],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[Subresource::Status],
        columns: &[
            NAME,
            column("Request", "string", "How much is requested, of how much that may be"),
            column("Limit", "string", "The sum of limits, and how much it may be"),
            AGE,
        ],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn set_defaults(&mut self) {
        let (spec, status) = (self.spec.as_mut(), self.status.as_mut());
        let hard = spec.and_then(|s| s.hard.as_mut()).into_iter();
        let counted = status.into_iter().flat_map(|s| [s.hard.as_mut(), s.used.as_mut()]).flatten();
        hard.chain(counted).flat_map(|amounts| amounts.values_mut()).for_each(canonicalize);
    }

    fn prepare_create(&mut self) {
        self.status = Some(ResourceQuotaStatus::default());
    }

    fn prepare_update(&mut self, old: &Self) {
        self.status.clone_from(&old.status);
    }

    fn prepare_status_update(&mut self, old: &Self) {
        self.spec.clone_from(&old.spec);
    }

    fn validate(&self, errors: &mut ErrorList) {
        let empty = ResourceQuotaSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&empty);
        amounts(spec.hard.as_ref(), &Path::new("spec").child("hard"), errors);
        scopes(spec, errors);
        scope_selector(spec, errors);
    }

    fn validate_update(&self, old: &Self, errors: &mut ErrorList) {
        let scopes = |quota: &Self| {
            let mut scopes = quota.spec.as_ref().and_then(|s| s.scopes.clone()).unwrap_or_default();
            scopes.sort_unstable();
            scopes
        };
        crate::metadata::immutable(&Path::new("spec").child("scopes"), &scopes(self), &scopes(old), errors);
    }

    fn validate_status_update(&self, _old: &Self, errors: &mut ErrorList) {
        let status = self.status.as_ref();
        amounts(status.and_then(|s| s.hard.as_ref()), &Path::new("status").child("hard"), errors);
        amounts(status.and_then(|s| s.used.as_ref()), &Path::new("status").child("used"), errors);
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        let status = self.status.as_ref();
        let used = |name: &str| {
            let used = status.and_then(|s| s.used.as_ref()?.get(name)).map(quantity::of);
            used.unwrap_or(quantity::Quantity::ZERO)
        };
        let hard: Vec<_> = status.and_then(|s| s.hard.as_ref()).into_iter().flatten().collect();
        let (limits, requests): (Vec<_>, Vec<_>) = hard.into_iter().partition(|(name, _)| name.starts_with("limits."));
        let joined = |of: Vec<(&String, &Amount)>| {
            let one = |(name, hard): (&String, &Amount)| format!("{name}: {}/{}", used(name), hard.0);
            of.into_iter().map(one).collect::<Vec<_>>().join(", ")
        };
        let age = crate::printing::age(&self.metadata, now);
        vec![json!(self.metadata.name), json!(joined(requests)), json!(joined(limits)), age]
    }
}

fn amounts(amounts: Option<&BTreeMap<String, Amount>>, path: &Path, errors: &mut ErrorList) {
    for (name, amount) in amounts.into_iter().flatten() {
        let path = path.key(name);
        rules::resource_name(name, &path, errors);
        if !name.contains('/') && !is_standard(name) {
            errors.push(invalid(&path, name.as_str(), "must be a standard resource for quota"));
        }
        let whole = COUNTED.contains(&name.as_str()) || name.contains('/') && !name.contains("kubernetes.io/");
        let value = rules::quantity(amount, &path, errors);
        if value.is_some_and(|v| whole && !v.is_negative() && v.milli() % 1000 != 0) {
            errors.push(invalid(&path, amount.0.as_str(), "must be an integer"));
        }
    }
}

fn is_standard(name: &str) -> bool {
    COUNTED.contains(&name)
        || MEASURED.contains(&name)
        || name.starts_with("hugepages-")
        || name.starts_with("requests.hugepages-")
}

/// Whether a scope can be told of what `name` counts (`IsResourceQuotaScopeValidForResource`).
fn applies(scope: &str, name: &str) -> bool {
    match scope {
        "BestEffort" => name == "pods",
        "VolumeAttributesClass" => matches!(name, "persistentvolumeclaims" | "requests.storage"),
        _ => OF_PODS.contains(&name) || !is_scope(scope),
    }
}

fn is_scope(scope: &str) -> bool {
    CONFLICTING.as_flattened().contains(&scope)
        || matches!(scope, "PriorityClass" | "CrossNamespacePodAffinity" | "VolumeAttributesClass")
}

/// What must hold for a list of scopes, at `path`; `shown` is the list as the error repeats it.
fn scope_list(names: &[&str], spec: &ResourceQuotaSpec, path: &Path, shown: &Value, errors: &mut ErrorList) {
    for scope in names {
        for _ in spec.hard.iter().flat_map(|h| h.keys()).filter(|n| is_standard(n) && !applies(scope, n)) {
            errors.push(invalid(path, shown.clone(), "unsupported scope applied to resource"));
        }
    }
    if CONFLICTING.iter().any(|pair| pair.iter().all(|scope| names.contains(scope))) {
        errors.push(invalid(path, shown.clone(), "conflicting scopes"));
    }
}

fn scopes(spec: &ResourceQuotaSpec, errors: &mut ErrorList) {
    let Some(scopes) = spec.scopes.as_ref().filter(|s| !s.is_empty()) else { return };
    let names: Vec<&str> = scopes.iter().map(String::as_str).collect();
    let unknown = names.iter().filter(|scope| !is_scope(scope));
    errors.extend(unknown.map(|_| invalid(&Path::new("spec").child("scopes"), json!(scopes), "unsupported scope")));
    scope_list(&names, spec, &Path::new("spec").child("scopes"), &json!(scopes), errors);
}

fn scope_selector(spec: &ResourceQuotaSpec, errors: &mut ErrorList) {
    let Some(selector) = spec.scope_selector.as_ref() else { return };
    let path = Path::new("spec").child("scopeSelector").child("matchExpressions");
    let expressions = selector.match_expressions.as_deref().unwrap_or_default();
    expressions.iter().for_each(|e| requirement(e, &path, errors));
    let names: Vec<&str> = expressions.iter().map(|e| e.scope_name.as_str()).collect();
    scope_list(&names, spec, &path, &json!(selector), errors);
}

fn requirement(requirement: &ScopedResourceSelectorRequirement, path: &Path, errors: &mut ErrorList) {
    let ScopedResourceSelectorRequirement { operator, scope_name, values } = requirement;
    let has_values = values.as_ref().is_some_and(|v| !v.is_empty());
    if !is_scope(scope_name) {
        errors.push(invalid(&path.child("scopeName"), scope_name.as_str(), "unsupported scope"));
    } else if !matches!(scope_name.as_str(), "PriorityClass" | "VolumeAttributesClass") && operator != "Exists" {
        let detail = "must be 'Exist' when scope is any of ResourceQuotaScopeTerminating, \
             ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or \
             ResourceQuotaScopeCrossNamespacePodAffinity";
        errors.push(invalid(&path.child("operator"), operator.as_str(), detail));
    }
    match operator.as_str() {
        "In" | "NotIn" if !has_values => errors.push(required(
            &path.child("values"),
            "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
        )),
        "Exists" | "DoesNotExist" if has_values => errors.push(invalid(
            &path.child("values"),
            json!(values),
            "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
        )),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        other => errors.push(invalid(&path.child("operator"), other, "not a valid selector operator")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn quota(spec: Value) -> ResourceQuota {
        serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_quota_names_what_it_counts_and_of_which_objects() {
        let cases = [
            (
                json!({"hard": {"pods": "10", "requests.cpu": "2", "count/secrets": "3", "requests.example.com/gpu": "1"}}),
                "",
            ),
            (
                json!({"hard": {"wishes": "3"}}),
                r#"spec.hard[wishes]: Invalid value: "wishes": must be a standard resource type or fully qualified"#,
            ),
            (json!({"hard": {"pods": "1500m"}}), r#"spec.hard[pods]: Invalid value: "1500m": must be an integer"#),
            (
                json!({"hard": {"pods": "-1"}}),
                r#"spec.hard[pods]: Invalid value: "-1": must be greater than or equal to 0"#,
            ),
            (
                json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
                r#"spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource"#,
            ),
            (
                json!({"hard": {"pods": "1"}, "scopes": ["Terminating", "NotTerminating"]}),
                r#"spec.scopes: Invalid value: ["Terminating","NotTerminating"]: conflicting scopes"#,
            ),
            (
                json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
                "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
        ];
        for (spec, expected) in cases {
            let errors = Object::validate(&quota(spec.clone()));
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            assert_eq!(first, expected, "{spec}");
        }
    }

    #[test]
    fn scopes_stay() {
        let old = quota(json!({"scopes": ["Terminating"]}));
        let new = quota(json!({}));
        assert_eq!(
            Object::validate_update(&new, &old)[0].to_string(),
            "spec.scopes: Invalid value: []: field is immutable"
        );
    }

    #[test]
    fn cells_show_requests_and_limits_apart() {
        let mut quota = quota(json!({}));
        quota.status = serde_json::from_value(json!({
            "hard": {"limits.cpu": "2", "pods": "4", "requests.memory": "1Gi"}, "used": {"limits.cpu": "500m", "pods": "1"},
        }))
        .unwrap();
        let cells = Object::cells(&quota, Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1..3], [json!("pods: 1/4, requests.memory: 0/1Gi"), json!("limits.cpu: 500m/2")]);
    }
}
