//! SelfSubjectReview: `kubectl auth whoami` (`pkg/registry/authentication/selfsubjectreview` upstream).

use axum::body::Body;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, SelfSubjectReviewStatus, UserInfo};

use crate::call::Call;
use crate::respond::ApiResponse;
use crate::status::ApiError;
use crate::user::User;
use crate::virtual_kinds::Question;

pub(crate) async fn who_am_i(call: &Call, body: Body) -> Result<ApiResponse, ApiError> {
    let mut question = Question::read(call, body).await?;
    let review: &mut SelfSubjectReview = question.typed()?;
    review.metadata.creation_timestamp = Some(crate::metadata::now_time());
    review.status = Some(SelfSubjectReviewStatus { user_info: Some(user_info(&call.user)) });
    Ok(question.answer(call))
}

/// An identity as reviews tell it.
pub(crate) fn user_info(user: &User) -> UserInfo {
    UserInfo {
        username: Some(user.name.clone()),
        uid: user.uid.clone(),
        groups: Some(user.groups.clone()).filter(|g| !g.is_empty()),
        extra: Some(user.extra.clone()).filter(|e| !e.is_empty()),
    }
}
