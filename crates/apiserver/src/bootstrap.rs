//! The objects every cluster has: system namespaces, default roles, the join token, and the `kubernetes` service with this server as its endpoint.

use std::sync::Arc;

use api::well_known::{
    BOOTSTRAP_TOKEN_PREFIX, LABEL_MANAGED_BY, LABEL_SERVICE_NAME, LABEL_SERVICE_PROXY_NAME, NAMESPACE_NODE_LEASE,
    NAMESPACE_PUBLIC, NAMESPACE_SYSTEM, SECRET_BOOTSTRAP_TOKEN, SYSTEM_PRIORITY_CLASSES, TOKEN_TRACKING,
};
use api::{Kind, Object, Resource};
use serde_json::{Value, json};

use crate::admission::Effects;
use crate::allocators::Taken;
use crate::authn::legacy;
use crate::cache::Cache;
use crate::error::Error;
use crate::rbac::defaults;
use crate::server::Shared;
use crate::status::{ApiError, Subject};
use crate::storage::{Current, Write};
use crate::tracking::Tracking;
use crate::user::User;

/// How long the join token of the first start lets in (`DefaultTokenDuration` of kubeadm).
const JOIN_TOKEN_LIFE: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// Creates what is missing and corrects the endpoint.
pub(crate) async fn write_system_objects(shared: &Arc<Shared>) -> Result<(), Error> {
    let service = kubernetes_service(shared);
    let is_first_start = !exists(shared, &service)?;
    let namespaces = ["default", NAMESPACE_SYSTEM, NAMESPACE_PUBLIC, NAMESPACE_NODE_LEASE];
    let objects = namespaces.map(|name| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}));
    futures::future::try_join_all(objects.iter().map(|object| ensure(shared, object))).await?;
    let classes = SYSTEM_PRIORITY_CLASSES.iter().map(priority_class);
    futures::future::try_join_all(classes.map(|class| async move { ensure(shared, &class).await })).await?;
    ensure(shared, &token_tracking()).await?;
    if is_first_start || shared.pki.join_token.is_new() {
        // Later it belongs to the administrators: neither who deletes it nor its own end finds it again after a restart.
        ensure(shared, &join_token(shared)).await?;
    }
    if is_first_start && let Some(dns) = dns_service(shared) {
        // Later it belongs to the administrators, who may want another server there. The first start ends with the next
        // write.
        ensure(shared, &dns).await?;
    }
    futures::try_join!(ensure(shared, &service), restore_roles(shared))?;
    if shared.config.advertise_address.is_loopback() {
        // No pod could reach this server there, and endpoints may not say it: the service stays without any.
        tracing::warn!("the advertised address is a loopback address: the kubernetes service gets no endpoints");
        return Ok(());
    }
    let (endpoints, slice) = (kubernetes_endpoints(shared), kubernetes_slice(shared));
    futures::try_join!(keep(shared, &endpoints), keep(shared, &slice))?;
    Ok(())
}

/// Whether a master has started on this store before.
pub(crate) fn has_begun(cache: &Cache) -> bool {
    let service =
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"}});
    place(&service).is_some_and(|(kind, _, _, key)| cache.of(kind).get(&key).is_some())
}

/// A class of the system's own pods.
fn priority_class((name, value, description): &(&str, i32, &str)) -> Value {
    json!({
        "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
        "metadata": {"name": name}, "value": value, "description": description,
    })
}

/// Since when the use of tokens in Secrets is noted (`pkg/controlplane/controller/legacytokentracking`).
fn token_tracking() -> Value {
    let today = legacy::day(jiff::Timestamp::now());
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": TOKEN_TRACKING, "namespace": NAMESPACE_SYSTEM},
        "data": {"since": today},
    })
}

/// The join token as what it is for the API: a bootstrap token that ends after a day, as that of `kubeadm init` does.
fn join_token(shared: &Shared) -> Value {
    let (id, secret) = shared.pki.join_token.parts();
    let end = jiff::Timestamp::now() + JOIN_TOKEN_LIFE;
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": SECRET_BOOTSTRAP_TOKEN,
        "metadata": {"name": format!("{BOOTSTRAP_TOKEN_PREFIX}{id}"), "namespace": NAMESPACE_SYSTEM},
        "stringData": {
            "token-id": id, "token-secret": secret, "usage-bootstrap-authentication": "true",
            "expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "description": "The join token made at the first start.",
        },
    })
}

/// Writes the default roles and bindings, and gives back what they lack.
async fn restore_roles(shared: &Arc<Shared>) -> Result<(), Error> {
    let roles = defaults::cluster_roles().into_iter();
    let bindings = defaults::cluster_role_bindings().into_iter();
    let in_namespaces = defaults::roles().into_iter();
    let bound_there = defaults::role_bindings().into_iter();
    futures::try_join!(
        futures::future::try_join_all(roles.map(|role| restore(shared, role, defaults::reconcile_role))),
        futures::future::try_join_all(bindings.map(|b| restore(shared, b, defaults::reconcile_binding))),
        futures::future::try_join_all(in_namespaces.map(|r| restore(shared, r, defaults::reconcile_namespaced_role))),
        futures::future::try_join_all(bound_there.map(|b| restore(shared, b, defaults::reconcile_namespaced_binding))),
    )?;
    Ok(())
}

