//! Secrets of type `kubernetes.io/service-account-token`: filled with a token of the account they name, and deleted with
//! it.
//!
//! Behaviour follows `pkg/controller/serviceaccount/tokens_controller.go`, but the key that signs stays with the API
//! server: the token is one bound to the Secret, which never ends in practice and is worth nothing without it.

use std::sync::Arc;

use api::well_known::{ANNOTATION_SERVICE_ACCOUNT_NAME, ANNOTATION_SERVICE_ACCOUNT_UID};
use client::{Lister, Outcome, WorkQueue};
use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Error;

use crate::Config;
use crate::context::{Context, Key, new_queue, outcome};
use crate::informers::{BY_ACCOUNT, ServiceAccountMeta, account_key};
use crate::rest::{self, Rest};

const CONTROLLER: &str = "serviceaccount-token-controller";
const WORKERS: usize = 2;
/// The keys of the Secret.
const TOKEN: &str = "token";
const CERTIFICATE: &str = "ca.crt";
const NAMESPACE: &str = "namespace";

struct Controller {
    secrets: Lister<Secret>,
    accounts: Lister<ServiceAccountMeta>,
    config: Arc<Config>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller {
        secrets: caches.account_tokens.clone(),
        accounts: caches.service_accounts.clone(),
        config: context.config.clone(),
        rest: context.rest.clone(),
    });
    let queue: WorkQueue<Key> = new_queue();
    let q = queue.clone();
    context.informers.account_tokens.on_change(move |change| q.add(Key::of(&change.object().metadata)));
    let (q, secrets) = (queue.clone(), caches.account_tokens.clone());
    context.informers.service_accounts.on_change(move |change| {
        let account = account_key(&Key::of(&change.object().metadata));
        secrets.by_index(BY_ACCOUNT, &account).iter().for_each(|secret| q.add(Key::of(&secret.metadata)));
    });
    let synced = async move {
        caches.account_tokens.synced().await;
        caches.service_accounts.synced().await;
    };
    context.run_workers(synced, &queue, WORKERS, move |key: Key| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&key).await;
            outcome(CONTROLLER, &key, result)
        }
    });
}

/// The account a token belongs to.
pub(crate) fn account_of(secret: &Secret) -> Option<Key> {
    let name = secret.metadata.annotations.as_ref()?.get(ANNOTATION_SERVICE_ACCOUNT_NAME)?;
    Some(Key::new(secret.metadata.namespace.clone()?, name.clone()))
}

impl Controller {
    async fn sync(&self, key: &Key) -> Result<Outcome, Error> {
        let secret = self.secrets.get(Some(&key.namespace), &key.name);
        let Some((secret, account)) = secret.and_then(|s| account_of(&s).map(|account| (s, account))) else {
            return Ok(Outcome::Done);
        };
        let accounts = rest::path::<ServiceAccount>(Some(&account.namespace));
        let cached = self.accounts.get(Some(&account.namespace), &account.name);
        let mut planned = plan(&secret, cached.as_ref().map(|a| &a.metadata), &self.config.root_ca_pem);
        if matches!(planned, Some(Action::Delete(_))) {
            // The cache may not know the account yet: what is deleted does not come back.
            let live = self.rest.get_metadata(&accounts, &account.name).await?;
            planned = plan(&secret, live.as_ref(), &self.config.root_ca_pem);
        }
        let secrets = rest::path::<Secret>(Some(&key.namespace));
        match planned {
            None => Ok(()),
            Some(Action::Delete(reason)) => {
                tracing::info!(object = ?key, reason, "deleting service account token");
                let uid = secret.metadata.uid.as_deref().unwrap_or_default();
                self.rest.delete(&secrets, &key.name, &rest::only_uid(uid)).await
            }
            Some(Action::Fill { uid }) => {
                let token = format!("{accounts}/{}/token", account.name);
                match self.filled(&secret, &uid, &token).await {
                    Ok(full) => self.rest.replace(&secrets, &key.name, None, rest::encode(&full)).await.map(|_| ()),
                    Err(error) => Err(error),
                }
            }
        }
        .or_else(|error| rest::ignore_not_found(Err(error)))
        .map(|()| Outcome::Done)
    }

