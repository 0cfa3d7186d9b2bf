//! Who may join the pods of the node. Pods are judged as they come, those that were there when the kubelet started in the
//! order of their creation once all are known; a static pod waits for nobody. A pod the API shows to have begun here is not
//! judged again, so no restart of the kubelet ends what runs (`AddPod` in `pkg/kubelet/allocation/allocation_manager.go`,
//! `HandlePodAdditions` in `pkg/kubelet/kubelet.go`).

use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;
use tokio::sync::Notify;

use super::{Allocations, Claim, Table};
use crate::node::preemption;
use crate::pod::admit::Refusal;
use crate::pod::fit::{Facts, Judgement, Taken, judge};
use crate::sources::is_static;

/// How the node stands to a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is not judged yet, or others are on their way out for its sake.
    Waits,
    /// It may run.
    Admitted,
    /// It may not.
    Refused(Refusal),
}

/// A pod that came, until it takes nothing any more.
pub(super) struct Guest {
    pod: Arc<Pod>,
    admission: Admission,
}

/// Pods that must end before another may run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Preemption {
    /// UID of the one that comes.
    pub(crate) uid: String,
    /// UIDs of those that go.
    pub(crate) victims: Vec<String>,
}

impl Allocations {
    /// A pod came: judges it, if it is one to judge and now is the time.
    pub(crate) fn enter(&self, pod: &Arc<Pod>, wake: &Arc<Notify>, facts: &Facts) -> Option<Preemption> {
        let uid = crate::pod::uid(pod).to_owned();
        let mut table = self.table.lock();
        table.wakes.entry(uid.clone()).or_insert_with(|| wake.clone());
        table.guests.insert(uid.clone(), Guest { pod: pod.clone(), admission: Admission::Waits });
        if has_begun(pod) {
            table.admit(&uid);
        } else if (table.complete || is_static(pod)) && is_to_run(pod) {
            return self.judge(&mut table, &uid, facts);
        }
        None
    }

    /// Every pod of the node has come: those that wait are judged.
    pub(crate) fn are_complete(&self, facts: &Facts) -> Vec<Preemption> {
        let mut table = self.table.lock();
        table.complete = true;
        let waits = |guest: &Guest| guest.admission == Admission::Waits && is_to_run(&guest.pod);
        let mut waiting: Vec<(String, Arc<Pod>)> = table
            .guests
            .iter()
            .filter(|(uid, guest)| waits(guest) && !table.claims.contains_key(*uid))
            .map(|(uid, guest)| (uid.clone(), guest.pod.clone()))
            .collect();
        waiting.sort_by_key(|(_, pod)| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
        let preemptions = waiting.iter().filter_map(|(uid, _)| self.judge(&mut table, uid, facts)).collect();
        table.wake("");
        preemptions
    }

    /// How the node stands to the pod `uid`. One that nobody knows has ended, or is a test's.
    pub(crate) fn admission(&self, uid: &str) -> Admission {
        self.table.lock().guests.get(uid).map_or(Admission::Admitted, |guest| guest.admission.clone())
    }

    /// The pod `uid` runs already, or room was made for it.
    pub(crate) fn admit(&self, uid: &str) {
        let mut table = self.table.lock();
        table.admit(uid);
        if let Some(wake) = table.wakes.get(uid) {
            wake.notify_one();
        }
    }

    /// Judges a pod again that was refused, by what is known now; nobody goes for its sake.
    pub(crate) fn reconsider(&self, uid: &str, facts: &Facts) -> Admission {
        let mut table = self.table.lock();
        let Some(pod) = table.guests.get(uid).map(|guest| guest.pod.clone()) else { return Admission::Admitted };
        let verdict = match judge(&pod, facts, &self.room, &table.taken()) {
            Judgement::Fits => Admission::Admitted,
            Judgement::Refused(refusal) => Admission::Refused(refusal),
            Judgement::Presses(short) => short.first().map_or(Admission::Admitted, |s| Admission::Refused(s.refusal())),
        };
        table.settle(uid, verdict);
        table.guests.get(uid).map_or(Admission::Admitted, |guest| guest.admission.clone())
    }

    /// Judges one pod and lets it know.
    fn judge(&self, table: &mut Table, uid: &str, facts: &Facts) -> Option<Preemption> {
        let pod = table.guests.get(uid)?.pod.clone();
        let verdict = match judge(&pod, facts, &self.room, &table.taken()) {
            Judgement::Fits => Admission::Admitted,
            Judgement::Refused(refusal) => Admission::Refused(refusal),
            Judgement::Presses(short) => match preemption::victims(&pod, &table.admitted(), &short) {
                Ok(victims) => {
                    // Nobody else takes what becomes free, and nobody is counted on twice.
                    table.claims.insert(uid.to_owned(), Claim { held: api::pods::held(&pod), wish: None });
                    victims.iter().for_each(|victim| table.expel(victim));
                    return Some(Preemption { uid: uid.to_owned(), victims });
                }
                Err(why) => Admission::Refused(Refusal {
                    reason: "UnexpectedAdmissionError",
                    message: format!("Unexpected error while attempting to recover from admission failure: {why}"),
                }),
            },
        };
        table.settle(uid, verdict);
        None
    }
}

impl Table {
    /// Whether the pod may claim anything.
    pub(super) fn may_claim(&self, uid: &str) -> bool {
        self.guests.get(uid).is_none_or(|guest| guest.admission == Admission::Admitted)
    }

