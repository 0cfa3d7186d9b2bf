//! How others verify service account tokens: OpenID Connect discovery
//! (`pkg/routes/openidmetadata.go`).

use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};

use crate::respond::{self, ApiResponse};
use crate::server::Shared;
use crate::status::ApiError;

const KEY_SET: HeaderValue = HeaderValue::from_static("application/jwk-set+json");
/// Keys change rarely, so asking again after an hour is soon enough.
const AN_HOUR: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// The answer to a path of OpenID Connect discovery.
pub(crate) fn respond(shared: &Shared, segments: &[&str]) -> Result<ApiResponse, ApiError> {
    let mut response = match segments {
        ["openid", ..] => respond::with_type(StatusCode::OK, KEY_SET, shared.issuer.key_set().to_string().into()),
        _ => {
            let address = (shared.config.advertise_address, shared.config.secure_port).into();
            let document = shared.issuer.configuration(address).ok_or(ApiError::PathNotFound)?;
            respond::json(StatusCode::OK, &document)
        }
    };
    response.headers_mut().insert(CACHE_CONTROL, AN_HOUR);
    Ok(response)
}
