//! Writes one pod's status to the API: the newest only, in order, whatever other pods do (`pkg/kubelet/status`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

use crate::runtime::PodIdentity;

/// Writes of one node that are under way at a time.
const MAX_WRITES: usize = 16;
/// Back-off of writes that failed: first and longest.
const RETRY_MIN: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// What is to be written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outgoing {
    /// The newest status.
    pub(crate) status: Option<Arc<PodStatus>>,
    /// The newest object the API is known to have: what others wrote over our status is written again.
    pub(crate) seen: Option<Arc<Pod>>,
    /// Whether, that written, the pod's object is to be deleted.
    pub(crate) delete: bool,
}

impl Outgoing {
    /// Takes over a new status, if there is one, and the pod as it was seen; whether either is news.
    pub(crate) fn tell(&mut self, status: Option<Arc<PodStatus>>, seen: &Arc<Pod>) -> bool {
        let newer = self.seen.as_ref().is_none_or(|last| !Arc::ptr_eq(last, seen));
        if newer {
            self.seen = Some(seen.clone());
        }
        let told = status.is_some();
        self.status = status.or(self.status.take());
        told || newer
    }
}

/// The status the API has, as far as we know, and the version it has it at.
struct Known {
    status: Arc<PodStatus>,
    version: u64,
}

impl Known {
    fn of(pod: &Pod) -> Known {
        Known { status: Arc::new(pod.status.clone().unwrap_or_default()), version: version(pod) }
    }

    /// Takes over what was seen if it is newer than what we know; a watch may lag behind our own writes.
    fn see(&mut self, seen: Option<&Pod>) {
        if let Some(seen) = seen.filter(|seen| version(seen) > self.version) {
            *self = Known::of(seen);
        }
    }
}

fn version(pod: &Pod) -> u64 {
    pod.metadata.resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

/// Writes statuses of one node's pods.
#[derive(Clone)]
pub(crate) struct StatusWriter {
    client: kube::Client,
    writes: Arc<Semaphore>,
}

impl StatusWriter {
    pub(crate) fn new(client: kube::Client) -> StatusWriter {
        StatusWriter { client, writes: Arc::new(Semaphore::new(MAX_WRITES)) }
    }

    /// Writes what `outgoing` says of `pod`, until its sender is gone and its last word is written.
    pub(crate) async fn run(self, pod: Arc<Pod>, mut outgoing: watch::Receiver<Outgoing>) {
        let mut known = Known::of(&pod);
        let whose = crate::pod::identity(&pod);
        // A node has many pods, and each has been seen in many versions.
        drop(pod);
        let api: Api<Pod> = Api::namespaced(self.client.clone(), &whose.namespace);
        let mut backoff = RETRY_MIN;
        loop {
            let newest = outgoing.borrow_and_update().clone();
            // Boxed, as it is many times what is remembered while nothing is written.
            let done = Box::pin(self.write(&api, &whose, newest, &mut known)).await;
            match done {
                Done::Gone => return,
                Done::Written => {
                    backoff = RETRY_MIN;
                    if outgoing.changed().await.is_err() {
                        return;
                    }
                }
                Done::Failed => {
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(RETRY_MAX);
                }
            }
        }
    }

    async fn write(&self, api: &Api<Pod>, whose: &PodIdentity, newest: Outgoing, known: &mut Known) -> Done {
        let Ok(_permit) = self.writes.acquire().await else { return Done::Gone };
        let name = &whose.name;
        known.see(newest.seen.as_deref());
        if let Some(status) = newest.status.as_ref()
            && let Some(patch) = patch(&whose.uid, &known.status, status)
        {
            match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(pod) => *known = Known { status: status.clone(), version: version(&pod) },
                Err(error) => return failure(whose, &error),
            }
        }
        if !newest.delete {
            return Done::Written;
        }
        let preconditions = Some(Preconditions { uid: Some(whose.uid.clone()), resource_version: None });
        let parameters = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        match api.delete(name, &parameters).await {
            Ok(_) => Done::Gone,
            Err(error) => failure(whose, &error),
        }
    }
}

enum Done {
    Written,
    Failed,
    Gone,
}

fn failure(whose: &PodIdentity, error: &kube::Error) -> Done {
    match error {
        // Gone, or another of the same name: nothing more to say about this one.
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => Done::Gone,
        error => {
            tracing::warn!(pod = crate::pod::full_name_of(whose), %error, "cannot write the pod's status");
            Done::Failed
        }
    }
}

