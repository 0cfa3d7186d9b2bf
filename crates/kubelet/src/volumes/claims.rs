//! PersistentVolumeClaims of a pod: which they are, the volume each is bound to, and where that is on this machine. The
//! binder is the controller manager's; here a claim that is not bound is an error that says so
//! (`pkg/kubelet/volumemanager/populator`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, PodSpec};
use kube::Api;

use super::host_path;

/// The volumes behind a pod's claims, by the claim's name.
pub type Claims = BTreeMap<String, Arc<PersistentVolume>>;

/// How long the API may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);

/// The claims the volumes of `spec` name.
pub fn wanted(spec: &PodSpec) -> BTreeSet<String> {
    let claims = spec.volumes.iter().flatten().filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.map(|claim| claim.claim_name.clone()).collect()
}

/// The name of the volume a claim is bound to.
pub fn bound(claim: &PersistentVolumeClaim) -> Result<&str, String> {
    if claim.metadata.deletion_timestamp.is_some() {
        return Err("PVC is being deleted".to_owned());
    }
    let is_bound = claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound");
    let volume = claim.spec.as_ref().and_then(|spec| spec.volume_name.as_deref()).filter(|name| !name.is_empty());
    volume.filter(|_| is_bound).ok_or_else(|| "PVC is not bound".to_owned())
}

/// Whether the volume says the same of the claim.
pub fn belongs(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    let reference = volume.spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
    let reference = reference.ok_or_else(|| {
        format!("found PV object {name} with nil pv.Spec.ClaimRef indicating it is not yet bound to the claim")
    })?;
    let uid = claim.metadata.uid.as_deref().unwrap_or_default();
    match reference.uid.as_deref() {
        Some(found) if found == uid => Ok(()),
        found => {
            let found = found.unwrap_or_default();
            Err(format!(
                "found PV object {name} with unexpected pv.Spec.ClaimRef.UID ({found}) not matching expected PVC UID ({uid})"
            ))
        }
    }
}

/// The volume behind a claim, as the API has it now.
pub async fn fetch(client: &kube::Client, namespace: &str, name: &str) -> Result<Arc<PersistentVolume>, String> {
    let asked = tokio::time::timeout(ANSWER_MAX, fetch_both(client, namespace, name)).await;
    let fetched = asked.unwrap_or_else(|_| Err("the API does not answer".to_owned()));
    fetched.map_err(|why| format!("error processing PVC {namespace}/{name}: {why}"))
}

async fn fetch_both(client: &kube::Client, namespace: &str, name: &str) -> Result<Arc<PersistentVolume>, String> {
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
    let claim = claims.get(name).await.map_err(|e| format!("failed to fetch PVC from API server: {e}"))?;
    let volume = bound(&claim)?;
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let volume = volumes.get(volume).await.map_err(|e| format!("failed to fetch PV {volume} from API server: {e}"))?;
    belongs(&volume, &claim)?;
    Ok(Arc::new(volume))
}

/// Where a volume is, and how it gets there.
#[derive(Debug, PartialEq)]
pub enum Place<'a> {
    /// A path of this machine, of the type it must have.
    HostPath(&'a k8s_openapi::api::core::v1::HostPathVolumeSource),
    /// A directory of this machine, whose files pods with a group own.
    Local(&'a str),
    /// An export of another machine.
    Nfs(&'a k8s_openapi::api::core::v1::NFSVolumeSource),
}

/// The place of a persistent volume; its kind where this kubelet has no way to it.
pub fn place(volume: &PersistentVolume) -> Result<Place<'_>, String> {
    let Some(spec) = volume.spec.as_ref() else { return Err("a volume without a source".to_owned()) };
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err("volumeMode Block".to_owned());
    }
    match (&spec.host_path, &spec.local, &spec.nfs) {
        (Some(source), ..) => Ok(Place::HostPath(source)),
        (_, Some(source), _) => Ok(Place::Local(&source.path)),
        (.., Some(source)) => Ok(Place::Nfs(source)),
        _ => Err(source_kind(spec)),
    }
}

fn source_kind(spec: &k8s_openapi::api::core::v1::PersistentVolumeSpec) -> String {
    const OTHERS: [&str; 8] = [
        "accessModes",
        "capacity",
        "claimRef",
        "mountOptions",
        "nodeAffinity",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "volumeMode",
    ];
    let value = serde_json::to_value(spec).unwrap_or_default();
    let mut keys = value.as_object().into_iter().flat_map(|o| o.keys().cloned());
    keys.find(|key| !OTHERS.contains(&key.as_str())).unwrap_or_else(|| "a volume without a source".to_owned())
}

/// Sees that a persistent volume that is a path of this machine is there.
pub fn check(place: &Place<'_>) -> Result<(), String> {
    match place {
        Place::HostPath(source) => host_path::check(source),
        Place::Local(path) if Path::new(path).is_dir() => Ok(()),
        Place::Local(path) if Path::new(path).exists() => Err(format!("path \"{path}\" is not a directory")),
        Place::Local(path) => Err(format!("path \"{path}\" does not exist")),
        Place::Nfs(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn claim(mutate: Value) -> PersistentVolumeClaim {
        let mut claim =
            json!({"metadata": {"name": "c", "uid": "u"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}});
        json_merge(&mut claim, mutate);
        serde_json::from_value(claim).unwrap()
    }

    fn json_merge(base: &mut Value, patch: Value) {
        match (base, patch) {
            (Value::Object(base), Value::Object(patch)) => {
                patch.into_iter().for_each(|(key, value)| json_merge(base.entry(key).or_insert(Value::Null), value));
            }
            (base, patch) => *base = patch,
        }
    }

    #[test]
    fn a_claim_must_be_bound_on_both_sides() {
        assert_eq!(bound(&claim(json!({}))), Ok("pv"));
        for (mutation, expected) in [
            (json!({"status": {"phase": "Pending"}}), "PVC is not bound"),
            (json!({"spec": {"volumeName": ""}}), "PVC is not bound"),
            (json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}), "PVC is being deleted"),
        ] {
            assert_eq!(bound(&claim(mutation)), Err(expected.to_owned()));
        }
        let volume = |spec: Value| -> PersistentVolume {
            serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": spec})).unwrap()
        };
        assert_eq!(belongs(&volume(json!({"claimRef": {"uid": "u"}})), &claim(json!({}))), Ok(()));
        assert!(belongs(&volume(json!({"claimRef": {"uid": "x"}})), &claim(json!({}))).unwrap_err().contains("(x)"));
        assert!(belongs(&volume(json!({})), &claim(json!({}))).unwrap_err().contains("nil pv.Spec.ClaimRef"));
    }

    #[test]
    fn places_of_other_kinds_are_named() {
        let of = |spec: Value| {
            let volume = serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap();
            place(&volume).map(|place| check(&place))
        };
        assert_eq!(of(json!({"local": {"path": "/"}})), Ok(Ok(())));
        assert_eq!(of(json!({"local": {"path": "/no"}})), Ok(Err("path \"/no\" does not exist".to_owned())));
        assert_eq!(of(json!({"hostPath": {"path": "/", "type": "Directory"}})), Ok(Ok(())));
        assert_eq!(
            of(json!({"capacity": {"storage": "1Gi"}, "iscsi": {"iqn": "", "lun": 0, "targetPortal": ""}})),
            Err("iscsi".to_owned())
        );
        assert_eq!(of(json!({"local": {"path": "/"}, "volumeMode": "Block"})), Err("volumeMode Block".to_owned()));
    }
}
