//! The shared caches: one watch per kind, however many controllers look at it.

use std::collections::BTreeMap;

use api::well_known::{NAMESPACE_SYSTEM, SECRET_BOOTSTRAP_TOKEN, SECRET_SERVICE_ACCOUNT_TOKEN};
use client::{Informer, Lister, Tasks};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ReplicationController,
    ResourceQuota, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Client;
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;

use crate::pod::{Keeper, PodInfo};
use crate::{account_tokens, root_ca};

/// Index of pods by the UID of their controller.
pub(crate) const BY_OWNER: &str = "owner";
/// Index of pods by the node they are bound to.
pub(crate) const BY_NODE: &str = "node";
/// Index of pods by each of their labels, see [`label_key`].
pub(crate) const BY_LABEL: &str = "label";
/// Index of pods that have ended, under [`TERMINAL`].
pub(crate) const BY_PHASE: &str = "phase";
/// The one value of [`BY_PHASE`].
pub(crate) const TERMINAL: &str = "terminal";
/// Index of what has a selector by the first pair of it, see [`selector_key`].
pub(crate) const BY_SELECTOR: &str = "selector";
/// Index of endpoint slices by `namespace/service`.
pub(crate) const BY_SERVICE: &str = "service";
/// Index of resource quotas by namespace.
pub(crate) const BY_NAMESPACE: &str = "namespace";
/// Index of token Secrets by the account they belong to, `namespace/name`.
pub(crate) const BY_ACCOUNT: &str = "account";
/// Index of certificate signing requests by user.
pub(crate) const BY_USER: &str = "user";

/// The metadata of service accounts; their contents matter to nobody here.
pub(crate) type ServiceAccountMeta = PartialObjectMeta<ServiceAccount>;

/// What a cache holds: objects of a kind, or what is kept of them.
macro_rules! kept {
    ($kind:ty) => {
        $kind
    };
    ($kind:ty, $kept:ty) => {
        $kept
    };
}

