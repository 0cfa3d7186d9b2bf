//! SelfSubjectRulesReview: everything I may do in a namespace, `kubectl auth can-i --list`
//! (`pkg/registry/authorization/selfsubjectrulesreview` upstream).

use axum::body::Body;
use k8s_openapi::api::authorization::v1::{
    NonResourceRule, ResourceRule, SelfSubjectRulesReview, SubjectRulesReviewStatus,
};
use k8s_openapi::api::rbac::v1::PolicyRule;

use crate::authz::{self, Attributes, Target};
use crate::call::Call;
use crate::respond::ApiResponse;
use crate::status::ApiError;
use crate::virtual_kinds::Question;

pub(crate) async fn what_may_i(call: &Call, body: Body) -> Result<ApiResponse, ApiError> {
    let mut question = Question::read(call, body).await?;
    let review: &mut SelfSubjectRulesReview = question.typed()?;
    let Some(namespace) = review.spec.namespace.clone().filter(|n| !n.is_empty()) else {
        return Err(ApiError::BadRequest("no namespace on request".into()));
    };
    call.shared.cache.catch_up().await?;
    // Upstream's answer has a status and no question.
    *review = SelfSubjectRulesReview { status: Some(rules(call, &namespace)), ..Default::default() };
    Ok(question.answer(call))
}

fn rules(call: &Call, namespace: &str) -> SubjectRulesReviewStatus {
    let rights = call.shared.cache.rights();
    let rules: Vec<&PolicyRule> = rights.of(&call.user, namespace).flat_map(|grant| grant.rules()).collect();
    let (paths, resources): (Vec<&PolicyRule>, Vec<&PolicyRule>) =
        rules.into_iter().partition(|rule| rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty()));
    let here = authz::Resource { namespace, ..authz::Resource::default() };
    let mut errors = rights.problems(&Attributes { user: &call.user, verb: "", target: Target::Resource(here) });
    if call.user.node().is_some() {
        errors = "node authorizer does not support user rule resolution".to_owned();
    }
    SubjectRulesReviewStatus {
        incomplete: !errors.is_empty(),
        evaluation_error: Some(errors).filter(|e| !e.is_empty()),
        resource_rules: resources.into_iter().map(resource_rule).collect(),
        non_resource_rules: paths.into_iter().map(path_rule).collect(),
    }
}

fn resource_rule(rule: &PolicyRule) -> ResourceRule {
    ResourceRule {
        verbs: rule.verbs.clone(),
        api_groups: rule.api_groups.clone(),
        resources: rule.resources.clone(),
        resource_names: rule.resource_names.clone(),
    }
}

fn path_rule(rule: &PolicyRule) -> NonResourceRule {
    NonResourceRule { verbs: rule.verbs.clone(), non_resource_urls: rule.non_resource_urls.clone() }
}
