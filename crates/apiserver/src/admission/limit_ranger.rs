//! `LimitRanger`: fills in what containers ask for, and refuses pods and claims outside the bounds of their namespace.
//!
//! Compare `plugin/pkg/admission/limitranger`.

use std::collections::BTreeMap;

use api::Object;
use api::quantity::{Quantity, of};
use api::quota::{Usage, pod_limits, pod_requests};
use k8s_openapi::api::core::v1::{Container, LimitRange, LimitRangeItem, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

use super::{Attributes, Effects, Operation, Plugin};
use crate::status::ApiError;

/// Says what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

type Amounts = Option<BTreeMap<String, Amount>>;

pub(super) struct LimitRanger;

impl Plugin for LimitRanger {
    fn admit(&self, a: &Attributes<'_>, object: &mut dyn Object, _: &mut Effects) -> Result<(), ApiError> {
        if (a.is(Operation::Create, "pods") || a.resizes())
            && let Some(pod) = object.as_any_mut().downcast_mut::<Pod>()
        {
            let annotations = pod.metadata.annotations.clone();
            for range in a.in_namespace::<LimitRange>() {
                fill_in(&range.object, pod);
            }
            if a.resizes() {
                // A resize changes no metadata.
                pod.metadata.annotations = annotations;
            }
        }
        Ok(())
    }

    fn validate(&self, a: &Attributes<'_>, object: Option<&dyn Object>, _: &mut Effects) -> Result<(), ApiError> {
        // What a pod asks for changes by a resize only.
        let concerned = a.is(Operation::Create, "pods")
            || a.resizes()
            || a.is(Operation::Create, "persistentvolumeclaims")
            || a.is(Operation::Update, "persistentvolumeclaims");
        let Some(object) = object.filter(|o| concerned && o.metadata().deletion_timestamp.is_none()) else {
            return Ok(());
        };
        for range in a.in_namespace::<LimitRange>() {
            let problems = problems(&range.object, object);
            match problems.as_slice() {
                [] => {}
                [one] => return Err(a.forbidden(one.clone())),
                many => return Err(a.forbidden(format!("[{}]", many.join(", ")))),
            }
        }
        Ok(())
    }
}

fn items<'a>(range: &'a LimitRange, limit_type: &'a str) -> impl Iterator<Item = &'a LimitRangeItem> {
    range.spec.iter().flat_map(|s| &s.limits).filter(move |item| item.type_ == limit_type)
}

/// Gives containers the requests and limits they do not have, and says so in an annotation.
fn fill_in(range: &LimitRange, pod: &mut Pod) {
    let Some(spec) = pod.spec.as_mut() else { return };
    let mut said = Vec::new();
    for item in items(range, "Container") {
        spec.containers.iter_mut().for_each(|c| fill_container(item, c, "container", &mut said));
        spec.init_containers.iter_mut().flatten().for_each(|c| fill_container(item, c, "init container", &mut said));
    }
    if !said.is_empty() {
        let text = format!("LimitRanger plugin set: {}", said.join("; "));
        pod.metadata.annotations.get_or_insert_default().insert(ANNOTATION.to_owned(), text);
    }
}

fn fill_container(item: &LimitRangeItem, container: &mut Container, what: &str, said: &mut Vec<String>) {
    let name = container.name.clone();
    let resources = container.resources.get_or_insert_default();
    let mut fill = |to: &mut Amounts, from: &Amounts, half: &str| {
        let mut set = Vec::new();
        for (resource, amount) in from.iter().flatten() {
            let to = to.get_or_insert_default();
            if !to.contains_key(resource) {
                to.insert(resource.clone(), amount.clone());
                set.push(resource.as_str());
            }
        }
        if !set.is_empty() {
            said.push(format!("{} {half} for {what} {name}", set.join(", ")));
        }
    };
    fill(&mut resources.requests, &item.default_request, "request");
    fill(&mut resources.limits, &item.default, "limit");
}

/// Everything about `object` that is out of bounds.
fn problems(range: &LimitRange, object: &dyn Object) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(pod) = object.as_any().downcast_ref::<Pod>() {
        let containers: Vec<&Container> = pod.spec.iter().flat_map(api::pods::all_containers).collect();
        for item in items(range, "Container") {
            for resources in containers.iter().map(|c| c.resources.as_ref()) {
                let half = |of: Option<&Amounts>| api::quota::from_api(of.and_then(|a| a.as_ref()));
                let (requests, limits) = (half(resources.map(|r| &r.requests)), half(resources.map(|r| &r.limits)));
                bounds(item, &requests, &limits, &mut problems);
            }
        }
        for item in items(range, "Pod") {
            bounds(item, &pod_requests(pod), &pod_limits(pod), &mut problems);
        }
    } else if let Some(claim) = object.as_any().downcast_ref::<PersistentVolumeClaim>() {
        let requests = claim.spec.as_ref().and_then(|s| s.resources.as_ref()?.requests.as_ref());
        let requests = api::quota::from_api(requests);
        for item in items(range, "PersistentVolumeClaim") {
            each(&item.min, |name, bound| minimum(item, name, bound, &requests, &Usage::new()), &mut problems);
            each(&item.max, |name, bound| greatest_request(item, name, bound, &requests), &mut problems);
        }
    }
    problems
}

