//! What the controllers keep of a pod: who it is, who owns it, where it is and how it fares. Everything else is read by
//! nobody here, and ten thousand whole pods would be most of the process. What pods of one template have in common is
//! kept once.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use api::{Interner, pods};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Pod, PodSpec, ResourceRequirements, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use parking_lot::Mutex;

/// A pod's owner may say how dear it is; cheaper ones go first.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// One pod, as the controllers see it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct PodInfo {
    /// Namespace.
    pub(crate) namespace: Arc<str>,
    /// Name.
    pub(crate) name: Box<str>,
    /// UID.
    pub(crate) uid: Box<str>,
    /// The resource version this was made of.
    pub(crate) version: Box<str>,
    /// What it has in common with others.
    pub(crate) common: Arc<Common>,
    /// The node it is bound to.
    pub(crate) node: Option<Arc<str>>,
    /// When it was made.
    pub(crate) created: Option<Timestamp>,
    /// When it should be gone; `None` unless someone asked for its deletion.
    pub(crate) deletion: Option<Timestamp>,
    /// Its addresses, the first one first.
    pub(crate) ips: Box<[Box<str>]>,
    /// How far it has come.
    pub(crate) phase: Phase,
    /// Whether its `Ready` condition is true.
    pub(crate) ready: bool,
    /// When that became so.
    pub(crate) ready_changed: Option<Timestamp>,
    /// The most restarts of one of its containers.
    pub(crate) restarts: i32,
    /// How dear it is to its owner.
    pub(crate) deletion_cost: i32,
    /// The kubelet ended it to save its node.
    pub(crate) evicted: bool,
    /// Its `DisruptionTarget` condition is true.
    pub(crate) disrupted: bool,
    /// It stands for one that a kubelet read from a file or URL.
    pub(crate) mirror: bool,
    /// A number that differs where the pod, being resized, takes more or less.
    pub(crate) asks: u64,
}

/// What pods of one template have in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Common {
    /// Labels.
    pub(crate) labels: BTreeMap<String, String>,
    /// What it belongs to.
    pub(crate) owners: Vec<OwnerReference>,
    /// What keeps it from going.
    pub(crate) finalizers: Vec<String>,
    /// The name it asks for below that of `subdomain`.
    pub(crate) hostname: Option<String>,
    /// The service it asks for a name below.
    pub(crate) subdomain: Option<String>,
    /// The container ports that have a name.
    pub(crate) ports: Vec<NamedPort>,
    /// Taints it bears.
    pub(crate) tolerations: Vec<Toleration>,
}

/// A container port with a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NamedPort {
    /// Its name.
    pub(crate) name: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub(crate) protocol: String,
    /// Its number.
    pub(crate) port: i32,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Not all containers have started, or nobody has said anything yet.
    #[default]
    Pending,
    /// Its node cannot be asked.
    Unknown,
    /// It has containers that run.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, and one not well.
    Failed,
}

/// Makes [`PodInfo`]s.
#[derive(Default)]
pub(crate) struct Keeper {
    shared: Mutex<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Names of namespaces and nodes.
    names: Interner<str>,
    common: Interner<Common>,
}

impl Keeper {
    /// What is kept of `pod`.
    pub(crate) fn keep(&self, pod: &Pod) -> PodInfo {
        let common = Common::of(pod);
        let mut shared = self.shared.lock();
        PodInfo {
            namespace: shared.names.share(pod.metadata.namespace.as_deref().unwrap_or_default()),
            node: pods::node_name(pod).map(|node| shared.names.share(node)),
            common: shared.common.share(&common),
            ..PodInfo::alone(pod)
        }
    }
}

impl PodInfo {
    /// What is the pod's own.
    fn alone(pod: &Pod) -> PodInfo {
        let text = |field: &Option<String>| field.as_deref().unwrap_or_default().into();
        let metadata = &pod.metadata;
        let ready = pods::condition(pod, "Ready");
        PodInfo {
            name: text(&metadata.name),
            uid: text(&metadata.uid),
            version: text(&metadata.resource_version),
            created: metadata.creation_timestamp.as_ref().map(|time| time.0),
            deletion: metadata.deletion_timestamp.as_ref().map(|time| time.0),
            ips: ips(pod),
            phase: Phase::of(pods::phase(pod)),
            ready: ready.is_some_and(|ready| ready.status == "True"),
            ready_changed: ready.and_then(|ready| ready.last_transition_time.as_ref()).map(|time| time.0),
            restarts: restarts(pod),
            deletion_cost: deletion_cost(metadata),
            evicted: pod.status.as_ref().is_some_and(|status| status.reason.as_deref() == Some("Evicted")),
            disrupted: pods::condition(pod, "DisruptionTarget").is_some_and(|c| c.status == "True"),
            mirror: pods::is_mirror(pod),
            asks: asks(pod),
            ..PodInfo::default()
        }
    }

    /// Since when it is ready, while it is.
    pub(crate) fn ready_since(&self) -> Option<Timestamp> {
        self.ready_changed.filter(|_| self.ready)
    }

    /// Whether it has ended for good.
    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// Whether someone asked for its deletion.
    pub(crate) fn is_terminating(&self) -> bool {
        self.deletion.is_some()
    }

