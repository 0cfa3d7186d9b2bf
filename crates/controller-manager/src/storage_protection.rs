//! Claims that pods use and volumes that are bound stay until they are not: what is deleted is let go only then.
//!
//! Behaviour follows `pkg/controller/volume/{pvcprotection,pvprotection}`. Admission gives new ones their finalizer; those from
//! before that get it here.

use std::sync::Arc;

use api::well_known::{FINALIZER_CLAIM_PROTECTION, FINALIZER_VOLUME_PROTECTION};
use client::{Change, Lister, Outcome, WorkQueue};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Error;

use crate::context::{Context, Key, new_queue, outcome};
use crate::rest::{self, Rest};

const CLAIMS: &str = "pvc-protection-controller";
const VOLUMES: &str = "pv-protection-controller";
const WORKERS: usize = 1;

/// What a finalizer needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// The object has it not, and should.
    Protection,
    /// The object is to go, if nobody uses it.
    Release,
}

fn need(metadata: &ObjectMeta, finalizer: &str) -> Need {
    let has = metadata.finalizers.iter().flatten().any(|f| f == finalizer);
    match (metadata.deletion_timestamp.is_some(), has) {
        (false, false) => Need::Protection,
        (true, true) => Need::Release,
        (false, true) | (true, false) => Need::Nothing,
    }
}

fn protect(metadata: &mut ObjectMeta, finalizer: &str) {
    metadata.finalizers.get_or_insert_default().push(finalizer.to_owned());
}

fn release(metadata: &mut ObjectMeta, finalizer: &str) {
    metadata.finalizers.get_or_insert_default().retain(|f| f != finalizer);
}

/// Whether the pod uses the claim: a kubelet has it, ended or not. One that no kubelet has gets no volume any more
/// (`podUsesPVC`).
fn uses(pod: &Pod, claim: &str) -> bool {
    let name = pod.metadata.name.as_deref().unwrap_or("");
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut claims = volumes.filter_map(|volume| match (&volume.persistent_volume_claim, &volume.ephemeral) {
        (Some(source), _) => Some(source.claim_name.clone()),
        (None, Some(_)) => Some(format!("{name}-{}", volume.name)),
        (None, None) => None,
    });
    api::pods::node_name(pod).is_some() && claims.any(|used| used == claim)
}

fn is_bound(volume: &PersistentVolume) -> bool {
    volume.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound")
}

struct ClaimProtection {
    claims: Lister<PersistentVolumeClaim>,
    queue: WorkQueue<Key>,
    rest: Rest,
}

/// Adds the controller of claims.
pub(crate) fn register_claims(context: &mut Context) {
    let claims = context.caches().persistent_volume_claims;
    let controller =
        Arc::new(ClaimProtection { claims: claims.clone(), queue: new_queue(), rest: context.rest.clone() });
    let queue = controller.queue.clone();
    context.informers.persistent_volume_claims.on_change(move |change| {
        if let Change::Added(claim) | Change::Updated { new: claim, .. } = change
            && need(&claim.metadata, FINALIZER_CLAIM_PROTECTION) != Need::Nothing
        {
            queue.add(Key::of(&claim.metadata));
        }
    });
    let c = controller.clone();
    context.informers.pods.on_change(move |change| {
        if let Change::Deleted(pod) = change {
            c.pod_gone(&pod.namespace);
        }
    });
    let queue = controller.queue.clone();
    let synced = async move { claims.synced().await };
    context.run_workers(synced, &queue, WORKERS, move |key: Key| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&key).await;
            outcome(CLAIMS, &key, result)
        }
    });
}

impl ClaimProtection {
    /// What waits in its namespace may wait no longer.
    fn pod_gone(&self, namespace: &str) {
        let waits = |claim: &&Arc<PersistentVolumeClaim>| {
            claim.metadata.namespace.as_deref() == Some(namespace)
                && need(&claim.metadata, FINALIZER_CLAIM_PROTECTION) == Need::Release
        };
        self.claims.list().iter().filter(waits).for_each(|claim| self.queue.add(Key::of(&claim.metadata)));
    }

    async fn sync(&self, key: &Key) -> Result<Outcome, Error> {
        let Some(claim) = self.claims.get(Some(&key.namespace), &key.name) else { return Ok(Outcome::Done) };
        let mut new = (*claim).clone();
        match need(&claim.metadata, FINALIZER_CLAIM_PROTECTION) {
            Need::Nothing => return Ok(Outcome::Done),
            Need::Protection => protect(&mut new.metadata, FINALIZER_CLAIM_PROTECTION),
            Need::Release if self.is_used(key).await? => return Ok(Outcome::Done),
            Need::Release => release(&mut new.metadata, FINALIZER_CLAIM_PROTECTION),
        }
        let path = rest::path::<PersistentVolumeClaim>(Some(&key.namespace));
        let written = self.rest.replace(&path, &key.name, None, rest::encode(&new)).await;
        rest::ignore_not_found(written.map(|_| ())).map(|()| Outcome::Done)
    }

