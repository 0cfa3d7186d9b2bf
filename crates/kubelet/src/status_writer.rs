//! Writes one pod's status to the API: the newest only, in order, whatever other pods do (`pkg/kubelet/status`).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};

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
    /// Whether, that written, the pod's object is to be deleted.
    pub(crate) delete: bool,
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
        let api: Api<Pod> = Api::namespaced(self.client.clone(), crate::pod::namespace(&pod.metadata));
        let mut written = pod.status.clone().unwrap_or_default();
        let mut backoff = RETRY_MIN;
        loop {
            let newest = outgoing.borrow_and_update().clone();
            let done = self.write(&api, &pod, &newest, &mut written).await;
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

    async fn write(&self, api: &Api<Pod>, pod: &Pod, newest: &Outgoing, written: &mut PodStatus) -> Done {
        let Ok(_permit) = self.writes.acquire().await else { return Done::Gone };
        let name = crate::pod::name(&pod.metadata);
        if let Some(status) = newest.status.as_ref().filter(|status| ***status != *written) {
            let patch = patch(crate::pod::uid(pod), written, status);
            match api.patch_status(name, &PatchParams::default(), &Patch::Strategic(patch)).await {
                Ok(_) => *written = (**status).clone(),
                Err(error) => return failure(pod, &error),
            }
        }
        if !newest.delete {
            return Done::Written;
        }
        let uid = pod.metadata.uid.clone();
        let preconditions = Some(Preconditions { uid, resource_version: None });
        let parameters = DeleteParams { grace_period_seconds: Some(0), preconditions, ..DeleteParams::default() };
        match api.delete(name, &parameters).await {
            Ok(_) => Done::Gone,
            Err(error) => failure(pod, &error),
        }
    }
}

enum Done {
    Written,
    Failed,
    Gone,
}

fn failure(pod: &Pod, error: &kube::Error) -> Done {
    match error {
        // Gone, or another of the same name: nothing more to say about this one.
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => Done::Gone,
        error => {
            tracing::warn!(pod = crate::pod::full_name(pod), %error, "cannot write the pod's status");
            Done::Failed
        }
    }
}

/// The strategic merge patch from `old` to `new` for the pod with this UID. Conditions merge by type, so that what
/// others own stays; lists that merge by key upstream are replaced whole where they changed.
fn patch(uid: &str, old: &PodStatus, new: &PodStatus) -> Value {
    let mut status = serde_json::to_value(new).unwrap_or_default();
    let before = serde_json::to_value(old).unwrap_or_default();
    let (Some(fields), Some(before)) = (status.as_object_mut(), before.as_object()) else { return json!({}) };
    for key in before.keys() {
        fields.entry(key).or_insert(Value::Null);
    }
    fields.retain(|key, value| before.get(key) != Some(value));
    for key in ["podIPs", "hostIPs"] {
        if before.contains_key(key)
            && let Some(Value::Array(items)) = fields.get_mut(key)
        {
            items.push(json!({"$patch": "replace"}));
        }
    }
    json!({"metadata": {"uid": uid}, "status": status})
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodIP;

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
        assert_eq!(patch("u", &old, &new), expected);
        assert_eq!(patch("u", &new, &new)["status"], json!({}));
    }
}
