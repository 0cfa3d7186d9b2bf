//! TokenReview: other servers, the kubelets' among them, ask whose a bearer token is
//! (`pkg/registry/authentication/tokenreview` upstream).

use axum::body::Body;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewStatus};

use super::self_subject::user_info;
use crate::authn::TokenError;
use crate::call::Call;
use crate::respond::ApiResponse;
use crate::status::ApiError;
use crate::virtual_kinds::Question;

pub(crate) async fn whose_is_it(call: &Call, body: Body) -> Result<ApiResponse, ApiError> {
    let mut question = Question::read(call, body).await?;
    let asked = question.typed::<TokenReview>()?.spec.clone();
    let Some(token) = asked.token.as_deref().filter(|token| !token.is_empty()) else {
        return Err(ApiError::BadRequest("token is required for TokenReview in authentication".into()));
    };
    // Whoever deleted what a token hung on, and then asks, is told so.
    call.shared.cache.catch_up().await?;
    let authenticator = &call.shared.authenticator;
    let audiences = asked.audiences.as_deref().filter(|audiences| !audiences.is_empty());
    let (audiences, mut used) = (audiences.unwrap_or(authenticator.api_audiences()), None);
    let found = authenticator.token(token, audiences, &mut used).await;
    if let Some(used) = used {
        call.shared.metrics.tokens.count(&used);
        used.annotate(&call.annotations);
        question.warn(used.warning());
    }
    question.typed::<TokenReview>()?.status = Some(match found {
        Ok(found) => TokenReviewStatus {
            authenticated: Some(true),
            audiences: Some(found.audiences),
            user: Some(user_info(&found.user)),
            error: None,
        },
        Err(TokenError::Lookup(error)) => return Err(error),
        // Upstream says who nobody is, too.
        Err(error) => {
            TokenReviewStatus { error: Some(error.to_string()), user: Some(Default::default()), ..Default::default() }
        }
    });
    Ok(question.answer(call))
}
