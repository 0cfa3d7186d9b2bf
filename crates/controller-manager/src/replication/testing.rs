//! Objects for the tests of this folder.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Pod, PodCondition, PodSpec, PodStatus, PodTemplateSpec, ReplicationController, ReplicationControllerSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::plan::Action;

/// The time of the tests.
pub(super) const NOW: i64 = 1_800_000_000;

pub(super) fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn labels() -> Option<std::collections::BTreeMap<String, String>> {
    Some([("app", "web"), ("tier", "front")].map(|(k, v)| (k.to_owned(), v.to_owned())).into())
}

/// A controller that wants `replicas` pods with label `app=web`.
pub(super) fn controller(replicas: i32) -> ReplicationController {
    let template = PodTemplateSpec {
        metadata: Some(ObjectMeta { labels: labels(), ..ObjectMeta::default() }),
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
pub(super) fn orphan(name: &str) -> Pod {
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            namespace: Some("default".to_owned()),
            uid: Some(format!("uid-{name}")),
            labels: labels(),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec::default()),
        status: Some(PodStatus { phase: Some("Running".to_owned()), ..PodStatus::default() }),
    }
}

/// A pod of [`controller`] that is not ready.
pub(super) fn pod(name: &str) -> Pod {
    let mut pod = orphan(name);
    pod.metadata.owner_references = Some(vec![api::owners::controller_reference(&controller(0))]);
    pod
}

/// A pod of [`controller`] that has been ready for 100 s.
pub(super) fn ready(name: &str) -> Pod {
    let mut pod = pod(name);
    set_ready(&mut pod, 100);
    pod
}

/// Makes a pod ready since so many seconds.
pub(super) fn set_ready(pod: &mut Pod, seconds: i64) {
    let ready = PodCondition {
        type_: "Ready".to_owned(),
        status: "True".to_owned(),
        last_transition_time: Some(Time(Timestamp::from_second(NOW - seconds).unwrap())),
        ..PodCondition::default()
    };
    pod.status.as_mut().unwrap().conditions = Some(vec![ready]);
}

/// Does to `pods` what the executor would.
pub(super) fn apply(owner: &ReplicationController, pods: &mut Vec<Arc<Pod>>, actions: Vec<Action>) {
    for action in actions {
        match action {
            Action::Create(count, _) => pods.extend((0..count).map(|n| Arc::new(pod(&format!("new-{n}"))))),
            Action::Delete(gone, _) => pods.retain(|pod| pod.metadata.uid != gone.metadata.uid),
            Action::Adopt(adopted) => edit(pods, &adopted, |pod| {
                pod.metadata.owner_references = Some(vec![api::owners::controller_reference(owner)]);
            }),
            Action::Release(released) => edit(pods, &released, |pod| pod.metadata.owner_references = None),
        }
    }
}

fn edit(pods: &mut [Arc<Pod>], which: &Pod, change: impl Fn(&mut Pod)) {
    for pod in pods.iter_mut().filter(|pod| pod.metadata.uid == which.metadata.uid) {
        change(Arc::make_mut(pod));
    }
}
