//! Tokens kept in Secrets: only what the Secret holds now counts, the day of their last use is noted in a label of it, and
//! another label ends them (`pkg/serviceaccount/legacy.go`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::well_known::{LABEL_TOKEN_INVALID_SINCE, LABEL_TOKEN_LAST_USED, SECRET_SERVICE_ACCOUNT_TOKEN};
use jiff::{Timestamp, ToSpan};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::claims::Claims;
use super::digest;
use crate::admission::Effects;
use crate::server::Shared;
use crate::status::{ApiError, Subject};
use crate::storage::{Current, Write};
use crate::tracking::Tracking;

/// Uses that wait to be noted; what is more will be noted with a later one.
const MAX_NOTES: usize = 64;

/// The Secret whose token was used.
pub(crate) struct Use {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
}

/// Where uses are told, and where they are read to be noted.
pub(crate) fn channel() -> (mpsc::Sender<Use>, mpsc::Receiver<Use>) {
    mpsc::channel(MAX_NOTES)
}

/// Whether a token was made to be kept: of all that are bound to a Secret those without an end.
pub(super) fn is_kept(claims: &Claims) -> bool {
    claims.kubernetes.secret.is_some() && claims.exp - claims.iat == api::token_request::MAX_EXPIRATION_SECONDS
}

/// What matters of a Secret.
#[derive(Deserialize)]
struct Kept {
    metadata: Metadata,
    #[serde(rename = "type", default)]
    type_: String,
    #[serde(default)]
    data: Data,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
struct Data {
    token: Option<ByteString>,
}

/// Whether a token counts that is kept in a Secret.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Good,
    /// It was not made to be kept there: nothing but its claims is asked.
    NotKept,
    /// Its Secret says that it ends.
    Ended(String),
    Refused(String),
}

/// Whether an account lists a Secret.
pub(super) fn lists(account: &[u8], secret: &str) -> bool {
    #[derive(Deserialize)]
    struct Account {
        #[serde(default)]
        secrets: Vec<ObjectReference>,
    }
    let account: Result<Account, _> = serde_json::from_slice(account);
    account.is_ok_and(|account| account.secrets.iter().any(|listed| listed.name.as_deref() == Some(secret)))
}

/// Whether a token with this digest counts that is kept in the Secret `json`, and whether its use is to be noted.
pub(super) fn check(json: &[u8], token: &[u8; 32], account: &str, now: Timestamp) -> (Verdict, bool) {
    let secret = match serde_json::from_slice::<Kept>(json) {
        Ok(secret) if secret.type_ == SECRET_SERVICE_ACCOUNT_TOKEN => secret,
        // A token somebody bound to a Secret of his own.
        Ok(_) => return (Verdict::NotKept, false),
        // What cannot be read may say that it ends tokens. The error is not told: it may quote the Secret.
        Err(_) => return (Verdict::Refused("the secret of the token cannot be read".to_owned()), false),
    };
    let held = secret.data.token.as_ref().and_then(|token| std::str::from_utf8(&token.0).ok());
    if held.is_none_or(|held| digest(held) != *token) {
        return (Verdict::Refused("Token does not match server's copy".to_owned()), false);
    }
    let Metadata { name, namespace, labels } = &secret.metadata;
    let note = !is_fresh(labels, now);
    match labels.get(LABEL_TOKEN_INVALID_SINCE).filter(|since| !since.is_empty()) {
        None => (Verdict::Good, note),
        Some(_) => {
            let ended = format!(
                "the token in secret {namespace}/{name} for service account {namespace}/{account} has been marked invalid. \
                 Use tokens from the TokenRequest API or manually created secret-based tokens, or remove the \
                 '{LABEL_TOKEN_INVALID_SINCE}' label from the secret to temporarily allow use of this token"
            );
            (Verdict::Ended(ended), note)
        }
    }
}

/// Whether the day is noted already; another server's day may have begun earlier.
fn is_fresh(labels: &BTreeMap<String, String>, now: Timestamp) -> bool {
    let last = labels.get(LABEL_TOKEN_LAST_USED).map_or("", String::as_str);
    let tomorrow = now.checked_add(24.hours()).map(day).unwrap_or_default();
    last == day(now) || last == tomorrow
}

/// The day of a time, as labels say it.
pub(crate) fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// Notes the uses that are told, until the server stops.
pub(crate) async fn note(shared: Arc<Shared>, mut uses: mpsc::Receiver<Use>) {
    loop {
        let used = tokio::select! {
            () = shared.stop.cancelled() => return,
            used = uses.recv() => used,
        };
        let Some(used) = used else { return };
        match label(&shared, &used).await {
            Ok(()) | Err(ApiError::NotFound(_)) => {}
            Err(error) => tracing::warn!(
                namespace = used.namespace, name = used.name, %error,
                "cannot note that a service account token was used"
            ),
        }
    }
}

