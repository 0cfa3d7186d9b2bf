//! What may change in a pod through `/resize`: how much cpu and memory its containers ask for (`dropNonResizeUpdates` in
//! `pkg/registry/core/pod`, `ValidatePodResize` upstream).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::field::{ErrorList, Path, forbidden, invalid};
use crate::pods::{is_mirror, is_sidecar, qos_class};

/// What can be resized.
const RESIZABLE: &[&str] = &["cpu", "memory"];

type Amounts = BTreeMap<String, Quantity>;

/// Takes over from `old` everything but resources and the policies for changing them. Containers that came, went or
/// changed places stay as they are, for [`validate`] to refuse.
pub(super) fn prepare(pod: &mut Pod, old: &Pod) {
    let wanted = pod.spec.take().unwrap_or_default();
    pod.clone_from(old);
    let Some(spec) = pod.spec.as_mut() else { return };
    merge(&mut spec.containers, wanted.containers);
    let mut init = spec.init_containers.take().unwrap_or_default();
    merge(&mut init, wanted.init_containers.unwrap_or_default());
    spec.init_containers = Some(init).filter(|init| !init.is_empty());
}

fn merge(kept: &mut Vec<Container>, wanted: Vec<Container>) {
    let same = kept.len() == wanted.len() && kept.iter().zip(&wanted).all(|(kept, wanted)| kept.name == wanted.name);
    if !same {
        *kept = wanted;
        return;
    }
    for (kept, wanted) in kept.iter_mut().zip(wanted) {
        kept.resources = wanted.resources;
        kept.resize_policy = wanted.resize_policy;
    }
}

/// What is wrong with the step from `old` to `new`, which [`prepare`] made.
pub(super) fn validate(new: &Pod, old: &Pod, errors: &mut ErrorList) {
    let (Some(spec), Some(old_spec)) = (new.spec.as_ref(), old.spec.as_ref()) else { return };
    if let Some(refusal) = never(old, old_spec) {
        errors.push(forbidden(&Path::default(), refusal));
        return;
    }
    let path = Path::new("spec");
    let class = old.status.as_ref().and_then(|s| s.qos_class.as_deref()).unwrap_or_else(|| qos_class(old));
    if class != qos_class(new) {
        errors.push(invalid(&path, class, "Pod QOS Class may not change as a result of resizing"));
    }
    if !node_resizes(old) {
        errors.push(forbidden(&path, "Pod running on node without support for resize"));
    }
    let (init, old_init) = (init_containers(spec), init_containers(old_spec));
    let before = errors.len();
    in_order(&spec.containers, &old_spec.containers, "containers", &path, errors);
    in_order(init, old_init, "initContainers", &path, errors);
    if errors.len() > before {
        return;
    }
    for (field, new, old) in
        [("initContainers", init, old_init), ("containers", &*spec.containers, &*old_spec.containers)]
    {
        for (index, (new, old)) in new.iter().zip(old).enumerate() {
            if field == "containers" || is_sidecar(old) {
                kept(new, old, &path.child(field).index(index).child("resources"), errors);
            }
        }
    }
    let changed = |(new, old): &(&Container, &Container)| !only_resized(new, old);
    errors.extend(
        spec.containers
            .iter()
            .zip(&old_spec.containers)
            .filter(changed)
            .map(|_| forbidden(&path, "only cpu and memory resources are mutable")),
    );
    errors
        .extend(init.iter().zip(old_init).filter_map(|(new, old)| init_refusal(new, old)).map(|r| forbidden(&path, r)));
}

/// Why a pod like `old` is never resized, if it is not.
fn never(old: &Pod, spec: &PodSpec) -> Option<&'static str> {
    let of_pod = spec.resources.as_ref().is_some_and(|r| !(empty(&r.requests) && empty(&r.limits)));
    if of_pod {
        Some("pods with pod-level resources cannot be resized")
    } else if is_mirror(old) {
        Some("static pods cannot be resized")
    } else if spec.os.as_ref().is_some_and(|os| os.name == "windows") {
        Some("windows pods cannot be resized")
    } else {
        None
    }
}

/// Whether the node says what its containers are given, as one that can change it does (`isPodResizeRequestSupported`).
fn node_resizes(old: &Pod) -> bool {
    let statuses = old.status.iter().flat_map(|s| s.container_statuses.iter().flatten());
    let running = statuses.filter(|s| s.state.as_ref().is_some_and(|s| s.running.is_some())).take(1);
    running.into_iter().all(|status| status.resources.is_some())
}

fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or(&[])
}

