//! Tokens of service accounts for the volumes that project them: which a pod wants and when each must be renewed (pure),
//! and how one is got (`pkg/kubelet/token/token_manager.go`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, PodSpec, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::{Api, PostParams};

use crate::clock::after;

/// A token is renewed when it is this old, however long it is valid.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);
/// Renewals of tokens made together are spread over this time.
const MAX_JITTER: Duration = Duration::from_secs(10);
/// However short a token's life, it is not renewed sooner than this.
const MIN_AGE: Duration = Duration::from_secs(1);
/// How long the API may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(30);
/// How long a token is valid where the projection does not say.
const DEFAULT_EXPIRATION_SECONDS: i64 = 3600;

/// What tells apart the tokens of one pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wanted {
    /// Whom it is for; empty: the API.
    pub audience: String,
    /// How long it shall be valid.
    pub expiration_seconds: i64,
}

impl Wanted {
    /// What a projection asks for.
    pub fn by(projection: &ServiceAccountTokenProjection) -> Wanted {
        Wanted {
            audience: projection.audience.clone().unwrap_or_default(),
            expiration_seconds: projection.expiration_seconds.unwrap_or(DEFAULT_EXPIRATION_SECONDS),
        }
    }
}

/// A token and its times.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// What is shown to prove who one is.
    pub text: String,
    /// When to get the next one.
    pub refresh_at: Timestamp,
    /// When it stops to count.
    pub expires_at: Timestamp,
}

impl fmt::Debug for Token {
    /// Without the secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(refresh at {}, expires at {})", self.refresh_at, self.expires_at)
    }
}

/// The tokens of one pod.
pub type Tokens = BTreeMap<Wanted, Arc<Token>>;

/// Every token the volumes of `spec` project.
pub fn wanted(spec: &PodSpec) -> BTreeSet<Wanted> {
    let projected = spec.volumes.iter().flatten().filter_map(|volume| volume.projected.as_ref());
    let sources = projected.flat_map(|p| p.sources.iter().flatten());
    sources.filter_map(|s| s.service_account_token.as_ref()).map(Wanted::by).collect()
}

/// When to renew a token got `now`: at four fifths of its life or when it is a day old, a little earlier by chance
/// (`jitter` is between 0 and 1).
pub fn refresh_at(now: Timestamp, expires_at: Timestamp, expiration_seconds: i64, jitter: f64) -> Timestamp {
    let life = SignedDuration::from_secs(expiration_seconds.max(0));
    let made_at = expires_at.saturating_sub(life).unwrap_or(Timestamp::MIN);
    let age = (life * 4 / 5).min(MAX_AGE);
    let jitter = SignedDuration::try_from(MAX_JITTER.mul_f64(jitter.clamp(0.0, 1.0))).unwrap_or_default();
    made_at.saturating_add(age - jitter).unwrap_or(Timestamp::MAX).max(after(now, MIN_AGE))
}

/// Gets a token for `pod`, bound to it.
pub async fn fetch(client: &kube::Client, pod: &Pod, wanted: &Wanted, now: Timestamp) -> Result<Token, String> {
    let account = pod.spec.as_ref().and_then(|s| s.service_account_name.as_deref()).unwrap_or_default();
    let request = request(pod, wanted);
    let api = Api::<ServiceAccount>::namespaced(client.clone(), crate::pod::namespace(&pod.metadata));
    let params = PostParams::default();
    let answer = api.create_subresource::<_, TokenRequest>("token", account, &params, &request);
    let answer = tokio::time::timeout(ANSWER_MAX, answer).await.map_err(|_| "the API does not answer".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status.ok_or("the API gave no token")?;
    let (expires_at, life) = (status.expiration_timestamp.0, answer.spec.expiration_seconds);
    let life = life.unwrap_or(wanted.expiration_seconds);
    Ok(Token { refresh_at: refresh_at(now, expires_at, life, rand::random()), text: status.token, expires_at })
}

fn request(pod: &Pod, wanted: &Wanted) -> TokenRequest {
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    };
    TokenRequest {
        spec: TokenRequestSpec {
            audiences: Some(wanted.audience.clone()).filter(|a| !a.is_empty()).into_iter().collect(),
            bound_object_ref: Some(bound),
            expiration_seconds: Some(wanted.expiration_seconds),
        },
        ..TokenRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_are_renewed_at_four_fifths_of_their_life_or_after_a_day() {
        let at = |seconds: i64| Timestamp::from_second(seconds).unwrap();
        let cases = [
            ("an hour", 0, 3600, 3600, 0.0, 2880),
            ("an hour, a little early", 0, 3600, 3600, 1.0, 2870),
            ("a week", 0, 7 * 86_400, 7 * 86_400, 0.0, 86_400),
            ("half of it is over", 1800, 3600, 3600, 0.0, 2880),
            ("all of it is over", 4000, 3600, 3600, 0.0, 4001),
            ("nonsense", 0, 3600, -1, 0.0, 3600),
        ];
        for (sentence, now, expires, life, jitter, expected) in cases {
            assert_eq!(refresh_at(at(now), at(expires), life, jitter), at(expected), "{sentence}");
        }
    }

    #[test]
    fn a_pod_wants_each_token_once() {
        let token = |audience: &str, seconds: i64| json!({"serviceAccountToken": {"path": "p", "audience": audience, "expirationSeconds": seconds}});
        let spec: PodSpec = serde_json::from_value(json!({"containers": [], "volumes": [
            {"name": "a", "projected": {"sources": [token("", 3607), {"configMap": {"name": "c"}}]}},
            {"name": "b", "projected": {"sources": [token("", 3607), token("vault", 600)]}},
            {"name": "c", "projected": {"sources": [{"serviceAccountToken": {"path": "p"}}]}},
            {"name": "d", "emptyDir": {}}]}))
        .unwrap();
        let found: Vec<_> = wanted(&spec).into_iter().map(|w| (w.audience, w.expiration_seconds)).collect();
        assert_eq!(found, [(String::new(), 3600), (String::new(), 3607), ("vault".to_owned(), 600)]);
    }

    #[test]
    fn a_token_is_never_printed() {
        let at = Timestamp::UNIX_EPOCH;
        let token = Token { text: "hush".into(), refresh_at: at, expires_at: at };
        assert!(!format!("{token:?}").contains("hush"));
    }
}
