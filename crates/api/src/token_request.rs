//! `authentication.k8s.io/v1` TokenRequest: what is posted to `serviceaccounts/<name>/token`. Not stored: the answer is
//! the request with a token in it (`pkg/registry/core/serviceaccount/storage/token.go` upstream).

use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::TokenRequest;
use serde_json::{Value, json};

use crate::field::{ErrorList, Path, invalid};
use crate::kinds::{AGE, Kind, KindInfo, NAME, Scope, Verb};
use crate::names::NameRule;
use crate::object::Resource;

/// How long a token is valid if the request does not say.
pub const DEFAULT_EXPIRATION_SECONDS: i64 = 3600;
/// The shortest life a request may ask for: ten minutes.
pub const MIN_EXPIRATION_SECONDS: i64 = 600;
/// The longest.
pub const MAX_EXPIRATION_SECONDS: i64 = 1 << 32;

/// Names and decoder of TokenRequest.
pub static KIND: Kind = Kind::of::<TokenRequest>();

impl Resource for TokenRequest {
    const INFO: KindInfo = KindInfo {
        group: "authentication.k8s.io",
        version: "v1",
        kind: "TokenRequest",
        plural: "tokenrequests",
        singular: "tokenrequest",
        short_names: &[],
        categories: &[],
        scope: Scope::Namespaced,
        verbs: Verb::CREATE_ONLY,
        subresources: &[],
        columns: &[NAME, AGE],
        selectable_fields: &[],
        name_rule: NameRule::Dns1123Subdomain,
    };

    /// As `SetDefaults_TokenRequestSpec` in `pkg/apis/authentication/v1/defaults.go`.
    fn set_defaults(&mut self) {
        self.spec.expiration_seconds.get_or_insert(DEFAULT_EXPIRATION_SECONDS);
    }

    /// As `ValidateTokenRequest` in `pkg/apis/authentication/validation`.
    fn validate(&self, errors: &mut ErrorList) {
        let path = Path::new("spec").child("expirationSeconds");
        let seconds = self.spec.expiration_seconds.unwrap_or(DEFAULT_EXPIRATION_SECONDS);
        if seconds < MIN_EXPIRATION_SECONDS {
            errors.push(invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
        }
        if seconds > MAX_EXPIRATION_SECONDS {
            errors.push(invalid(&path, seconds, "may not specify a duration larger than 2^32 seconds"));
        }
    }

    fn cells(&self, now: Timestamp) -> Vec<Value> {
        vec![json!(self.metadata.name), crate::printing::age(&self.metadata, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Object;

    #[test]
    fn a_token_lives_between_ten_minutes_and_a_very_long_time() {
        let cases: [(Option<i64>, &[&str]); 5] = [
            (None, &[]),
            (Some(600), &[]),
            (Some(599), &["may not specify a duration less than 10 minutes"]),
            (Some(1 << 32), &[]),
            (Some((1 << 32) + 1), &["may not specify a duration larger than 2^32 seconds"]),
        ];
        for (seconds, expected) in cases {
            let mut request = TokenRequest::default();
            request.spec.expiration_seconds = seconds;
            Object::set_defaults(&mut request);
            let errors = Object::validate(&request);
            let messages: Vec<_> = errors.iter().map(ToString::to_string).collect();
            assert_eq!(messages.len(), expected.len(), "{seconds:?}: {messages:?}");
            assert!(messages.iter().zip(expected).all(|(m, e)| m.ends_with(e)), "{messages:?}");
        }
    }
}