    fn settle(&mut self, uid: &str, verdict: Admission) {
        match verdict {
            Admission::Admitted => self.admit(uid),
            other => drop(self.guests.get_mut(uid).map(|guest| guest.admission = other)),
        }
        self.wakes.get(uid).iter().for_each(|wake| wake.notify_one());
    }

    /// The pod is on its way out: it claims nothing any more.
    fn expel(&mut self, uid: &str) {
        self.claims.remove(uid);
        self.settle(uid, Admission::Waits);
    }

    fn admit(&mut self, uid: &str) {
        let Some(guest) = self.guests.get_mut(uid) else { return };
        guest.admission = Admission::Admitted;
        let held = api::pods::held(&guest.pod);
        self.claims.entry(uid.to_owned()).or_insert(Claim { held, wish: None });
    }

    /// Those who are here, or for whom room is being made.
    fn admitted(&self) -> Vec<(Arc<Pod>, api::pods::Requests)> {
        let of = |(uid, claim): (&String, &Claim)| Some((self.guests.get(uid)?.pod.clone(), claim.held));
        self.claims.iter().filter_map(of).collect()
    }

    fn taken(&self) -> Taken {
        let mut taken = Taken::default();
        for (pod, held) in self.admitted() {
            taken.pods += 1;
            taken.held = taken.held.plus(held);
            taken.ports.extend(api::pods::host_ports(&pod));
        }
        taken
    }
}

/// Whether a kubelet of this node said before that it takes the pod: those it refuses have failed.
fn has_begun(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.start_time.is_some()) && !api::pods::is_terminal(pod)
}

fn is_to_run(pod: &Pod) -> bool {
    !api::pods::is_terminal(pod) && !api::pods::is_terminating(pod)
}

#[cfg(test)]
mod tests {
    use api::pods::Requests;
    use serde_json::{Value, json};

    use super::super::Room;
    use super::*;