    /// As the API has it now: a pod the cache does not show yet would lose its volume.
    async fn is_used(&self, key: &Key) -> Result<bool, Error> {
        let pods = self.rest.list(&rest::path::<Pod>(Some(&key.namespace))).await?;
        let pods = pods.iter().map(|pod| serde_json::from_str::<Pod>(pod.get()));
        // What cannot be read may use it.
        Ok(pods.into_iter().any(|pod| pod.map_or(true, |pod| uses(&pod, &key.name))))
    }
}

struct VolumeProtection {
    volumes: Lister<PersistentVolume>,
    rest: Rest,
}

/// Adds the controller of volumes.
pub(crate) fn register_volumes(context: &mut Context) {
    let volumes = context.caches().persistent_volumes;
    let controller = Arc::new(VolumeProtection { volumes: volumes.clone(), rest: context.rest.clone() });
    let queue: WorkQueue<String> = new_queue();
    let q = queue.clone();
    context.informers.persistent_volumes.on_change(move |change| {
        if let Change::Added(volume) | Change::Updated { new: volume, .. } = change
            && need(&volume.metadata, FINALIZER_VOLUME_PROTECTION) != Need::Nothing
        {
            q.add(volume.metadata.name.clone().unwrap_or_default());
        }
    });
    let synced = async move { volumes.synced().await };
    context.run_workers(synced, &queue, WORKERS, move |name: String| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&name).await;
            outcome(VOLUMES, &name, result)
        }
    });
}

impl VolumeProtection {
    async fn sync(&self, name: &str) -> Result<Outcome, Error> {
        let Some(volume) = self.volumes.get(None, name) else { return Ok(Outcome::Done) };
        let mut new = (*volume).clone();
        match need(&volume.metadata, FINALIZER_VOLUME_PROTECTION) {
            Need::Nothing => return Ok(Outcome::Done),
            Need::Protection => protect(&mut new.metadata, FINALIZER_VOLUME_PROTECTION),
            // What unbinds it changes it, and wakes us.
            Need::Release if is_bound(&volume) => return Ok(Outcome::Done),
            Need::Release => release(&mut new.metadata, FINALIZER_VOLUME_PROTECTION),
        }
        let path = rest::path::<PersistentVolume>(None);
        let written = self.rest.replace(&path, name, None, rest::encode(&new)).await;
        rest::ignore_not_found(written.map(|_| ())).map(|()| Outcome::Done)
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use serde_json::json;

    use super::*;

    const FINALIZER: &str = FINALIZER_CLAIM_PROTECTION;

    fn metadata(deleted: bool, finalizers: &[&str]) -> ObjectMeta {
        ObjectMeta {
            deletion_timestamp: deleted.then_some(Time(Timestamp::UNIX_EPOCH)),
            finalizers: Some(finalizers.iter().map(|f| (*f).to_owned()).collect()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn what_lives_is_protected_and_what_is_deleted_is_released_once() {
        let mut old = metadata(false, &["example.com/other"]);
        assert_eq!(need(&old, FINALIZER), Need::Protection);
        protect(&mut old, FINALIZER);
        assert_eq!(need(&old, FINALIZER), Need::Nothing, "again there is nothing to do");
        old.deletion_timestamp = metadata(true, &[]).deletion_timestamp;
        assert_eq!(need(&old, FINALIZER), Need::Release);
        release(&mut old, FINALIZER);
        assert_eq!(need(&old, FINALIZER), Need::Nothing, "again there is nothing to do");
        assert_eq!(old.finalizers.unwrap(), ["example.com/other"]);
    }

    #[test]
    fn a_pod_uses_a_claim_once_a_kubelet_has_it() {
        let pod = |node: &str, volume: serde_json::Value, phase: &str| -> Pod {
            let volumes = json!([{"name": "e", "emptyDir": {}}, volume]);
            serde_json::from_value(json!({
                "metadata": {"name": "web"}, "status": {"phase": phase},
                "spec": {"nodeName": node, "containers": [], "volumes": volumes},
            }))
            .unwrap()
        };
        let named = || json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
        let ephemeral = || json!({"name": "scratch", "ephemeral": {}});
        for (sentence, pod, claim, expected) in [
            ("a pod on a node", pod("n1", named(), "Running"), "data", true),
            ("one that has ended", pod("n1", named(), "Succeeded"), "data", true),
            ("one that waits for a node", pod("", named(), "Pending"), "data", false),
            ("another claim", pod("n1", named(), "Running"), "other", false),
            ("its own claim", pod("n1", ephemeral(), "Running"), "web-scratch", true),
        ] {
            assert_eq!(uses(&pod, claim), expected, "{sentence}");
        }
    }
}
