//! `autoscaling/v1` Scale: how many pods something should have and has, whatever kind it is. Not stored: read from and
//! written to the object behind the `scale` subresource.

use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v1::{Scale, ScaleSpec, ScaleStatus};
use k8s_openapi::api::core::v1::ReplicationController;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path, invalid};
use crate::kinds::{AGE, Kind, KindInfo, NAME, Scope, Verb, column};
use crate::names::NameRule;
use crate::object::Resource;
use crate::selector::Selector;

/// Names and decoder of Scale.
pub static KIND: Kind = Kind::of::<Scale>();

impl Resource for Scale {
    const INFO: KindInfo = KindInfo {
        group: "autoscaling",
        version: "v1",
        kind: "Scale",
        plural: "scales",
        singular: "scale",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::ALL,
        subresources: &[],
        columns: &[
            NAME,
            column("Desired", "integer", "How many pods there should be"),
            column("Available", "integer", "How many pods there are"),
            AGE,
        ],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    fn validate(&self, errors: &mut ErrorList) {
        let replicas = self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
        if replicas < 0 {
            let path = Path::new("spec").child("replicas");
            errors.push(invalid(&path, replicas, "must be greater than or equal to 0"));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![
            json!(self.metadata.name),
            json!(self.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0)),
            json!(self.status.as_ref().map_or(0, |s| s.replicas)),
            crate::printing::age(&self.metadata, now),
        ]
    }
}

/// The scale of a ReplicationController, under its name, UID and resource version.
pub fn of(controller: &ReplicationController) -> Scale {
    let metadata = &controller.metadata;
    let spec = controller.spec.as_ref();
    let selector = spec.and_then(|s| s.selector.as_ref()).map(|map| Selector::from_map(map).to_string());
    Scale {
        metadata: ObjectMeta {
            name: metadata.name.clone(),
            namespace: metadata.namespace.clone(),
            uid: metadata.uid.clone(),
            resource_version: metadata.resource_version.clone(),
            creation_timestamp: metadata.creation_timestamp.clone(),
            ..ObjectMeta::default()
        },
        spec: Some(ScaleSpec { replicas: spec.and_then(|s| s.replicas) }),
        status: Some(ScaleStatus {
            replicas: controller.status.as_ref().map_or(0, |s| s.replicas),
            selector: selector.filter(|s| !s.is_empty()),
        }),
    }
}

/// Gives `controller` the number of replicas that `scale` asks for.
pub fn apply(scale: &Scale, controller: &mut ReplicationController) {
    let replicas = scale.spec.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    controller.spec.get_or_insert_default().replicas = Some(replicas);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scale_shows_and_sets_the_replicas_of_a_controller() {
        let mut controller = ReplicationController::default();
        controller.metadata.name = Some("web".into());
        controller.spec.get_or_insert_default().selector = Some([("app".to_owned(), "web".to_owned())].into());
        let mut scale = of(&controller);
        assert_eq!(scale.status.as_ref().unwrap().selector.as_deref(), Some("app=web"));
        scale.spec = Some(ScaleSpec { replicas: Some(3) });
        apply(&scale, &mut controller);
        assert_eq!(of(&controller).spec.unwrap().replicas, Some(3));
    }

    #[test]
    fn negative_scale_is_refused() {
        let body = br#"{"apiVersion":"autoscaling/v1","kind":"Scale","spec":{"replicas":-1}}"#;
        let errors = (KIND.decode)(body).unwrap().object.validate();
        assert_eq!(errors[0].to_string(), "spec.replicas: Invalid value: -1: must be greater than or equal to 0");
    }
}
