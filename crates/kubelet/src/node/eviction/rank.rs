//! Which pod goes first when the machine runs short (`rankMemoryPressure` and its siblings in
//! `pkg/kubelet/eviction/helpers.go`): who uses more than he asked for, then who matters least, then who uses most beyond
//! what he asked for. And which pods exceed limits of their own. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::signals::{Observation, Signal, Threshold, shown};

/// From this priority on a pod is critical to the cluster and stays (`SystemCriticalPriority`).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What a pod uses at the moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodUsage {
    /// Bytes of memory by container.
    pub memory: BTreeMap<String, u64>,
    /// Bytes its containers have on disk, logs and what they wrote, by container.
    pub disk: BTreeMap<String, u64>,
    /// Bytes of its local volumes, by volume.
    pub volumes: BTreeMap<String, u64>,
    /// Files and directories of its local volumes.
    pub inodes: u64,
    /// Processes.
    pub processes: u64,
}

impl PodUsage {
    fn of(&self, signal: Signal) -> u64 {
        match signal {
            Signal::MemoryAvailable => self.memory.values().sum(),
            Signal::PidAvailable => self.processes,
            Signal::NodefsInodesFree | Signal::ImagefsInodesFree => self.inodes,
            Signal::NodefsAvailable | Signal::ImagefsAvailable => self.disk.values().chain(self.volumes.values()).sum(),
        }
    }
}

/// A pod that may go.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// What it uses.
    pub usage: &'a PodUsage,
}

/// Whether the pod stays whatever happens: one of the machine's own, or one the cluster cannot do without.
pub fn is_critical(pod: &Pod) -> bool {
    const SOURCE: &str = "kubernetes.io/config.source";
    const MIRROR: &str = "kubernetes.io/config.mirror";
    let annotations = pod.metadata.annotations.as_ref();
    let annotation = |key: &str| annotations.and_then(|annotations| annotations.get(key)).map(String::as_str);
    let is_static = annotation(SOURCE).is_some_and(|source| source != "api") || annotation(MIRROR).is_some();
    is_static || priority(pod) >= CRITICAL_PRIORITY
}

/// `spec.priority`.
pub fn priority(pod: &Pod) -> i32 {
    pod.spec.as_ref().and_then(|spec| spec.priority).unwrap_or(0)
}

/// The candidates in the order in which they go; those that stay are not among them.
pub fn rank<'a>(candidates: &[Candidate<'a>], signal: Signal) -> Vec<Candidate<'a>> {
    let mut ranked: Vec<Candidate<'a>> = candidates.iter().filter(|c| !is_critical(c.pod)).copied().collect();
    let key = |candidate: &Candidate<'_>| {
        let (used, asked) = (candidate.usage.of(signal), requested(candidate.pod, signal));
        // Process ids are not asked for: only priority and their number count.
        let within = signal != Signal::PidAvailable && used <= asked;
        let beyond = i128::from(used) - i128::from(asked);
        (within, priority(candidate.pod), -beyond, crate::pod::uid(candidate.pod).to_owned())
    };
    ranked.sort_by_cached_key(key);
    ranked
}

/// What the pod asks for of a resource, its sidecars included.
fn requested(pod: &Pod, signal: Signal) -> u64 {
    let asked = api::pods::requests(pod);
    let amount = match signal {
        Signal::PidAvailable | Signal::NodefsInodesFree | Signal::ImagefsInodesFree => 0,
        Signal::MemoryAvailable => asked.memory,
        Signal::NodefsAvailable | Signal::ImagefsAvailable => asked.ephemeral_storage,
    };
    u64::try_from(amount).unwrap_or(0)
}

fn amount(container: &Container, resource: &str, limit: bool) -> u64 {
    let resources = container.resources.as_ref();
    let amounts = resources.and_then(|r| if limit { r.limits.as_ref() } else { r.requests.as_ref() });
    let amount = amounts.and_then(|amounts| amounts.get(resource));
    amount.and_then(|amount| u64::try_from(api::quantity::of(amount).units()).ok()).unwrap_or(0)
}

/// What the pod that goes is told.
pub fn message(candidate: &Candidate<'_>, threshold: &Threshold, observed: &Observation) -> String {
    let (signal, resource) = (threshold.signal, threshold.signal.resource());
    let quantity = shown(signal, threshold.amount.of(observed.capacity));
    let available = shown(signal, observed.available);
    let mut message =
        format!("The node was low on resource: {resource}. Threshold quantity: {quantity}, available: {available}. ");
    let used = match signal {
        Signal::MemoryAvailable => &candidate.usage.memory,
        Signal::NodefsAvailable | Signal::ImagefsAvailable => &candidate.usage.disk,
        _ => return message,
    };
    for container in candidate.pod.spec.iter().flat_map(|spec| &spec.containers) {
        let (used, asked) = (used.get(&container.name).copied().unwrap_or(0), amount(container, resource, false));
        if used > asked {
            let (used, asked) = (shown(signal, used), shown(signal, asked));
            let name = &container.name;
            message.push_str(&format!(
                "Container {name} was using {used}, request is {asked}, has larger consumption of {resource}. "
            ));
        }
    }
    message
}

