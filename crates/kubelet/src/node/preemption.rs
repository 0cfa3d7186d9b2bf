//! Who ends so that a critical pod may run (`pkg/kubelet/preemption/preemption.go`): as few as possible, those that were
//! promised nothing first. Pure.

use std::sync::Arc;

use api::pods::{Requests, qos_class};
use k8s_openapi::api::core::v1::Pod;

use super::eviction::rank::{is_critical, priority};
use crate::pod::fit::Shortage;

/// What the status of a pod says that ended so, and the Event about it.
pub const MESSAGE: &str = "Preempted in order to admit critical pod";
/// What its condition says.
pub const CONDITION: &str = "Pod was preempted by Kubelet to accommodate a critical pod.";

/// A pod that is here, and what it holds.
type Tenant = (Arc<Pod>, Requests);

/// What has still to become free, by resource.
#[derive(Clone)]
struct Wanted(Vec<(&'static str, i64)>);

impl Wanted {
    fn without<'a>(&self, tenants: impl IntoIterator<Item = &'a Tenant> + Clone) -> Wanted {
        let left = |(resource, amount): &(&'static str, i64)| {
            let freed: i64 = tenants.clone().into_iter().map(|tenant| request(tenant, resource)).sum();
            Some((*resource, amount.saturating_sub(freed))).filter(|(_, amount)| *amount > 0)
        };
        Wanted(self.0.iter().filter_map(left).collect())
    }

    /// How far this is from free once `tenant` is gone: each resource counts alike.
    fn distance(&self, tenant: &Tenant) -> f64 {
        let part = |(resource, amount): &(&'static str, i64)| {
            let left = amount.saturating_sub(request(tenant, resource)).max(0);
            (left as f64 / *amount as f64).powi(2)
        };
        self.0.iter().map(part).sum()
    }

    fn refusal(&self) -> String {
        let one = |(resource, amount): &(&str, i64)| format!("(res: {resource}, q: {amount}), ");
        let list: String = self.0.iter().map(one).collect();
        let found = "preemption: error finding a set of pods to preempt: ";
        format!("{found}no set of running pods found to reclaim resources: [{list}]")
    }
}

fn request((_, held): &Tenant, resource: &str) -> i64 {
    match resource {
        "cpu" => held.milli_cpu,
        "memory" => held.memory,
        "ephemeral-storage" => held.ephemeral_storage,
        _ => 1,
    }
}

/// UIDs of those of `tenants` that end so that `pod` has what it is `short` of; why there are none otherwise.
pub fn victims(pod: &Pod, tenants: &[Tenant], short: &[Shortage]) -> Result<Vec<String>, String> {
    let wanted = Wanted(short.iter().map(|s| (s.resource, s.missing())).filter(|(_, amount)| *amount > 0).collect());
    let of_class = |class: &str| -> Vec<Tenant> {
        tenants.iter().filter(|(p, _)| may_go(pod, p) && qos_class(p) == class).cloned().collect()
    };
    let (best_effort, burstable, guaranteed) = (of_class("BestEffort"), of_class("Burstable"), of_class("Guaranteed"));
    let missing = wanted.without(best_effort.iter().chain(&burstable).chain(&guaranteed));
    if !missing.0.is_empty() {
        return Err(missing.refusal());
    }
    let guaranteed = nearest(guaranteed, wanted.without(best_effort.iter().chain(&burstable)))?;
    let burstable = nearest(burstable, wanted.without(best_effort.iter().chain(&guaranteed)))?;
    let best_effort = nearest(best_effort, wanted.without(burstable.iter().chain(&guaranteed)))?;
    let all = best_effort.iter().chain(&burstable).chain(&guaranteed);
    Ok(all.map(|(pod, _)| crate::pod::uid(pod).to_owned()).collect())
}

/// Whether `pod` may take the place of `other` (`Preemptable` in `pkg/kubelet/types/pod_update.go`).
fn may_go(pod: &Pod, other: &Pod) -> bool {
    (is_critical(pod) && !is_critical(other)) || priority(pod) > priority(other)
}

/// Those that free what is `wanted`, one after the other who frees most of it; of equals who holds less.
fn nearest(mut tenants: Vec<Tenant>, mut wanted: Wanted) -> Result<Vec<Tenant>, String> {
    let mut chosen = Vec::new();
    while !wanted.0.is_empty() {
        let size = |tenant: &Tenant| (tenant.1.memory, tenant.1.milli_cpu);
        let closer = |a: &Tenant, b: &Tenant| {
            wanted.distance(a).total_cmp(&wanted.distance(b)).then_with(|| size(a).cmp(&size(b)))
        };
        let best = (0..tenants.len()).min_by(|a, b| closer(&tenants[*a], &tenants[*b]));
        let best = best.ok_or_else(|| wanted.refusal())?;
        let tenant = tenants.swap_remove(best);
        wanted = wanted.without([&tenant]);
        chosen.push(tenant);
    }
    Ok(chosen)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A pod that requests so much, with the same limits if it is guaranteed.
    fn tenant(name: &str, cpu: &str, memory: &str, guaranteed: bool, priority: i32) -> Tenant {
        let requests = json!({"cpu": cpu, "memory": memory});
        let resources = match (cpu, guaranteed) {
            ("", _) => json!({}),
            (_, true) => json!({"requests": requests, "limits": requests}),
            (_, false) => json!({"requests": requests}),
        };
        let spec = json!({"priority": priority, "containers": [{"name": "c", "resources": resources}]});
        let pod: Pod = serde_json::from_value(json!({"metadata": {"name": name, "uid": name}, "spec": spec})).unwrap();
        let held = api::pods::held(&pod);
        (Arc::new(pod), held)
    }

    fn tenants() -> Vec<Tenant> {
        vec![
            tenant("best-effort", "", "", false, 0),
            tenant("burstable", "100m", "100", false, 0),
            tenant("big-burstable", "300m", "300", false, 0),
            tenant("guaranteed", "100m", "100", true, 0),
            tenant("big-guaranteed", "300m", "300", true, 0),
            tenant("critical", "900m", "900", true, 2_000_000_000),
        ]
    }

    fn gone(short: &[(&'static str, i64)]) -> Result<Vec<String>, String> {
        let critical = tenant("new", "1", "1", false, 2_000_000_000).0;
        let short: Vec<Shortage> = short
            .iter()
            .map(|(resource, requested)| Shortage { resource, requested: *requested, used: 0, capacity: 0 })
            .collect();
        victims(&critical, &tenants(), &short)
    }

    #[test]
    fn as_few_go_as_possible_and_those_first_that_were_promised_least() {
        for (sentence, short, expected) in [
            ("one place", vec![("pods", 1)], vec!["best-effort"]),
            ("little", vec![("memory", 50)], vec!["burstable"]),
            ("more than the smaller has", vec![("memory", 150)], vec!["big-burstable"]),
            ("all the burstable", vec![("memory", 400)], vec!["big-burstable", "burstable"]),
            ("more than those", vec![("memory", 500)], vec!["big-burstable", "burstable", "guaranteed"]),
            ("two resources", vec![("memory", 10), ("cpu", 250)], vec!["big-burstable"]),
        ] {
            assert_eq!(gone(&short).unwrap(), expected, "{sentence}");
        }
        let none = gone(&[("memory", 900)]).unwrap_err();
        assert!(
            none.ends_with("no set of running pods found to reclaim resources: [(res: memory, q: 100), ]"),
            "{none}"
        );
    }

    #[test]
    fn when_they_are_gone_nobody_else_goes() {
        let gone = gone(&[("memory", 500)]).unwrap();
        let freed: Vec<Tenant> =
            tenants().into_iter().filter(|(p, _)| gone.contains(&crate::pod::uid(p).into())).collect();
        assert!(Wanted(vec![("memory", 500)]).without(&freed).0.is_empty());
    }
}
