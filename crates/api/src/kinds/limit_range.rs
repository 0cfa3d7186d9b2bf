//! LimitRange: how much one container, pod or claim of a namespace may ask for, and what it asks for unless it says so.
//!
//! The `LimitRanger` admission plugin acts on it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{LimitRange, LimitRangeItem};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;
use serde_json::{Value, json};

use super::{pod, rules};
use crate::Resource;
use crate::field::{ErrorList, Path, duplicate, forbidden, invalid, required};
use crate::kinds::{KindInfo, NAME, Scope, Verb, column};
use crate::names::{self, NameRule};
use crate::quantity::{self, Quantity, canonicalize};

/// What limits are for, without a group in the name.
const TYPES: &[&str] = &["Container", "PersistentVolumeClaim", "Pod"];

type Amounts = Option<BTreeMap<String, Amount>>;

impl Resource for LimitRange {
    const INFO: KindInfo = KindInfo {
        group: "",
        version: "v1",
        kind: "LimitRange",
        plural: "limitranges",
        singular: "limitrange",
        short_names: &["limits"],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[],
        columns: &[NAME, column("Created At", "date", "When the object was created")],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    /// Its strategy's own way to a name, older than `generateName`.
    const MAKES_UP_NAMES: bool = true;

    fn set_defaults(&mut self) {
        for item in self.spec.iter_mut().flat_map(|s| s.limits.iter_mut()) {
            let all = [
                &mut item.max,
                &mut item.min,
                &mut item.default,
                &mut item.default_request,
                &mut item.max_limit_request_ratio,
            ];
            all.into_iter().flatten().flat_map(|m| m.values_mut()).for_each(canonicalize);
            if item.type_ == "Container" {
                container_defaults(item);
            }
        }
    }

    fn validate(&self, errors: &mut ErrorList) {
        let path = Path::new("spec").child("limits");
        let mut seen = BTreeSet::new();
        for (index, item) in self.spec.iter().flat_map(|s| &s.limits).enumerate() {
            let path = path.index(index);
            type_name(&item.type_, &path.child("type"), errors);
            if !seen.insert(item.type_.as_str()) {
                errors.push(duplicate(&path.child("type"), item.type_.as_str()));
            }
            self::item(item, &path, errors);
        }
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), json!(self.metadata.creation_timestamp)]
    }
}

/// What a container is given follows from the bounds where nothing else is said (`SetDefaults_LimitRangeItem`).
fn container_defaults(item: &mut LimitRangeItem) {
    let or = |to: &mut Amounts, from: &Amounts| {
        for (name, amount) in from.iter().flatten() {
            to.get_or_insert_default().entry(name.clone()).or_insert_with(|| amount.clone());
        }
    };
    or(&mut item.default, &item.max);
    or(&mut item.default_request, &item.default);
    or(&mut item.default_request, &item.min);
}

fn type_name(name: &str, path: &Path, errors: &mut ErrorList) {
    let messages = names::is_qualified_name(name);
    if !messages.is_empty() {
        rules::all(messages, name, path, errors);
    } else if !name.contains('/') && !TYPES.contains(&name) {
        errors.push(invalid(path, name, "must be a standard limit type or fully qualified"));
    }
}

/// `validateLimitRangeResourceName`.
fn resource_name(limit_type: &str, name: &str, path: &Path, errors: &mut ErrorList) {
    if matches!(limit_type, "Container" | "Pod") {
        pod::validation::resource_name(name, path, errors);
    } else {
        rules::resource_name(name, path, errors);
    }
}

/// The bounds of one type, each with the name of its field (`ValidateLimitRange`).
fn item(item: &LimitRangeItem, path: &Path, errors: &mut ErrorList) {
    let is_pod = item.type_ == "Pod";
    let fields: [(&str, &Amounts); 5] = [
        ("max", &item.max),
        ("min", &item.min),
        ("default", &item.default),
        ("defaultRequest", &item.default_request),
        ("maxLimitRequestRatio", &item.max_limit_request_ratio),
    ];
    let mut keys = BTreeSet::new();
    for (field, amounts) in fields {
        let amounts = amounts.as_ref().filter(|a| !a.is_empty());
        if is_pod && field.starts_with("default") && amounts.is_some() {
            errors.push(forbidden(&path.child(field), "may not be specified when `type` is 'Pod'"));
            continue;
        }
        for (name, amount) in amounts.into_iter().flatten() {
            let path = path.child(field).key(name);
            resource_name(&item.type_, name, &path, errors);
            if amount.0.parse::<Quantity>().is_ok() {
                keys.insert(name.as_str());
            } else {
                rules::quantity(amount, &path, errors);
            }
        }
    }
    let bounds_storage = |amounts: &Amounts| amounts.as_ref().is_some_and(|a| a.contains_key("storage"));
    if item.type_ == "PersistentVolumeClaim" && !bounds_storage(&item.min) && !bounds_storage(&item.max) {
        let detail = "either minimum or maximum storage value is required, but neither was provided";
        errors.push(required(&path.child("limits"), detail));
    }
    keys.into_iter().for_each(|key| bounds_agree(item, key, path, errors));
}

