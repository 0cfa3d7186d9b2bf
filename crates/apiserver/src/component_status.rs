//! ComponentStatus: whether store, scheduler and controller manager are there, looked up when someone asks.
//!
//! A component that works has watches open: at this server, or at another one, where it then renews its lease. Upstream
//! (`pkg/registry/core/componentstatus`) asks their health ports; the answers read the same.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::well_known::NAMESPACE_SYSTEM;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ComponentCondition, ComponentStatus};

use crate::call::Call;
use crate::respond::ApiResponse;
use crate::server::Shared;
use crate::status::ApiError;
use crate::user::User;
use crate::virtual_kinds;

/// The components that watch, as ComponentStatus calls them; their user is `system:kube-<name>`.
const WATCHING: [&str; 2] = ["controller-manager", "scheduler"];
/// The store, as ComponentStatus calls it.
const STORE: &str = "etcd-0";

/// How many watches each component has open here.
#[derive(Default)]
pub(crate) struct Components([AtomicUsize; WATCHING.len()]);

/// An open watch of a component.
pub(crate) struct Presence(Arc<Components>, usize);

impl Components {
    /// Counts a watch as long as the answer lives; `None` if `user` is no component.
    pub(crate) fn arrived(self: &Arc<Self>, user: &User) -> Option<Presence> {
        let component = user.name.strip_prefix("system:kube-")?;
        let index = WATCHING.iter().position(|name| *name == component)?;
        self.0[index].fetch_add(1, Ordering::Relaxed);
        Some(Presence(self.clone(), index))
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        self.0.0[self.1].fetch_sub(1, Ordering::Relaxed);
    }
}

/// Answers GET and LIST.
pub(crate) async fn respond(call: &Call) -> Result<ApiResponse, ApiError> {
    let mut found = Vec::new();
    for name in ["controller-manager", "scheduler", STORE] {
        if call.info.name.as_deref().is_none_or(|wanted| wanted == name) {
            found.push(status(&call.shared, name).await);
        }
    }
    virtual_kinds::show(call, &found)
}

async fn status(shared: &Shared, name: &str) -> ComponentStatus {
    let health = match WATCHING.iter().position(|n| *n == name) {
        Some(index) if shared.components.0[index].load(Ordering::Relaxed) > 0 => Ok(()),
        Some(_) if is_leading(shared, &format!("kube-{name}")) => Ok(()),
        Some(_) => Err("no instance of it watches this server or holds its lease".to_owned()),
        None => shared.store.health().await.map_err(|error| error.to_string()),
    };
    let healthy = ComponentCondition {
        type_: "Healthy".to_owned(),
        status: if health.is_ok() { "True" } else { "False" }.to_owned(),
        message: health.is_ok().then(|| "ok".to_owned()),
        error: health.err(),
    };
    let mut status = ComponentStatus { conditions: Some(vec![healthy]), ..ComponentStatus::default() };
    status.metadata.name = Some(name.to_owned());
    status
}

/// Whether someone holds the lease of a component and has renewed it in time.
fn is_leading(shared: &Shared, name: &str) -> bool {
    let Some(leases) = api::kinds::by_kind("coordination.k8s.io/v1", "Lease") else { return false };
    let entry = shared.cache.of(leases).get(&leases.info.registry_key(Some(NAMESPACE_SYSTEM), name));
    let lease = entry.and_then(|entry| serde_json::from_slice::<Lease>(entry.json()).ok());
    let Some(spec) = lease.and_then(|lease| lease.spec) else { return false };
    let held = spec.holder_identity.is_some_and(|holder| !holder.is_empty());
    let ends = spec.renew_time.and_then(|renewed| {
        let lasts = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or(0).into());
        renewed.0.checked_add(lasts).ok()
    });
    held && ends.is_some_and(|ends| ends > Timestamp::now())
}