/// Why the pod must go for what it keeps on disk, if it must (`localStorageEviction`).
pub fn exceeded(pod: &Pod, usage: &PodUsage) -> Option<String> {
    let spec = pod.spec.as_ref()?;
    empty_dir_exceeded(spec, usage).or_else(|| pod_exceeded(spec, usage)).or_else(|| container_exceeded(spec, usage))
}

/// Whether [`exceeded`] could ever say anything of the pod, so that it is worth measuring.
pub fn is_limited(pod: &Pod) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let volumes = spec.volumes.iter().flatten().filter_map(|volume| volume.empty_dir.as_ref());
    let limited = |container: &Container| amount(container, "ephemeral-storage", true) > 0;
    volumes.into_iter().any(|source| source.size_limit.is_some()) || spec.containers.iter().any(limited)
}

fn empty_dir_exceeded(spec: &PodSpec, usage: &PodUsage) -> Option<String> {
    spec.volumes.iter().flatten().find_map(|volume| {
        let limit = volume.empty_dir.as_ref()?.size_limit.as_ref()?;
        let units = u64::try_from(api::quantity::of(limit).units()).ok().filter(|units| *units > 0)?;
        let used = *usage.volumes.get(&volume.name)?;
        (used > units)
            .then(|| format!("Usage of EmptyDir volume \"{}\" exceeds the limit \"{}\". ", volume.name, limit.0))
    })
}

fn pod_exceeded(spec: &PodSpec, usage: &PodUsage) -> Option<String> {
    let limits: Vec<u64> = spec.containers.iter().map(|c| amount(c, "ephemeral-storage", true)).collect();
    let total: u64 = limits.iter().sum();
    // A container without a limit leaves the pod without one.
    let limited = !limits.is_empty() && limits.iter().all(|limit| *limit > 0);
    let used = usage.of(Signal::NodefsAvailable);
    let total_shown = shown(Signal::NodefsAvailable, total);
    (limited && used > total)
        .then(|| format!("Pod ephemeral local storage usage exceeds the total limit of containers {total_shown}. "))
}

