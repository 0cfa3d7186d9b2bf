//! The thin part: watches feed the [`Cluster`], one loop asks it for steps, bindings run side by side.

use std::sync::Arc;
use std::time::{Duration, Instant};

use api::affinity::NodeTerms;
use client::{Change, EventType, Informer, Lister, Outcome, Recorder, Tasks, WorkQueue, run_workers};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::runtime::watcher;
use parking_lot::Mutex;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::bind;
use crate::cluster::{Cluster, Step};
use crate::node::{self, NodeSpec};
use crate::pod::{self, Observed, PodInfo, Uid};
use crate::schedule::{Decision, Unschedulable};
use crate::storage::{self, ClaimInfo, ClaimKey};

/// Pods that have ended interest nobody here; the server leaves them out (as upstream's informer asks).
const LIVING_PODS: &str = "status.phase!=Succeeded,status.phase!=Failed";
/// A binding that takes longer has failed; the watch will tell if it has not.
const BIND_TIMEOUT: Duration = Duration::from_secs(30);
/// How many pod conditions are written at a time.
const REPORTERS: usize = 4;
/// Back-off of conditions that could not be written.
const REPORT_BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// How the scheduler runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Pods of this `spec.schedulerName` are ours.
    pub scheduler_name: String,
    /// Makes the choice among equal nodes repeatable.
    pub seed: Option<u64>,
    /// How many bindings are under way at a time.
    pub parallel_binds: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config { scheduler_name: crate::DEFAULT_SCHEDULER_NAME.to_owned(), seed: None, parallel_binds: 128 }
    }
}

/// What watches, decisions and bindings share.
#[derive(Default)]
struct Shared {
    cluster: Mutex<Cluster>,
    news: Notify,
}

impl Shared {
    fn tell(&self, change: impl FnOnce(&mut Cluster)) {
        change(&mut self.cluster.lock());
        self.news.notify_one();
    }
}

/// Schedules until `tasks` stop. Returns at once. What was decided before a restart is learnt from the watches: nothing
/// is decided before both have listed everything.
pub fn start(client: kube::Client, config: Config, tasks: &Tasks) {
    let shared = Arc::new(Shared::default());
    let nodes = watch_nodes(&client, &shared, tasks);
    let pods = watch_pods(&client, &config.scheduler_name, &shared, tasks);
    let claims = watch_claims(&client, &shared, tasks);
    let volumes = watch_volumes(&client, &shared, tasks);
    let driver = Driver {
        shared: shared.clone(),
        recorder: Recorder::new(client.clone(), &config.scheduler_name, None, tasks),
        reports: start_reporters(&client, &shared, tasks),
        binds: Arc::new(Semaphore::new(config.parallel_binds.max(1))),
        rng: config.seed.map_or_else(|| rand::make_rng(), StdRng::seed_from_u64),
        client,
        tasks: tasks.clone(),
    };
    tasks.spawn(async move {
        nodes.synced().await;
        pods.synced().await;
        claims.synced().await;
        volumes.synced().await;
        tracing::info!(nodes = nodes.len(), pods = pods.len(), "scheduler starts");
        driver.run().await;
    });
}

fn watch_nodes(client: &kube::Client, shared: &Arc<Shared>, tasks: &Tasks) -> Lister<Node> {
    let mut informer = Informer::new(Api::<Node>::all(client.clone()), watcher::Config::default());
    let (lister, shared) = (informer.lister(), shared.clone());
    informer.transform(node::trim);
    informer.on_change(move |change| match change {
        Change::Added(node) | Change::Updated { new: node, .. } => {
            let node = NodeSpec::of(node);
            shared.tell(|cluster| cluster.node_seen(node));
        }
        Change::Deleted(node) => {
            let name = node.metadata.name.as_deref().unwrap_or("");
            shared.tell(|cluster| cluster.node_gone(name));
        }
    });
    informer.run(tasks);
    lister
}

/// A claim as the watch keeps it.
struct SeenClaim {
    key: ClaimKey,
    info: ClaimInfo,
}

