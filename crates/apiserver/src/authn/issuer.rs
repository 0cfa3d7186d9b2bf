//! Makes service account tokens, and tells the world how to verify them (OpenID Connect discovery).
//!
//! Compare `pkg/serviceaccount/{jwt,openidmetadata}.go`.

use std::net::SocketAddr;
use std::sync::Arc;

use api::well_known::USER_SERVICE_ACCOUNT_PREFIX;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::TokenError;
use super::claims::{Claims, Kubernetes};
use super::jws::{self, JwsError, SigningKey, VerifyingKey};
use crate::config::Config;
use crate::error::Error;
use crate::status::ApiError;

/// The life of the tokens that `ServiceAccount` admission asks for: an hour, and a few seconds by which they are known.
pub(crate) const ADMISSION_EXPIRATION_SECONDS: i64 = 3607;
/// How long such a token is valid really, for clients that read it once and never again: a year
/// (`ExpirationExtensionSeconds`).
const EXTENDED_EXPIRATION_SECONDS: i64 = 365 * 24 * 3600;

/// Signs for the first of its names, and knows tokens of all of them.
pub(crate) struct Issuer {
    key: Arc<SigningKey>,
    /// Whose signatures count: that of `key`, and those of keys that signed before it or will after it.
    known: Vec<VerifyingKey>,
    names: Vec<String>,
    audiences: Vec<String>,
    extends: bool,
}

impl Issuer {
    pub(crate) fn new(key: Arc<SigningKey>, others: &[VerifyingKey], config: &Config) -> Result<Issuer, Error> {
        let names = config.service_account_issuers.clone();
        if names.is_empty() || names.iter().any(String::is_empty) {
            return Err(Error::Issuer("at least one name is needed, and none may be empty".into()));
        }
        // A name with a colon must be a URL (`CompletedConfig` of kube-apiserver).
        if let Some(wrong) = names.iter().find(|n| n.contains(':') && n.parse::<http::Uri>().is_err()) {
            return Err(Error::Issuer(format!("{wrong:?} contains a ':' but is not a valid URL")));
        }
        let audiences = match config.api_audiences.as_slice() {
            [] => names[..1].to_vec(),
            given => given.to_vec(),
        };
        let mut known = vec![key.public().clone()];
        known.extend(others.iter().filter(|other| *other != key.public()).cloned());
        Ok(Issuer { key, known, names, audiences, extends: config.service_account_extend_token_expiration })
    }

    /// What tokens for this API are meant for.
    pub(crate) fn audiences(&self) -> &[String] {
        &self.audiences
    }

    /// A token for the account, bound as `kubernetes` says, that is good for `seconds`.
    pub(crate) fn issue(
        &self,
        kubernetes: Kubernetes,
        audiences: Vec<String>,
        seconds: i64,
        now: Timestamp,
    ) -> Result<String, ApiError> {
        let claims = self.claims(kubernetes, audiences, seconds, now.as_second());
        let payload = serde_json::to_vec(&claims).map_err(|e| ApiError::Internal(e.to_string()))?;
        self.key.sign(&payload).map_err(|_| ApiError::Internal("failed to generate token".into()))
    }

    fn claims(&self, mut kubernetes: Kubernetes, audiences: Vec<String>, seconds: i64, now: i64) -> Claims {
        let for_api = audiences.iter().all(|audience| self.audiences.contains(audience));
        let lives = if self.extends && kubernetes.pod.is_some() && for_api && seconds == ADMISSION_EXPIRATION_SECONDS {
            kubernetes.warnafter = Some(now + seconds);
            EXTENDED_EXPIRATION_SECONDS
        } else {
            seconds
        };
        Claims {
            aud: audiences,
            exp: now + lives,
            iat: now,
            iss: self.names[0].clone(),
            jti: uuid::Uuid::new_v4().to_string(),
            nbf: now,
            sub: format!("{USER_SERVICE_ACCOUNT_PREFIX}{}:{}", kubernetes.namespace, kubernetes.serviceaccount.name),
            kubernetes,
        }
    }

    /// What a token of ours says; `None` if it is another's or no such token at all.
    pub(super) fn verify(&self, token: &str) -> Result<Option<Claims>, TokenError> {
        #[derive(Deserialize)]
        struct Claimed {
            iss: String,
        }
        let Some(payload) = jws::unverified_payload(token) else { return Ok(None) };
        match serde_json::from_slice::<Claimed>(&payload) {
            Ok(claimed) if self.names.contains(&claimed.iss) => {}
            _ => return Ok(None),
        }
        let signed_by = |key: &VerifyingKey| match key.verify(token) {
            Err(JwsError::OtherKey) => None,
            outcome => Some(outcome),
        };
        let payload = self.known.iter().find_map(signed_by).unwrap_or(Err(JwsError::OtherKey));
        let payload = payload.map_err(|e| TokenError::Invalid(e.to_string()))?;
        serde_json::from_slice(&payload).map(Some).map_err(|e| TokenError::Invalid(e.to_string()))
    }