fn in_order(new: &[Container], old: &[Container], field: &'static str, path: &Path, errors: &mut ErrorList) {
    if new.len() != old.len() {
        let detail = format!("{field} may not be added or removed on resize");
        errors.push(forbidden(&path.child(field), &detail));
        return;
    }
    for (index, _) in new.iter().zip(old).enumerate().filter(|(_, (new, old))| new.name != old.name) {
        let detail = format!("{field} may not be renamed or reordered on resize");
        errors.push(forbidden(&path.child(field).index(index).child("name"), &detail));
    }
}

/// What a container once asked for it goes on asking for, be it more or less.
fn kept(new: &Container, old: &Container, path: &Path, errors: &mut ErrorList) {
    let (new, old) = (resources(new), resources(old));
    let halves = [("requests", &new.requests, &old.requests), ("limits", &new.limits, &old.limits)];
    for (field, new, old) in halves {
        let has = |name: &String| new.as_ref().is_some_and(|new| new.contains_key(name));
        if !old.iter().flatten().all(|(name, _)| has(name)) {
            errors.push(forbidden(&path.child(field), &format!("resource {field} cannot be removed")));
        }
    }
}

fn resources(container: &Container) -> ResourceRequirements {
    container.resources.clone().unwrap_or_default()
}

fn empty(amounts: &Option<Amounts>) -> bool {
    amounts.as_ref().is_none_or(BTreeMap::is_empty)
}

/// Why the init container `new` may not be what it is, if it may not.
fn init_refusal(new: &Container, old: &Container) -> Option<&'static str> {
    if is_sidecar(old) {
        let refusal = "only cpu and memory resources for sidecar containers are mutable";
        return (!only_resized(new, old)).then_some(refusal);
    }
    let same = |new: &Option<Amounts>, old: &Option<Amounts>| (empty(new) && empty(old)) || new == old;
    let (now, before) = (resources(new), resources(old));
    let untouched = same(&now.requests, &before.requests) && same(&now.limits, &before.limits);
    (!(untouched && only_resized(new, old))).then_some("resources for non-sidecar init containers are immutable")
}

/// Whether `new` differs from `old` in nothing but cpu and memory.
fn only_resized(new: &Container, old: &Container) -> bool {
    let (now, before) = (resources(new), resources(old));
    let policies = |c: &Container| c.resize_policy.clone().unwrap_or_default();
    policies(new) == policies(old)
        && now.claims.unwrap_or_default() == before.claims.unwrap_or_default()
        && others(now.requests) == others(before.requests)
        && others(now.limits) == others(before.limits)
}

