//! What the scheduler keeps of a pod: who it is and what it demands. The rest of the object is not looked at again.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::affinity::Affinity;
use api::pods::HostPort;
use api::{owners, pods};
use k8s_openapi::api::core::v1::{Container, ObjectReference, Pod, PodSpec, Toleration};

use crate::resources::{self, Resources};
use crate::storage::Volumes;

/// What a container without a CPU request counts for in scores, so that such pods spread too
/// (`DefaultMilliCPURequest`).
const DEFAULT_MILLI_CPU: i128 = 100;
/// The same for memory (`DefaultMemoryRequest`).
const DEFAULT_MEMORY: i128 = 200 << 20;

/// A pod's UID.
pub type Uid = Arc<str>;

/// One pod, as the scheduler sees it.
#[derive(Clone, Debug, Default)]
pub struct PodInfo {
    /// Identity: a pod of the same name made later is another pod.
    pub uid: Uid,
    /// Where it lives.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it asks of a node.
    pub demand: Demand,
    /// Names of the claims its volumes are.
    pub claims: Vec<String>,
    /// The message of its `PodScheduled=False` condition, where it was written.
    pub reported: Option<String>,
}

/// Everything about a pod that decides where it may go and what it takes there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Demand {
    /// Higher is served first.
    pub priority: i32,
    /// UID of the controller that made it.
    pub controller: Option<Arc<str>>,
    /// What it takes of the node.
    pub requests: Resources,
    /// CPU for scores: as requested, with a default for containers that request none.
    pub scoring_milli_cpu: i128,
    /// Memory for scores.
    pub scoring_memory: i128,
    /// Ports on the node's own addresses.
    pub host_ports: Vec<HostPort>,
    /// The node named in the spec.
    pub node_name: Option<String>,
    /// Node selector and node affinity.
    pub affinity: Affinity,
    /// Taints it bears.
    pub tolerations: Vec<Toleration>,
    /// What its claims demand, as far as that is known ([`crate::storage`]).
    pub volumes: Volumes,
}

/// What an observed pod means to the scheduler.
#[derive(Clone, Debug)]
pub enum Observed {
    /// It wants a node from us.
    Waiting(Arc<PodInfo>),
    /// It takes room on a node, whoever put it there.
    Placed {
        /// The pod.
        pod: Arc<PodInfo>,
        /// Its node.
        node: String,
    },
    /// It has ended and takes no room any more.
    Finished,
    /// It takes no room and wants nothing from us: gated, on its way out, or another scheduler's.
    NotOurs,
}

/// Judges `pod` for the scheduler of that name.
pub fn observe(pod: &Pod, scheduler_name: &str) -> Observed {
    if pods::is_terminal(pod) || has_ended(pod) {
        return Observed::Finished;
    }
    if let Some(node) = pods::node_name(pod) {
        return Observed::Placed { pod: Arc::new(PodInfo::of(pod)), node: node.to_owned() };
    }
    if pods::is_terminating(pod) || !is_for(pod, scheduler_name) {
        return Observed::NotOurs;
    }
    Observed::Waiting(Arc::new(PodInfo::of(pod)))
}

/// Whether the pod is being deleted and all its containers have ended already.
fn has_ended(pod: &Pod) -> bool {
    let containers = pod.spec.as_ref().map_or(0, |spec| spec.containers.len());
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    let all_ended = statuses.is_some_and(|statuses| {
        let ended = |s: &k8s_openapi::api::core::v1::ContainerStatus| {
            s.state.as_ref().is_some_and(|state| state.terminated.is_some())
        };
        statuses.len() >= containers && containers > 0 && statuses.iter().all(ended)
    });
    pods::is_terminating(pod) && all_ended
}

fn is_for(pod: &Pod, scheduler_name: &str) -> bool {
    let Some(spec) = &pod.spec else { return false };
    let named = spec.scheduler_name.as_deref().unwrap_or(crate::DEFAULT_SCHEDULER_NAME);
    named == scheduler_name && spec.scheduling_gates.as_ref().is_none_or(Vec::is_empty)
}

impl PodInfo {
    /// What is kept of `pod`.
    pub fn of(pod: &Pod) -> PodInfo {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        PodInfo {
            uid: text(&pod.metadata.uid).into(),
            namespace: text(&pod.metadata.namespace),
            name: text(&pod.metadata.name),
            demand: Demand::of(pod),
            claims: claims(pod),
            reported: reported_refusal(pod),
        }
    }

    /// The object, as Events name it.
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.namespace.clone()),
            name: Some(self.name.clone()),
            uid: Some(self.uid.to_string()),
            ..ObjectReference::default()
        }
    }
}

fn claims(pod: &Pod) -> Vec<String> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    volumes.filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone())).collect()
}

fn reported_refusal(pod: &Pod) -> Option<String> {
    let condition = pods::condition(pod, "PodScheduled")?;
    let refused = condition.status == "False" && condition.reason.as_deref() == Some("Unschedulable");
    condition.message.clone().filter(|_| refused)
}

