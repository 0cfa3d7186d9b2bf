//! Binds claims to volumes, and sees to volumes whose claims are gone.
//!
//! Behaviour follows `pkg/controller/volume/persistentvolume/pv_controller.go` without provisioners: volumes are made by
//! hand, and none can be wiped or deleted here.
//! - [`plan`]: the next writes. [`matching`]: which volume a claim gets. [`waiting`]: what is told of claims without.

mod matching;
mod plan;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use client::events::{EventType, Recorder, object_reference};
use client::{Lister, Outcome, WorkQueue};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use kube::Error;
use parking_lot::Mutex;
use plan::{Action, plan};
use waiting::Told;

use crate::context::{Context, new_queue, outcome};
use crate::rest::{self, Rest};

const NAME: &str = "persistentvolume-binder";
/// One claim's volume is no longer another's: the whole is planned at once, by one worker.
const WORKERS: usize = 1;

struct Controller {
    volumes: Lister<PersistentVolume>,
    claims: Lister<PersistentVolumeClaim>,
    recorder: Recorder,
    told: Mutex<Told>,
    rest: Rest,
}

/// Adds the controller.
pub(crate) fn register(context: &mut Context) {
    let caches = context.caches();
    let controller = Arc::new(Controller {
        volumes: caches.persistent_volumes.clone(),
        claims: caches.persistent_volume_claims.clone(),
        recorder: context.recorder("persistentvolume-controller"),
        told: Mutex::default(),
        rest: context.rest.clone(),
    });
    let queue: WorkQueue<()> = new_queue();
    let q = queue.clone();
    context.informers.persistent_volumes.on_change(move |_| q.add(()));
    let q = queue.clone();
    context.informers.persistent_volume_claims.on_change(move |_| q.add(()));
    let synced = async move {
        caches.persistent_volumes.synced().await;
        caches.persistent_volume_claims.synced().await;
    };
    context.run_workers(synced, &queue, WORKERS, move |()| {
        let controller = controller.clone();
        async move {
            let result = controller.sync().await;
            outcome(NAME, &"volumes and claims", result)
        }
    });
}

impl Controller {
    /// Every write demands the version it was planned on: what is old in the caches comes back as a conflict.
    async fn sync(&self) -> Result<Outcome, Error> {
        let (volumes, claims, now) = (self.volumes.list(), self.claims.list(), Timestamp::now());
        let next = self.tell(&volumes, &claims, now);
        for action in plan(&volumes, &claims, now) {
            self.apply(action).await?;
        }
        Ok(next.map_or(Outcome::Done, Outcome::After))
    }

    /// Tells of claims that wait; when to tell again.
    fn tell(
        &self,
        volumes: &[Arc<PersistentVolume>],
        claims: &[Arc<PersistentVolumeClaim>],
        now: Timestamp,
    ) -> Option<Duration> {
        let (due, next) = self.told.lock().due(claims, volumes, now);
        for (claim, waits) in due {
            self.recorder.event(&object_reference(claim), waits.event_type, waits.reason, waits.message);
        }
        next
    }

    async fn apply(&self, action: Action) -> Result<(), Error> {
        let (volumes, status) = (rest::path::<PersistentVolume>(None), Some("status"));
        let written = match &action {
            Action::Volume(volume) => self.replace(&volumes, &volume.metadata.name, None, volume).await,
            Action::VolumeStatus(volume) => self.replace(&volumes, &volume.metadata.name, status, volume).await,
            Action::Claim(claim) => self.replace(&path_of(claim), &claim.metadata.name, None, claim).await,
            Action::ClaimStatus(claim) => self.replace(&path_of(claim), &claim.metadata.name, status, claim).await,
            Action::NotReclaimed { volume, reason, message } => {
                self.recorder.event(&object_reference(volume), EventType::Warning, reason, message.clone());
                self.replace(&volumes, &volume.metadata.name, status, volume).await
            }
        };
        rest::ignore_not_found(written)
    }

    async fn replace<K: serde::Serialize>(
        &self,
        path: &str,
        name: &Option<String>,
        subresource: Option<&str>,
        object: &K,
    ) -> Result<(), Error> {
        let name = name.as_deref().unwrap_or("");
        self.rest.replace(path, name, subresource, rest::encode(object)).await.map(|_| ())
    }
}

fn path_of(claim: &PersistentVolumeClaim) -> String {
    rest::path::<PersistentVolumeClaim>(claim.metadata.namespace.as_deref())
}
