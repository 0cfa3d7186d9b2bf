//! The worker's part in its pod's admission: nothing is made of a pod, and nothing said of it, before the node has judged it.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;

use super::{Desired, Worker};
use crate::node::allocations::Admission;
use crate::pod::admit::Refusal;
use crate::runtime::PodState;

/// How long the API has to say what the Node is like now.
const ASK_MAX: Duration = Duration::from_secs(10);

/// What a worker knows of its pod's standing.
#[derive(Default)]
pub(super) struct Standing {
    judged: bool,
    refused: Option<Refusal>,
    left: bool,
}

impl Standing {
    /// Why the pod is not admitted, if it is not.
    pub(super) fn refused(&self) -> Option<&Refusal> {
        self.refused.as_ref()
    }

    /// Whether nothing is set aside for the pod any more.
    pub(super) fn left(&self) -> bool {
        self.left
    }
}

impl Worker {
    /// Whether it is known if the pod may run. What runs, may; what is to end need not.
    pub(super) async fn is_judged(&mut self, desired: &Desired, state: &PodState) -> bool {
        let pod = &desired.pod;
        if self.standing.judged || desired.gone || api::pods::is_terminating(pod) || self.has_ended() {
            return true;
        }
        let uid = crate::pod::uid(pod);
        if !state.is_empty() {
            self.kubelet.allocations.admit(uid);
        }
        let admission = match self.kubelet.allocations.admission(uid) {
            Admission::Refused(refusal) if refusal.reason == "NodeAffinity" => self.ask_again(pod, refusal).await,
            admission => admission,
        };
        self.standing.judged = admission != Admission::Waits;
        if let Admission::Refused(refusal) = admission {
            self.standing.refused = Some(refusal);
        }
        self.standing.judged
    }

    /// The pod may be here for a label the Node has just got: the API knows (`getNodeAnyWay` of `predicateAdmitHandler`).
    async fn ask_again(&self, pod: &Pod, refusal: Refusal) -> Admission {
        let api: Api<Node> = Api::all(self.kubelet.client.clone());
        let node = tokio::time::timeout(ASK_MAX, api.get(&self.kubelet.config.node_name)).await;
        match node {
            Ok(Ok(node)) => self.kubelet.allocations.reconsider(crate::pod::uid(pod), &self.kubelet.facts_of(&node)),
            _ => Admission::Refused(refusal),
        }
    }

    fn has_ended(&self) -> bool {
        matches!(self.history.phase.as_deref(), Some("Failed" | "Succeeded"))
    }

    /// Takes note that the pod has ended, if it `ends`: before anyone is told, as others may come for what becomes free.
    pub(super) fn leaves(&mut self, ends: bool) {
        if ends && !std::mem::replace(&mut self.standing.left, true) {
            self.kubelet.allocations.release(crate::pod::uid(&self.handle.desired().pod));
        }
    }
}
