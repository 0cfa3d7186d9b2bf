//! Pods end in order before the machine does (`pkg/kubelet/nodeshutdown`): logind waits for who holds an inhibitor, tells them
//! that a shutdown is to come, and goes on when they let go or its patience is over.
//!
//! - [`plan`]: who ends when, and how long each may take. Pure.
//! - [`logind`]: the inhibitor, and what logind says. `bus`, `wire`: as much of D-Bus as that takes.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use client::EventType;

use crate::Kubelet;
use crate::pods::Pods;
use crate::worker::Ending;
use logind::Logind;

mod bus;
#[cfg(test)]
mod elogind_tests;
pub mod logind;
pub mod plan;
#[cfg(test)]
mod tests;
mod wire;

/// How long to leave a bus alone that failed (`dbusReconnectPeriod`), first and at most.
const RETRY_MIN: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How long pods have when the machine shuts down, and where that is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// All of them together (`--shutdown-grace-period`).
    pub grace: Duration,
    /// Of that the critical ones, which end last (`--shutdown-grace-period-critical-pods`).
    pub critical: Duration,
    /// The system bus.
    pub bus: PathBuf,
    /// Where logind is told how patient to be.
    pub logind_conf_dir: PathBuf,
}

impl Policy {
    /// With the machine's own bus.
    pub fn new(grace: Duration, critical: Duration) -> Policy {
        let (bus, logind_conf_dir) = ("/run/dbus/system_bus_socket".into(), "/etc/systemd/logind.conf.d".into());
        Policy { grace, critical, bus, logind_conf_dir }
    }
}

/// Leaves logind as it was found: for a machine that is a node no more.
pub fn forget() -> std::io::Result<()> {
    logind::forget_patience(&Policy::new(Duration::ZERO, Duration::ZERO).logind_conf_dir)
}

/// Waits for shutdowns for ever.
pub(crate) async fn watch(kubelet: Arc<Kubelet>, pods: Pods) {
    let Some(policy) = kubelet.config.shutdown.clone() else { return };
    let mut wait = RETRY_MIN;
    loop {
        let mut connected = false;
        let ended = follow(&kubelet, &pods, &policy, &mut connected).await;
        if let Err(error) = ended {
            tracing::warn!(%error, "cannot watch for shutdowns of this machine; pods would end with it at once");
        }
        wait = if connected { RETRY_MIN } else { (wait * 2).min(RETRY_MAX) };
        tokio::time::sleep(wait).await;
    }
}

async fn follow(kubelet: &Kubelet, pods: &Pods, policy: &Policy, connected: &mut bool) -> std::io::Result<()> {
    let mut logind = Logind::connect(&policy.bus).await?;
    logind.be_patient(policy.grace, &policy.logind_conf_dir).await?;
    let mut lock = Some(logind.inhibit().await?);
    *connected = true;
    tracing::info!(grace = ?policy.grace, critical = ?policy.critical, "pods will have time when this machine shuts down");
    loop {
        let shutting_down = logind.next_shutdown().await?;
        kubelet.node.shutting_down.send_replace(shutting_down);
        let what = if shutting_down { "event" } else { "cancellation" };
        tracing::warn!("this machine's shutdown: {what}");
        let message = format!("Shutdown manager detected shutdown {what}");
        kubelet.node_event(EventType::Normal, "Shutdown", message);
        if shutting_down {
            end(pods, policy).await;
            drop(lock.take());
        } else {
            lock = Some(logind.inhibit().await?);
        }
    }
}

/// Ends all pods, the critical ones after the others.
async fn end(pods: &Pods, policy: &Policy) {
    for round in plan::rounds(&pods.list(), policy.grace, policy.critical) {
        for (uid, grace_seconds) in &round.pods {
            let (reason, message) = ("Terminated", plan::MESSAGE.to_owned());
            pods.end(uid, Ending { reason, message, condition: None, grace_seconds: *grace_seconds });
        }
        let stopped = futures::future::join_all(round.pods.iter().map(|(uid, _)| pods.until_stopped(uid)));
        if tokio::time::timeout(round.time, stopped).await.is_err() {
            tracing::warn!(time = ?round.time, "not all pods ended in time");
        }
    }
}