    /// The document at `/.well-known/openid-configuration`; an issuer that is no HTTPS URL has none.
    pub(crate) fn configuration(&self, address: SocketAddr) -> Option<Value> {
        let issuer = self.names.first().filter(|name| name.starts_with("https://"))?;
        Some(json!({
            "issuer": issuer,
            "jwks_uri": format!("https://{address}/openid/v1/jwks"),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": [jws::ALGORITHM],
        }))
    }

    /// The document at `/openid/v1/jwks`.
    pub(crate) fn key_set(&self) -> Value {
        json!({"keys": self.known.iter().map(VerifyingKey::jwk).collect::<Vec<_>>()})
    }
}

#[cfg(test)]
pub(super) fn test_issuer(change: impl FnOnce(&mut Config)) -> Result<Issuer, Error> {
    let mut config = Config::new("/nonexistent");
    change(&mut config);
    Issuer::new(Arc::new(jws::test_key()), &[], &config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authn::claims::Ref;

    fn bound_to_pod() -> Kubernetes {
        let of = |name: &str| Ref { name: name.into(), uid: "u".into() };
        let (namespace, pod) = ("ns".to_owned(), Some(of("web")));
        Kubernetes { namespace, serviceaccount: of("robot"), pod, ..Kubernetes::default() }
    }

    #[test]
    fn names_are_urls_or_plain_words() {
        let cases: [(&[&str], bool); 5] = [
            (&["https://example.com/a"], true),
            (&["word"], true),
            (&[], false),
            (&["https://example.com", ""], false),
            (&["a b:c"], false),
        ];
        for (names, fits) in cases {
            let issuer = test_issuer(|c| c.service_account_issuers = names.iter().map(|n| (*n).into()).collect());
            assert_eq!(issuer.is_ok(), fits, "{names:?}");
        }
        let word = test_issuer(|c| c.service_account_issuers = vec!["word".into()]).unwrap();
        assert!(word.configuration(([192, 0, 2, 1], 6443).into()).is_none(), "only an HTTPS URL can be discovered");
    }

    #[test]
    fn tokens_of_pods_are_good_for_a_year_but_warn_after_an_hour() {
        let extending = test_issuer(|_| {}).unwrap();
        let strict = test_issuer(|c| c.service_account_extend_token_expiration = false).unwrap();
        let own = extending.audiences().to_vec();
        let unbound = Kubernetes { pod: None, ..bound_to_pod() };
        let year = EXTENDED_EXPIRATION_SECONDS;
        let cases = [
            ("what admission asks for", &extending, bound_to_pod(), own.clone(), 3607, (year, Some(3607))),
            ("another life", &extending, bound_to_pod(), own.clone(), 3600, (3600, None)),
            ("another audience", &extending, bound_to_pod(), vec!["vault".into()], 3607, (3607, None)),
            ("no pod", &extending, unbound, own.clone(), 3607, (3607, None)),
            ("not wanted", &strict, bound_to_pod(), own, 3607, (3607, None)),
        ];
        for (sentence, issuer, kubernetes, audiences, seconds, expected) in cases {
            let claims = issuer.claims(kubernetes, audiences, seconds, 0);
            assert_eq!((claims.exp, claims.kubernetes.warnafter), expected, "{sentence}");
        }
    }

    #[test]
    fn only_own_tokens_are_known() {
        let (ours, theirs) = (test_issuer(|_| {}).unwrap(), test_issuer(|_| {}).unwrap());
        let other = test_issuer(|c| c.service_account_issuers = vec!["https://other".into()]).unwrap();
        let issue = |issuer: &Issuer| issuer.issue(bound_to_pod(), vec!["a".into()], 600, Timestamp::now()).unwrap();
        let claims = ours.verify(&issue(&ours)).unwrap().unwrap();
        assert_eq!((claims.sub.as_str(), claims.exp - claims.iat), ("system:serviceaccount:ns:robot", 600));
        assert!(ours.verify(&issue(&theirs)).is_err(), "the name is ours, the key is not");
        assert!(ours.verify(&issue(&other)).unwrap().is_none());
        assert!(ours.verify("abcdef.0123456789abcdef").unwrap().is_none());
    }

    #[test]
    fn tokens_of_a_key_that_signs_no_more_count_as_long_as_it_is_known() {
        let (old, new) = (Arc::new(jws::test_key()), Arc::new(jws::test_key()));
        let config = Config::new("/nonexistent");
        let before = Issuer::new(old.clone(), &[new.public().clone()], &config).unwrap();
        let after = Issuer::new(new.clone(), &[new.public().clone(), old.public().clone()], &config).unwrap();
        let later = Issuer::new(new, &[], &config).unwrap();
        let issue = |issuer: &Issuer| issuer.issue(bound_to_pod(), vec!["a".into()], 600, Timestamp::now()).unwrap();
        assert!(after.verify(&issue(&before)).unwrap().is_some(), "signed before the change");
        assert!(before.verify(&issue(&after)).unwrap().is_some(), "by a server that has changed already");
        assert!(later.verify(&issue(&before)).is_err(), "the old key is known no more");
        assert_eq!(after.key_set()["keys"].as_array().unwrap().len(), 2);
    }
}
