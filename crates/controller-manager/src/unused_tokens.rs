//! Service account tokens in Secrets that nobody uses any more: those that their account lists, as all did that were once made
//! for every account. One that was not used for a year is marked as invalid, and deleted after another year.
//!
//! Behaviour follows `pkg/controller/serviceaccount/legacy_serviceaccount_token_cleaner.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use api::well_known::{LABEL_TOKEN_INVALID_SINCE, LABEL_TOKEN_LAST_USED, NAMESPACE_SYSTEM, TOKEN_TRACKING};
use client::{Lister, Outcome, WorkQueue};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, ServiceAccount};
use kube::Error;
use kube::api::{DeleteParams, Preconditions};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::account_tokens::account_of;
use crate::context::{Context, Key, new_queue, outcome};
use crate::rest::{self, Rest};

const CONTROLLER: &str = "legacy-service-account-token-cleaner";
/// How often it looks (`defaultCleanerSyncInterval` upstream); the days it decides on are no finer.
const LOOK_AGAIN: Duration = Duration::from_secs(24 * 60 * 60);

struct Controller {
    period: SignedDuration,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let tokens: Lister<Secret> = context.caches().account_tokens;
    let period = SignedDuration::try_from(context.config.unused_token_period).unwrap_or(SignedDuration::MAX);
    let controller = Arc::new(Controller { period, rest: context.rest.clone() });
    let queue: WorkQueue<&'static str> = new_queue();
    queue.add("all tokens");
    let held = tokens.clone();
    let synced = async move { tokens.synced().await };
    context.run_workers(synced, &queue, 1, move |key| {
        let (controller, tokens) = (controller.clone(), held.list());
        async move { outcome(CONTROLLER, &key, controller.sync(tokens, Timestamp::now()).await) }
    });
}

impl Controller {
    /// Looks at all `tokens` as they are at `now`.
    async fn sync(&self, tokens: Vec<Arc<Secret>>, now: Timestamp) -> Result<Outcome, Error> {
        // A time before all is one nobody has lived through.
        let before = day(now.checked_sub(self.period).unwrap_or(Timestamp::MIN));
        let unused: Vec<_> = tokens.into_iter().filter(|secret| is_unused(secret, before)).collect();
        if unused.is_empty() || self.tracked_since().await?.is_none_or(|since| since >= before) {
            return Ok(Outcome::After(LOOK_AGAIN));
        }
        let mut by_namespace: BTreeMap<&str, Vec<&Arc<Secret>>> = BTreeMap::new();
        for secret in &unused {
            by_namespace.entry(secret.metadata.namespace.as_deref().unwrap_or_default()).or_default().push(secret);
        }
        // One that cannot be told keeps no other from its end.
        let mut outcome = Ok(Outcome::After(LOOK_AGAIN));
        for (namespace, secrets) in by_namespace {
            if let Err(error) = self.end(namespace, &secrets, before, day(now)).await {
                outcome = outcome.and(Err(error));
            }
        }
        outcome
    }

    /// The next step for the unused tokens of a namespace that accounts list and no pod mounts; the first error.
    async fn end(&self, namespace: &str, secrets: &[&Arc<Secret>], before: Date, today: Date) -> Result<(), Error> {
        let accounts: Vec<ServiceAccount> = self.objects(namespace).await?;
        let listed = |secret: &Secret| account_of(secret).is_some_and(|account| is_listed(&accounts, &account, secret));
        let secrets: Vec<_> = secrets.iter().filter(|secret| listed(secret)).collect();
        if secrets.is_empty() {
            return Ok(());
        }
        let names: BTreeSet<&str> = secrets.iter().filter_map(|secret| secret.metadata.name.as_deref()).collect();
        let used = self.mentioned(namespace, &names).await?;
        let mut outcome = Ok(());
        for secret in secrets {
            if !used.contains(secret.metadata.name.as_deref().unwrap_or_default()) {
                outcome = outcome.and(self.apply(secret, plan(secret, before, today)).await);
            }
        }
        outcome
    }

    /// The day from which on uses are noted, if that is told.
    async fn tracked_since(&self) -> Result<Option<Date>, Error> {
        let maps: Vec<ConfigMap> = self.objects(NAMESPACE_SYSTEM).await?;
        let map = maps.into_iter().find(|map| map.metadata.name.as_deref() == Some(TOKEN_TRACKING));
        Ok(map.and_then(|map| map.data?.get("since")?.parse().ok()))
    }

    /// Which of these names pods of the namespace have anywhere in their specs. One that has a name for something else keeps
    /// the token, too: what is deleted does not come back.
    async fn mentioned(&self, namespace: &str, names: &BTreeSet<&str>) -> Result<BTreeSet<String>, Error> {
        let pods = self.rest.list(&rest::path::<Pod>(Some(namespace))).await?;
        let mut found = BTreeSet::new();
        for pod in &pods {
            if let Ok(pod) = serde_json::from_str::<Value>(pod.get()) {
                mentions(&pod["spec"], names, &mut found);
            }
        }
        Ok(found)
    }