/// The strategic merge patch from `old` to `new` for the pod with this UID, if they differ as written. Conditions merge by type, so that what
/// others own stays, and what a condition no longer says is taken back; lists that merge by key upstream are replaced whole
/// where they changed.
pub(crate) fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Option<Value> {
    let mut status = serde_json::to_value(new).unwrap_or_default();
    let before = serde_json::to_value(old).unwrap_or_default();
    let (fields, before) = (status.as_object_mut()?, before.as_object()?);
    for key in before.keys() {
        fields.entry(key).or_insert(Value::Null);
    }
    fields.retain(|key, value| before.get(key) != Some(value));
    if fields.is_empty() {
        return None;
    }
    for condition in fields.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
        let of_before = before.get("conditions").and_then(Value::as_array).into_iter().flatten();
        let was = of_before.filter(|was| was["type"] == condition["type"]).filter_map(Value::as_object).next();
        let Some(condition) = condition.as_object_mut() else { continue };
        for key in was.into_iter().flat_map(|was| was.keys()) {
            condition.entry(key).or_insert(Value::Null);
        }
    }
    let gone = |type_: &&str| {
        let has = |status: &PodStatus| crate::pod::resize::condition(status, type_).is_some();
        has(old) && !has(new)
    };
    if let Some(Value::Array(conditions)) = fields.get_mut("conditions") {
        let gone = [crate::pod::resize::PENDING, crate::pod::resize::IN_PROGRESS].into_iter().filter(gone);
        conditions.extend(gone.map(|type_| json!({"type": type_, "$patch": "delete"})));
    }
    for key in ["podIPs", "hostIPs"] {
        if before.contains_key(key)
            && let Some(Value::Array(items)) = fields.get_mut(key)
        {
            items.push(json!({"$patch": "replace"}));
        }
    }
    Some(json!({"metadata": {"uid": uid}, "status": status}))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{PodCondition, PodIP};

    use super::*;

    #[test]
    fn patches_say_only_what_changed_and_clear_what_is_gone() {
        let ips = |ip: &str| Some(vec![PodIP { ip: ip.to_owned() }]);
        let old = PodStatus {
            phase: Some("Pending".into()),
            reason: Some("X".into()),
            host_ip: Some("1.1.1.1".into()),
            pod_ips: ips("10.0.0.1"),
            ..PodStatus::default()
        };
        let new = PodStatus { phase: Some("Running".into()), reason: None, pod_ips: ips("10.0.0.2"), ..old.clone() };
        let expected = json!({"metadata": {"uid": "u"}, "status": {
            "phase": "Running", "reason": null, "podIPs": [{"ip": "10.0.0.2"}, {"$patch": "replace"}]}});
        assert_eq!(patch("u", &old, &new), Some(expected));
        assert_eq!(patch("u", &new, &new), None);
    }

    #[test]
    fn a_condition_takes_back_the_reason_it_no_longer_has() {
        let ready = |status: &str, reason: Option<&str>| PodStatus {
            conditions: Some(vec![PodCondition {
                type_: "Ready".into(),
                status: status.into(),
                reason: reason.map(Into::into),
                ..PodCondition::default()
            }]),
            ..PodStatus::default()
        };
        let patch = patch("u", &ready("False", Some("ContainersNotReady")), &ready("True", None)).unwrap();
        let expected = json!([{"type": "Ready", "status": "True", "reason": null}]);
        assert_eq!(patch["status"]["conditions"], expected);
    }

    #[test]
    fn what_others_wrote_later_is_seen_and_what_we_wrote_since_is_not_forgotten() {
        let at = |version: &str, phase: &str| {
            let mut pod = Pod { status: Some(PodStatus::default()), ..Pod::default() };
            pod.metadata.resource_version = Some(version.into());
            pod.status.as_mut().unwrap().phase = Some(phase.into());
            pod
        };
        let mut known = Known::of(&at("5", "Running"));
        known.see(Some(&at("4", "Pending")));
        assert_eq!(known.status.phase.as_deref(), Some("Running"));
        known.see(Some(&at("6", "Unknown")));
        assert_eq!(known.status.phase.as_deref(), Some("Unknown"));
    }
}