fn watch_claims(client: &kube::Client, shared: &Arc<Shared>, tasks: &Tasks) -> Lister<SeenClaim> {
    let keep = |claim: PersistentVolumeClaim| {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        SeenClaim { key: (text(&claim.metadata.namespace), text(&claim.metadata.name)), info: ClaimInfo::of(&claim) }
    };
    let api = Api::<PersistentVolumeClaim>::all(client.clone());
    let mut informer = Informer::keeping(api, watcher::Config::default(), keep);
    let (lister, shared) = (informer.lister(), shared.clone());
    informer.on_change(move |change| {
        let (claim, info) = match change {
            Change::Added(claim) | Change::Updated { new: claim, .. } => (claim, Some(claim.info.clone())),
            Change::Deleted(claim) => (claim, None),
        };
        shared.tell(|cluster| cluster.claim_seen(claim.key.clone(), info));
    });
    informer.run(tasks);
    lister
}

/// A volume as the watch keeps it.
struct SeenVolume {
    name: String,
    place: Option<Arc<NodeTerms>>,
}

fn watch_volumes(client: &kube::Client, shared: &Arc<Shared>, tasks: &Tasks) -> Lister<SeenVolume> {
    let keep = |volume: PersistentVolume| SeenVolume {
        place: storage::place(&volume),
        name: volume.metadata.name.unwrap_or_default(),
    };
    let api = Api::<PersistentVolume>::all(client.clone());
    let mut informer = Informer::keeping(api, watcher::Config::default(), keep);
    let (lister, shared) = (informer.lister(), shared.clone());
    informer.on_change(move |change| {
        let (volume, place) = match change {
            Change::Added(volume) | Change::Updated { new: volume, .. } => (volume, Some(volume.place.clone())),
            Change::Deleted(volume) => (volume, None),
        };
        shared.tell(|cluster| cluster.volume_seen(&volume.name, place));
    });
    informer.run(tasks);
    lister
}

/// A pod as the watch keeps it.
struct Seen {
    uid: Uid,
    observed: Observed,
}

fn watch_pods(client: &kube::Client, scheduler_name: &str, shared: &Arc<Shared>, tasks: &Tasks) -> Lister<Seen> {
    let config = watcher::Config::default().fields(LIVING_PODS);
    let scheduler_name = scheduler_name.to_owned();
    let keep = move |pod: Pod| Seen {
        uid: pod.metadata.uid.as_deref().unwrap_or_default().into(),
        observed: pod::observe(&pod, &scheduler_name),
    };
    let mut informer = Informer::keeping(Api::<Pod>::all(client.clone()), config, keep);
    let (lister, shared) = (informer.lister(), shared.clone());
    informer.on_change(move |change| match change {
        Change::Deleted(pod) => shared.tell(|cluster| cluster.pod_gone(&pod.uid)),
        Change::Added(pod) | Change::Updated { new: pod, .. } => shared.tell(|cluster| {
            if let Some(other) = predecessor(change) {
                cluster.pod_gone(other);
            }
            cluster.pod_seen(&pod.uid, pod.observed.clone());
        }),
    });
    informer.run(tasks);
    lister
}

/// The pod of the same name that was deleted and replaced while the watch was interrupted.
fn predecessor(change: &Change<Seen>) -> Option<&str> {
    match change {
        Change::Updated { old, new } if old.uid != new.uid => Some(&old.uid),
        _ => None,
    }
}

/// Workers that write `PodScheduled=False` where it does not say the present reason yet.
fn start_reporters(client: &kube::Client, shared: &Arc<Shared>, tasks: &Tasks) -> WorkQueue<Uid> {
    let queue = WorkQueue::new(REPORT_BACKOFF.0, REPORT_BACKOFF.1);
    let (client, shared) = (client.clone(), shared.clone());
    run_workers(tasks, &queue, REPORTERS, move |uid: Uid| {
        let (client, shared) = (client.clone(), shared.clone());
        async move { report(&client, &shared, &uid).await }
    });
    queue
}