    /// A pod that wants so many thousandths of a core.
    fn pod(uid: &str, second: u32, cpu: u32, change: Value) -> Arc<Pod> {
        let mut pod = json!({
            "metadata": {"name": uid, "namespace": "ns", "uid": uid,
                "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z")},
            "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": format!("{cpu}m")}}}]},
        });
        for (key, value) in change.as_object().unwrap() {
            pod[key] = value.clone();
        }
        Arc::new(serde_json::from_value(pod).unwrap())
    }

    fn node() -> Allocations {
        let allocatable = Requests { milli_cpu: 1000, ..Requests::default() };
        Allocations::new(Room { allocatable, capacity: allocatable, pods: 10 })
    }

    fn enter(node: &Allocations, pod: &Arc<Pod>) -> Option<Preemption> {
        node.enter(pod, &Arc::new(Notify::new()), &Facts::default())
    }

    fn said(node: &Allocations, uid: &str) -> &'static str {
        match node.admission(uid) {
            Admission::Waits => "waits",
            Admission::Admitted => "admitted",
            Admission::Refused(refusal) => refusal.reason,
        }
    }

    #[test]
    fn at_a_start_what_runs_is_kept_and_the_others_come_by_age() {
        let node = node();
        enter(&node, &pod("young", 3, 300, json!({})));
        enter(&node, &pod("old", 2, 300, json!({})));
        enter(&node, &pod("failed", 1, 900, json!({"status": {"phase": "Failed"}})));
        let begun = json!({"status": {"phase": "Running", "startTime": "2026-01-01T00:00:09Z"}});
        enter(&node, &pod("runs", 9, 500, begun));
        assert_eq!(["young", "old", "runs"].map(|uid| said(&node, uid)), ["waits", "waits", "admitted"]);
        assert_eq!(node.are_complete(&Facts::default()), []);
        assert_eq!(["young", "old", "runs"].map(|uid| said(&node, uid)), ["OutOfcpu", "admitted", "admitted"]);
        enter(&node, &pod("small", 4, 200, json!({})));
        assert_eq!(said(&node, "small"), "admitted", "who was refused takes nothing");
        node.release("runs");
        enter(&node, &pod("next", 5, 500, json!({})));
        assert_eq!(said(&node, "next"), "admitted", "nor who has ended");
    }

    #[test]
    fn what_runs_is_admitted_whatever_its_status_says() {
        let node = node();
        enter(&node, &pod("runs", 1, 900, json!({})));
        node.admit("runs");
        enter(&node, &pod("other", 0, 900, json!({})));
        node.are_complete(&Facts::default());
        assert_eq!(["runs", "other"].map(|uid| said(&node, uid)), ["admitted", "OutOfcpu"]);
    }

    #[test]
    fn a_static_pod_waits_for_nobody_and_others_make_room_for_it() {
        let node = node();
        let begun = json!({"status": {"phase": "Running", "startTime": "2026-01-01T00:00:09Z"}});
        enter(&node, &pod("runs", 9, 900, begun));
        let source = json!({"metadata": {"name": "s", "namespace": "ns", "uid": "s",
            "annotations": {"kubernetes.io/config.source": "file"}}});
        let preemption = enter(&node, &pod("s", 0, 500, source)).unwrap();
        assert_eq!(preemption, Preemption { uid: "s".to_owned(), victims: vec!["runs".to_owned()] });
        assert_eq!(said(&node, "s"), "waits");
        assert_eq!(node.are_complete(&Facts::default()), [], "nobody goes twice");
        node.hold("runs", Requests { milli_cpu: 900, ..Requests::default() }, &Arc::new(Notify::new()));
        enter(&node, &pod("greedy", 1, 600, json!({})));
        assert_eq!(said(&node, "greedy"), "OutOfcpu", "what becomes free is the static pod's");
        node.admit("s");
        assert_eq!(said(&node, "s"), "admitted");
    }

    #[test]
    fn where_nobody_can_go_a_critical_pod_is_refused_too() {
        let node = node();
        node.are_complete(&Facts::default());
        let critical = |cpu: u32| {
            let containers = json!([{"name": "c", "resources": {"requests": {"cpu": format!("{cpu}m")}}}]);
            json!({"spec": {"priority": 2_000_000_000, "containers": containers}})
        };
        enter(&node, &pod("first", 0, 0, critical(900)));
        assert_eq!(enter(&node, &pod("second", 0, 0, critical(200))), None);
        let Admission::Refused(refusal) = node.admission("second") else { panic!("it is refused") };
        assert_eq!(refusal.reason, "UnexpectedAdmissionError");
        assert!(refusal.message.ends_with("no set of running pods found to reclaim resources: [(res: cpu, q: 100), ]"));
    }

    #[test]
    fn a_label_the_node_has_just_got_counts() {
        let node = node();
        node.are_complete(&Facts::default());
        let selects = json!({"spec": {"nodeSelector": {"disk": "ssd"}, "containers": [{"name": "c"}]}});
        enter(&node, &pod("p", 0, 0, selects));
        assert_eq!(said(&node, "p"), "NodeAffinity");
        let labels = [("disk".to_owned(), "ssd".to_owned())].into();
        assert_eq!(node.reconsider("p", &Facts { labels, ..Facts::default() }), Admission::Admitted);
    }
}