async fn label(shared: &Shared, used: &Use) -> Result<(), ApiError> {
    let kind = api::kinds::by_kind("v1", "Secret").ok_or(ApiError::PathNotFound)?;
    let (subject, key) =
        (Subject::new(kind.info, &used.name), kind.info.registry_key(Some(&used.namespace), &used.name));
    let change = |current: &Current, _: &_| {
        let Some(secret) = current.object.as_any().downcast_ref::<Secret>() else { return Ok(Write::Keep) };
        let Some(new) = labelled(secret, &used.uid, Timestamp::now()) else { return Ok(Write::Keep) };
        let managed = Some(Tracking::server().updated(current, &new, None, None));
        Ok(Write::Put(Box::new(new), Effects { managed, ..Effects::default() }))
    };
    shared.modify(kind, &subject, &key, false, change).await.map(|_| ())
}

/// The Secret with the day; `None` where it stands already, and for another Secret of the same name.
fn labelled(secret: &Secret, uid: &str, now: Timestamp) -> Option<Secret> {
    let labels = secret.metadata.labels.clone().unwrap_or_default();
    if secret.metadata.uid.as_deref() != Some(uid) || is_fresh(&labels, now) {
        return None;
    }
    let mut new = secret.clone();
    new.metadata.resource_version = None;
    new.metadata.labels.get_or_insert_default().insert(LABEL_TOKEN_LAST_USED.to_owned(), day(now));
    Some(new)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn secret(type_: &str, token: &str, labels: Value) -> Secret {
        let data = json!({"token": ByteString(token.into())});
        let metadata = json!({"name": "s", "namespace": "ns", "uid": "7", "labels": labels});
        serde_json::from_value(json!({"metadata": metadata, "type": type_, "data": data})).unwrap()
    }

    #[test]
    fn a_kept_token_counts_while_its_secret_holds_it_and_is_noted_once_a_day() {
        let now: Timestamp = "2026-11-28T23:00:00Z".parse().unwrap();
        let used = |day: &str| json!({LABEL_TOKEN_LAST_USED: day});
        let ours = |labels| secret(SECRET_SERVICE_ACCOUNT_TOKEN, "abc", labels);
        let cases = [
            ("it was never used", ours(json!({})), "", true),
            ("it was used yesterday", ours(used("2026-11-27")), "", true),
            ("it was used today", ours(used("2026-11-28")), "", false),
            ("where it is tomorrow already", ours(used("2026-11-29")), "", false),
            ("it was ended", ours(json!({LABEL_TOKEN_INVALID_SINCE: "2026-01-01"})), "marked invalid", true),
            ("there is a new one", secret(SECRET_SERVICE_ACCOUNT_TOKEN, "new", json!({})), "does not match", false),
            ("somebody's own secret", secret("Opaque", "new", json!({})), "", false),
        ];
        for (sentence, secret, refusal, noted) in cases {
            let json = serde_json::to_vec(&secret).unwrap();
            let (verdict, note) = check(&json, &digest("abc"), "robot", now);
            let is_ours = secret.type_.as_deref() == Some(SECRET_SERVICE_ACCOUNT_TOKEN);
            assert_eq!(verdict == Verdict::NotKept, !is_ours, "{sentence}");
            let said = match verdict {
                Verdict::Good | Verdict::NotKept => String::new(),
                Verdict::Ended(why) | Verdict::Refused(why) => why,
            };
            assert!(
                note == noted && said.contains(refusal) && said.is_empty() == refusal.is_empty(),
                "{sentence}: {said}"
            );
            let new = labelled(&secret, "7", now);
            assert_eq!(new.and_then(|new| labelled(&new, "7", now)), None, "{sentence}: once is enough");
            assert_eq!(labelled(&secret, "8", now), None, "{sentence}: another secret");
        }
        let broken =
            br#"{"metadata":{"name":"s","namespace":"ns"},"type":"kubernetes.io/service-account-token","data":"abc"}"#;
        let told = check(broken, &digest("abc"), "robot", now).0;
        assert_eq!(told, Verdict::Refused("the secret of the token cannot be read".to_owned()));
    }

    #[test]
    fn an_account_may_list_its_secrets() {
        let account = br#"{"metadata":{"name":"robot"},"secrets":[{"name":"a"},{"name":"b"}]}"#;
        assert!(lists(account, "b") && !lists(account, "c") && !lists(b"{}", "b"));
    }
}