    async fn objects<K: k8s_openapi::Resource + DeserializeOwned>(&self, namespace: &str) -> Result<Vec<K>, Error> {
        let raw = self.rest.list(&rest::path::<K>(Some(namespace))).await?;
        Ok(raw.iter().filter_map(|json| serde_json::from_str(json.get()).ok()).collect())
    }

    async fn apply(&self, secret: &Secret, action: Option<Action>) -> Result<(), Error> {
        let (path, key) = (rest::path::<Secret>(secret.metadata.namespace.as_deref()), Key::of(&secret.metadata));
        match action {
            None => Ok(()),
            Some(Action::Mark(labelled)) => {
                tracing::info!(object = ?key, reason = "not used for long", "marking service account token as invalid");
                let written = self.rest.replace(&path, &key.name, None, rest::encode(&*labelled)).await.map(|_| ());
                rest::ignore_not_found(written)
            }
            Some(Action::Delete) => {
                tracing::info!(object = ?key, reason = "invalid for long", "deleting service account token");
                let metadata = &secret.metadata;
                let (uid, resource_version) = (metadata.uid.clone(), metadata.resource_version.clone());
                // Only as it was judged: somebody may just have used it, or taken the mark away.
                let seen = Some(Preconditions { uid, resource_version });
                let params = DeleteParams { preconditions: seen, ..DeleteParams::default() };
                match self.rest.delete(&path, &key.name, &params).await {
                    Err(Error::Api(status)) if status.code == 409 => Ok(()),
                    other => other,
                }
            }
        }
    }
}

/// Whether the account names the Secret as one of its own; others were made by hand.
fn is_listed(accounts: &[ServiceAccount], account: &Key, secret: &Secret) -> bool {
    let account = accounts.iter().find(|a| a.metadata.name.as_ref() == Some(&account.name));
    let listed = account.and_then(|account| account.secrets.as_deref()).unwrap_or_default();
    listed.iter().any(|listed| listed.name == secret.metadata.name)
}

/// Adds those of `names` that stand anywhere in `value`.
fn mentions(value: &Value, names: &BTreeSet<&str>, found: &mut BTreeSet<String>) {
    match value {
        Value::String(text) if names.contains(text.as_str()) => drop(found.insert(text.clone())),
        Value::Array(items) => items.iter().for_each(|item| mentions(item, names, found)),
        Value::Object(fields) => fields.values().for_each(|field| mentions(field, names, found)),
        _ => {}
    }
}

fn day(time: Timestamp) -> Date {
    TimeZone::UTC.to_datetime(time).date()
}

fn noted(secret: &Secret, label: &str) -> Option<Date> {
    secret.metadata.labels.as_ref()?.get(label)?.parse().ok()
}

/// Whether the token is from before that day, and was not used since.
fn is_unused(secret: &Secret, before: Date) -> bool {
    let made = secret.metadata.creation_timestamp.as_ref().map(|time| day(time.0));
    let used = secret.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_TOKEN_LAST_USED));
    // A day that nobody can read decides nothing: the token stays.
    let is_fresh = used.is_some_and(|used| used.parse::<Date>().map_or(true, |used| used >= before));
    secret.metadata.deletion_timestamp.is_none() && made.is_some_and(|made| made < before) && !is_fresh
}

/// A step.
#[derive(Debug, PartialEq)]
enum Action {
    /// It does not count any more: the Secret with the day.
    Mark(Box<Secret>),
    /// Nobody has missed it.
    Delete,
}

