//! A service account called `default` in every namespace.
//!
//! Behaviour follows `pkg/controller/serviceaccount/serviceaccounts_controller.go`.

use std::sync::Arc;

use client::{Change, Lister, Outcome, WorkQueue};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Error;

use crate::context::{Context, new_queue, outcome};
use crate::informers::ServiceAccountMeta;
use crate::rest::{self, Rest};

/// The account's name.
pub(crate) const NAME: &str = "default";
const CONTROLLER: &str = "serviceaccount-controller";
const WORKERS: usize = 2;

struct Controller {
    namespaces: Lister<Namespace>,
    accounts: Lister<ServiceAccountMeta>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller {
        namespaces: caches.namespaces.clone(),
        accounts: caches.service_accounts.clone(),
        rest: context.rest.clone(),
    });
    let queue: WorkQueue<String> = new_queue();
    let q = queue.clone();
    context
        .informers
        .namespaces
        .on_change(move |change| q.add(change.object().metadata.name.clone().unwrap_or_default()));
    let q = queue.clone();
    context.informers.service_accounts.on_change(move |change| {
        if let Change::Deleted(account) = change {
            q.add(account.metadata.namespace.clone().unwrap_or_default());
        }
    });
    let synced = async move {
        caches.namespaces.synced().await;
        caches.service_accounts.synced().await;
    };
    context.run_workers(synced, &queue, WORKERS, move |namespace: String| {
        let controller = controller.clone();
        async move {
            let result = controller.sync(&namespace).await;
            outcome(CONTROLLER, &namespace, result)
        }
    });
}

impl Controller {
    async fn sync(&self, namespace: &str) -> Result<Outcome, Error> {
        let Some(object) = self.namespaces.get(None, namespace) else { return Ok(Outcome::Done) };
        let exists = self.accounts.get(Some(namespace), NAME).is_some();
        if let Some(account) = plan(&object, exists) {
            let path = rest::path::<ServiceAccount>(Some(namespace));
            match self.rest.create(&path, rest::encode(&account)).await {
                // The cache is behind, or the namespace goes.
                Err(error) if rest::is_already_exists(&error) || rest::is_namespace_terminating(&error) => (),
                // The namespace is gone.
                Err(error) if rest::is_not_found(&error) => (),
                other => drop(other?),
            }
        }
        Ok(Outcome::Done)
    }
}

/// Whether a namespace takes new objects.
pub(crate) fn is_active(namespace: &Namespace) -> bool {
    let phase = namespace.status.as_ref().and_then(|status| status.phase.as_deref());
    namespace.metadata.deletion_timestamp.is_none() && phase != Some("Terminating")
}

/// The account to create, where it is missing in a namespace that takes it.
fn plan(namespace: &Namespace, exists: bool) -> Option<ServiceAccount> {
    let metadata =
        ObjectMeta { name: Some(NAME.to_owned()), namespace: namespace.metadata.name.clone(), ..ObjectMeta::default() };
    (is_active(namespace) && !exists).then(|| ServiceAccount { metadata, ..ServiceAccount::default() })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn an_active_namespace_has_a_default_account() {
        let active = Namespace::default();
        let mut terminating = Namespace::default();
        terminating.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
        let cases = [
            ("it is missing", &active, false, true),
            ("it is there", &active, true, false),
            ("the namespace is going", &terminating, false, false),
        ];
        for (sentence, namespace, exists, expected) in cases {
            assert_eq!(plan(namespace, exists).is_some(), expected, "{sentence}");
        }
    }
}