/// Amounts of what cannot be resized.
fn others(amounts: Option<Amounts>) -> Amounts {
    amounts.into_iter().flatten().filter(|(name, _)| !RESIZABLE.contains(&name.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::Subresource;
    use crate::object::Object;

    fn pod(spec: Value, status: Value) -> Pod {
        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "d", "labels": {"a": "b"}}, "spec": spec, "status": status,
        }))
        .unwrap();
        Object::set_defaults(&mut pod);
        pod
    }

    fn spec() -> Value {
        let resources = json!({"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}});
        json!({
            "initContainers": [
                {"name": "first", "image": "i", "resources": {"requests": {"cpu": "1"}}},
                {"name": "side", "image": "i", "restartPolicy": "Always", "resources": resources},
            ],
            "containers": [{"name": "c", "image": "i", "resources": resources,
                "resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]}],
        })
    }

    /// What becomes of the pod when `change` is asked for, and what is wrong with that.
    fn resized(status: Value, change: impl FnOnce(&mut Value)) -> (Pod, Vec<String>) {
        let old = pod(spec(), status);
        let mut wanted = serde_json::to_value(&old).unwrap();
        change(&mut wanted);
        let mut new: Pod = serde_json::from_value(wanted).unwrap();
        Object::prepare_subresource_update(&mut new, Subresource::Resize, &old);
        Object::set_defaults(&mut new);
        let mut errors = Object::validate(&new);
        errors.extend(Object::validate_subresource_update(&new, Subresource::Resize, &old));
        (new, errors.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn cpu_and_memory_of_containers_and_sidecars_change_and_nothing_else() {
        let (new, errors) = resized(json!({"qosClass": "Burstable"}), |pod| {
            pod["spec"]["containers"][0]["resources"] =
                json!({"requests": {"cpu": "0.2", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}});
            pod["spec"]["initContainers"][1]["resources"]["requests"]["cpu"] = json!("50m");
            pod["spec"]["containers"][0]["image"] = json!("other");
            pod["spec"]["nodeName"] = json!("n");
            pod["metadata"]["labels"]["a"] = json!("c");
            pod["status"]["phase"] = json!("Failed");
        });
        assert_eq!(errors, Vec::<String>::new());
        let new = serde_json::to_value(new).unwrap();
        let container = &new["spec"]["containers"][0];
        assert_eq!(container["resources"]["requests"], json!({"cpu": "200m", "memory": "64Mi"}));
        assert_eq!(container["resources"]["limits"], json!({"cpu": "1", "memory": "256Mi"}));
        assert_eq!(new["spec"]["initContainers"][1]["resources"]["requests"]["cpu"], "50m");
        assert_eq!((&container["image"], &new["metadata"]["labels"]["a"]), (&json!("i"), &json!("b")));
        assert_eq!((&new["spec"]["nodeName"], &new["status"]["phase"]), (&Value::Null, &Value::Null));
    }

    #[test]
    fn what_cannot_be_resized_is_refused_in_upstreams_words() {
        type Case = (&'static str, fn(&mut Value), &'static str);
        let cases: &[Case] = &[
            (
                "the class stays",
                |p| p["spec"]["containers"][0]["resources"]["limits"] = json!({"cpu": "100m", "memory": "64Mi"}),
                "",
            ),
            (
                "a request goes",
                |p| p["spec"]["containers"][0]["resources"]["requests"] = json!({"memory": "64Mi"}),
                "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
            ),
            (
                "a limit goes",
                |p| p["spec"]["initContainers"][1]["resources"]["limits"] = json!({}),
                "spec.initContainers[1].resources.limits: Forbidden: resource limits cannot be removed",
            ),
            (
                "storage",
                |p| p["spec"]["containers"][0]["resources"]["requests"]["ephemeral-storage"] = json!("1Gi"),
                "spec: Forbidden: only cpu and memory resources are mutable",
            ),
            (
                "the policy",
                |p| p["spec"]["containers"][0]["resizePolicy"] = json!([]),
                "spec: Forbidden: only cpu and memory resources are mutable",
            ),
            (
                "storage of a sidecar",
                |p| p["spec"]["initContainers"][1]["resources"]["requests"]["ephemeral-storage"] = json!("1Gi"),
                "spec: Forbidden: only cpu and memory resources for sidecar containers are mutable",
            ),
            (
                "an init container",
                |p| p["spec"]["initContainers"][0]["resources"]["requests"]["cpu"] = json!("2"),
                "spec: Forbidden: resources for non-sidecar init containers are immutable",
            ),
            (
                "another container",
                |p| p["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "d", "image": "i"})),
                "spec.containers: Forbidden: containers may not be added or removed on resize",
            ),
            (
                "another name",
                |p| p["spec"]["initContainers"][0]["name"] = json!("d"),
                "spec.initContainers[0].name: Forbidden: initContainers may not be renamed or reordered on resize",
            ),
            (
                "nonsense",
                |p| p["spec"]["containers"][0]["resources"]["requests"]["memory"] = json!("1Gi"),
                "spec.containers[0].resources.requests: Invalid value: \"1Gi\": must be less than or equal to memory limit of 128Mi",
            ),
        ];
        for (sentence, change, expected) in cases {
            let (_, errors) = resized(json!({"qosClass": "Burstable"}), change);
            let expected: Vec<&str> = Some(*expected).into_iter().filter(|e| !e.is_empty()).collect();
            assert_eq!(errors, expected, "{sentence}");
        }
        let class = |class: &str| resized(json!({"qosClass": class}), |_| {}).1;
        let refusal = "spec: Invalid value: \"Guaranteed\": Pod QOS Class may not change as a result of resizing";
        assert_eq!(class("Guaranteed"), [refusal]);
    }

    #[test]
    fn pods_that_are_never_resized_say_so() {
        let status = |resources: Value| {
            let mut status = json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 0,
                "state": {"running": {}}});
            if !resources.is_null() {
                status["resources"] = resources;
            }
            json!({"qosClass": "Burstable", "containerStatuses": [status]})
        };
        let (_, errors) = resized(status(Value::Null), |_| {});
        assert_eq!(errors, ["spec: Forbidden: Pod running on node without support for resize"]);
        assert!(resized(status(json!({})), |_| {}).1.is_empty());
        let refused = |change: fn(&mut Value)| {
            let mut old = serde_json::to_value(pod(spec(), json!({}))).unwrap();
            change(&mut old);
            let old: Pod = serde_json::from_value(old).unwrap();
            let mut errors = ErrorList::new();
            validate(&old.clone(), &old, &mut errors);
            errors.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let mirror = refused(|p| p["metadata"]["annotations"] = json!({"kubernetes.io/config.mirror": "x"}));
        assert_eq!(mirror, [": Forbidden: static pods cannot be resized"]);
        let whole = refused(|p| p["spec"]["resources"] = json!({"requests": {"cpu": "1"}}));
        assert_eq!(whole, [": Forbidden: pods with pod-level resources cannot be resized"]);
        let windows = refused(|p| p["spec"]["os"] = json!({"name": "windows"}));
        assert_eq!(windows, [": Forbidden: windows pods cannot be resized"]);
    }
}
