//! Mirror pods: what the API shows of static pods (`pkg/kubelet/pod/mirror_client.go`). The pod is the manifest's; the
//! mirror is made when the master answers, made anew when somebody deletes or changes it, and goes with the manifest.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::watch;

use super::full_name;
use super::manifest::ANNOTATION_HASH;
use crate::status_writer::{self, Outgoing};

/// Back-off of what failed, as it does while there is no master: first and longest.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// A mirror as the API has it, or that it has none.
type Seen = Option<Arc<Pod>>;

/// The mirrors of this node's static pods, by name. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mirrors {
    client: kube::Client,
    node_name: String,
    seen: Arc<Mutex<BTreeMap<String, watch::Sender<Seen>>>>,
}

impl Mirrors {
    pub(crate) fn new(client: kube::Client, node_name: &str) -> Mirrors {
        Mirrors { client, node_name: node_name.to_owned(), seen: Arc::default() }
    }

    /// The API has this version of a mirror, or no longer has it.
    pub(crate) fn saw(&self, pod: &Arc<Pod>, present: bool) {
        self.sender(&full_name(pod)).send_replace(present.then(|| pod.clone()));
    }

    /// The API was listed anew, and this is what it has: a mirror that went between two lists was told to nobody.
    pub(crate) fn listed(&self, is_there: impl Fn(&Pod) -> bool) {
        for sender in self.seen.lock().values() {
            sender.send_if_modified(|seen| seen.take_if(|mirror| !is_there(mirror)).is_some());
        }
    }

    fn sender(&self, name: &str) -> watch::Sender<Seen> {
        self.seen.lock().entry(name.to_owned()).or_default().clone()
    }

    /// Removes the mirrors that no static pod has: their manifests went while no kubelet ran.
    pub(crate) async fn remove_orphans(&self, is_known: impl Fn(&str) -> bool) {
        let all: Vec<Arc<Pod>> = self.seen.lock().values().filter_map(|seen| seen.borrow().clone()).collect();
        for mirror in all.iter().filter(|mirror| !is_known(&full_name(mirror))) {
            if let Err(error) = self.delete(mirror).await {
                tracing::warn!(pod = crate::pod::full_name(mirror), %error, "cannot remove a mirror without a pod");
            }
        }
    }

    /// Shows how `pod` is, until its sender is gone; then the mirror goes, too.
    pub(crate) async fn show(self, pod: Arc<Pod>, mut outgoing: watch::Receiver<Outgoing>) {
        let sender = self.sender(&full_name(&pod));
        let mut seen = sender.subscribe();
        let mut backoff = RETRY_MIN;
        loop {
            let present = seen.borrow_and_update().clone();
            // In this order: after the end there is no newer word.
            let ended = outgoing.has_changed().is_err();
            let Outgoing { status, delete, .. } = outgoing.borrow_and_update().clone();
            if ended && !delete {
                // The kubelet stops; the pod goes on.
                return;
            }
            let step =
                if ended { leave(present.as_deref()) } else { next(&pod, present.as_deref(), status.as_deref()) };
            let done = self.take(&pod, step).await;
            match done {
                Ok(()) if ended => return,
                Ok(()) => {
                    backoff = RETRY_MIN;
                    tokio::select! {
                        // An error says that this is the end: once more, to leave.
                        _ = outgoing.changed() => {}
                        _ = seen.changed() => {}
                    }
                }
                Err(error) => {
                    tracing::debug!(pod = crate::pod::full_name(&pod), %error, "the mirror is not as it should be");
                    tokio::select! {
                        () = tokio::time::sleep(backoff) => {}
                        _ = seen.changed() => {}
                    }
                    backoff = (backoff * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn take(&self, pod: &Pod, step: Step<'_>) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), crate::pod::namespace(&pod.metadata));
        match step {
            Step::Nothing => Ok(()),
            Step::Delete(mirror) => self.delete(mirror).await,
            Step::Create => {
                let node = Api::<Node>::all(self.client.clone()).get(&self.node_name).await?;
                match api.create(&PostParams::default(), &mirror_of(pod, &node)).await {
                    Ok(mirror) => {
                        self.sender(&full_name(pod)).send_replace(Some(Arc::new(mirror)));
                        Ok(())
                    }
                    Err(error) => Err(error),
                }
            }
            Step::Tell(patch) => {
                let name = crate::pod::name(&pod.metadata);
                let told = api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
                self.sender(&full_name(pod)).send_replace(Some(Arc::new(told)));
                Ok(())
            }
        }
    }

    async fn delete(&self, mirror: &Pod) -> Result<(), kube::Error> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), crate::pod::namespace(&mirror.metadata));
        let preconditions = Some(Preconditions { uid: mirror.metadata.uid.clone(), resource_version: None });
        let parameters = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        match api.delete(crate::pod::name(&mirror.metadata), &parameters).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
            Err(error) => return Err(error),
        }
        let uid = mirror.metadata.uid.as_ref();
        self.sender(&full_name(mirror)).send_if_modified(|seen| {
            let same = seen.as_ref().is_some_and(|seen| seen.metadata.uid.as_ref() == uid);
            if same {
                *seen = None;
            }
            same
        });
        Ok(())
    }
}

/// What brings a mirror nearer to its pod.
#[derive(Debug, PartialEq)]
enum Step<'a> {
    Nothing,
    /// It is of another pod, or on its way out.
    Delete(&'a Pod),
    Create,
    /// Its status is another.
    Tell(Value),
}

/// The next step so that the API shows `pod` with `status`, given what it shows now. Taken, there is none left but to
/// create what was deleted and tell what was created.
fn next<'a>(pod: &Pod, present: Option<&'a Pod>, status: Option<&PodStatus>) -> Step<'a> {
    let Some(mirror) = present else { return Step::Create };
    if mirror.metadata.deletion_timestamp.is_some()
        || hash(mirror, api::well_known::ANNOTATION_CONFIG_MIRROR) != hash(pod, ANNOTATION_HASH)
    {
        return Step::Delete(mirror);
    }
    let known = mirror.status.clone().unwrap_or_default();
    let status = status.map(|status| PodStatus { observed_generation: mirror.metadata.generation, ..status.clone() });
    let patch = status.and_then(|status| status_writer::patch(crate::pod::uid(mirror), &known, &status));
    patch.map_or(Step::Nothing, Step::Tell)
}