    /// The Secret with what it lacks.
    async fn filled(&self, secret: &Secret, account_uid: &str, path: &str) -> Result<Secret, Error> {
        let token = match value(secret, TOKEN) {
            Some(token) => token.clone(),
            None => {
                let answer: TokenRequest = self.rest.post(path, rest::encode(&request(secret))).await?;
                ByteString(answer.status.map(|status| status.token).unwrap_or_default().into_bytes())
            }
        };
        let mut full = secret.clone();
        let namespace = secret.metadata.namespace.clone().unwrap_or_default();
        let namespace = value(secret, NAMESPACE).cloned().unwrap_or(ByteString(namespace.into_bytes()));
        let certificate = ByteString(self.config.root_ca_pem.clone().into_bytes());
        let annotations = full.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION_SERVICE_ACCOUNT_UID.to_owned(), account_uid.to_owned());
        let data = [(TOKEN, token), (CERTIFICATE, certificate), (NAMESPACE, namespace)];
        full.data.get_or_insert_default().extend(data.map(|(key, value)| (key.to_owned(), value)));
        Ok(full)
    }
}

/// A token as lasting as there is, bound to the Secret.
fn request(secret: &Secret) -> TokenRequest {
    let bound = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Secret".to_owned()),
        name: secret.metadata.name.clone(),
        uid: secret.metadata.uid.clone(),
    };
    let spec = TokenRequestSpec {
        audiences: Vec::new(),
        bound_object_ref: Some(bound),
        expiration_seconds: Some(api::token_request::MAX_EXPIRATION_SECONDS),
    };
    TokenRequest { spec, ..TokenRequest::default() }
}

fn value<'a>(secret: &'a Secret, key: &str) -> Option<&'a ByteString> {
    secret.data.as_ref()?.get(key).filter(|value| !value.0.is_empty())
}

/// A step.
#[derive(Debug, PartialEq, Eq)]
enum Action {
    /// Its account is not there (any more).
    Delete(&'static str),
    /// It lacks something of the account with this UID.
    Fill {
        /// The account's UID.
        uid: String,
    },
}

/// The step for a Secret whose account has this metadata.
fn plan(secret: &Secret, account: Option<&ObjectMeta>, root_ca: &str) -> Option<Action> {
    if secret.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let Some(uid) = account.and_then(|account| account.uid.as_deref()) else {
        return Some(Action::Delete("its service account does not exist"));
    };
    let annotations = secret.metadata.annotations.as_ref();
    let known = annotations.and_then(|a| a.get(ANNOTATION_SERVICE_ACCOUNT_UID)).filter(|known| !known.is_empty());
    if known.is_some_and(|known| known != uid) {
        return Some(Action::Delete("its service account is another one of the same name"));
    }
    let has_certificate = value(secret, CERTIFICATE).is_some_and(|pem| pem.0 == root_ca.as_bytes());
    let complete =
        known.is_some() && has_certificate && value(secret, TOKEN).is_some() && value(secret, NAMESPACE).is_some();
    (!complete).then(|| Action::Fill { uid: uid.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(uid: &str, keys: &[&str]) -> Secret {
        let mut secret = Secret::default();
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.insert(ANNOTATION_SERVICE_ACCOUNT_NAME.to_owned(), "robot".to_owned());
        annotations.insert(ANNOTATION_SERVICE_ACCOUNT_UID.to_owned(), uid.to_owned());
        secret.data = Some(keys.iter().map(|key| ((*key).to_owned(), ByteString(b"PEM".to_vec()))).collect());
        secret
    }

    #[test]
    fn a_token_has_everything_as_long_as_its_account_is_there() {
        let account = ObjectMeta { uid: Some("u".into()), ..ObjectMeta::default() };
        let fill = Some(Action::Fill { uid: "u".into() });
        let all = ["token", "ca.crt", "namespace"];
        let cases = [
            ("it has all", secret("u", &all), Some(&account), "PEM", None),
            ("it is empty", secret("", &[]), Some(&account), "PEM", fill),
            ("the CA is another", secret("u", &all), Some(&account), "NEW", Some(Action::Fill { uid: "u".into() })),
            ("no account", secret("u", &all), None, "PEM", Some(Action::Delete("its service account does not exist"))),
            (
                "another account",
                secret("old", &all),
                Some(&account),
                "PEM",
                Some(Action::Delete("its service account is another one of the same name")),
            ),
        ];
        for (sentence, secret, account, ca, expected) in cases {
            assert_eq!(plan(&secret, account, ca), expected, "{sentence}");
        }
    }

    #[test]
    fn a_token_is_asked_for_the_secret_alone() {
        let mut secret = secret("u", &[]);
        secret.metadata.name = Some("s".into());
        secret.metadata.uid = Some("7".into());
        let bound = request(&secret).spec.bound_object_ref.unwrap();
        assert_eq!(
            (bound.kind.as_deref(), bound.name.as_deref(), bound.uid.as_deref()),
            (Some("Secret"), Some("s"), Some("7"))
        );
    }
}