/// The step for an unused token that its account lists and no pod mounts.
fn plan(secret: &Secret, before: Date, today: Date) -> Option<Action> {
    match noted(secret, LABEL_TOKEN_INVALID_SINCE) {
        None => {
            let mut marked = secret.clone();
            let labels = marked.metadata.labels.get_or_insert_default();
            labels.insert(LABEL_TOKEN_INVALID_SINCE.to_owned(), today.to_string());
            Some(Action::Mark(Box::new(marked)))
        }
        Some(since) if since < before => Some(Action::Delete),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use api::well_known::ANNOTATION_SERVICE_ACCOUNT_NAME;
    use http_body_util::BodyExt;
    use parking_lot::Mutex;
    use serde_json::json;

    use super::*;

    const TODAY: Date = jiff::civil::date(2026, 11, 28);
    const YEAR_AGO: Date = jiff::civil::date(2025, 11, 28);

    fn token(made: &str, labels: Value) -> Secret {
        let made = format!("{made}T12:00:00Z");
        serde_json::from_value(json!({"metadata": {"name": "s", "creationTimestamp": made, "labels": labels}})).unwrap()
    }

    #[test]
    fn a_token_is_unused_when_a_year_has_passed_without_it() {
        let used = |day: &str| json!({LABEL_TOKEN_LAST_USED: day});
        let cases = [
            ("it was never used", token("2025-11-27", json!({})), true),
            ("it is younger", token("2025-11-28", json!({})), false),
            ("it was used since", token("2020-01-01", used("2025-11-28")), false),
            ("it was used before", token("2020-01-01", used("2025-11-27")), true),
            ("nobody can read the day", token("2020-01-01", used("soon")), false),
        ];
        for (sentence, secret, expected) in cases {
            assert_eq!(is_unused(&secret, YEAR_AGO), expected, "{sentence}");
        }
    }

    #[test]
    fn an_unused_token_is_marked_and_deleted_a_year_later() {
        let marked = |day: &str| token("2020-01-01", json!({LABEL_TOKEN_INVALID_SINCE: day}));
        let Some(Action::Mark(first)) = plan(&token("2020-01-01", json!({})), YEAR_AGO, TODAY) else { panic!() };
        assert_eq!(*first, marked("2026-11-28"));
        assert_eq!(plan(&first, YEAR_AGO, TODAY), None, "once is enough");
        assert_eq!(plan(&marked("2025-11-28"), YEAR_AGO, TODAY), None);
        assert_eq!(plan(&marked("2025-11-27"), YEAR_AGO, TODAY), Some(Action::Delete));
        assert_eq!(plan(&marked("soon"), YEAR_AGO, TODAY), Some(Action::Mark(first)));
    }

    /// An API with an account that lists three tokens, and a pod that mounts one; what it is told to change.
    fn api(changes: Arc<Mutex<Vec<String>>>) -> kube::Client {
        let answers = move |request: http::Request<kube::client::Body>| {
            let changes = changes.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let (code, answer) = match (parts.method.as_str(), parts.uri.path()) {
                    ("GET", "/api/v1/namespaces/kube-system/configmaps") => {
                        let map = json!({"metadata": {"name": TOKEN_TRACKING}, "data": {"since": "2024-01-01"}});
                        (200, json!({"items": [map]}))
                    }
                    ("GET", "/api/v1/namespaces/ns/serviceaccounts") => {
                        let secrets = ["old", "mounted", "marked", "just-used"].map(|name| json!({"name": name}));
                        (200, json!({"items": [{"metadata": {"name": "robot"}, "secrets": secrets}]}))
                    }
                    ("GET", "/api/v1/namespaces/ns/pods") => {
                        let volumes = json!([{"name": "v", "secret": {"secretName": "mounted"}}]);
                        (200, json!({"items": [{"spec": {"volumes": volumes}}]}))
                    }
                    ("GET", _) => (500, json!({"kind": "Status", "code": 500, "status": "Failure"})),
                    (method, path) => {
                        let told: Value = serde_json::from_slice(&body).unwrap_or_default();
                        let label = &told["metadata"]["labels"][LABEL_TOKEN_INVALID_SINCE];
                        let version = &told["preconditions"]["resourceVersion"];
                        changes.lock().push(format!("{method} {path} {label} {version}"));
                        match path.ends_with("just-used") {
                            true => (409, json!({"kind": "Status", "code": 409, "status": "Failure"})),
                            false => (200, json!({"metadata": {}})),
                        }
                    }
                };
                let body = http_body_util::Full::new(bytes::Bytes::from(answer.to_string()));
                Ok::<_, std::convert::Infallible>(http::Response::builder().status(code).body(body).unwrap())
            }
        };
        kube::Client::new(tower::service_fn(answers), "default")
    }

    #[tokio::test]
    async fn only_what_its_account_lists_and_nobody_mounts_is_ended_as_it_was_seen() {
        let changes: Arc<Mutex<Vec<String>>> = Arc::default();
        let controller =
            Controller { period: SignedDuration::from_hours(365 * 24), rest: Rest::new(api(changes.clone())) };
        let named = |namespace: &str, name: &str, labels: Value| {
            let mut secret = token("2020-01-01", labels);
            secret.metadata.namespace = Some(namespace.to_owned());
            secret.metadata.name = Some(name.to_owned());
            secret.metadata.resource_version = Some("7".to_owned());
            let robot = (ANNOTATION_SERVICE_ACCOUNT_NAME.to_owned(), "robot".to_owned());
            secret.metadata.annotations = Some([robot].into());
            Arc::new(secret)
        };
        let ended = || json!({LABEL_TOKEN_INVALID_SINCE: "2025-01-01"});
        let tokens = vec![
            named("broken", "a", json!({})),
            named("ns", "old", json!({})),
            named("ns", "mounted", json!({})),
            named("ns", "by-hand", json!({})),
            named("ns", "just-used", ended()),
            named("ns", "marked", ended()),
        ];
        let now = "2026-11-28T12:00:00Z".parse().unwrap();
        controller.sync(tokens, now).await.expect_err("one namespace cannot be read");
        let path = "/api/v1/namespaces/ns/secrets";
        let expected = [
            format!("PUT {path}/old \"2026-11-28\" null"),
            format!("DELETE {path}/just-used null \"7\""),
            format!("DELETE {path}/marked null \"7\""),
        ];
        assert_eq!(*changes.lock(), expected, "what is refused or unreadable keeps no other");
    }

    #[test]
    fn a_pod_that_names_it_anywhere_keeps_it() {
        let spec = json!({"volumes": [{"name": "v", "secret": {"secretName": "s"}}], "hostNetwork": true});
        let mut found = BTreeSet::new();
        mentions(&spec, &BTreeSet::from(["s", "secretName", "other"]), &mut found);
        assert_eq!(found, BTreeSet::from(["s".to_owned()]));
    }
}
