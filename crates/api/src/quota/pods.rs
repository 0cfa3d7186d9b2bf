//! What pods ask for.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};

use super::{Usage, add, from_api, one};
use crate::pods::{self, all_containers, is_sidecar, is_terminal, resize_is_infeasible};
use crate::quantity::Quantity;

/// What a quota may limit of pods by these names.
const MEASURED: &[&str] = &[
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];
/// What every container must ask for where it is limited.
const MUST_BE_GIVEN: &[&str] = &["cpu", "memory", "requests.cpu", "requests.memory", "limits.cpu", "limits.memory"];
/// Resources whose requests count under their own name too, and whose limits count.
const COMPUTE: &[&str] = &["cpu", "memory", "ephemeral-storage"];

pub(super) fn is_measured(name: &str) -> bool {
    let extended = name.strip_prefix("requests.").is_some_and(is_extended);
    MEASURED.contains(&name) || name.starts_with("hugepages-") || name.starts_with("requests.hugepages-") || extended
}

/// Resources other than Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/")
}

/// Adds what `pod` asks for. A pod that has ended asks for nothing, but is still there.
pub(super) fn measure(pod: &Pod, usage: &mut Usage) {
    if is_terminal(pod) {
        return;
    }
    usage.insert("pods".to_owned(), one());
    usage.extend(named(&held(pod, Half::Requests), &held(pod, Half::Limits)));
}

/// What the pod as a whole requests.
pub fn requests(pod: &Pod) -> Usage {
    total(pod, Half::Requests, |container| Half::Requests.of(container.resources.as_ref()))
}

/// What the pod as a whole may use.
pub fn limits(pod: &Pod) -> Usage {
    total(pod, Half::Limits, |container| Half::Limits.of(container.resources.as_ref()))
}

/// One half of what the pod takes while it is being resized: the most of what is wanted and what its kubelet says.
fn held(pod: &Pod, half: Half) -> Usage {
    let infeasible = resize_is_infeasible(pod);
    total(pod, half, |container| {
        let wanted = half.of(container.resources.as_ref());
        let reported = match half {
            Half::Requests => pods::reported(pod, &container.name),
            Half::Limits => {
                let status = pods::container_status(pod, &container.name);
                [None, status.and_then(|s| s.resources.as_ref()?.limits.as_ref())]
            }
        };
        if reported == [None, None] {
            return wanted;
        }
        let mut sum = if infeasible { Usage::new() } else { wanted };
        reported.into_iter().flatten().for_each(|amounts| raise(&mut sum, &from_api(Some(amounts))));
        sum
    })
}

/// Requests and limits by the names quotas have for them (`podComputeUsageHelper`).
fn named(requests: &Usage, limits: &Usage) -> Usage {
    let mut usage = Usage::new();
    for (name, amount) in requests {
        if COMPUTE.contains(&name.as_str()) || name.starts_with("hugepages-") {
            usage.insert(name.clone(), *amount);
            usage.insert(format!("requests.{name}"), *amount);
        } else if is_extended(name) {
            usage.insert(format!("requests.{name}"), *amount);
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| COMPUTE.contains(&name.as_str())) {
        usage.insert(format!("limits.{name}"), *amount);
    }
    usage
}

/// One half of what containers say of resources.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Requests,
    Limits,
}

impl Half {
    fn of(self, resources: Option<&ResourceRequirements>) -> Usage {
        from_api(resources.and_then(|r| match self {
            Half::Requests => r.requests.as_ref(),
            Half::Limits => r.limits.as_ref(),
        }))
    }
}

/// The sum over the containers, or the greatest of the init containers' where that is more; sidecars run beside what
/// comes after them (`PodRequests`, `PodLimits` in `k8s.io/component-helpers/resource`).
fn total(pod: &Pod, half: Half, of: impl Fn(&Container) -> Usage) -> Usage {
    let Some(spec) = pod.spec.as_ref() else { return Usage::new() };
    let mut running = Usage::new();
    spec.containers.iter().for_each(|c| add(&mut running, &of(c)));
    let (mut starting, mut sidecars) = (Usage::new(), Usage::new());
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        let mut beside = sidecars.clone();
        add(&mut beside, &own);
        if is_sidecar(container) {
            add(&mut running, &own);
            sidecars.clone_from(&beside);
        }
        raise(&mut starting, &beside);
    }
    raise(&mut running, &starting);
    running.extend(half.of(spec.resources.as_ref()));
    let mut overhead = from_api(spec.overhead.as_ref());
    // What has no limit has none with the overhead either.
    overhead.retain(|name, _| half == Half::Requests || running.contains_key(name));
    add(&mut running, &overhead);
    running
}

fn raise(to: &mut Usage, other: &Usage) {
    for (name, amount) in other {
        let present = to.entry(name.clone()).or_insert(Quantity::ZERO);
        *present = (*present).max(*amount);
    }
}

/// The limited resources that some containers do not ask for, and which those are.
pub(super) fn missing<'a>(names: impl Iterator<Item = &'a str>, pod: &Pod) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    let given = |r: Option<&ResourceRequirements>| named(&Half::Requests.of(r), &Half::Limits.of(r));
    let by_pod = given(spec.resources.as_ref());
    let by_container: Vec<_> = all_containers(spec).map(|c| (c.name.as_str(), given(c.resources.as_ref()))).collect();
    let required: BTreeSet<&str> = names.filter(|n| MUST_BE_GIVEN.contains(n) && !by_pod.contains_key(*n)).collect();
    let messages: Vec<String> = required
        .into_iter()
        .filter_map(|name| {
            let without = by_container.iter().filter(|(_, given)| !given.contains_key(name)).map(|(c, _)| *c);
            let without: BTreeSet<&str> = without.collect();
            let joined = without.iter().copied().collect::<Vec<_>>().join(",");
            (!without.is_empty()).then(|| format!("{name} for: {joined}"))
        })
        .collect();
    (!messages.is_empty()).then(|| format!("must specify {}", messages.join("; ")))
}
