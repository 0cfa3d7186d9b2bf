//! What a service account token says (`pkg/serviceaccount/claims.go`). Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Clocks may differ by this much (`jwt.DefaultLeeway` upstream).
pub(super) const LEEWAY: SignedDuration = SignedDuration::from_secs(60);

/// The claims, in the order in which upstream writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) aud: Vec<String>,
    pub(crate) exp: i64,
    pub(crate) iat: i64,
    pub(crate) iss: String,
    pub(crate) jti: String,
    #[serde(rename = "kubernetes.io")]
    pub(crate) kubernetes: Kubernetes,
    pub(crate) nbf: i64,
    pub(crate) sub: String,
}

/// What the token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kubernetes {
    pub(crate) namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<Ref>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) secret: Option<Ref>,
    pub(crate) serviceaccount: Ref,
    /// After this a client that still uses the token has missed to read a newer one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) warnafter: Option<i64>,
}

/// An object, exactly one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ref {
    pub(crate) name: String,
    /// Empty for a node that has no object.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(crate) uid: String,
}

impl Claims {
    /// Whether the token counts at `now`; why not, in upstream's words.
    pub(super) fn check_times(&self, now: Timestamp) -> Result<(), &'static str> {
        let (now, leeway) = (now.as_second(), LEEWAY.as_secs());
        if now.saturating_sub(leeway) > self.exp {
            return Err("service account token has expired");
        }
        if now.saturating_add(leeway) < self.nbf.max(self.iat) {
            return Err("service account token is not valid yet");
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) fn test_claims(now: i64) -> Claims {
    let of = |name: &str| Ref { name: name.into(), uid: format!("uid-of-{name}") };
    Claims {
        aud: vec!["api".into()],
        exp: now + 600,
        iat: now,
        iss: "https://me".into(),
        jti: "7".into(),
        kubernetes: Kubernetes { namespace: "ns".into(), serviceaccount: of("robot"), ..Kubernetes::default() },
        nbf: now,
        sub: "system:serviceaccount:ns:robot".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_counts_between_its_times_give_or_take_a_minute() {
        let claims = test_claims(1000);
        let cases = [
            (939, Err("service account token is not valid yet")),
            (940, Ok(())),
            (1000, Ok(())),
            (1600, Ok(())),
            (1660, Ok(())),
            (1661, Err("service account token has expired")),
        ];
        for (now, expected) in cases {
            assert_eq!(claims.check_times(Timestamp::from_second(now).unwrap()), expected, "{now}");
        }
    }

    #[test]
    fn claims_have_upstreams_form() {
        let mut claims = test_claims(1000);
        claims.kubernetes.pod = Some(Ref { name: "web".into(), uid: "u".into() });
        claims.kubernetes.node = Some(Ref { name: "box1".into(), uid: String::new() });
        claims.kubernetes.warnafter = Some(1500);
        let text = serde_json::to_string(&claims).unwrap();
        let expected = concat!(
            r#"{"aud":["api"],"exp":1600,"iat":1000,"iss":"https://me","jti":"7","kubernetes.io":{"namespace":"ns","#,
            r#""node":{"name":"box1"},"pod":{"name":"web","uid":"u"},"#,
            r#""serviceaccount":{"name":"robot","uid":"uid-of-robot"},"warnafter":1500},"#,
            r#""nbf":1000,"sub":"system:serviceaccount:ns:robot"}"#
        );
        assert_eq!(text, expected);
        assert_eq!(serde_json::from_str::<Claims>(&text).unwrap(), claims);
    }
}
