//! SubjectAccessReview and its kin: may somebody do something? (`pkg/apis/authorization/validation` upstream)

use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{
    LocalSubjectAccessReview, NonResourceAttributes, ResourceAttributes, SelfSubjectAccessReview,
    SelfSubjectRulesReview, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};

use super::review;
use crate::Resource;
use crate::field::{ErrorList, Path, invalid};
use crate::kinds::{KindInfo, Scope};
use crate::printing::created_at;

const GROUP: &str = "authorization.k8s.io";

impl Resource for SubjectAccessReview {
    const INFO: KindInfo =
        review(GROUP, "SubjectAccessReview", "subjectaccessreviews", "subjectaccessreview", Scope::Cluster);

    fn validate(&self, errors: &mut ErrorList) {
        validate_subject(&self.spec, errors);
        validate_metadata(&self.metadata, errors);
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), created_at(&self.metadata)]
    }
}

impl Resource for LocalSubjectAccessReview {
    const INFO: KindInfo = review(
        GROUP,
        "LocalSubjectAccessReview",
        "localsubjectaccessreviews",
        "localsubjectaccessreview",
        Scope::Namespaced,
    );

    fn validate(&self, errors: &mut ErrorList) {
        validate_subject(&self.spec, errors);
        validate_metadata(&ObjectMeta { namespace: None, ..self.metadata.clone() }, errors);
        let (path, here) = (Path::new("spec"), self.metadata.namespace.as_deref().unwrap_or(""));
        let there = self.spec.resource_attributes.as_ref().map(|a| a.namespace.as_deref().unwrap_or(""));
        if let Some(there) = there.filter(|there| *there != here) {
            let field = path.child("resourceAttributes").child("namespace");
            errors.push(invalid(&field, there, "must match metadata.namespace"));
        }
        if let Some(attributes) = &self.spec.non_resource_attributes {
            let field = path.child("nonResourceAttributes");
            errors.push(invalid(&field, json!(attributes), "disallowed on this kind of request"));
        }
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), created_at(&self.metadata)]
    }
}

impl Resource for SelfSubjectAccessReview {
    const INFO: KindInfo =
        review(GROUP, "SelfSubjectAccessReview", "selfsubjectaccessreviews", "selfsubjectaccessreview", Scope::Cluster);

    fn validate(&self, errors: &mut ErrorList) {
        let (resource, path) = (self.spec.resource_attributes.as_ref(), self.spec.non_resource_attributes.as_ref());
        validate_attributes(resource, path, errors);
        validate_metadata(&self.metadata, errors);
    }

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), created_at(&self.metadata)]
    }
}

impl Resource for SelfSubjectRulesReview {
    const INFO: KindInfo =
        review(GROUP, "SelfSubjectRulesReview", "selfsubjectrulesreviews", "selfsubjectrulesreview", Scope::Cluster);

    fn cells(&self, _now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), created_at(&self.metadata)]
    }
}

fn validate_subject(spec: &SubjectAccessReviewSpec, errors: &mut ErrorList) {
    validate_attributes(spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref(), errors);
    let has_user = spec.user.as_deref().is_some_and(|u| !u.is_empty());
    if !has_user && spec.groups.as_deref().unwrap_or_default().is_empty() {
        errors.push(invalid(&Path::new("spec").child("user"), "", "at least one of user or group must be specified"));
    }
}

fn validate_attributes(
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
    errors: &mut ErrorList,
) {
    let spec = Path::new("spec");
    match (resource, path) {
        (Some(_), Some(path)) => {
            let detail = "cannot be specified in combination with resourceAttributes";
            errors.push(invalid(&spec.child("nonResourceAttributes"), json!(path), detail));
        }
        (None, None) => {
            let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(invalid(&spec.child("resourceAttributes"), "null", detail));
        }
        _ => {}
    }
}

fn validate_metadata(metadata: &ObjectMeta, errors: &mut ErrorList) {
    if *metadata != (ObjectMeta { managed_fields: metadata.managed_fields.clone(), ..ObjectMeta::default() }) {
        errors.push(invalid(&Path::new("metadata"), json!(metadata), "must be empty"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    #[test]
    fn questions_are_whole_and_ask_one_thing() {
        let resource = json!({"verb": "get", "resource": "pods", "namespace": "a"});
        let path = json!({"verb": "get", "path": "/"});
        let cases = [
            ("a resource", json!({"user": "a", "resourceAttributes": resource}), vec![]),
            ("a path", json!({"groups": ["a"], "nonResourceAttributes": path}), vec![]),
            (
                "nothing",
                json!({}),
                vec![
                    "spec.resourceAttributes: Invalid value: \"null\": exactly one of nonResourceAttributes or \
                     resourceAttributes must be specified",
                    "spec.user: Invalid value: \"\": at least one of user or group must be specified",
                ],
            ),
            (
                "both",
                json!({"user": "a", "resourceAttributes": resource, "nonResourceAttributes": path}),
                vec![
                    r#"spec.nonResourceAttributes: Invalid value: {"path":"/","verb":"get"}: cannot be specified in combination with resourceAttributes"#,
                ],
            ),
        ];
        for (sentence, spec, expected) in cases {
            let review: SubjectAccessReview = serde_json::from_value(json!({"spec": spec})).unwrap();
            let errors: Vec<String> = Object::validate(&review).iter().map(ToString::to_string).collect();
            assert_eq!(errors, expected, "{sentence}");
        }
        let elsewhere = json!({"metadata": {"namespace": "b"}, "spec": {"user": "a", "resourceAttributes": resource}});
        let review: LocalSubjectAccessReview = serde_json::from_value(elsewhere).unwrap();
        let errors: Vec<String> = Object::validate(&review).iter().map(ToString::to_string).collect();
        let expected = r#"spec.resourceAttributes.namespace: Invalid value: "a": must match metadata.namespace"#;
        assert_eq!(errors, [expected]);
    }
}