fn container_exceeded(spec: &PodSpec, usage: &PodUsage) -> Option<String> {
    spec.containers.iter().find_map(|container| {
        let limit = amount(container, "ephemeral-storage", true);
        let used = usage.disk.get(&container.name).copied().unwrap_or(0);
        let limit_shown = shown(Signal::NodefsAvailable, limit);
        (limit > 0 && used > limit).then(|| {
            format!("Container {} exceeded its local ephemeral storage limit \"{limit_shown}\". ", container.name)
        })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(name: &str, priority: i32, requests: Value, annotations: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": name, "uid": name, "annotations": annotations},
            "spec": {"priority": priority, "containers": [{"name": "c", "resources": {"requests": requests}}]},
        }))
        .unwrap()
    }

    fn uses(memory: u64) -> PodUsage {
        PodUsage { memory: [("c".to_owned(), memory)].into(), processes: memory, ..PodUsage::default() }
    }

    fn order(pods: &[(Pod, PodUsage)], signal: Signal) -> Vec<&str> {
        let candidates: Vec<Candidate<'_>> = pods.iter().map(|(pod, usage)| Candidate { pod, usage }).collect();
        rank(&candidates, signal).into_iter().map(|c| crate::pod::uid(c.pod)).collect()
    }

    #[test]
    fn who_exceeds_goes_first_then_who_matters_least_then_who_uses_most() {
        let asked = || json!({"memory": "100"});
        let pods = [
            (pod("within-low", -5, asked(), json!({})), uses(100)),
            (pod("beyond-high", 10, asked(), json!({})), uses(101)),
            (pod("beyond-little", 0, asked(), json!({})), uses(150)),
            (pod("beyond-much", 0, json!({}), json!({})), uses(149)),
            (pod("within", 0, asked(), json!({})), uses(50)),
            (pod("critical", 2_000_000_000, json!({}), json!({})), uses(9999)),
            (pod("static", 0, json!({}), json!({"kubernetes.io/config.source": "file"})), uses(9999)),
        ];
        let memory = order(&pods, Signal::MemoryAvailable);
        assert_eq!(memory, ["beyond-much", "beyond-little", "beyond-high", "within-low", "within"]);
        let pids = order(&pods, Signal::PidAvailable);
        assert_eq!(pids, ["within-low", "beyond-little", "beyond-much", "within", "beyond-high"]);
        assert_eq!(order(&pods[5..], Signal::MemoryAvailable), [""; 0], "what stays, stays");
    }

    #[test]
    fn what_sidecars_ask_for_counts_and_entries_are_not_bytes() {
        let sidecar: Pod = serde_json::from_value(json!({"metadata": {"uid": "sidecar"}, "spec": {
            "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"memory": "100"}}}],
            "containers": [{"name": "c"}]}}))
        .unwrap();
        let pods = [(sidecar, uses(90)), (pod("alone", 0, json!({}), json!({})), uses(10))];
        assert_eq!(
            order(&pods, Signal::MemoryAvailable),
            ["alone", "sidecar"],
            "who stays within what it asked for stays"
        );

        let on_disk =
            |bytes, inodes| PodUsage { disk: [("c".to_owned(), bytes)].into(), inodes, ..PodUsage::default() };
        let pods = [
            (pod("large", 0, json!({}), json!({})), on_disk(1 << 40, 1)),
            (pod("many", 0, json!({}), json!({})), on_disk(1, 1 << 20)),
        ];
        for (signal, expected) in [
            (Signal::NodefsAvailable, ["large", "many"]),
            (Signal::ImagefsAvailable, ["large", "many"]),
            (Signal::NodefsInodesFree, ["many", "large"]),
            (Signal::ImagefsInodesFree, ["many", "large"]),
        ] {
            assert_eq!(order(&pods, signal), expected, "{signal:?}");
        }
    }

    #[test]
    fn the_one_that_goes_is_told_why_in_upstreams_words() {
        let (pod, usage) = (pod("p", 0, json!({"memory": "1Mi"}), json!({})), uses(64 << 20));
        let threshold: Threshold = "memory.available<100Mi".parse().unwrap();
        let observed = Observation { available: 52_428_800, capacity: 1 << 30 };
        assert_eq!(
            message(&Candidate { pod: &pod, usage: &usage }, &threshold, &observed),
            "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 64Mi, \
             request is 1Mi, has larger consumption of memory. "
        );
    }

    #[test]
    fn local_storage_has_limits_of_its_own() {
        let limited = |limit: Option<&str>, size: Option<&str>| -> Pod {
            serde_json::from_value(json!({"spec": {
                "containers": [{"name": "c", "resources": {"limits": limit.map(|l| json!({"ephemeral-storage": l}))}}],
                "volumes": [{"name": "v", "emptyDir": {"sizeLimit": size}}],
            }}))
            .unwrap()
        };
        let used = |disk: u64, volume: u64| PodUsage {
            disk: [("c".to_owned(), disk)].into(),
            volumes: [("v".to_owned(), volume)].into(),
            ..PodUsage::default()
        };
        for (pod, usage, expected) in [
            (
                limited(None, Some("1Mi")),
                used(0, (1 << 20) + 1),
                Some("Usage of EmptyDir volume \"v\" exceeds the limit \"1Mi\". "),
            ),
            (limited(None, Some("1Mi")), used(9 << 20, 1 << 20), None),
            (
                limited(Some("2Mi"), None),
                used(1 << 20, 2 << 20),
                Some("Pod ephemeral local storage usage exceeds the total limit of containers 2Mi. "),
            ),
            (limited(Some("2Mi"), None), used(2 << 20, 0), None),
            (limited(None, None), used(1 << 40, 1 << 40), None),
        ] {
            assert_eq!(exceeded(&pod, &usage).as_deref(), expected);
        }
        assert!(is_limited(&limited(None, Some("1Mi"))) && is_limited(&limited(Some("1Mi"), None)));
        assert!(!is_limited(&limited(None, None)));
        let spec = limited(Some("2Mi"), None).spec.unwrap();
        let alone = container_exceeded(&spec, &used(3 << 20, 0)).unwrap();
        assert_eq!(alone, "Container c exceeded its local ephemeral storage limit \"2Mi\". ");
    }

    proptest::proptest! {
        #[test]
        fn whoever_goes_the_order_of_the_others_stays_and_at_last_none_is_left(
            all in proptest::collection::vec((-2..3i32, 0..3u64, 0..4u64, 0..8u8), 0..9),
            memory in proptest::bool::ANY,
        ) {
            let signal = if memory { Signal::MemoryAvailable } else { Signal::PidAvailable };
            let pods: Vec<(Pod, PodUsage)> = all.into_iter().enumerate().map(|(index, (level, asked, used, sort))| {
                let priority = if sort == 0 { CRITICAL_PRIORITY } else { level };
                (pod(&index.to_string(), priority, json!({"memory": asked.to_string()}), json!({})), uses(used))
            }).collect();
            let mut left: Vec<Candidate<'_>> = pods.iter().map(|(pod, usage)| Candidate { pod, usage }).collect();
            let uids = |ranked: &[Candidate<'_>]| -> Vec<String> {
                ranked.iter().map(|one| crate::pod::uid(one.pod).to_owned()).collect()
            };
            let mut expected = uids(&rank(&left, signal));
            while !expected.is_empty() {
                let gone = expected.remove(0);
                left.retain(|one| crate::pod::uid(one.pod) != gone);
                proptest::prop_assert_eq!(uids(&rank(&left, signal)), expected.clone());
            }
            proptest::prop_assert!(left.iter().all(|one| is_critical(one.pod)), "only those stay that always do");
        }
    }
}