    /// Its labels.
    pub(crate) fn labels(&self) -> &BTreeMap<String, String> {
        &self.common.labels
    }

    /// The owner that decides about it.
    pub(crate) fn controller(&self) -> Option<&OwnerReference> {
        self.common.owners.iter().find(|owner| owner.controller == Some(true))
    }

    /// Its metadata, without annotations: for those who look at objects of all kinds.
    pub(crate) fn metadata(&self) -> ObjectMeta {
        let list = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
        ObjectMeta {
            namespace: Some(self.namespace.to_string()),
            name: Some(self.name.to_string()),
            uid: Some(self.uid.to_string()),
            resource_version: Some(self.version.to_string()),
            creation_timestamp: self.created.map(Time),
            deletion_timestamp: self.deletion.map(Time),
            labels: (!self.labels().is_empty()).then(|| self.labels().clone()),
            owner_references: (!self.common.owners.is_empty()).then(|| self.common.owners.clone()),
            finalizers: list(&self.common.finalizers),
            ..ObjectMeta::default()
        }
    }

    /// The object, as Events name it.
    pub(crate) fn reference(&self) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(self.namespace.to_string()),
            name: Some(self.name.to_string()),
            uid: Some(self.uid.to_string()),
            resource_version: Some(self.version.to_string()),
            field_path: None,
        }
    }
}

/// The addresses; `podIPs` has them all, but a status written before there was such a list has only `podIP`.
fn ips(pod: &Pod) -> Box<[Box<str>]> {
    let Some(status) = &pod.status else { return Box::default() };
    let listed = status.pod_ips.iter().flatten().map(|ip| ip.ip.as_str());
    let mut ips: Vec<Box<str>> = Vec::new();
    for ip in listed.chain(status.pod_ip.as_deref()) {
        if !ip.is_empty() && !ips.iter().any(|known| **known == *ip) {
            ips.push(ip.into());
        }
    }
    ips.into()
}

fn asks(pod: &Pod) -> u64 {
    let mut hasher = DefaultHasher::new();
    let add = |resources: Option<&ResourceRequirements>, hasher: &mut DefaultHasher| {
        let halves = resources.into_iter().flat_map(|r| [&r.requests, &r.limits]).flatten().flatten();
        halves.for_each(|(name, amount)| (name, &amount.0).hash(hasher));
    };
    for container in pod.spec.iter().flat_map(pods::all_containers) {
        add(container.resources.as_ref(), &mut hasher);
    }
    let statuses = pod.status.iter().flat_map(|s| [&s.container_statuses, &s.init_container_statuses]);
    for status in statuses.flatten().flatten() {
        add(status.resources.as_ref(), &mut hasher);
        status.allocated_resources.iter().flatten().for_each(|(name, amount)| (name, &amount.0).hash(&mut hasher));
    }
    // What a node will never give is not held either.
    pods::resize_is_infeasible(pod).hash(&mut hasher);
    hasher.finish()
}

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
    statuses.into_iter().flatten().map(|status| status.restart_count).max().unwrap_or(0)
}

fn deletion_cost(metadata: &ObjectMeta) -> i32 {
    let cost = metadata.annotations.as_ref().and_then(|annotations| annotations.get(DELETION_COST));
    cost.and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

impl Common {
    fn of(pod: &Pod) -> Common {
        let (metadata, spec) = (&pod.metadata, pod.spec.as_ref());
        Common {
            labels: metadata.labels.clone().unwrap_or_default(),
            owners: metadata.owner_references.clone().unwrap_or_default(),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            hostname: spec.and_then(|spec| spec.hostname.clone()),
            subdomain: spec.and_then(|spec| spec.subdomain.clone()),
            ports: spec.map(named_ports).unwrap_or_default(),
            tolerations: spec.and_then(|spec| spec.tolerations.clone()).unwrap_or_default(),
        }
    }
}

/// Those of containers, then those of sidecars: of two with one name the first counts (`FindPort` in
/// `pkg/api/v1/pod/util.go`).
fn named_ports(spec: &PodSpec) -> Vec<NamedPort> {
    let sidecars = spec.init_containers.iter().flatten().filter(|container| pods::is_sidecar(container));
    let ports = spec.containers.iter().chain(sidecars).flat_map(|container| container.ports.iter().flatten());
    let named = ports.filter_map(|port| {
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some(NamedPort { name: port.name.clone()?, protocol, port: port.container_port })
    });
    named.collect()
}

impl Eq for Common {}

impl Hash for Common {
    /// By what tells templates apart; the types of the API have no hash of their own.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels.hash(state);
        self.owners.iter().for_each(|owner| owner.uid.hash(state));
        self.hostname.hash(state);
        self.ports.hash(state);
    }
}

impl Phase {
    fn of(phase: &str) -> Phase {
        match phase {
            "" | "Pending" => Phase::Pending,
            "Succeeded" => Phase::Succeeded,
            "Failed" => Phase::Failed,
            "Unknown" => Phase::Unknown,
            _ => Phase::Running,
        }
    }
}

#[cfg(test)]
mod tests;
