//! What a ResourceQuota counts: which objects, and how much each of them is.
//!
//! The API server asks before it lets an object in, the quota controller when it counts again what there is; both must
//! come to the same sum. Compare `pkg/quota/v1/evaluator/core` and `k8s.io/apiserver/pkg/quota/v1`.

mod pods;
mod scopes;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceQuota, Service, ServiceSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Amount;

use crate::kinds::{Kind, KindInfo, Scope};
use crate::object::Object;
use crate::quantity::{self, Format, Quantity};
use crate::well_known::ANNOTATION_STORAGE_CLASS;

pub use pods::{limits as pod_limits, requests as pod_requests};

/// How much of what.
pub type Usage = BTreeMap<String, Quantity>;

/// Core kinds that may be counted without `count/` in front.
const PLAIN_COUNTS: &[&str] = &["configmaps", "replicationcontrollers", "resourcequotas", "secrets"];
/// The end of the names of what is counted for one storage class.
const OF_CLASS: &str = ".storageclass.storage.k8s.io/";

/// Whether the quota resource `name` counts or measures objects of `kind`. Events are never counted.
pub fn counts(kind: &KindInfo, name: &str) -> bool {
    if kind.scope != Scope::Namespaced || kind.plural == "events" {
        return false;
    }
    if let Some(resource) = name.strip_prefix("count/") {
        return resource == kind.qualified_resource();
    }
    match (kind.group, kind.plural) {
        ("", "pods") => pods::is_measured(name),
        ("", "services") => matches!(name, "services" | "services.nodeports" | "services.loadbalancers"),
        ("", "persistentvolumeclaims") => {
            matches!(name, "persistentvolumeclaims" | "requests.storage") || name.contains(OF_CLASS)
        }
        ("", plural) => name == plural && PLAIN_COUNTS.contains(&plural),
        _ => false,
    }
}

/// The kinds whose objects `hard` limits.
pub fn kinds(hard: &BTreeMap<String, Amount>) -> impl Iterator<Item = &'static Kind> {
    let stored = crate::kinds().filter(|kind| kind.info.is_stored() && kind.view.is_none());
    stored.filter(|kind| hard.keys().any(|name| counts(kind.info, name)))
}

/// How much `object` is, of everything that can be counted.
pub fn usage(object: &dyn Object) -> Usage {
    let info = object.info();
    let mut usage = Usage::from([(format!("count/{}", info.qualified_resource()), one())]);
    if let Some(pod) = object.as_any().downcast_ref::<Pod>() {
        pods::measure(pod, &mut usage);
    } else if let Some(service) = object.as_any().downcast_ref::<Service>() {
        measure_service(service.spec.as_ref(), &mut usage);
    } else if let Some(claim) = object.as_any().downcast_ref::<PersistentVolumeClaim>() {
        measure_claim(claim, &mut usage);
    } else if info.group.is_empty() && PLAIN_COUNTS.contains(&info.plural) {
        usage.insert(info.plural.to_owned(), one());
    }
    usage
}

/// Whether `quota` is about objects like this one: it limits something the object is, and its scopes fit.
pub fn covers(quota: &ResourceQuota, hard: &BTreeMap<String, Amount>, object: &dyn Object) -> bool {
    hard.keys().any(|name| counts(object.info(), name)) && scopes::fit(quota, object)
}

/// What `object` should say and does not: where cpu or memory is limited, every container must ask for it.
pub fn missing<'a>(names: impl Iterator<Item = &'a str>, object: &dyn Object) -> Option<String> {
    object.as_any().downcast_ref::<Pod>().and_then(|pod| pods::missing(names, pod))
}

/// `usage` of what `hard` limits.
pub fn masked(usage: &Usage, hard: &BTreeMap<String, Amount>) -> Usage {
    usage.iter().filter(|(name, _)| hard.contains_key(*name)).map(|(name, q)| (name.clone(), *q)).collect()
}

/// Adds `more` to `sum`.
pub fn add(sum: &mut Usage, more: &Usage) {
    for (name, amount) in more {
        *sum.entry(name.clone()).or_insert(Quantity::ZERO) += *amount;
    }
}

/// Amounts as the API has them.
pub fn to_api(usage: &Usage) -> BTreeMap<String, Amount> {
    usage.iter().map(|(name, amount)| (name.clone(), amount.to_api())).collect()
}

/// Amounts of the API as numbers.
pub fn from_api(amounts: Option<&BTreeMap<String, Amount>>) -> Usage {
    amounts.into_iter().flatten().map(|(name, amount)| (name.clone(), quantity::of(amount))).collect()
}

fn one() -> Quantity {
    pieces(1)
}

fn pieces(count: usize) -> Quantity {
    Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX), Format::DecimalSi)
}

fn measure_service(spec: Option<&ServiceSpec>, usage: &mut Usage) {
    let ports = spec.and_then(|s| s.ports.as_deref()).unwrap_or_default();
    let (node_ports, balancers) = match spec.and_then(|s| s.type_.as_deref()) {
        Some("NodePort") => (ports.len(), 0),
        Some("LoadBalancer") if spec.and_then(|s| s.allocate_load_balancer_node_ports) == Some(false) => {
            (ports.iter().filter(|p| p.node_port.unwrap_or(0) != 0).count(), 1)
        }
        Some("LoadBalancer") => (ports.len(), 1),
        _ => (0, 0),
    };
    usage.insert("services".to_owned(), one());
    usage.insert("services.nodeports".to_owned(), pieces(node_ports));
    usage.insert("services.loadbalancers".to_owned(), pieces(balancers));
}

fn measure_claim(claim: &PersistentVolumeClaim, usage: &mut Usage) {
    let spec = claim.spec.as_ref();
    let annotation = claim.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_STORAGE_CLASS));
    let class = annotation.or(spec.and_then(|s| s.storage_class_name.as_ref())).filter(|c| !c.is_empty());
    let storage = spec.and_then(|s| s.resources.as_ref()?.requests.as_ref()?.get("storage")).map(quantity::of);
    let mut put = |name: &str, amount: Quantity| {
        if let Some(class) = class {
            usage.insert(format!("{class}{OF_CLASS}{name}"), amount);
        }
        usage.insert(name.to_owned(), amount);
    };
    put("persistentvolumeclaims", one());
    if let Some(storage) = storage {
        put("requests.storage", storage);
    }
}
