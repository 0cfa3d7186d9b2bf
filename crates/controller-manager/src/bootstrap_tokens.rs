//! Bootstrap tokens that have expired are deleted, at the time they do.
//!
//! Behaviour follows `pkg/controller/bootstrap/tokencleaner.go`.

use std::sync::Arc;
use std::time::Duration;

use api::well_known::NAMESPACE_SYSTEM;
use client::{Change, Lister, Outcome, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Error;

use crate::context::{Context, new_queue, outcome};
use crate::rest::{self, Rest};

const CONTROLLER: &str = "token-cleaner";
const WORKERS: usize = 1;
/// The key of the time.
const EXPIRATION: &str = "expiration";

struct Controller {
    tokens: Lister<Secret>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let tokens = context.caches().bootstrap_tokens;
    let controller = Arc::new(Controller { tokens: tokens.clone(), rest: context.rest.clone() });
    let queue: WorkQueue<String> = new_queue();
    let q = queue.clone();
    context.informers.bootstrap_tokens.on_change(move |change| {
        if let Change::Added(token) | Change::Updated { new: token, .. } = change {
            q.add(token.metadata.name.clone().unwrap_or_default());
        }
    });
    let synced = async move { tokens.synced().await };
    context.run_workers(synced, &queue, WORKERS, move |name: String| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&name).await;
            outcome(CONTROLLER, &name, result)
        }
    });
}

impl Controller {
    async fn sync(&self, name: &str) -> Result<Outcome, Error> {
        let Some(token) = self.tokens.get(Some(NAMESPACE_SYSTEM), name) else { return Ok(Outcome::Done) };
        match plan(&token, Timestamp::now()) {
            Next::Keep => Ok(Outcome::Done),
            Next::LookAgain(after) => Ok(Outcome::After(after)),
            Next::Delete => {
                tracing::info!(object = name, reason = "expired", "deleting bootstrap token");
                let uid = token.metadata.uid.as_deref().unwrap_or_default();
                let path = rest::path::<Secret>(Some(NAMESPACE_SYSTEM));
                self.rest.delete(&path, name, &rest::only_uid(uid)).await.map(|()| Outcome::Done)
            }
        }
    }
}

/// What becomes of a token.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// It never ends.
    Keep,
    /// It ends after this time.
    LookAgain(Duration),
    /// It has ended.
    Delete,
}

/// A time nobody can read has passed.
fn plan(token: &Secret, now: Timestamp) -> Next {
    let Some(text) = token.data.as_ref().and_then(|data| data.get(EXPIRATION)).filter(|text| !text.0.is_empty()) else {
        return Next::Keep;
    };
    let end = std::str::from_utf8(&text.0).ok().and_then(|text| text.parse::<Timestamp>().ok());
    let left = end.and_then(|end| Duration::try_from(end.duration_since(now)).ok());
    match left.filter(|left| !left.is_zero()) {
        Some(left) => Next::LookAgain(left),
        None => Next::Delete,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    #[test]
    fn a_token_goes_when_its_time_has_come() {
        let now: Timestamp = "2026-11-22T12:00:00Z".parse().unwrap();
        let cases = [
            ("it never ends", None, Next::Keep),
            ("an empty time is none", Some(""), Next::Keep),
            ("it ends in a minute", Some("2026-11-22T12:01:00Z"), Next::LookAgain(Duration::from_secs(60))),
            ("elsewhere it is later", Some("2026-11-22T13:01:00+01:00"), Next::LookAgain(Duration::from_secs(60))),
            ("it ends now", Some("2026-11-22T12:00:00Z"), Next::Delete),
            ("it ended", Some("2026-11-22T11:00:00Z"), Next::Delete),
            ("nobody can read it", Some("soon"), Next::Delete),
        ];
        for (sentence, expiration, expected) in cases {
            let data = expiration.map(|text| [(EXPIRATION.to_owned(), ByteString(text.into()))].into());
            assert_eq!(plan(&Secret { data, ..Secret::default() }, now), expected, "{sentence}");
        }
    }
}
