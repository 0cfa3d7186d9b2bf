//! Bootstrap tokens: `<id>.<secret>`, kept as the Secret `bootstrap-token-<id>` in `kube-system`
//! (`plugin/pkg/auth/authenticator/token/bootstrap`).

use std::sync::Arc;

use api::well_known::{
    BOOTSTRAP_TOKEN_PREFIX, GROUP_BOOTSTRAPPERS, GROUP_BOOTSTRAPPERS_PREFIX, NAMESPACE_SYSTEM, SECRET_BOOTSTRAP_TOKEN,
    USER_BOOTSTRAP_PREFIX,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;

use super::{TokenError, digest};
use crate::cache::Cache;
use crate::user::User;

const ID_LENGTH: usize = 6;
const SECRET_LENGTH: usize = 16;
/// The longest name of a group below `system:bootstrappers:`.
const MAX_GROUP_LENGTH: usize = 256;

/// The holder of a bootstrap token.
pub(crate) async fn authenticate(cache: &Cache, token: &str, now: Timestamp) -> Result<Arc<User>, TokenError> {
    let (id, secret) = parse(token).ok_or(TokenError::Unknown)?;
    if let Some(user) = find(cache, id).and_then(|found| user(&found, id, secret, now).ok()) {
        return Ok(Arc::new(user));
    }
    // Perhaps it is only too new for the cache.
    cache.catch_up().await?;
    let found = find(cache, id).ok_or(TokenError::Unknown)?;
    let user = user(&found, id, secret, now);
    user.map(Arc::new).map_err(|reason| TokenError::Invalid(format!("bootstrap token {id:?}: {reason}")))
}

fn find(cache: &Cache, id: &str) -> Option<Secret> {
    let kind = api::kinds::by_kind("v1", "Secret")?;
    let key = kind.info.registry_key(Some(NAMESPACE_SYSTEM), &format!("{BOOTSTRAP_TOKEN_PREFIX}{id}"));
    kind.typed(cache.of(kind).get(&key)?.json())
}

/// The halves of what looks like a bootstrap token.
fn parse(token: &str) -> Option<(&str, &str)> {
    let plain =
        |part: &str, length| part.len() == length && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    token.split_once('.').filter(|(id, secret)| plain(id, ID_LENGTH) && plain(secret, SECRET_LENGTH))
}

/// Whom the Secret lets in with this token, or why nobody.
fn user(object: &Secret, id: &str, secret: &str, now: Timestamp) -> Result<User, &'static str> {
    let value = |key: &str| {
        let bytes = object.data.as_ref()?.get(key)?;
        std::str::from_utf8(&bytes.0).ok()
    };
    if object.metadata.deletion_timestamp.is_some() {
        return Err("it is being deleted");
    }
    if object.type_.as_deref() != Some(SECRET_BOOTSTRAP_TOKEN) || value("token-id") != Some(id) {
        return Err("the Secret is of another type or id");
    }
    if digest(value("token-secret").unwrap_or_default()) != digest(secret) {
        return Err("the secret half is wrong");
    }
    if let Some(text) = value("expiration")
        && !text.parse::<Timestamp>().is_ok_and(|end| end > now)
    {
        return Err("it has expired");
    }
    if value("usage-bootstrap-authentication") != Some("true") {
        return Err("it is not meant for authentication");
    }
    let extra = value("auth-extra-groups").unwrap_or_default();
    let extra: Vec<&str> = extra.split(',').map(str::trim).filter(|group| !group.is_empty()).collect();
    if !extra.iter().all(|group| is_bootstrap_group(group)) {
        return Err("its extra groups are not all below system:bootstrappers:");
    }
    let groups = extra.into_iter().chain([GROUP_BOOTSTRAPPERS]);
    Ok(User::new(format!("{USER_BOOTSTRAP_PREFIX}{id}"), groups))
}

/// As `BootstrapGroupPattern` in `cluster-bootstrap/token/api`.
fn is_bootstrap_group(group: &str) -> bool {
    group.strip_prefix(GROUP_BOOTSTRAPPERS_PREFIX).is_some_and(|name| {
        let last = name.bytes().last();
        name.len() <= MAX_GROUP_LENGTH
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b':' | b'-'))
            && last.is_some_and(|b| b.is_ascii_alphanumeric())
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(change: &[(&str, &str)]) -> Secret {
        let mut object = json!({"type": SECRET_BOOTSTRAP_TOKEN, "metadata": {"name": "bootstrap-token-abcdef"}});
        let mut data = std::collections::BTreeMap::from([
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ]);
        data.extend(change.iter().copied());
        let encode = |v: &str| base64::Engine::encode(&base64::prelude::BASE64_STANDARD, v);
        object["data"] = data.into_iter().map(|(k, v)| (k.to_owned(), json!(encode(v)))).collect();
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_secret_lets_its_holder_in_as_long_as_it_says_so() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        type Case<'a> = (&'a [(&'a str, &'a str)], Result<&'a [&'a str], &'a str>);
        let cases: [Case<'_>; 9] = [
            (&[], Ok(&["system:bootstrappers", "system:authenticated"])),
            (
                &[("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token")],
                Ok(&[
                    "system:bootstrappers:kubeadm:default-node-token",
                    "system:bootstrappers",
                    "system:authenticated",
                ]),
            ),
            (
                &[("auth-extra-groups", "system:masters")],
                Err("its extra groups are not all below system:bootstrappers:"),
            ),
            (
                &[("auth-extra-groups", "system:bootstrappers:")],
                Err("its extra groups are not all below system:bootstrappers:"),
            ),
            (&[("expiration", "2026-11-22T12:00:01Z")], Ok(&["system:bootstrappers", "system:authenticated"])),
            (&[("expiration", "2026-11-22T12:00:00Z")], Err("it has expired")),
            (&[("expiration", "never")], Err("it has expired")),
            (&[("usage-bootstrap-authentication", "yes")], Err("it is not meant for authentication")),
            (&[("token-secret", "fedcba9876543210")], Err("the secret half is wrong")),
        ];
        for (change, expected) in cases {
            let got = user(&secret(change), "abcdef", "0123456789abcdef", now);
            let groups = got.as_ref().map(|user| user.groups.iter().map(String::as_str).collect::<Vec<_>>());
            assert_eq!(groups.map_err(|e| *e), expected.map(<[&str]>::to_vec), "{change:?}");
            assert!(got.is_err() || got.unwrap().name == "system:bootstrap:abcdef");
        }
    }

    #[test]
    fn other_secrets_let_nobody_in() {
        let now = Timestamp::UNIX_EPOCH;
        let other = Secret { type_: Some("Opaque".into()), ..secret(&[]) };
        assert!(user(&other, "abcdef", "0123456789abcdef", now).is_err());
        assert!(user(&secret(&[("token-id", "other1")]), "abcdef", "0123456789abcdef", now).is_err());
    }

    #[test]
    fn tokens_have_six_and_sixteen_plain_characters() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for wrong in [
            "abcdef",
            "abcde.0123456789abcdef",
            "ABCDEF.0123456789abcdef",
            "abcdef.0123456789abcdef.x",
            "../../.0123456789abcdef",
        ] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }
}