/// Declares the caches that are open for handlers, their read handles, and what is done to all of them.
macro_rules! caches {
    ($($(#[$doc:meta])* $field:ident: $kind:ty $(=> $kept:ty)?,)*) => {
        /// The caches, open for handlers.
        pub(crate) struct Informers { $($(#[$doc])* pub(crate) $field: Informer<$kind $(, $kept)?>,)* }

        /// Read handles on the caches. Cheap to clone.
        #[derive(Clone)]
        pub(crate) struct Caches { $($(#[$doc])* pub(crate) $field: Lister<kept!($kind $(, $kept)?)>,)* }

        impl Informers {
            /// Read handles.
            pub(crate) fn caches(&self) -> Caches {
                Caches { $($field: self.$field.lister(),)* }
            }

            /// Starts every watch.
            pub(crate) fn run(self, tasks: &Tasks) {
                $(self.$field.run(tasks);)*
            }
        }
    };
}

caches! {
    /// Pods, by owner, node, label and whether they have ended.
    pods: Pod => PodInfo,
    /// Replication controllers, by selector.
    replication_controllers: ReplicationController,
    /// Services, by selector.
    services: Service,
    /// Endpoints.
    endpoints: Endpoints,
    /// Endpoint slices, by service.
    endpoint_slices: EndpointSlice,
    /// Nodes.
    nodes: Node,
    /// The leases by which nodes say that they live.
    leases: Lease,
    /// Namespaces.
    namespaces: Namespace,
    /// Service accounts.
    service_accounts: ServiceAccountMeta,
    /// Secrets that hold a service account's token, by account.
    account_tokens: Secret,
    /// Secrets that hold a bootstrap token.
    bootstrap_tokens: Secret,
    /// Config maps called `kube-root-ca.crt`.
    root_cas: ConfigMap,
    /// Resource quotas, by namespace.
    resource_quotas: ResourceQuota,
    /// Persistent volumes.
    persistent_volumes: PersistentVolume,
    /// Claims on them.
    persistent_volume_claims: PersistentVolumeClaim,
    /// Certificate signing requests, by user.
    certificate_signing_requests: CertificateSigningRequest,
    /// Cluster roles.
    cluster_roles: ClusterRole,
}

impl Informers {
    /// Caches with their indexes, without handlers.
    pub(crate) fn new(client: &Client) -> Informers {
        let all = watcher::Config::default;
        let named = |name: &str| watcher::Config::default().fields(&format!("metadata.name={name}"));
        let of_type = |type_: &str| watcher::Config::default().fields(&format!("type={type_}"));
        let keeper = Keeper::default();
        let mut informers = Informers {
            pods: Informer::keeping(Api::all(client.clone()), all(), move |pod| keeper.keep(&pod)),
            replication_controllers: Informer::new(Api::all(client.clone()), all()),
            services: Informer::new(Api::all(client.clone()), all()),
            endpoints: Informer::new(Api::all(client.clone()), all()),
            endpoint_slices: Informer::new(Api::all(client.clone()), all()),
            nodes: Informer::new(Api::all(client.clone()), all()),
            leases: Informer::new(Api::namespaced(client.clone(), api::well_known::NAMESPACE_NODE_LEASE), all()),
            namespaces: Informer::new(Api::all(client.clone()), all()),
            service_accounts: Informer::new(Api::all(client.clone()), all()),
            account_tokens: Informer::new(Api::all(client.clone()), of_type(SECRET_SERVICE_ACCOUNT_TOKEN)),
            bootstrap_tokens: Informer::new(
                Api::namespaced(client.clone(), NAMESPACE_SYSTEM),
                of_type(SECRET_BOOTSTRAP_TOKEN),
            ),
            root_cas: Informer::new(Api::all(client.clone()), named(root_ca::NAME)),
            resource_quotas: Informer::new(Api::all(client.clone()), all()),
            persistent_volumes: Informer::new(Api::all(client.clone()), all()),
            persistent_volume_claims: Informer::new(Api::all(client.clone()), all()),
            certificate_signing_requests: Informer::new(Api::all(client.clone()), all()),
            cluster_roles: Informer::new(Api::all(client.clone()), all()),
        };
        informers.add_indexes();
        informers
    }

    fn add_indexes(&mut self) {
        self.pods.index(BY_OWNER, |pod| pod.controller().map(|owner| owner.uid.clone()).into_iter().collect());
        self.pods.index(BY_NODE, |pod| pod.node.as_deref().map(str::to_owned).into_iter().collect());
        self.pods.index(BY_LABEL, |pod| label_keys(pod).collect());
        self.pods.index(BY_PHASE, |pod| pod.is_terminal().then(|| TERMINAL.to_owned()).into_iter().collect());
        self.replication_controllers.index(BY_SELECTOR, |rc| {
            let selector = rc.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector_key(&rc.metadata, selector).into_iter().collect()
        });
        self.services.index(BY_SELECTOR, |service| {
            let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
            selector_key(&service.metadata, selector).into_iter().collect()
        });
        self.endpoint_slices.index(BY_SERVICE, |slice| {
            crate::endpoint_slices::service_of(slice).map(|key| service_key(&key)).into_iter().collect()
        });
        self.resource_quotas.index(BY_NAMESPACE, |quota| quota.metadata.namespace.clone().into_iter().collect());
        self.account_tokens.index(BY_ACCOUNT, |secret| {
            account_tokens::account_of(secret).map(|key| account_key(&key)).into_iter().collect()
        });
        self.certificate_signing_requests.index(BY_USER, |csr| csr.spec.username.clone().into_iter().collect());
    }
}

/// The value of [`BY_LABEL`] and [`BY_SELECTOR`] for one label in one namespace.
fn label_key(namespace: &str, key: &str, value: &str) -> String {
    format!("{namespace}/{key}={value}")
}

/// The values of [`BY_LABEL`] of a pod: what selects it is filed in [`BY_SELECTOR`] under one of these.
pub(crate) fn label_keys(pod: &PodInfo) -> impl Iterator<Item = String> {
    pod.labels().iter().map(|(key, value)| label_key(&pod.namespace, key, value))
}

/// The value of [`BY_SELECTOR`] of an object with this selector: the selector's first pair. What it selects is filed
/// in [`BY_LABEL`] under it. An empty selector selects nothing.
pub(crate) fn selector_key(metadata: &ObjectMeta, selector: Option<&BTreeMap<String, String>>) -> Option<String> {
    let (key, value) = selector?.first_key_value()?;
    Some(label_key(metadata.namespace.as_deref().unwrap_or(""), key, value))
}

/// The value of [`BY_SERVICE`] for a service.
pub(crate) fn service_key(service: &crate::context::Key) -> String {
    format!("{}/{}", service.namespace, service.name)
}

/// The value of [`BY_ACCOUNT`] for a service account.
pub(crate) fn account_key(account: &crate::context::Key) -> String {
    format!("{}/{}", account.namespace, account.name)
}

/// Whether labels have every pair of `selector`, and it has one.
pub(crate) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
