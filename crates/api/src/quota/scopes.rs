//! Scopes: which of the objects a quota could count it is about.

use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, ResourceQuota, ScopedResourceSelectorRequirement};

use crate::object::Object;
use crate::pods::qos_class;

/// Whether `object` is in every scope of `quota`. Scopes are about pods: other objects are in none.
pub(super) fn fit(quota: &ResourceQuota, object: &dyn Object) -> bool {
    let Some(spec) = quota.spec.as_ref() else { return true };
    let pod = object.as_any().downcast_ref::<Pod>();
    let plain = spec.scopes.iter().flatten().all(|scope| pod.is_some_and(|pod| is_in(pod, scope, "Exists", &[])));
    let expressions = spec.scope_selector.iter().filter_map(|s| s.match_expressions.as_ref()).flatten();
    plain && expressions.into_iter().all(|e| pod.is_some_and(|pod| fits(pod, e)))
}

fn fits(pod: &Pod, expression: &ScopedResourceSelectorRequirement) -> bool {
    let values = expression.values.as_deref().unwrap_or_default();
    is_in(pod, &expression.scope_name, &expression.operator, values)
}

/// `podMatchesScopeFunc`.
fn is_in(pod: &Pod, scope: &str, operator: &str, values: &[String]) -> bool {
    let Some(spec) = pod.spec.as_ref() else { return false };
    let ends = spec.active_deadline_seconds.is_some_and(|s| s >= 0);
    match scope {
        "Terminating" => ends,
        "NotTerminating" => !ends,
        "BestEffort" => qos_class(pod) == "BestEffort",
        "NotBestEffort" => qos_class(pod) != "BestEffort",
        "PriorityClass" => {
            let class = spec.priority_class_name.as_deref().filter(|c| !c.is_empty());
            let is_one = class.is_some_and(|class| values.iter().any(|v| v == class));
            match operator {
                "In" => is_one,
                "NotIn" => !is_one,
                "Exists" => class.is_some(),
                "DoesNotExist" => class.is_none(),
                _ => false,
            }
        }
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// Whether the pod's affinity looks at pods of other namespaces.
fn crosses_namespaces(pod: &Pod) -> bool {
    let Some(affinity) = pod.spec.as_ref().and_then(|s| s.affinity.as_ref()) else { return false };
    let crosses = |term: &PodAffinityTerm| {
        term.namespace_selector.is_some() || term.namespaces.as_ref().is_some_and(|n| !n.is_empty())
    };
    let (near, far) = (affinity.pod_affinity.as_ref(), affinity.pod_anti_affinity.as_ref());
    let required = [
        near.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
        far.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref()),
    ];
    let preferred = [
        near.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
        far.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()),
    ];
    required.into_iter().flatten().flatten().any(crosses)
        || preferred.into_iter().flatten().flatten().any(|weighted| crosses(&weighted.pod_affinity_term))
}
