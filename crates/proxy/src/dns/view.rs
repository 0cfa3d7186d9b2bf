//! What the answers are made from: services and endpoint slices, found by name and by address.

use std::net::IpAddr;
use std::sync::Arc;

use client::{Informer, Lister};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::endpoints::owner;

/// Services by namespace.
const BY_NAMESPACE: &str = "namespace";
/// Services by each of their addresses; slices by their endpoints'.
const BY_ADDRESS: &str = "address";
/// Index of slices by `namespace/service`.
pub const BY_SERVICE: &str = "service";

/// The cluster as the DNS server sees it.
pub trait View: Send + Sync {
    /// The service of that name.
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>>;
    /// Whether a namespace has any service.
    fn has_services(&self, namespace: &str) -> bool;
    /// The slices of a service.
    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>>;
    /// The services with that cluster IP.
    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>>;
    /// The slices with an endpoint at that address.
    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>>;
}

/// The view of the informers' caches, which stay when the master is away.
pub struct Caches {
    services: Lister<Service>,
    slices: Lister<EndpointSlice>,
}

impl Caches {
    /// A view of what these informers see, indexed for it. Call before they run.
    pub fn of(services: &mut Informer<Service>, slices: &mut Informer<EndpointSlice>) -> Caches {
        services.index(BY_NAMESPACE, |service| service.metadata.namespace.iter().cloned().collect());
        services.index(BY_ADDRESS, |service| cluster_ips(service).map(|ip| ip.to_string()).collect());
        index_by_service(slices);
        slices.index(BY_ADDRESS, |slice| slice.endpoints.iter().flat_map(|e| e.addresses.iter().cloned()).collect());
        Caches { services: services.lister(), slices: slices.lister() }
    }

    /// Waits until both caches have seen the whole cluster once: before, an absent name means nothing.
    pub async fn synced(&self) {
        tokio::join!(self.services.synced(), self.slices.synced());
    }
}

impl View for Caches {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(Some(namespace), name)
    }

    fn has_services(&self, namespace: &str) -> bool {
        !self.services.by_index(BY_NAMESPACE, namespace).is_empty()
    }

    fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_SERVICE, &format!("{namespace}/{service}"))
    }

    fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
        self.services.by_index(BY_ADDRESS, &ip.to_string())
    }

    fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
        self.slices.by_index(BY_ADDRESS, &ip.to_string())
    }
}

/// Files slices under [`BY_SERVICE`].
pub fn index_by_service(slices: &mut Informer<EndpointSlice>) {
    slices.index(BY_SERVICE, |slice| owner(slice).iter().map(|(ns, name)| format!("{ns}/{name}")).collect());
}

/// The addresses a service has in the cluster: none where it is headless or a mere alias.
pub fn cluster_ips(service: &Service) -> impl Iterator<Item = IpAddr> + '_ {
    let spec = service.spec.as_ref();
    let all = spec.into_iter().flat_map(|s| s.cluster_ips.iter().flatten());
    // Objects from before there were several have the single field only.
    let single = spec.filter(|s| s.cluster_ips.as_ref().is_none_or(Vec::is_empty)).and_then(|s| s.cluster_ip.as_ref());
    all.chain(single).filter_map(|ip| ip.parse().ok())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A cluster in memory.
    #[derive(Default)]
    pub(crate) struct Fixed {
        pub(crate) services: Vec<Arc<Service>>,
        pub(crate) slices: Vec<Arc<EndpointSlice>>,
    }

    impl View for Fixed {
        fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
            let is_it = |s: &&Arc<Service>| {
                s.metadata.namespace.as_deref() == Some(namespace) && s.metadata.name.as_deref() == Some(name)
            };
            self.services.iter().find(is_it).cloned()
        }

        fn has_services(&self, namespace: &str) -> bool {
            self.services.iter().any(|s| s.metadata.namespace.as_deref() == Some(namespace))
        }

        fn slices(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
            self.slices.iter().filter(|s| owner(s) == Some((namespace, service))).cloned().collect()
        }

        fn services_at(&self, ip: IpAddr) -> Vec<Arc<Service>> {
            self.services.iter().filter(|s| cluster_ips(s).any(|i| i == ip)).cloned().collect()
        }

        fn slices_at(&self, ip: IpAddr) -> Vec<Arc<EndpointSlice>> {
            let has =
                |s: &&Arc<EndpointSlice>| s.endpoints.iter().any(|e| e.addresses.iter().any(|a| *a == ip.to_string()));
            self.slices.iter().filter(has).cloned().collect()
        }
    }
}
