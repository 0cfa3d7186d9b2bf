//! `ResourceQuota`: nothing comes into a namespace beyond what its quotas allow, however many come at once.
//!
//! What an object uses is claimed in the transaction that stores it: the quota's status is replaced only if it is the
//! one that was added to. So the count is never lower than what is there; it becomes lower again when the quota
//! controller has counted what is left after deletions. Those who claim the same take turns (see `Shared::create`):
//! of many who try at once only one could succeed.
//!
//! Compare `k8s.io/apiserver/pkg/admission/plugin/resourcequota/controller.go`.

use api::quota::{self, Usage};
use api::{Object, Verb};
use k8s_openapi::api::core::v1::ResourceQuota as Quota;
use store::{Action, Expect, Op};

use super::{Attributes, Effects, Found, Operation, Plugin};
use crate::status::ApiError;
use crate::storage;

pub(super) struct ResourceQuota;

impl Plugin for ResourceQuota {
    fn validate(&self, a: &Attributes<'_>, object: Option<&dyn Object>, effects: &mut Effects) -> Result<(), ApiError> {
        let Some(object) = object.filter(|_| handles(a)) else { return Ok(()) };
        for found in a.in_namespace::<Quota>() {
            if let Some(claimed) = claim(a, &found, object)? {
                // Who manages what of the quota stays as it is.
                let (_, managed) = api::apply::split(claimed.info(), found.entry.json());
                let value = storage::with_managed(&claimed, storage::encode(&claimed)?, managed)?;
                let action = Action::Put(value, None);
                let (key, expect) = (found.entry.key.to_string(), Expect::Unchanged(found.entry.revision));
                effects.ops.push(Op { key, expect, action });
                effects.in_turn = true;
            }
        }
        Ok(())
    }
}

/// New objects count; of those that change only services, claims and resized pods can come to use more.
fn handles(a: &Attributes<'_>) -> bool {
    let grows = || matches!(a.kind.info.plural, "services" | "persistentvolumeclaims") && a.kind.info.group.is_empty();
    let itself =
        || a.subresource.is_none() && (a.operation == Operation::Create || a.operation == Operation::Update && grows());
    a.namespace.is_some() && a.kind.info.can(Verb::Watch) && (a.resizes() || itself())
}

/// The quota with what `object` uses more than before; `None` if that is nothing the quota counts.
fn claim(a: &Attributes<'_>, found: &Found<Quota>, object: &dyn Object) -> Result<Option<Quota>, ApiError> {
    let name = found.object.metadata.name.as_deref().unwrap_or("");
    let Some(hard) = found.object.status.as_ref().and_then(|s| s.hard.as_ref()) else { return Ok(None) };
    if !quota::covers(&found.object, hard, object) {
        return Ok(None);
    }
    let counted = || hard.keys().map(String::as_str).filter(|n| quota::counts(object.info(), n));
    if let Some(missing) = quota::missing(counted(), object) {
        return Err(a.forbidden(format!("failed quota: {name}: {missing}")));
    }
    let used = quota::from_api(found.object.status.as_ref().and_then(|s| s.used.as_ref()));
    let unknown: Vec<&str> = counted().filter(|n| !used.contains_key(*n)).collect();
    if !unknown.is_empty() {
        return Err(a.forbidden(format!("status unknown for quota: {name}, resources: {}", unknown.join(","))));
    }
    let mut requested = quota::masked(&quota::usage(object), hard);
    if let Some(old) = a.old {
        let before = quota::usage(old);
        requested.iter_mut().for_each(|(name, amount)| {
            *amount -= before.get(name).copied().unwrap_or(api::quantity::Quantity::ZERO);
        });
    }
    requested.retain(|_, amount| !amount.is_zero() && !amount.is_negative());
    if requested.is_empty() {
        return Ok(None);
    }
    let mut sum = used.clone();
    quota::add(&mut sum, &requested);
    let limits = quota::from_api(Some(hard));
    let exceeded: Vec<&String> = requested.keys().filter(|n| sum.get(*n) > limits.get(*n)).collect();
    if !exceeded.is_empty() {
        let shown = |of: &Usage| {
            let amount = |n: &&String| of.get(*n).map_or_else(|| format!("{n}=0"), |q| format!("{n}={q}"));
            exceeded.iter().map(amount).collect::<Vec<_>>().join(",")
        };
        let (requested, used, limited) = (shown(&requested), shown(&used), shown(&limits));
        let message = format!("exceeded quota: {name}, requested: {requested}, used: {used}, limited: {limited}");
        return Err(a.forbidden(message));
    }
    let mut claimed = found.object.clone();
    claimed.metadata.resource_version = None;
    claimed.metadata.managed_fields = None;
    claimed.status.get_or_insert_default().used = Some(quota::to_api(&sum));
    Ok(Some(claimed))
}