fn bounds(item: &LimitRangeItem, requests: &Usage, limits: &Usage, problems: &mut Vec<String>) {
    each(&item.min, |name, bound| minimum(item, name, bound, requests, limits), problems);
    each(&item.max, |name, bound| maximum(item, name, bound, requests, limits), problems);
    each(&item.max_limit_request_ratio, |name, bound| ratio(item, name, bound, requests, limits), problems);
}

fn each(bounds: &Amounts, check: impl Fn(&str, Quantity) -> Option<String>, problems: &mut Vec<String>) {
    let found = bounds.iter().flatten().filter_map(|(name, bound)| check(name, of(bound)));
    for problem in found {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
}

/// `minConstraint`.
fn minimum(item: &LimitRangeItem, name: &str, bound: Quantity, requests: &Usage, limits: &Usage) -> Option<String> {
    let start = format!("minimum {name} usage per {} is {bound}", item.type_);
    match (requests.get(name), limits.get(name)) {
        (None, _) => Some(format!("{start}.  No request is specified")),
        (Some(request), _) if *request < bound => Some(format!("{start}, but request is {request}")),
        (_, Some(limit)) if *limit < bound => Some(format!("{start}, but limit is {limit}")),
        _ => None,
    }
}

/// `maxConstraint`.
fn maximum(item: &LimitRangeItem, name: &str, bound: Quantity, requests: &Usage, limits: &Usage) -> Option<String> {
    let start = format!("maximum {name} usage per {} is {bound}", item.type_);
    match (requests.get(name), limits.get(name)) {
        (_, None) => Some(format!("{start}.  No limit is specified")),
        (_, Some(limit)) if *limit > bound => Some(format!("{start}, but limit is {limit}")),
        (Some(request), _) if *request > bound => Some(format!("{start}, but request is {request}")),
        _ => None,
    }
}

/// `maxRequestConstraint`: claims have no limits.
fn greatest_request(item: &LimitRangeItem, name: &str, bound: Quantity, requests: &Usage) -> Option<String> {
    let start = format!("maximum {name} usage per {} is {bound}", item.type_);
    match requests.get(name) {
        None => Some(format!("{start}.  No request is specified")),
        Some(request) if *request > bound => Some(format!("{start}, but request is {request}")),
        Some(_) => None,
    }
}

/// `limitRequestRatioConstraint`.
fn ratio(item: &LimitRangeItem, name: &str, bound: Quantity, requests: &Usage, limits: &Usage) -> Option<String> {
    let start = format!("{name} max limit to request ratio per {} is {bound}", item.type_);
    let given = |of: &Usage| of.get(name).copied().filter(|q| !q.is_zero());
    let Some(request) = given(requests) else {
        return Some(format!("{start}, but no request is specified or request is 0"));
    };
    let Some(limit) = given(limits) else {
        return Some(format!("{start}, but no limit is specified or limit is 0"));
    };
    let observed = limit.milli() as f64 / request.milli() as f64;
    let too_wide = observed * 1000.0 > bound.milli() as f64;
    too_wide.then(|| format!("{start}, but provided ratio is {observed:.6}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn range(item: Value) -> LimitRange {
        let mut range: LimitRange =
            serde_json::from_value(json!({"metadata": {}, "spec": {"limits": [item]}})).unwrap();
        api::Object::set_defaults(&mut range);
        range
    }

    fn pod(resources: Value) -> Pod {
        let containers = json!([{"name": "c", "image": "i", "resources": resources}]);
        serde_json::from_value(json!({"metadata": {}, "spec": {"containers": containers}})).unwrap()
    }

    #[test]
    fn containers_get_what_they_do_not_ask_for_and_it_is_said() {
        let range = range(
            json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"}, "defaultRequest": {"cpu": "500m"}}),
        );
        let mut pod = pod(json!({"limits": {"memory": "2Gi"}}));
        fill_in(&range, &mut pod);
        let again = pod.clone();
        fill_in(&range, &mut pod);
        assert_eq!(pod, again, "filling in twice is as once");
        let resources = json!(pod.spec.unwrap().containers[0].resources);
        assert_eq!(
            resources,
            json!({"limits": {"cpu": "1", "memory": "2Gi"}, "requests": {"cpu": "500m", "memory": "1Gi"}})
        );
        let said = "LimitRanger plugin set: cpu, memory request for container c; cpu limit for container c";
        assert_eq!(pod.metadata.annotations.unwrap()[ANNOTATION], said);
    }

    #[test]
    fn what_is_out_of_bounds_is_said_in_upstream_words() {
        let cases = [
            (
                json!({"type": "Container", "min": {"cpu": "100m"}}),
                json!({}),
                "minimum cpu usage per Container is 100m.  No request is specified",
            ),
            (
                json!({"type": "Container", "min": {"cpu": "100m"}}),
                json!({"requests": {"cpu": "50m"}}),
                "minimum cpu usage per Container is 100m, but request is 50m",
            ),
            (
                json!({"type": "Pod", "max": {"memory": "1Gi"}}),
                json!({"limits": {"memory": "2Gi"}}),
                "maximum memory usage per Pod is 1Gi, but limit is 2Gi",
            ),
            (
                json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}}),
                json!({"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}}),
                "cpu max limit to request ratio per Container is 2, but provided ratio is 3.000000",
            ),
            (json!({"type": "Container", "max": {"cpu": "1"}}), json!({"limits": {"cpu": "1"}}), ""),
        ];
        for (item, resources, expected) in cases {
            assert_eq!(problems(&range(item.clone()), &pod(resources)).join("|"), expected, "{item}");
        }
    }
}
