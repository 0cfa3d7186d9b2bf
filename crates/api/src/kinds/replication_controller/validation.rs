//! What is wrong with a replication controller (`ValidateReplicationControllerSpec` upstream).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PodTemplateSpec, ReplicationController, ReplicationControllerSpec};
use serde_json::json;

use crate::field::{ErrorList, Path, forbidden, invalid, not_supported, required};
use crate::kinds::{pod, rules};

pub(super) fn spec(controller: &ReplicationController, errors: &mut ErrorList) {
    let empty = ReplicationControllerSpec::default();
    let spec = controller.spec.as_ref().unwrap_or(&empty);
    let path = Path::new("spec");
    rules::not_negative(spec.min_ready_seconds.unwrap_or(0), &path.child("minReadySeconds"), errors);
    let selector = spec.selector.as_ref().filter(|s| !s.is_empty());
    if selector.is_none() {
        errors.push(required(&path.child("selector"), ""));
    }
    match spec.replicas {
        Some(replicas) => rules::not_negative(replicas, &path.child("replicas"), errors),
        None => errors.push(required(&path.child("replicas"), "")),
    }
    match spec.template.as_ref() {
        Some(template) => self::template(template, selector, &path.child("template"), errors),
        None => errors.push(required(&path.child("template"), "")),
    }
}

/// A template whose pods the controller would not count makes pods without end.
fn template(
    template: &PodTemplateSpec,
    selector: Option<&BTreeMap<String, String>>,
    path: &Path,
    errors: &mut ErrorList,
) {
    let empty = BTreeMap::new();
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref()).unwrap_or(&empty);
    if selector.is_some_and(|s| s.iter().any(|(key, value)| labels.get(key) != Some(value))) {
        let path = path.child("metadata").child("labels");
        errors.push(invalid(&path, json!(labels), "`selector` does not match template `labels`"));
    }
    pod::validation::template(template, path, errors);
    let Some(spec) = template.spec.as_ref() else { return };
    let restart_policy = spec.restart_policy.as_deref().unwrap_or("");
    if restart_policy != "Always" {
        errors.push(not_supported(&path.child("spec").child("restartPolicy"), restart_policy, &["Always"]));
    }
    if spec.active_deadline_seconds.is_some() {
        let detail = "activeDeadlineSeconds in ReplicationController is not Supported";
        errors.push(forbidden(&path.child("spec").child("activeDeadlineSeconds"), detail));
    }
}

/// Counts are of pods that exist.
pub(super) fn status(controller: &ReplicationController, errors: &mut ErrorList) {
    let Some(status) = controller.status.as_ref() else { return };
    let path = Path::new("status");
    let (ready, available) = (status.ready_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    let labeled = status.fully_labeled_replicas.unwrap_or(0);
    rules::not_negative(status.replicas, &path.child("replicas"), errors);
    rules::not_negative(status.observed_generation.unwrap_or(0), &path.child("observedGeneration"), errors);
    let parts = [(labeled, "fullyLabeledReplicas"), (ready, "readyReplicas"), (available, "availableReplicas")];
    for (count, field) in parts {
        rules::not_negative(count, &path.child(field), errors);
        if count > status.replicas {
            errors.push(invalid(&path.child(field), count, "cannot be greater than status.replicas"));
        }
    }
    if available > ready {
        let path = path.child("availableReplicas");
        errors.push(invalid(&path, available, "cannot be greater than readyReplicas"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    fn good() -> ReplicationController {
        let json = r#"{"metadata":{"name":"web","namespace":"default"},"spec":{"template":{
            "metadata":{"labels":{"app":"web"}},"spec":{"containers":[{"name":"c","image":"busybox"}]}}}}"#;
        changed(|_| {}, json)
    }

    fn changed(change: impl Fn(&mut ReplicationControllerSpec), json: &str) -> ReplicationController {
        let mut controller: ReplicationController = serde_json::from_str(json).unwrap();
        change(controller.spec.get_or_insert_default());
        Object::set_defaults(&mut controller);
        controller
    }

    #[test]
    fn selector_labels_and_count_follow_from_the_template() {
        let controller = good();
        let labels: BTreeMap<String, String> = [("app".to_owned(), "web".to_owned())].into();
        assert_eq!(controller.metadata.labels.as_ref(), Some(&labels));
        let spec = controller.spec.clone().unwrap();
        assert_eq!((spec.selector, spec.replicas), (Some(labels), Some(1)));
        let container = &spec.template.unwrap().spec.unwrap().containers[0];
        assert_eq!(container.image_pull_policy.as_deref(), Some("Always"));
        let mut again = controller.clone();
        Object::set_defaults(&mut again);
        assert_eq!(again, controller);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_path() {
        type Change = fn(&mut ReplicationControllerSpec);
        let table: [(&str, Change, &[&str]); 7] = [
            ("nothing", |_| {}, &[]),
            (
                "replicas",
                |s| s.replicas = Some(-1),
                &["spec.replicas: Invalid value: -1: must be greater than or equal to 0"],
            ),
            (
                "selector of other pods",
                |s| s.selector = Some([("app".to_owned(), "db".to_owned())].into()),
                &[
                    r#"spec.template.metadata.labels: Invalid value: {"app":"web"}: `selector` does not match template `labels`"#,
                ],
            ),
            ("no template", |s| s.template = None, &["spec.template: Required value"]),
            (
                "pods that end",
                |s| s.template.as_mut().unwrap().spec.as_mut().unwrap().restart_policy = Some("Never".into()),
                &[r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#],
            ),
            (
                "a bad image",
                |s| s.template.as_mut().unwrap().spec.as_mut().unwrap().containers[0].image = None,
                &["spec.template.spec.containers[0].image: Required value"],
            ),
            (
                "minReadySeconds",
                |s| s.min_ready_seconds = Some(-5),
                &["spec.minReadySeconds: Invalid value: -5: must be greater than or equal to 0"],
            ),
        ];
        for (sentence, change, expected) in table {
            let mut controller = good();
            change(controller.spec.as_mut().unwrap());
            let errors: Vec<String> = Object::validate(&controller).iter().map(ToString::to_string).collect();
            assert_eq!(errors, expected, "{sentence}");
        }
    }

    #[test]
    fn generation_grows_with_the_spec_only() {
        let mut old = good();
        Object::prepare_create(&mut old);
        assert_eq!(old.metadata.generation, Some(1));
        let mut labelled = old.clone();
        labelled.metadata.labels = None;
        Object::prepare_update(&mut labelled, &old);
        assert_eq!(labelled.metadata.generation, Some(1));
        let mut scaled = old.clone();
        scaled.spec.as_mut().unwrap().replicas = Some(5);
        Object::prepare_update(&mut scaled, &old);
        assert_eq!(scaled.metadata.generation, Some(2));
    }

    #[test]
    fn status_counts_pods_that_exist() {
        let mut controller = good();
        let status = controller.status.get_or_insert_default();
        (status.replicas, status.ready_replicas) = (1, Some(2));
        let errors = Object::validate_status_update(&controller, &good());
        let expected = "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas";
        assert_eq!(errors[0].to_string(), expected);
    }
}
