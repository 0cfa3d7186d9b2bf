//! Whether a pod that was bound to this node fits it: the scheduler may have known less, or not have been asked
//! (`pkg/kubelet/lifecycle/predicate.go`, `Admit` in `pkg/kubelet/eviction/eviction_manager.go`). Pure.

use api::affinity::{Affinity, Labels};
use api::pods::{HostPort, Requests};
use k8s_openapi::api::core::v1::{Pod, Taint};

use super::admit::{Abilities, Refusal, refusal};
use crate::node::allocations::Room;
use crate::node::eviction::rank::is_critical;
use crate::node::eviction::signals::Pressure;
use crate::sources::is_static;

/// What is known of the node when a pod is judged.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// What it runs short of.
    pub pressure: Pressure,
    /// What it can do.
    pub abilities: Abilities,
}

/// What the pods that are here already take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How many they are.
    pub pods: i64,
    /// Together.
    pub held: Requests,
    /// Ports of the node.
    pub ports: Vec<HostPort>,
}

/// Something of which the node has too little left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// `cpu`.
    pub resource: &'static str,
    /// What the pod wants.
    pub requested: i64,
    /// What others have.
    pub used: i64,
    /// What there is.
    pub capacity: i64,
}

impl Shortage {
    /// How much would have to become free.
    pub fn missing(&self) -> i64 {
        self.requested.saturating_sub(self.capacity.saturating_sub(self.used))
    }

    /// What is said of it.
    pub fn refusal(&self) -> Refusal {
        let Shortage { resource, requested, used, capacity } = self;
        let reason = match *resource {
            "cpu" => "OutOfcpu",
            "memory" => "OutOfmemory",
            "ephemeral-storage" => "OutOfephemeral-storage",
            _ => "OutOfpods",
        };
        let message = format!(
            "Node didn't have enough resource: {resource}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Refusal { reason, message }
    }
}

/// How a pod is judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It may run.
    Fits,
    /// It may not.
    Refused(Refusal),
    /// It may once so much is free, and that is worth ending others for.
    Presses(Vec<Shortage>),
}

/// Judges `pod`, which is to join those that have `taken` what they have of `room`.
pub fn judge(pod: &Pod, facts: &Facts, room: &Room, taken: &Taken) -> Judgement {
    if let Some(refused) = under_pressure(pod, facts.pressure).or_else(|| refusal(pod, facts.abilities)) {
        return Judgement::Refused(refused);
    }
    let short = shortages(pod, room, taken);
    let unfit = unfit(pod, facts, taken);
    // Critical ones never fail for want of room (`HandleAdmissionFailure`); of others the first reason is told.
    let first = short.first().map(Shortage::refusal).filter(|_| !is_critical(pod));
    match first.or(unfit) {
        Some(refused) => Judgement::Refused(refused),
        None if short.is_empty() => Judgement::Fits,
        None => Judgement::Presses(short),
    }
}

/// A node that runs short takes only what it cannot do without, and, where it is memory that is short, what says how much
/// it needs.
fn under_pressure(pod: &Pod, pressure: Pressure) -> Option<Refusal> {
    if pressure == Pressure::default() || is_critical(pod) {
        return None;
    }
    if pressure == (Pressure { memory: true, ..Pressure::default() }) {
        let taint = Taint {
            key: api::well_known::TAINT_MEMORY_PRESSURE.to_owned(),
            effect: "NoSchedule".to_owned(),
            ..Taint::default()
        };
        let tolerations = pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default();
        if api::pods::qos_class(pod) != "BestEffort" || api::nodes::tolerates(&taint, tolerations) {
            return None;
        }
    }
    Some(Refusal { reason: "Evicted", message: format!("The node had condition: {pressure}. ") })
}

/// In the order of `fitsRequest` in `pkg/scheduler/framework/plugins/noderesources/fit.go`.
fn shortages(pod: &Pod, room: &Room, taken: &Taken) -> Vec<Shortage> {
    let (wanted, used, all) = (api::pods::held(pod), taken.held, room.allocatable);
    let of = |resource, requested, used, capacity| Shortage { resource, requested, used, capacity };
    let asked = [
        of("cpu", wanted.milli_cpu, used.milli_cpu, all.milli_cpu),
        of("memory", wanted.memory, used.memory, all.memory),
        of("ephemeral-storage", wanted.ephemeral_storage, used.ephemeral_storage, all.ephemeral_storage),
    ];
    let pods = of("pods", 1, taken.pods, room.pods);
    let asked = asked.into_iter().filter(|s| s.requested > 0);
    std::iter::once(pods).chain(asked).filter(|s| s.requested > s.capacity.saturating_sub(s.used)).collect()
}

