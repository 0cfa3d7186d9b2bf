//! Objects for the tests of this folder.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec, ReplicationController, ReplicationControllerSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::plan::Action;
use crate::pod::{Common, Phase, PodInfo};

/// The time of the tests.
pub(super) const NOW: i64 = 1_800_000_000;

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn labels() -> std::collections::BTreeMap<String, String> {
    [("app", "web"), ("tier", "front")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

/// A controller that wants `replicas` pods with label `app=web`.
pub(super) fn controller(replicas: i32) -> ReplicationController {
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: Some(labels()), ..ObjectMeta::default() }),
        spec: Some(PodSpec::default()),
    };
    ReplicationController {
        metadata: ObjectMeta {
            name: Some("web".to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some("owner".to_owned()),
            generation: Some(1),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicationControllerSpec {
            replicas: Some(replicas),
            selector: Some([("app".to_owned(), "web".to_owned())].into()),
            template: Some(template),
            min_ready_seconds: None,
        }),
        status: None,
    }
}

/// A matching pod without controller.
pub(super) fn orphan(name: &str) -> PodInfo {
    PodInfo {
        name: name.into(),
        namespace: "default".into(),
        uid: format!("uid-{name}").into(),
        common: Common { labels: labels(), ..Common::default() }.into(),
        phase: Phase::Running,
        ..PodInfo::default()
    }
}

/// A pod of [`controller`] that is not ready.
pub(super) fn pod(name: &str) -> PodInfo {
    let mut pod = orphan(name);
    common(&mut pod).owners = vec![api::owners::controller_reference(&controller(0))];
    pod
}

/// A pod of [`controller`] that has been ready for 100 s.
pub(super) fn ready(name: &str) -> PodInfo {
    let mut pod = pod(name);
    set_ready(&mut pod, 100);
    pod
}

/// Makes a pod ready since so many seconds.
pub(super) fn set_ready(pod: &mut PodInfo, seconds: i64) {
    (pod.ready, pod.ready_changed) = (true, Some(Timestamp::from_second(NOW - seconds).unwrap()));
}

/// What the pod has in common with others, to change it for this one.
pub(super) fn common(pod: &mut PodInfo) -> &mut Common {
    Arc::make_mut(&mut pod.common)
}

/// Does to `pods` what the executor would.
pub(super) fn apply(owner: &ReplicationController, pods: &mut Vec<Arc<PodInfo>>, actions: Vec<Action>) {
    for action in actions {
        match action {
            Action::Create(count, _) => pods.extend((0..count).map(|n| Arc::new(pod(&format!("new-{n}"))))),
            Action::Delete(gone, _) => pods.retain(|pod| pod.uid != gone.uid),
            Action::Adopt(adopted) => edit(pods, &adopted, |pod| {
                common(pod).owners = vec![api::owners::controller_reference(owner)];
            }),
            Action::Release(released) => edit(pods, &released, |pod| common(pod).owners.clear()),
        }
    }
}

fn edit(pods: &mut [Arc<PodInfo>], which: &PodInfo, change: impl Fn(&mut PodInfo)) {
    for pod in pods.iter_mut().filter(|pod| pod.uid == which.uid) {
        change(Arc::make_mut(pod));
    }
}