/// The bounds of one resource must leave room for its defaults.
fn bounds_agree(item: &LimitRangeItem, key: &str, path: &Path, errors: &mut ErrorList) {
    let of = |amounts: &Amounts| amounts.as_ref().and_then(|a| a.get(key)).map(quantity::of);
    let (min, max) = (of(&item.min), of(&item.max));
    let (default, request) = (of(&item.default), of(&item.default_request));
    let mut ordered = |low: Option<Quantity>, high: Option<Quantity>, field: &str, shown: Option<Quantity>, names| {
        let (low_name, high_name): (&str, &str) = names;
        if let (Some(low), Some(high), Some(shown)) = (low, high, shown)
            && low > high
        {
            let detail = format!("{low_name} value {low} is greater than {high_name} value {high}");
            errors.push(invalid(&path.child(field).key(key), shown.to_string(), &detail));
        }
    };
    ordered(min, max, "min", min, ("min", "max"));
    ordered(min, request, "defaultRequest", request, ("min", "default request"));
    ordered(request, max, "defaultRequest", request, ("default request", "max"));
    ordered(request, default, "defaultRequest", request, ("default request", "default limit"));
    ordered(min, default, "default", min, ("min", "default"));
    ordered(default, max, "default", max, ("default", "max"));
    ratio(of(&item.max_limit_request_ratio), min, max, &path.child("maxLimitRequestRatio").key(key), errors);
    let may_overcommit = !key.starts_with("hugepages-") && (!key.contains('/') || key.contains("kubernetes.io/"));
    if let (Some(default), Some(request), false) = (default, request, may_overcommit)
        && default != request
    {
        let detail = format!("default value {default} must equal to defaultRequest value {request} in {key}");
        errors.push(invalid(&path.child("defaultRequest").key(key), request.to_string(), &detail));
    }
}

/// A ratio is at least one, and cannot be wider than the bounds.
fn ratio(ratio: Option<Quantity>, min: Option<Quantity>, max: Option<Quantity>, path: &Path, errors: &mut ErrorList) {
    let Some(ratio) = ratio else { return };
    if ratio < Quantity::from_milli(1000) {
        errors.push(invalid(path, ratio.to_string(), &format!("ratio {ratio} is less than 1")));
    }
    if let (Some(min), Some(max)) = (min, max) {
        let widest = max.milli() as f64 / min.milli() as f64;
        if ratio.milli() as f64 / 1000.0 > widest {
            let detail = format!("ratio {ratio} is greater than max/min = {widest:.6}");
            errors.push(invalid(path, ratio.to_string(), &detail));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn limits(item: Value) -> LimitRange {
        let mut range: LimitRange = serde_json::from_value(json!({"spec": {"limits": [item]}})).unwrap();
        Object::set_defaults(&mut range);
        range
    }

    #[test]
    fn a_container_is_given_what_the_bounds_leave_open() {
        let range = limits(json!({"type": "Container", "max": {"cpu": "2"}, "min": {"memory": "64Mi"}}));
        let item = &range.spec.unwrap().limits[0];
        assert_eq!(json!(item.default), json!({"cpu": "2"}));
        assert_eq!(json!(item.default_request), json!({"cpu": "2", "memory": "64Mi"}));
    }

    #[test]
    fn bounds_that_contradict_each_other_are_named() {
        let cases = [
            (json!({"type": "Container", "max": {"cpu": "1"}, "min": {"cpu": "100m"}}), ""),
            (
                json!({"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "2"}}),
                r#"spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1"#,
            ),
            (
                json!({"type": "Pod", "default": {"cpu": "1"}}),
                "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'",
            ),
            (
                json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "2"}}),
                r#"spec.limits[0].defaultRequest[cpu]: Invalid value: "2": default request value 2 is greater than default limit value 1"#,
            ),
            (
                json!({"type": "PersistentVolumeClaim"}),
                "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was provided",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "0.5"}}),
                r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "500m": ratio 500m is less than 1"#,
            ),
            (
                json!({"type": "Pod", "max": {"cpu": "1"}, "min": {"cpu": "500m"}, "maxLimitRequestRatio": {"cpu": "4"}}),
                r#"spec.limits[0].maxLimitRequestRatio[cpu]: Invalid value: "4": ratio 4 is greater than max/min = 2.000000"#,
            ),
            (
                json!({"type": "Wish", "max": {"cpu": "1"}}),
                r#"spec.limits[0].type: Invalid value: "Wish": must be a standard limit type or fully qualified"#,
            ),
        ];
        for (item, expected) in cases {
            let errors = Object::validate(&limits(item.clone()));
            let first = errors.first().map(ToString::to_string).unwrap_or_default();
            assert_eq!(first, expected, "{item}");
        }
    }
}