async fn report(client: &kube::Client, shared: &Shared, uid: &Uid) -> Outcome {
    let refusal = shared.cluster.lock().refusal(uid);
    let Some((pod, message)) = refusal else { return Outcome::Done };
    if pod.reported.as_deref() == Some(&*message) {
        return Outcome::Done;
    }
    match bind::report_unschedulable(client, &pod, &message).await {
        Ok(()) => Outcome::Done,
        Err(error) => {
            tracing::debug!(object = %name_of(&pod), error = &error as &dyn std::error::Error, "condition not written");
            if bind::is_final(&error) { Outcome::Done } else { Outcome::Retry }
        }
    }
}

fn name_of(pod: &PodInfo) -> String {
    format!("{}/{}", pod.namespace, pod.name)
}

struct Driver {
    shared: Arc<Shared>,
    client: kube::Client,
    recorder: Recorder,
    reports: WorkQueue<Uid>,
    binds: Arc<Semaphore>,
    rng: StdRng,
    tasks: Tasks,
}

impl Driver {
    /// Decides one pod after the other; never more than `parallel_binds` decisions are waiting to be written.
    async fn run(mut self) {
        loop {
            let Ok(permit) = self.binds.clone().acquire_owned().await else { return };
            let (pod, decision) = self.next_decision().await;
            self.start_binding(pod, decision, permit);
        }
    }

    async fn next_decision(&mut self) -> (Arc<PodInfo>, Decision) {
        loop {
            tokio::task::coop::consume_budget().await;
            let step = self.shared.cluster.lock().step(now(), &mut self.rng);
            match step {
                Step::Bind(pod, decision) => return (pod, decision),
                Step::Refuse(pod, refusal) => self.refuse(&pod, &refusal),
                Step::Wait(until) => self.wait(until).await,
            }
        }
    }

    async fn wait(&self, until: Option<Instant>) {
        let deadline = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.shared.news.notified() => {}
            () = deadline => {}
        }
    }

    fn refuse(&self, pod: &PodInfo, refusal: &Unschedulable) {
        tracing::debug!(object = %name_of(pod), reason = %refusal, "unschedulable");
        self.recorder.event(&pod.reference(), EventType::Warning, "FailedScheduling", refusal.to_string());
        self.reports.add(pod.uid.clone());
    }

    /// Binds in the background. A binding once begun is finished, also when the scheduler stops.
    fn start_binding(&self, pod: Arc<PodInfo>, decision: Decision, permit: OwnedSemaphorePermit) {
        tracing::debug!(object = %name_of(&pod), ?decision, "decided");
        let (client, shared, recorder) = (self.client.clone(), self.shared.clone(), self.recorder.clone());
        self.tasks.spawn_draining(async move {
            let written = tokio::time::timeout(BIND_TIMEOUT, bind::bind(&client, &pod, &decision.node)).await;
            drop(permit);
            match written {
                Ok(Ok(())) => {
                    shared.cluster.lock().bound(&pod.uid);
                    let message = format!("Successfully assigned {} to {}", name_of(&pod), decision.node);
                    recorder.event(&pod.reference(), EventType::Normal, "Scheduled", message);
                }
                Ok(Err(error)) => undo(&shared, &recorder, &pod, &error.to_string(), bind::is_settled(&error)),
                Err(_) => undo(&shared, &recorder, &pod, "the server did not answer in time", false),
            }
        });
    }
}

/// Frees the room of a pod whose binding failed and has it tried again. No Event where the pod is gone or bound already.
fn undo(shared: &Shared, recorder: &Recorder, pod: &PodInfo, error: &str, settled: bool) {
    tracing::debug!(object = %name_of(pod), error, "binding failed");
    shared.tell(|cluster| cluster.bind_failed(&pod.uid, now()));
    if !settled {
        let message = format!("binding rejected: {error}");
        recorder.event(&pod.reference(), EventType::Warning, "FailedScheduling", message);
    }
}

/// The clock, as tokio sees it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
