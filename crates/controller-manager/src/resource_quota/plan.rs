//! What a quota's status must say of what there is.

use std::collections::BTreeMap;

use api::quota::{self, Usage};
use api::{KindInfo, Object};
use k8s_openapi::api::core::v1::{ResourceQuota, ResourceQuotaStatus};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What there is of one kind.
pub(super) enum Observed {
    /// The objects, where it matters what they are.
    Objects(Vec<Box<dyn Object>>),
    /// How many there are.
    Count(&'static KindInfo, usize),
}

/// What a quota limits.
pub(super) fn hard(quota: &ResourceQuota) -> BTreeMap<String, Quantity> {
    quota.spec.as_ref().and_then(|s| s.hard.clone()).unwrap_or_default()
}

/// Whether the quota's status is about what its spec limits.
pub(super) fn is_counted(quota: &ResourceQuota) -> bool {
    let hard = quota.spec.as_ref().and_then(|s| s.hard.as_ref());
    let status = quota.status.as_ref();
    let used = status.and_then(|s| s.used.as_ref());
    let unknown = |name: &String| used.is_none_or(|u| !u.contains_key(name)) && is_countable(name);
    status.and_then(|s| s.hard.as_ref()) == hard && !hard.into_iter().flatten().any(|(name, _)| unknown(name))
}

fn is_countable(name: &str) -> bool {
    api::kinds().any(|kind| quota::counts(kind.info, name))
}

/// The quota with its status as it must be; `None` if that is what it is. Counting again gives the same.
pub(super) fn plan(quota: &ResourceQuota, observed: &[Observed]) -> Option<ResourceQuota> {
    let hard = hard(quota);
    let mut used: Usage = hard.keys().filter(|n| is_countable(n)).map(|n| (n.clone(), zero())).collect();
    for observed in observed {
        match observed {
            Observed::Objects(objects) => {
                for object in objects.iter().filter(|o| quota::covers(quota, &hard, &***o)) {
                    quota::add(&mut used, &quota::masked(&quota::usage(&**object), &hard));
                }
            }
            Observed::Count(kind, count) => add_count(quota, kind, *count, &hard, &mut used),
        }
    }
    let status = ResourceQuotaStatus { hard: Some(hard), used: Some(quota::to_api(&used)) };
    let mut counted = quota.clone();
    let before = counted.status.replace(status);
    (before != counted.status).then_some(counted)
}

fn zero() -> api::quantity::Quantity {
    api::quantity::Quantity::ZERO
}

/// Objects of which only the number matters. They are in no scope, so a quota with scopes is not about them.
fn add_count(
    quota: &ResourceQuota,
    kind: &KindInfo,
    count: usize,
    hard: &BTreeMap<String, Quantity>,
    used: &mut Usage,
) {
    let spec = quota.spec.as_ref();
    let has_scopes = spec.and_then(|s| s.scopes.as_ref()).is_some_and(|s| !s.is_empty());
    let selector = spec.and_then(|s| s.scope_selector.as_ref()?.match_expressions.as_ref());
    if has_scopes || selector.is_some_and(|s| !s.is_empty()) {
        return;
    }
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let count = api::quantity::Quantity::from_units(count, api::quantity::Format::DecimalSi);
    for name in hard.keys().filter(|name| quota::counts(kind, name)) {
        used.insert(name.clone(), count);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn quota(spec: Value) -> ResourceQuota {
        serde_json::from_value(json!({"metadata": {"name": "q"}, "spec": spec})).unwrap()
    }

    fn pods(specs: &[Value]) -> Observed {
        let kind = api::kinds::by_kind("v1", "Pod").unwrap();
        let decode = |spec: &Value| (kind.decode)(json!({"spec": spec}).to_string().as_bytes()).unwrap().object;
        Observed::Objects(specs.iter().map(decode).collect())
    }

    fn asking(cpu: &str) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]})
    }

    #[test]
    fn what_there_is_is_counted_once() {
        let secrets = api::kinds::by_kind("v1", "Secret").unwrap().info;
        let cases = [
            (
                "pods and what they ask for",
                json!({"hard": {"pods": "5", "requests.cpu": "2"}}),
                vec![pods(&[asking("500m"), asking("250m")])],
                json!({"pods": "2", "requests.cpu": "750m"}),
            ),
            ("nothing is zero", json!({"hard": {"pods": "5"}}), vec![pods(&[])], json!({"pods": "0"})),
            (
                "only pods in its scope",
                json!({"hard": {"pods": "5"}, "scopes": ["BestEffort"]}),
                vec![pods(&[asking("1"), json!({"containers": [{"name": "c"}]})])],
                json!({"pods": "1"}),
            ),
            (
                "others by their number",
                json!({"hard": {"secrets": "5", "count/secrets": "9"}}),
                vec![Observed::Count(secrets, 3)],
                json!({"secrets": "3", "count/secrets": "3"}),
            ),
            (
                "which are in no scope",
                json!({"hard": {"secrets": "5"}, "scopes": ["BestEffort"]}),
                vec![Observed::Count(secrets, 3)],
                json!({"secrets": "0"}),
            ),
            ("what nobody knows is not counted", json!({"hard": {"count/wishes": "5"}}), vec![], json!({})),
        ];
        for (sentence, spec, observed, used) in cases {
            let counted = plan(&quota(spec), &observed).unwrap();
            assert_eq!(json!(counted.status.as_ref().unwrap().used), used, "{sentence}");
            assert!(is_counted(&counted), "{sentence}");
            assert!(plan(&counted, &observed).is_none(), "{sentence}, and again");
        }
    }

    #[test]
    fn a_quota_with_another_limit_must_be_counted_again() {
        let mut quota = plan(&quota(json!({"hard": {"pods": "5"}})), &[pods(&[])]).unwrap();
        assert!(is_counted(&quota));
        quota.spec.as_mut().unwrap().hard = Some([("pods".to_owned(), Quantity("6".into()))].into());
        assert!(!is_counted(&quota));
    }
}
