//! One start, one stop: the background tasks of a process.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A set of tasks that stop together. Cheap to clone; clones share the set.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// An empty set, not stopping.
    pub fn new() -> Tasks {
        Tasks::default()
    }

    /// Spawns a task that is dropped at its next await when the set stops.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = self.stop.clone();
        self.tracker.spawn(async move {
            stop.run_until_cancelled(task).await;
        });
    }

    /// Spawns a task that watches [`Tasks::stopping`] itself and finishes what it has begun.
    pub fn spawn_draining<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.tracker.spawn(task);
    }

    /// Resolves when the set is told to stop.
    pub async fn stopping(&self) {
        self.stop.cancelled().await;
    }

    /// Whether the set has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// The token behind [`Tasks::stopping`].
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Tells every task to stop and waits for all of them, at most `grace`. Returns whether all ended in time.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.stop.cancel();
        self.tracker.close();
        tokio::time::timeout(grace, self.tracker.wait()).await.is_ok()
    }
}
