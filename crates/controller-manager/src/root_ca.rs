//! The cluster CA's certificate in every namespace: the config map `kube-root-ca.crt`.
//!
//! Behaviour follows `pkg/controller/certificates/rootcacertpublisher/publisher.go`.

use std::collections::BTreeMap;
use std::sync::Arc;

use client::{Lister, Outcome, WorkQueue};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Error;

use crate::Config;
use crate::context::{Context, new_queue, outcome};
use crate::rest::{self, Rest};
use crate::service_account::is_active;

/// The config map's name.
pub(crate) const NAME: &str = "kube-root-ca.crt";
const CONTROLLER: &str = "root-ca-cert-publisher";
const WORKERS: usize = 2;
/// The key of the certificate.
const KEY: &str = "ca.crt";
/// Tells readers what the map is not for, in upstream's words, which tools look for.
const DESCRIPTION: (&str, &str) = (
    "kubernetes.io/description",
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the \
     internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes \
     clusters.",
);

struct Controller {
    namespaces: Lister<Namespace>,
    root_cas: Lister<ConfigMap>,
    config: Arc<Config>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller {
        namespaces: caches.namespaces.clone(),
        root_cas: caches.root_cas.clone(),
        config: context.config.clone(),
        rest: context.rest.clone(),
    });
    let queue: WorkQueue<String> = new_queue();
    let q = queue.clone();
    context
        .informers
        .namespaces
        .on_change(move |change| q.add(change.object().metadata.name.clone().unwrap_or_default()));
    let q = queue.clone();
    context.informers.root_cas.on_change(move |change| {
        q.add(change.object().metadata.namespace.clone().unwrap_or_default());
    });
    let synced = async move {
        caches.namespaces.synced().await;
        caches.root_cas.synced().await;
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
        let current = self.root_cas.get(Some(namespace), NAME);
        let path = rest::path::<ConfigMap>(Some(namespace));
        let pem = self.certificate().await?;
        let written = match plan(&object, current.as_deref(), &pem) {
            None => return Ok(Outcome::Done),
            Some(Action::Create(map)) => self.rest.create(&path, rest::encode(&map)).await,
            Some(Action::Update(map)) => self.rest.replace(&path, NAME, None, rest::encode(&map)).await,
        };
        match written {
            Err(error) if rest::is_already_exists(&error) || rest::is_namespace_terminating(&error) => (),
            Err(error) if rest::is_not_found(&error) => (),
            other => drop(other?),
        }
        Ok(Outcome::Done)
    }

    /// The certificate to publish.
    async fn certificate(&self) -> Result<String, Error> {
        let Config { root_ca_pem, ca_cert, .. } = &*self.config;
        if !root_ca_pem.is_empty() {
            return Ok(root_ca_pem.clone());
        }
        let unreadable = |error| format!("cannot read {}: {error}", ca_cert.display());
        tokio::fs::read_to_string(ca_cert).await.map_err(|error| Error::Service(unreadable(error).into()))
    }
}

/// What to do with a namespace's config map.
#[derive(Clone, Debug, PartialEq)]
enum Action {
    /// It is missing.
    Create(ConfigMap),
    /// It says something else.
    Update(ConfigMap),
}

/// What must happen so that `namespace` publishes `pem`.
fn plan(namespace: &Namespace, current: Option<&ConfigMap>, pem: &str) -> Option<Action> {
    if !is_active(namespace) {
        return None;
    }
    let data = BTreeMap::from([(KEY.to_owned(), pem.to_owned())]);
    let Some(current) = current else {
        let metadata = ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: namespace.metadata.name.clone(),
            annotations: Some([(DESCRIPTION.0.to_owned(), DESCRIPTION.1.to_owned())].into()),
            ..ObjectMeta::default()
        };
        return Some(Action::Create(ConfigMap { metadata, data: Some(data), ..ConfigMap::default() }));
    };
    if current.data.as_ref() == Some(&data) {
        return None;
    }
    Some(Action::Update(ConfigMap { data: Some(data), binary_data: None, ..current.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_certificate_is_published_and_kept_right() {
        let namespace = Namespace::default();
        let Some(Action::Create(map)) = plan(&namespace, None, "pem") else { panic!("not created") };
        assert_eq!(plan(&namespace, Some(&map), "pem"), None);
        let Some(Action::Update(renewed)) = plan(&namespace, Some(&map), "new") else { panic!("not updated") };
        assert_eq!(renewed.data.as_ref().unwrap()[KEY], "new");
        assert_eq!(plan(&namespace, Some(&renewed), "new"), None);
    }
}
