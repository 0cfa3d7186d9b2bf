//! May somebody do something? The same authorizers answer that decide about requests
//! (`pkg/registry/authorization` upstream).

use axum::body::Body;
use k8s_openapi::api::authorization::v1::{
    FieldSelectorAttributes, LocalSubjectAccessReview, NonResourceAttributes, ResourceAttributes,
    SelfSubjectAccessReview, SubjectAccessReview, SubjectAccessReviewSpec, SubjectAccessReviewStatus,
};

use api::selector::{FieldRequirement, FieldSelector};

use crate::authz::{self, Attributes, Decision, Target};
use crate::call::Call;
use crate::respond::ApiResponse;
use crate::status::ApiError;
use crate::user::User;
use crate::virtual_kinds::Question;

/// SubjectAccessReview.
pub(crate) async fn may_they(call: &Call, body: Body) -> Result<ApiResponse, ApiError> {
    let mut question = Question::read(call, body).await?;
    let review: &mut SubjectAccessReview = question.typed()?;
    review.status = Some(answer_about(call, &review.spec).await?);
    Ok(question.answer(call))
}

/// LocalSubjectAccessReview: the same, for who may ask in one namespace only.
pub(crate) async fn may_they_here(call: &Call, body: Body) -> Result<ApiResponse, ApiError> {
    let mut question = Question::read(call, body).await?;
    let review: &mut LocalSubjectAccessReview = question.typed()?;
    review.status = Some(answer_about(call, &review.spec).await?);
    Ok(question.answer(call))
}

/// SelfSubjectAccessReview: `kubectl auth can-i`.
pub(crate) async fn may_i(call: &Call, body: Body) -> Result<ApiResponse, ApiError> {
    let mut question = Question::read(call, body).await?;
    let review: &mut SelfSubjectAccessReview = question.typed()?;
    let (resource, path) = (review.spec.resource_attributes.as_ref(), review.spec.non_resource_attributes.as_ref());
    review.status = Some(answer(call, &call.user, resource, path).await?);
    Ok(question.answer(call))
}

async fn answer_about(call: &Call, spec: &SubjectAccessReviewSpec) -> Result<SubjectAccessReviewStatus, ApiError> {
    let user = User {
        name: spec.user.clone().unwrap_or_default(),
        groups: spec.groups.clone().unwrap_or_default(),
        uid: spec.uid.clone(),
        extra: spec.extra.clone().unwrap_or_default(),
    };
    answer(call, &user, spec.resource_attributes.as_ref(), spec.non_resource_attributes.as_ref()).await
}

async fn answer(
    call: &Call,
    user: &User,
    resource: Option<&ResourceAttributes>,
    path: Option<&NonResourceAttributes>,
) -> Result<SubjectAccessReviewStatus, ApiError> {
    // Validation has seen to it that exactly one is there.
    let (verb, target) = match (resource, path) {
        (Some(resource), _) => (&resource.verb, Target::Resource(target(resource))),
        (None, Some(path)) => (&path.verb, Target::Path(path.path.as_deref().unwrap_or(""))),
        (None, None) => (&None, Target::Path("")),
    };
    let verb = verb.as_deref().unwrap_or("");
    let decision = authz::decide(&call.shared, &Attributes { user, verb, target }).await?;
    let (allowed, reason) = match decision {
        Decision::Allow(reason) => (true, reason.to_string()),
        Decision::NoOpinion(reason) => (false, reason),
    };
    let reason = Some(reason).filter(|r| !r.is_empty());
    Ok(SubjectAccessReviewStatus { allowed, reason, ..SubjectAccessReviewStatus::default() })
}

fn target(attributes: &ResourceAttributes) -> authz::Resource<'_> {
    authz::Resource {
        group: attributes.group.as_deref().unwrap_or(""),
        version: attributes.version.as_deref().unwrap_or(""),
        resource: attributes.resource.as_deref().unwrap_or(""),
        subresource: attributes.subresource.as_deref().unwrap_or(""),
        namespace: attributes.namespace.as_deref().unwrap_or(""),
        name: attributes.name.as_deref().unwrap_or("").into(),
        fields: attributes.field_selector.as_ref().and_then(fields),
    }
}

/// A field selector as reviews tell it. What has no simple form only narrows, so leaving it out is on the safe side.
fn fields(attributes: &FieldSelectorAttributes) -> Option<FieldSelector> {
    if let Some(raw) = attributes.raw_selector.as_deref().filter(|raw| !raw.is_empty()) {
        return FieldSelector::parse(raw).ok();
    }
    let simple = attributes.requirements.iter().flatten().filter_map(|requirement| {
        let [value] = requirement.values.as_deref().unwrap_or_default() else { return None };
        let equal = match &*requirement.operator {
            "In" => true,
            "NotIn" => false,
            _ => return None,
        };
        Some(FieldRequirement { field: requirement.key.clone(), equal, value: value.clone() })
    });
    Some(FieldSelector::of(simple.collect()))
}