fn leave(present: Option<&Pod>) -> Step<'_> {
    present.map_or(Step::Nothing, Step::Delete)
}

fn hash<'a>(pod: &'a Pod, annotation: &str) -> Option<&'a String> {
    pod.metadata.annotations.as_ref()?.get(annotation)
}

/// The mirror of `pod`: the same, owned by its node.
fn mirror_of(pod: &Pod, node: &Node) -> Pod {
    let mut mirror = Pod { status: None, ..pod.clone() };
    let hash = hash(pod, ANNOTATION_HASH).cloned().unwrap_or_default();
    let metadata = &mut mirror.metadata;
    metadata.uid = None;
    metadata.generation = None;
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(api::well_known::ANNOTATION_CONFIG_MIRROR.to_owned(), hash);
    metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Node".to_owned(),
        name: crate::pod::name(&node.metadata).to_owned(),
        uid: node.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: None,
    }]);
    mirror
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod_of(hash: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {"name": "web-n", "namespace": "default", "uid": hash,
            "annotations": {ANNOTATION_HASH: hash}}, "spec": {"containers": [], "nodeName": "n"}}))
        .unwrap()
    }

    #[test]
    fn a_mirror_is_brought_to_its_pod_step_by_step() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "n", "uid": "node-uid"}})).unwrap();
        let status = PodStatus { phase: Some("Running".into()), ..PodStatus::default() };
        let pod = pod_of("1");
        assert_eq!(next(&pod, None, Some(&status)), Step::Create);
        let mut mirror = mirror_of(&pod, &node);
        mirror.metadata.uid = Some("m".into());
        let owner = &mirror.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str(), owner.controller), ("Node", "node-uid", Some(true)));
        assert_eq!(mirror.metadata.annotations.as_ref().unwrap()["kubernetes.io/config.mirror"], "1");
        let Step::Tell(patch) = next(&pod, Some(&mirror), Some(&status)) else { panic!("it has no status yet") };
        assert_eq!(patch, json!({"metadata": {"uid": "m"}, "status": {"phase": "Running"}}));
        let told = Pod { status: Some(status.clone()), ..mirror.clone() };
        assert_eq!(next(&pod, Some(&told), Some(&status)), Step::Nothing);
        assert_eq!(next(&pod_of("2"), Some(&told), Some(&status)), Step::Delete(&told), "of another manifest");
        let mut leaving = told.clone();
        leaving.metadata.deletion_timestamp =
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::UNIX_EPOCH));
        assert_eq!(next(&pod, Some(&leaving), Some(&status)), Step::Delete(&leaving), "somebody deletes it");
        assert_eq!((leave(Some(&told)), leave(None)), (Step::Delete(&told), Step::Nothing));
    }
}
