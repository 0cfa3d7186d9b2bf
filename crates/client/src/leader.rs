//! Leader election by Lease (coordination.k8s.io/v1), as `k8s.io/client-go/tools/leaderelection` does it: one holder
//! renews, the others wait until the lease they last saw move has stood still for its whole duration.
//!
//! Time is judged by the local clock from the moment a change was seen, never by comparing clocks of two machines.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use tokio::time::Instant;

use crate::Tasks;

/// How long a lease holds after it was renewed. Upstream's three times are 15, 10 and 2 seconds; here whoever waits leads
/// within 15 seconds of the leader's end: it sees the last renewal at most a period late.
const LEASE_DURATION: Duration = Duration::from_secs(12);
/// A leader that could not renew for this long steps down.
const RENEW_DEADLINE: Duration = Duration::from_secs(8);
/// The leader renews this often, the others look this often, and a failed request is tried again after this time.
const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// How long a leader that lost the lead may take to stop: nobody else leads before the lease has run out.
const STOP_GRACE: Duration = LEASE_DURATION.saturating_sub(RENEW_DEADLINE);

/// What to do next about the lease, decided from what was last seen of it.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// Write ourselves in; `transition` when the holder changes.
    Take { transition: bool },
    /// Someone else holds it; look again at this time.
    Wait(Instant),
}

/// The lease as we last saw it, and when it last moved.
struct Observed {
    lease: Option<Lease>,
    moved: Instant,
}

impl Observed {
    fn update(&mut self, lease: Option<Lease>, now: Instant) {
        let version = |lease: &Option<Lease>| lease.as_ref().and_then(|l| l.metadata.resource_version.clone());
        if version(&lease) != version(&self.lease) {
            self.moved = now;
        }
        self.lease = lease;
    }

    fn step(&self, identity: &str, now: Instant) -> Step {
        let spec = self.lease.as_ref().and_then(|l| l.spec.as_ref());
        let holder = spec.and_then(|s| s.holder_identity.as_deref()).unwrap_or("");
        if holder.is_empty() || holder == identity {
            return Step::Take { transition: holder.is_empty() };
        }
        let duration = spec.and_then(|s| s.lease_duration_seconds).and_then(|s| u64::try_from(s).ok());
        let ends = self.moved + duration.map_or(LEASE_DURATION, Duration::from_secs);
        if ends <= now { Step::Take { transition: true } } else { Step::Wait(ends) }
    }
}