/// Creates an object, or changes it as `reconcile` says.
async fn restore<T: Resource>(
    shared: &Arc<Shared>,
    wanted: T,
    reconcile: fn(&T, &T) -> Option<T>,
) -> Result<(), Error> {
    let info = wanted.info();
    let name = Object::metadata(&wanted).name.clone().unwrap_or_default();
    let namespace = Object::metadata(&wanted).namespace.as_deref();
    let failed = |reason: &dyn std::fmt::Display| Error::Bootstrap {
        what: format!("{} {name:?}", info.kind),
        reason: reason.to_string(),
    };
    let (subject, key) = (Subject::new(info, &name), info.registry_key(namespace, &name));
    let kind = api::kinds::by_kind(&info.api_version(), info.kind).ok_or_else(|| failed(&"the kind is not served"))?;
    let known: Option<T> = shared.cache.of(kind).get(&key).and_then(|entry| kind.typed(entry.json()));
    if known.as_ref().is_some_and(|have| reconcile(have, &wanted).is_none()) {
        return Ok(());
    }
    if known.is_none() {
        return match shared.create(&user(), kind, namespace, wanted.clone_object(), false).await {
            Ok(_) | Err(ApiError::AlreadyExists(_)) => Ok(()),
            Err(error) => Err(failed(&error)),
        };
    }
    let change = |current: &Current, _: &Taken| {
        let have: Option<&T> = current.object.as_any().downcast_ref();
        let Some(mut new) = have.and_then(|have| reconcile(have, &wanted)) else { return Ok(Write::Keep) };
        Object::metadata_mut(&mut new).resource_version = None;
        let managed = Some(Tracking::server().updated(current, &new, None, None));
        Ok(Write::Put(Box::new(new), Effects { managed, ..Effects::default() }))
    };
    shared.modify(kind, &subject, &key, false, change).await.map(|_| ()).map_err(|error| failed(&error))
}

fn kubernetes_service(shared: &Shared) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {"component": "apiserver", "provider": "kubernetes"},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": shared.config.kubernetes_service_ip().to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": shared.config.secure_port}],
        },
    })
}

/// The address of the DNS servers, under the name all clients know it by. Every node answers there itself; so no proxy may
/// lead the address elsewhere, and it says that another serves it.
fn dns_service(shared: &Shared) -> Option<Value> {
    let ip = shared.config.dns_service_ip()?;
    Some(json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kube-dns", "namespace": NAMESPACE_SYSTEM,
            "labels": {
                "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true", "kubernetes.io/name": "KubeDNS",
                LABEL_SERVICE_PROXY_NAME: "node-local-dns",
            },
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": ip.to_string(),
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    }))
}

fn kubernetes_endpoints(shared: &Shared) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            // The slice beside it is made here too: nobody needs to mirror it.
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": shared.config.advertise_address.to_string()}],
            "ports": [{"name": "https", "port": shared.config.secure_port, "protocol": "TCP"}],
        }],
    })
}

fn kubernetes_slice(shared: &Shared) -> Value {
    let address = shared.config.advertise_address;
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "kubernetes", "namespace": "default",
            "labels": {LABEL_SERVICE_NAME: "kubernetes", LABEL_MANAGED_BY: "apiserver"},
        },
        "addressType": if address.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [address.to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": shared.config.secure_port, "protocol": "TCP"}],
    })
}

fn user() -> Arc<User> {
    Arc::new(User::master("system:apiserver"))
}

/// The row of the table, namespace, name and key of an object made here.
fn place(object: &Value) -> Option<(&'static Kind, Option<&str>, Subject, String)> {
    let kind = api::kinds::by_kind(object["apiVersion"].as_str()?, object["kind"].as_str()?)?;
    let (namespace, name) = (object["metadata"]["namespace"].as_str(), object["metadata"]["name"].as_str()?);
    Some((kind, namespace, Subject::new(kind.info, name), kind.info.registry_key(namespace, name)))
}

fn failed(object: &Value, reason: impl std::fmt::Display) -> Error {
    Error::Bootstrap { what: format!("{} {}", object["kind"], object["metadata"]["name"]), reason: reason.to_string() }
}

fn exists(shared: &Shared, object: &Value) -> Result<bool, Error> {
    let (kind, _, _, key) = place(object).ok_or_else(|| failed(object, "the kind is not served"))?;
    Ok(shared.cache.of(kind).get(&key).is_some())
}

/// Creates an object unless it is there.
async fn ensure(shared: &Arc<Shared>, object: &Value) -> Result<(), Error> {
    let (kind, namespace, _, key) = place(object).ok_or_else(|| failed(object, "the kind is not served"))?;
    if shared.cache.of(kind).get(&key).is_some() {
        return Ok(());
    }
    let decoded = (kind.decode)(object.to_string().as_bytes()).map_err(|e| failed(object, e))?.object;
    match shared.create(&user(), kind, namespace, decoded, false).await {
        Ok(_) | Err(ApiError::AlreadyExists(_)) => Ok(()),
        Err(error) => Err(failed(object, error)),
    }
}

/// Creates an object, or makes all but its metadata what it should be.
async fn keep(shared: &Arc<Shared>, object: &Value) -> Result<(), Error> {
    ensure(shared, object).await?;
    let (kind, _, subject, key) = place(object).ok_or_else(|| failed(object, "the kind is not served"))?;
    let outcome = shared
        .modify(kind, &subject, &key, false, |current, _| {
            let mut wanted = object.clone();
            let have: Value = serde_json::from_slice(&current.plain).map_err(|e| ApiError::Internal(e.to_string()))?;
            wanted["metadata"] = have["metadata"].clone();
            let decoded = (kind.decode)(wanted.to_string().as_bytes());
            let mut object = decoded.map_err(|e| ApiError::Internal(e.to_string()))?.object;
            object.metadata_mut().resource_version = None;
            object.set_defaults();
            let managed = Some(Tracking::server().updated(current, &*object, None, None));
            Ok(Write::Put(object, Effects { managed, ..Effects::default() }))
        })
        .await;
    outcome.map(|_| ()).map_err(|error| failed(object, error))
}
