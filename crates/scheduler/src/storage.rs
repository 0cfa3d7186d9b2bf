//! Claims of pods and the volumes they are bound to: a pod whose claims are not bound waits, and one with a volume that
//! is on some nodes only goes to one of those (`pkg/scheduler/framework/plugins/volumebinding`). Binding itself is the
//! controller manager's, and does not wait for a pod.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::affinity::NodeTerms;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};

use crate::filter::Reason;
use crate::pod::{PodInfo, Uid};

/// Namespace and name.
pub type ClaimKey = (String, String);

/// What a pod's claims demand of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volumes {
    /// All of these must match.
    On(Vec<Arc<NodeTerms>>),
    /// No node will do before this is mended.
    Wait(Reason),
}

impl Default for Volumes {
    fn default() -> Volumes {
        Volumes::On(Vec::new())
    }
}

/// A claim, as far as it counts here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimInfo {
    volume: Option<String>,
    lost: bool,
    deleting: bool,
}

impl ClaimInfo {
    /// What is kept of `claim`.
    pub fn of(claim: &PersistentVolumeClaim) -> ClaimInfo {
        let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
        let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.clone()).filter(|name| !name.is_empty());
        ClaimInfo {
            volume: volume.filter(|_| matches!(phase, Some("Bound" | "Lost"))),
            lost: phase == Some("Lost"),
            deleting: claim.metadata.deletion_timestamp.is_some(),
        }
    }
}

/// Where a volume can be used; `None`: anywhere.
pub fn place(volume: &PersistentVolume) -> Option<Arc<NodeTerms>> {
    let required = volume.spec.as_ref()?.node_affinity.as_ref()?.required.as_ref()?;
    Some(Arc::new(NodeTerms::of(&required.node_selector_terms)))
}

/// All claims and volumes, and the waiting pods that have claims.
#[derive(Debug, Default)]
pub struct Storage {
    claims: BTreeMap<ClaimKey, ClaimInfo>,
    volumes: BTreeMap<String, Option<Arc<NodeTerms>>>,
    waiting: BTreeMap<Uid, Arc<PodInfo>>,
}

impl Storage {
    /// The pod with what its claims demand. It is remembered until [`Storage::forget`].
    pub fn resolve(&mut self, pod: Arc<PodInfo>) -> Arc<PodInfo> {
        if pod.claims.is_empty() {
            return pod;
        }
        self.waiting.insert(pod.uid.clone(), pod.clone());
        self.resolved(&pod)
    }

    /// The pod does not wait any more.
    pub fn forget(&mut self, uid: &str) {
        self.waiting.remove(uid);
    }

    /// The waiting pods as they are now.
    pub fn waiting(&self) -> Vec<Arc<PodInfo>> {
        self.waiting.values().map(|pod| self.resolved(pod)).collect()
    }

    /// A claim is there, different, or gone; whether that changes anything.
    pub fn set_claim(&mut self, key: ClaimKey, claim: Option<ClaimInfo>) -> bool {
        match claim {
            Some(claim) => self.claims.insert(key, claim.clone()) != Some(claim),
            None => self.claims.remove(&key).is_some(),
        }
    }

    /// The same of a volume.
    pub fn set_volume(&mut self, name: &str, volume: Option<Option<Arc<NodeTerms>>>) -> bool {
        match volume {
            Some(place) => self.volumes.insert(name.to_owned(), place.clone()) != Some(place),
            None => self.volumes.remove(name).is_some(),
        }
    }

    fn resolved(&self, pod: &PodInfo) -> Arc<PodInfo> {
        let mut pod = pod.clone();
        pod.demand.volumes = self.volumes_of(&pod);
        Arc::new(pod)
    }

    fn volumes_of(&self, pod: &PodInfo) -> Volumes {
        let mut places = Vec::new();
        let mut unbound = false;
        for name in &pod.claims {
            let Some(claim) = self.claims.get(&(pod.namespace.clone(), name.clone())) else {
                return Volumes::Wait(Reason::Claim(format!("persistentvolumeclaim \"{name}\" not found").into()));
            };
            if claim.deleting {
                return Volumes::Wait(Reason::Claim(
                    format!("persistentvolumeclaim \"{name}\" is being deleted").into(),
                ));
            }
            let Some(volume) = &claim.volume else {
                unbound = true;
                continue;
            };
            match self.volumes.get(volume) {
                Some(place) if !claim.lost => places.extend(place.clone()),
                _ => {
                    let message =
                        format!("persistentvolumeclaim \"{name}\" bound to non-existent persistentvolume \"{volume}\"");
                    return Volumes::Wait(Reason::Claim(message.into()));
                }
            }
        }
        match unbound {
            true => Volumes::Wait(Reason::Claim("pod has unbound immediate PersistentVolumeClaims".into())),
            false => Volumes::On(places),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::filter::admits;
    use crate::fixtures::{node, pod};
    use crate::node::NodeInfo;

    fn claim(spec: Value, phase: &str) -> ClaimInfo {
        ClaimInfo::of(&serde_json::from_value(json!({"spec": spec, "status": {"phase": phase}})).unwrap())
    }

    fn on(host: &str) -> Option<Arc<NodeTerms>> {
        let terms =
            json!([{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}]}]);
        let affinity = json!({"required": {"nodeSelectorTerms": terms}});
        place(&serde_json::from_value(json!({"metadata": {}, "spec": {"nodeAffinity": affinity}})).unwrap())
    }

    #[test]
    fn a_pod_goes_where_its_volumes_are_once_they_are_bound() {
        let mut storage = Storage::default();
        let volumes =
            json!([{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "e", "emptyDir": {}}]);
        let pod = storage.resolve(Arc::new(pod("p", json!({"spec": {"volumes": volumes}}))));
        let why = |pod: &PodInfo, host: &str| {
            let mut reasons = Vec::new();
            let node = NodeInfo { spec: node(host, json!({})), ..NodeInfo::default() };
            admits(pod, &node, &mut reasons);
            reasons.first().map(ToString::to_string)
        };
        assert_eq!(why(&pod, "a").unwrap(), "persistentvolumeclaim \"data\" not found");
        let key = ("default".to_owned(), "data".to_owned());
        for (sentence, info, expected) in [
            ("pending", claim(json!({}), "Pending"), "pod has unbound immediate PersistentVolumeClaims"),
            (
                "half bound",
                claim(json!({"volumeName": "pv"}), "Pending"),
                "pod has unbound immediate PersistentVolumeClaims",
            ),
            (
                "no volume",
                claim(json!({"volumeName": "pv"}), "Bound"),
                "persistentvolumeclaim \"data\" bound to non-existent persistentvolume \"pv\"",
            ),
        ] {
            storage.set_claim(key.clone(), Some(info));
            assert_eq!(why(&storage.waiting()[0], "a").as_deref(), Some(expected), "{sentence}");
        }
        assert!(storage.set_volume("pv", Some(on("a"))));
        assert!(!storage.set_volume("pv", Some(on("a"))), "nothing new");
        assert_eq!(why(&storage.waiting()[0], "a"), None);
        assert_eq!(why(&storage.waiting()[0], "b").unwrap(), "node(s) didn't match PersistentVolume's node affinity");
        storage.set_volume("pv", Some(None));
        assert_eq!(why(&storage.waiting()[0], "b"), None, "anywhere");
        storage.forget("p");
        assert!(storage.waiting().is_empty());
    }
}