fn renewed(old: Option<&Lease>, name: &str, identity: &str, transition: bool, now: Timestamp) -> Lease {
    let spec = old.and_then(|l| l.spec.clone()).unwrap_or_default();
    let acquired = if transition { None } else { spec.acquire_time };
    Lease {
        metadata: old.map_or_else(
            || ObjectMeta { name: Some(name.to_owned()), ..ObjectMeta::default() },
            |lease| lease.metadata.clone(),
        ),
        spec: Some(LeaseSpec {
            holder_identity: Some(identity.to_owned()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: acquired.or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(spec.lease_transitions.unwrap_or(0) + i32::from(transition && old.is_some())),
            ..spec
        }),
    }
}

/// Waits to become the holder of the lease `kube-system/<name>`, then runs `lead` with tasks of its own until the
/// lease is lost or `tasks` stop; the lease is given up on a clean stop. Returns when leading ended: a component whose
/// process lost the lead must start over with fresh caches.
pub async fn run<L, F>(client: kube::Client, name: &str, identity: &str, tasks: &Tasks, lead: L)
where
    L: FnOnce(Tasks) -> F,
    F: Future<Output = ()>,
{
    let api: Api<Lease> = Api::namespaced(client, api::well_known::NAMESPACE_SYSTEM);
    let mut observed = Observed { lease: None, moved: Instant::now() };
    tokio::select! {
        () = tasks.stopping() => return,
        () = acquire(&api, name, identity, &mut observed) => {}
    }
    tracing::info!(lease = name, identity, "leading");
    let leading = Tasks::new();
    lead(leading.clone()).await;
    tokio::select! {
        () = tasks.stopping() => {}
        () = hold(&api, name, identity, &mut observed) => tracing::warn!(lease = name, "lost the lead"),
    }
    leading.stop(STOP_GRACE).await;
    release(&api, name, identity, observed.lease).await;
}

async fn acquire(api: &Api<Lease>, name: &str, identity: &str, observed: &mut Observed) {
    loop {
        let next = Instant::now() + RETRY_PERIOD;
        match tokio::time::timeout(RENEW_DEADLINE, attempt(api, name, identity, observed)).await {
            Ok(Ok(Step::Take { .. })) => return,
            // Before it ends it has most likely moved, and it holds from when that was seen: so it is looked at often.
            Ok(Ok(Step::Wait(ends))) => tokio::time::sleep_until(ends.min(next)).await,
            Ok(Err(error)) => {
                tracing::debug!(lease = name, error = &error as &dyn std::error::Error, "lease not taken");
                tokio::time::sleep_until(next).await;
            }
            Err(_) => tracing::debug!(lease = name, "no answer about the lease"),
        }
    }
}

/// Renews until that has failed for [`RENEW_DEADLINE`] or someone else holds the lease.
async fn hold(api: &Api<Lease>, name: &str, identity: &str, observed: &mut Observed) {
    let mut deadline = Instant::now() + RENEW_DEADLINE;
    loop {
        tokio::time::sleep(RETRY_PERIOD).await;
        // Others count from when they see the renewal, so we count from before it was asked for.
        let begun = Instant::now();
        match tokio::time::timeout_at(deadline, attempt(api, name, identity, observed)).await {
            Ok(Ok(Step::Take { .. })) => deadline = begun + RENEW_DEADLINE,
            Ok(Ok(Step::Wait(_))) => return,
            Ok(Err(_)) if Instant::now() < deadline => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

/// Looks at the lease and writes ourselves in where we may.
async fn attempt(api: &Api<Lease>, name: &str, identity: &str, observed: &mut Observed) -> Result<Step, kube::Error> {
    observed.update(api.get_opt(name).await?, Instant::now());
    let step = observed.step(identity, Instant::now());
    if let Step::Take { transition } = step {
        let lease = renewed(observed.lease.as_ref(), name, identity, transition, Timestamp::now());
        let written = match observed.lease {
            Some(_) => api.replace(name, &PostParams::default(), &lease).await?,
            None => api.create(&PostParams::default(), &lease).await?,
        };
        observed.update(Some(written), Instant::now());
    }
    Ok(step)
}

/// Best effort: without it the next leader waits for the lease to run out.
async fn release(api: &Api<Lease>, name: &str, identity: &str, lease: Option<Lease>) {
    let Some(mut lease) = lease else { return };
    let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_deref() == Some(identity)) else { return };
    spec.holder_identity = Some(String::new());
    spec.lease_duration_seconds = Some(1);
    let _ = tokio::time::timeout(RETRY_PERIOD, api.replace(name, &PostParams::default(), &lease)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str, version: &str) -> Option<Lease> {
        let mut lease = renewed(None, "scheduler", holder, true, Timestamp::UNIX_EPOCH);
        lease.metadata.resource_version = Some(version.to_owned());
        Some(lease)
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_moves_is_respected_and_one_that_stands_still_is_taken() {
        let start = Instant::now();
        let mut seen = Observed { lease: None, moved: start };
        assert_eq!(seen.step("a", start), Step::Take { transition: true });

        seen.update(held_by("b", "1"), start);
        assert_eq!(seen.step("a", start), Step::Wait(start + LEASE_DURATION));

        tokio::time::advance(Duration::from_secs(10)).await;
        seen.update(held_by("b", "2"), Instant::now());
        assert_eq!(seen.step("a", Instant::now()), Step::Wait(Instant::now() + LEASE_DURATION));

        tokio::time::advance(LEASE_DURATION).await;
        seen.update(held_by("b", "2"), Instant::now());
        assert_eq!(seen.step("a", Instant::now()), Step::Take { transition: true });
    }

    #[test]
    fn renewing_keeps_the_acquisition_and_taking_over_counts() {
        let now = Timestamp::from_second(100).unwrap();
        let mine = held_by("a", "1");
        let again = renewed(mine.as_ref(), "scheduler", "a", false, now).spec.unwrap();
        assert_eq!(again.acquire_time, Some(MicroTime(Timestamp::UNIX_EPOCH)));
        assert_eq!((again.renew_time, again.lease_transitions), (Some(MicroTime(now)), Some(0)));
        let taken = renewed(mine.as_ref(), "scheduler", "b", true, now).spec.unwrap();
        assert_eq!((taken.acquire_time, taken.lease_transitions), (Some(MicroTime(now)), Some(1)));
    }
}
