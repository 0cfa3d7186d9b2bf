//! What asks for a number of pods, and how its status is written.

use std::collections::BTreeMap;

use api::selector::Selector;
use k8s_openapi::api::core::v1::{
    PodTemplateSpec, ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// A condition of an owner's status; the types of the different owners are alike.
pub(super) type Condition = ReplicationControllerCondition;

/// What is observed about an owner's pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Status {
    /// Pods that are neither finished nor being deleted.
    pub(super) replicas: i32,
    /// Those that have all labels of the template.
    pub(super) fully_labeled: i32,
    /// Those that are ready.
    pub(super) ready: i32,
    /// Those that have been ready for long enough.
    pub(super) available: i32,
    /// The generation of the owner that this was observed for.
    pub(super) observed_generation: i64,
    /// `ReplicaFailure` and others' conditions.
    pub(super) conditions: Vec<Condition>,
}

/// An object that wants a number of pods made from a template.
pub(super) trait Replicas:
    kube::Resource<DynamicType = ()>
    + k8s_openapi::Resource
    + k8s_openapi::Metadata<Ty = ObjectMeta>
    + serde::Serialize
    + Clone
    + Send
    + Sync
    + 'static
{
    /// How many pods it wants.
    fn desired(&self) -> usize;
    /// Which pods it counts; `None` selects nothing.
    fn selector(&self) -> Option<Selector>;
    /// The equality part of its selector, by which it is indexed.
    fn match_labels(&self) -> Option<&BTreeMap<String, String>>;
    /// What its pods look like.
    fn template(&self) -> Option<&PodTemplateSpec>;
    /// How long a pod must be ready to count as available.
    fn min_ready_seconds(&self) -> i64;
    /// Its status as last written.
    fn status(&self) -> Status;
    /// The same object with another status.
    fn with_status(&self, status: Status) -> Self;

    /// Whether it selects something with these labels.
    fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selector().is_some_and(|selector| selector.matches(Some(labels)))
    }
}

impl Replicas for ReplicationController {
    fn desired(&self) -> usize {
        let replicas = self.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
        usize::try_from(replicas).unwrap_or(0)
    }

    fn selector(&self) -> Option<Selector> {
        self.match_labels().filter(|labels| !labels.is_empty()).map(Selector::from_map)
    }

    fn match_labels(&self) -> Option<&BTreeMap<String, String>> {
        self.spec.as_ref()?.selector.as_ref()
    }

    fn template(&self) -> Option<&PodTemplateSpec> {
        self.spec.as_ref()?.template.as_ref()
    }

    fn min_ready_seconds(&self) -> i64 {
        self.spec.as_ref().and_then(|spec| spec.min_ready_seconds).unwrap_or(0).into()
    }

    fn status(&self) -> Status {
        let status = self.status.clone().unwrap_or_default();
        Status {
            replicas: status.replicas,
            fully_labeled: status.fully_labeled_replicas.unwrap_or(0),
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            observed_generation: status.observed_generation.unwrap_or(0),
            conditions: status.conditions.unwrap_or_default(),
        }
    }

    fn with_status(&self, status: Status) -> ReplicationController {
        let count = |n: i32| (n != 0).then_some(n);
        let status = ReplicationControllerStatus {
            replicas: status.replicas,
            fully_labeled_replicas: count(status.fully_labeled),
            ready_replicas: count(status.ready),
            available_replicas: count(status.available),
            observed_generation: (status.observed_generation != 0).then_some(status.observed_generation),
            conditions: (!status.conditions.is_empty()).then_some(status.conditions),
        };
        ReplicationController { status: Some(status), ..self.clone() }
    }
}
