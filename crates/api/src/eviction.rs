//! `policy/v1` Eviction: asks a pod to leave its node. Not stored (`pkg/registry/core/pod/storage/eviction.go` upstream).

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::policy::v1::Eviction;
use serde_json::{Value, json};

use crate::kinds::{AGE, Kind, KindInfo, NAME, Scope, Verb};
use crate::names::NameRule;
use crate::object::Resource;
use crate::pods;

/// Names and decoder of Eviction.
pub static KIND: Kind = Kind::of::<Eviction>();

impl Resource for Eviction {
    const INFO: KindInfo = KindInfo {
        group: "policy",
        version: "v1",
        kind: "Eviction",
        plural: "evictions",
        singular: "eviction",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::CREATE_ONLY,
        subresources: &[],
        columns: &[NAME, AGE],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    const ALSO_READ: &'static [&'static str] = &["policy/v1beta1"];

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), crate::printing::age(&self.metadata, now)]
    }
}

/// Says in the status of a pod that it is evicted, so that controllers can tell that from a failure.
pub fn mark(pod: &mut Pod, now: Timestamp) {
    let condition = PodCondition {
        type_: "DisruptionTarget".to_owned(),
        status: "True".to_owned(),
        reason: Some("EvictionByEvictionAPI".to_owned()),
        message: Some("Eviction API: evicting".to_owned()),
        ..PodCondition::default()
    };
    pods::set_condition(pod.status.get_or_insert_default(), condition, now);
}