/// What else keeps the pod from running here (`AdmissionCheck` in `pkg/scheduler/eventhandlers.go`).
fn unfit(pod: &Pod, facts: &Facts, taken: &Taken) -> Option<Refusal> {
    let because =
        |reason: &'static str, why: &str| Refusal { reason, message: format!("Predicate {reason} failed: {why}") };
    let spec = pod.spec.as_ref()?;
    if !Affinity::of(spec).admits(&facts.name, &facts.labels) {
        return Some(because("NodeAffinity", "node(s) didn't match Pod's node affinity/selector"));
    }
    let ports = api::pods::host_ports(pod);
    if ports.iter().any(|port| taken.ports.iter().any(|held| held.conflicts_with(port))) {
        return Some(because("NodePorts", "node(s) didn't have free ports for the requested pod ports"));
    }
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let expels = |taint: &&Taint| taint.effect == "NoExecute" && !api::nodes::tolerates(taint, tolerations);
    if !is_static(pod) && facts.taints.iter().any(|taint| expels(&taint)) {
        return Some(because("TaintToleration", "node(s) had taints that the pod didn't tolerate"));
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::pod;
    use super::*;

    fn wants(requests: Value) -> Value {
        json!({"containers": [{"name": "c", "resources": {"requests": requests}}]})
    }

    fn with_port(port: i32) -> Value {
        json!({"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": port}]}]})
    }

    fn room() -> Room {
        let allocatable = Requests { milli_cpu: 4000, memory: 1000, ephemeral_storage: 500 };
        Room { allocatable, capacity: allocatable, pods: 3 }
    }

    fn taken() -> Taken {
        let held = Requests { milli_cpu: 1000, memory: 900, ephemeral_storage: 0 };
        Taken { pods: 2, held, ports: api::pods::host_ports(&pod(with_port(80))) }
    }

    fn facts() -> Facts {
        let labels = [("disk".to_owned(), "ssd".to_owned())].into();
        Facts { name: "box1".into(), labels, ..Facts::default() }
    }

    fn critical(mut spec: Value) -> Value {
        spec["priority"] = json!(2_000_000_000);
        spec
    }

    /// `reason: message`, or what else is said.
    fn said(spec: Value, facts: &Facts, taken: &Taken) -> String {
        match judge(&pod(spec), facts, &room(), taken) {
            Judgement::Fits => "fits".to_owned(),
            Judgement::Refused(refusal) => format!("{}: {}", refusal.reason, refusal.message),
            Judgement::Presses(short) => {
                let one = |s: &Shortage| format!("{} {}", s.resource, s.missing());
                format!("presses: {}", short.iter().map(one).collect::<Vec<_>>().join(", "))
            }
        }
    }

    #[test]
    fn a_pod_that_does_not_fit_is_refused_in_upstreams_words() {
        let no_room = "Node didn't have enough resource:";
        let selects = |value: &str| json!({"containers": [{"name": "c"}], "nodeSelector": {"disk": value}});
        for (sentence, spec, expected) in [
            ("exactly what is left", wants(json!({"cpu": "3", "memory": "100"})), "fits".to_owned()),
            (
                "too much cpu",
                wants(json!({"cpu": "3001m"})),
                format!("OutOfcpu: {no_room} cpu, requested: 3001, used: 1000, capacity: 4000"),
            ),
            (
                "too much memory",
                wants(json!({"memory": "101"})),
                format!("OutOfmemory: {no_room} memory, requested: 101, used: 900, capacity: 1000"),
            ),
            (
                "too much of both: the first is told",
                wants(json!({"cpu": "4", "memory": "101"})),
                format!("OutOfcpu: {no_room} cpu, requested: 4000, used: 1000, capacity: 4000"),
            ),
            (
                "too much disk",
                wants(json!({"ephemeral-storage": "501"})),
                format!("OutOfephemeral-storage: {no_room} ephemeral-storage, requested: 501, used: 0, capacity: 500"),
            ),
            (
                "another label",
                selects("hdd"),
                "NodeAffinity: Predicate NodeAffinity failed: node(s) didn't match Pod's node affinity/selector".into(),
            ),
            ("its label", selects("ssd"), "fits".into()),
            (
                "a port that is taken",
                with_port(80),
                "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
                    .into(),
            ),
            ("another port", with_port(81), "fits".into()),
            ("what the node cannot do", json!({"os": {"name": "windows"}, "containers": []}), {
                "PodOSNotSupported: Failed to admit pod as the OS field doesn't match node OS".into()
            }),
            ("a critical one presses", critical(wants(json!({"cpu": "4", "memory": "101"}))), {
                "presses: cpu 1000, memory 1".into()
            }),
            ("a critical one has no port either", critical(with_port(80)), {
                "NodePorts: Predicate NodePorts failed: node(s) didn't have free ports for the requested pod ports"
                    .into()
            }),
        ] {
            assert_eq!(said(spec, &facts(), &taken()), expected, "{sentence}");
        }
        let full = Taken { pods: 3, ..taken() };
        let message = format!("OutOfpods: {no_room} pods, requested: 1, used: 3, capacity: 3");
        assert_eq!(said(json!({"containers": []}), &facts(), &full), message);
    }

    #[test]
    fn taints_that_expel_keep_pods_out() {
        let taint = |effect: &str| Taint { key: "k".into(), effect: effect.into(), ..Taint::default() };
        let tolerates = json!({"containers": [], "tolerations": [{"key": "k", "operator": "Exists"}]});
        for (effect, spec, expected) in [
            ("NoExecute", json!({"containers": []}), "TaintToleration"),
            ("NoExecute", tolerates, "fits"),
            ("NoSchedule", json!({"containers": []}), "fits"),
        ] {
            let facts = Facts { taints: vec![taint(effect)], ..facts() };
            assert!(said(spec.clone(), &facts, &taken()).starts_with(expected), "{effect} {spec}");
        }
    }

    #[test]
    fn a_node_that_runs_short_takes_few() {
        let memory = Pressure { memory: true, ..Pressure::default() };
        let both = Pressure { disk: true, ..memory };
        let plain = || json!({"containers": [{"name": "c"}]});
        let mut tolerant = plain();
        tolerant["tolerations"] = json!([{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}]);
        for (sentence, spec, pressure, expected) in [
            ("best effort", plain(), memory, "Evicted: The node had condition: [MemoryPressure]. "),
            ("tolerated", tolerant.clone(), memory, "fits"),
            ("it says what it needs", wants(json!({"memory": "1"})), memory, "fits"),
            ("disk is for all", tolerant, both, "Evicted: The node had condition: [MemoryPressure DiskPressure]. "),
            ("but the critical", critical(plain()), both, "fits"),
        ] {
            let facts = Facts { pressure, ..facts() };
            assert_eq!(said(spec, &facts, &taken()), expected, "{sentence}");
        }
    }
}