impl Demand {
    fn of(pod: &Pod) -> Demand {
        let Some(spec) = &pod.spec else { return Demand::default() };
        let summed = pods::held(pod);
        let requests = Resources {
            milli_cpu: summed.milli_cpu.into(),
            memory: summed.memory.into(),
            ephemeral_storage: summed.ephemeral_storage.into(),
            scalars: scalar_requests(spec),
        };
        let silent = |resource: &str| -> i128 {
            spec.containers.iter().filter(|c| !requests_resource(c, resource)).map(|_| 1).sum()
        };
        Demand {
            priority: spec.priority.unwrap_or(0),
            controller: owners::controller_of(&pod.metadata).map(|owner| owner.uid.as_str().into()),
            scoring_milli_cpu: requests.milli_cpu + silent("cpu") * DEFAULT_MILLI_CPU,
            scoring_memory: requests.memory + silent("memory") * DEFAULT_MEMORY,
            requests,
            host_ports: pods::host_ports(pod),
            node_name: pods::node_name(pod).map(str::to_owned),
            affinity: Affinity::of(spec),
            tolerations: spec.tolerations.clone().unwrap_or_default(),
            volumes: Volumes::default(),
        }
    }
}

fn requests_resource(container: &Container, resource: &str) -> bool {
    let requests = container.resources.as_ref().and_then(|r| r.requests.as_ref());
    requests.is_some_and(|requests| requests.contains_key(resource))
}

/// Extended resources: the sum of what runs together, or the greatest of an init container where that is more.
fn scalar_requests(spec: &PodSpec) -> BTreeMap<String, i128> {
    let mut sum = Resources::default();
    let (sidecars, init): (Vec<_>, Vec<_>) =
        spec.init_containers.iter().flatten().partition(|container| pods::is_sidecar(container));
    for container in sidecars.into_iter().chain(&spec.containers) {
        sum.add(&Resources { scalars: scalars_of(container), ..Resources::default() });
    }
    for container in init {
        for (name, amount) in scalars_of(container) {
            let held = sum.scalars.entry(name).or_insert(0);
            *held = amount.max(*held);
        }
    }
    sum.scalars
}

fn scalars_of(container: &Container) -> BTreeMap<String, i128> {
    let requests = container.resources.iter().flat_map(|r| r.requests.iter().flatten());
    let scalars = requests.filter(|(name, _)| resources::is_scalar(name));
    scalars.map(|(name, amount)| (name.clone(), api::quantity::of(amount).units().into())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn seen(change: impl FnOnce(&mut Value)) -> Observed {
        let mut pod = json!({
            "metadata": {"name": "p", "namespace": "d", "uid": "u"},
            "spec": {"schedulerName": "default-scheduler", "containers": [{"name": "c"}]},
            "status": {"phase": "Pending"},
        });
        change(&mut pod);
        observe(&serde_json::from_value(pod).unwrap(), "default-scheduler")
    }

    #[test]
    fn a_pod_is_judged_by_phase_node_and_scheduler() {
        let name = |observed: &Observed| match observed {
            Observed::Waiting(_) => "waiting",
            Observed::Placed { .. } => "placed",
            Observed::Finished => "finished",
            Observed::NotOurs => "not ours",
        };
        type Case = (&'static str, fn(&mut Value), &'static str);
        let table: &[Case] = &[
            ("new", |_| (), "waiting"),
            ("bound and pending", |p| p["spec"]["nodeName"] = json!("n"), "placed"),
            ("an empty node name is none", |p| p["spec"]["nodeName"] = json!(""), "waiting"),
            ("succeeded", |p| p["status"]["phase"] = json!("Succeeded"), "finished"),
            ("another scheduler's", |p| p["spec"]["schedulerName"] = json!("other"), "not ours"),
            ("gated", |p| p["spec"]["schedulingGates"] = json!([{"name": "g"}]), "not ours"),
            ("terminating", |p| p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"), "not ours"),
            (
                "terminating on a node",
                |p| {
                    p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                    p["spec"]["nodeName"] = json!("n");
                },
                "placed",
            ),
            (
                "terminating with every container ended",
                |p| {
                    p["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
                    p["spec"]["nodeName"] = json!("n");
                    p["status"]["containerStatuses"] = json!([{"name": "c", "image": "i", "imageID": "", "ready": false,
                        "restartCount": 0, "state": {"terminated": {"exitCode": 0}}}]);
                },
                "finished",
            ),
        ];
        for (sentence, change, expected) in table {
            assert_eq!(name(&seen(*change)), *expected, "{sentence}");
        }
    }

    #[test]
    fn silent_containers_count_with_defaults_in_scores_only() {
        let Observed::Waiting(pod) = seen(|p| {
            p["spec"]["containers"] = json!([
                {"name": "a"},
                {"name": "b", "resources": {"requests": {"cpu": "250m", "memory": "1Gi", "example.com/gpu": "2"}}},
            ]);
        }) else {
            panic!("it waits")
        };
        assert_eq!((pod.demand.requests.milli_cpu, pod.demand.requests.memory), (250, 1 << 30));
        assert_eq!((pod.demand.scoring_milli_cpu, pod.demand.scoring_memory), (350, (1 << 30) + (200 << 20)));
        assert_eq!(pod.demand.requests.scalars["example.com/gpu"], 2);
    }

    #[test]
    fn the_refusal_written_earlier_is_known() {
        let Observed::Waiting(pod) = seen(|p| {
            p["status"]["conditions"] =
                json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "m"}]);
        }) else {
            panic!("it waits")
        };
        assert_eq!(pod.reported.as_deref(), Some("m"));
    }
}
