//! Looks after the machine's means every few seconds: conditions where something runs short, and room made for it. What
//! nobody needs goes first (containers of pods that are over, unused images), then, one at a time and measured again before each, pods
//! (`pkg/kubelet/eviction/eviction_manager.go`). A pod that exceeds limits of its own on disk goes in any case.
//!
//! - [`signals`]: what may run short, thresholds, conditions. [`rank`]: who goes first. Both pure.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use client::EventType;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use super::container_gc;
use super::image_gc::ImageCollector;
use crate::Kubelet;
use crate::pods::Pods;
use crate::stats::node::NodeUsage;
use crate::worker::Ending;
use crate::{pod, volumes};
use rank::{Candidate, PodUsage};
use signals::{Observations, Pressure, Shortages, Threshold, Thresholds, met, observe};

pub mod rank;
pub mod signals;

/// How often disks of pods with limits are measured (`volumeStatsAggPeriod`): it means walking through them.
const DISKS_PERIOD: Duration = Duration::from_secs(60);
/// How long the containers of a pod may take that goes at once (`immediateEvictionGracePeriodSeconds`).
const IMMEDIATE_GRACE_SECONDS: i64 = 1;
/// How long a pod that was evicted may take before the next goes (`podCleanupTimeout`).
const CLEANUP_MAX: Duration = Duration::from_secs(30);

/// How the machine is measured.
pub(crate) type Measure = Arc<dyn Fn() -> NodeUsage + Send + Sync>;

/// Looks after the machine.
pub(crate) struct Manager {
    kubelet: Arc<Kubelet>,
    pods: Pods,
    measure: Measure,
    pressure: watch::Sender<Pressure>,
    thresholds: Thresholds,
    shortages: Shortages,
    images: ImageCollector,
    disks_measured: Option<Instant>,
    evicting: Option<(String, Instant)>,
}

impl Manager {
    pub(crate) fn new(
        kubelet: Arc<Kubelet>,
        pods: Pods,
        measure: Measure,
        pressure: watch::Sender<Pressure>,
    ) -> Manager {
        let images = ImageCollector::new(kubelet.clone());
        let (thresholds, shortages) = (Thresholds::default(), Shortages::default());
        Manager {
            kubelet,
            pods,
            measure,
            pressure,
            thresholds,
            shortages,
            images,
            disks_measured: None,
            evicting: None,
        }
    }

    /// Looks again and again, until dropped.
    pub(crate) async fn run(mut self) {
        let mut beat = tokio::time::interval(self.kubelet.config.housekeeping_interval);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            self.round().await;
        }
    }

    async fn round(&mut self) {
        let now = self.kubelet.config.clock.now();
        let usage = self.look().await;
        let config = &self.kubelet.config;
        let all: Vec<Threshold> = config.eviction_hard.iter().chain(&config.eviction_soft).copied().collect();
        self.thresholds.observe(&all, &observe(&usage), now);
        self.tell(&self.thresholds.short(), now);
        let due = self.thresholds.due().to_vec();
        let wants_disk = due.iter().any(|threshold| threshold.signal.is_disk());
        self.images.round(&usage, now).await;
        if self.is_cleaning_up().await {
            return;
        }
        if self.evict_who_exceeds_limits().await {
            return;
        }
        if let Some(threshold) = due.first() {
            let resource = threshold.signal.resource();
            self.kubelet.node_event(
                EventType::Warning,
                "EvictionThresholdMet",
                format!("Attempting to reclaim {resource}"),
            );
            if wants_disk {
                self.remove_dead_containers(now).await;
                self.images.remove_unused(now).await;
            }
            self.reclaim(&due).await;
        }
    }

    /// The machine now.
    async fn look(&self) -> NodeUsage {
        let measure = self.measure.clone();
        tokio::task::spawn_blocking(move || measure()).await.unwrap_or_default()
    }

    fn tell(&mut self, short: &[Threshold], now: Timestamp) {
        let transition = self.kubelet.config.eviction_pressure_transition_period;
        let pressure = self.shortages.pressure(short, now, transition);
        self.pressure.send_if_modified(|last| std::mem::replace(last, pressure) != pressure);
    }

    /// Whether the pod evicted last still uses something, and may.
    async fn is_cleaning_up(&mut self) -> bool {
        let Some((uid, since)) = &self.evicting else { return false };
        let used = self.kubelet.runtime.usage().await.unwrap_or_default();
        let there = used.iter().any(|container| container.pod.uid == *uid);
        if there && since.elapsed() < CLEANUP_MAX {
            return true;
        }
        self.evicting = None;
        false
    }

    /// Evicts the first pod there is to evict for what of `due` is still short now.
    async fn reclaim(&mut self, due: &[Threshold]) {
        let observations: Observations = observe(&self.look().await);
        let short = met(due, &observations, true);
        let Some(threshold) = short.first() else { return };
        let Some(observed) = observations.get(&threshold.signal) else { return };
        let pods = self.active();
        let Some(used) = self.used(&pods, threshold.signal.is_disk()).await else { return };
        let candidates: Vec<Candidate<'_>> =
            pods.iter().zip(&used).map(|(pod, usage)| Candidate { pod, usage }).collect();
        let Some(first) = rank::rank(&candidates, threshold.signal).first().copied() else {
            tracing::warn!(resource = threshold.signal.resource(), "nothing is left to evict");
            return;
        };
        let message = rank::message(&first, threshold, observed);
        let grace = match threshold.grace {
            None => IMMEDIATE_GRACE_SECONDS,
            Some(_) => soft_grace(first.pod, self.kubelet.config.eviction_max_pod_grace_period),
        };
        self.evict(first.pod, message, grace);
    }

    /// Evicts a pod that keeps more on disk than it may; whether there was one.
    async fn evict_who_exceeds_limits(&mut self) -> bool {
        let limited: Vec<Arc<Pod>> = self.active().into_iter().filter(|pod| rank::is_limited(pod)).collect();
        let fresh = self.disks_measured.is_some_and(|at| at.elapsed() < self.kubelet.config.disks_period());
        if limited.is_empty() || fresh {
            return false;
        }
        let Some(used) = self.used(&limited, true).await else { return false };
        self.disks_measured = Some(Instant::now());
        let found = limited.iter().zip(&used).find_map(|(pod, used)| Some((pod, rank::exceeded(pod, used)?)));
        let Some((pod, message)) = found else { return false };
        self.evict(pod, message, IMMEDIATE_GRACE_SECONDS);
        true
    }

    fn evict(&mut self, pod: &Pod, message: String, grace_seconds: i64) {
        tracing::warn!(pod = pod::full_name(pod), message, "evicting a pod");
        let uid = pod::uid(pod).to_owned();
        self.kubelet.recorder.event(&client::object_reference(pod), EventType::Warning, "Evicted", message.clone());
        self.pods.end(&uid, Ending { reason: "Evicted", message, condition: None, grace_seconds });
        self.evicting = Some((uid, Instant::now()));
    }

    /// The pods that use something and are to go on doing so.
    fn active(&self) -> Vec<Arc<Pod>> {
        let ended =
            |pod: &Pod| matches!(pod.status.as_ref().and_then(|s| s.phase.as_deref()), Some("Failed" | "Succeeded"));
        let pods = self.pods.list().into_iter();
        pods.filter(|pod| pod.metadata.deletion_timestamp.is_none() && !ended(pod)).collect()
    }

    /// What each of `pods` uses; `None` where the runtime does not say.
    async fn used(&self, pods: &[Arc<Pod>], disks: bool) -> Option<Vec<PodUsage>> {
        let runtime = &self.kubelet.runtime;
        let mut used: BTreeMap<String, PodUsage> = BTreeMap::new();
        let containers = runtime.usage().await.ok()?;
        let on_disk = if disks { runtime.disks().await.ok()? } else { BTreeMap::new() };
        for container in containers {
            let pod = used.entry(container.pod.uid.clone()).or_default();
            pod.processes += container.usage.processes.unwrap_or(0);
            let memory = container.usage.memory.map_or(0, |memory| memory.working_set);
            pod.memory.insert(container.name.clone(), memory);
            let disk = on_disk.get(&container.id).map_or(0, |disk| disk.root + disk.logs);
            pod.disk.insert(container.name, disk);
        }
        if disks && runtime.uses_files() {
            let (pods, data_dir) = (pods.to_vec(), self.kubelet.config.data_dir.clone());
            let measure = move || -> Vec<(String, BTreeMap<String, volumes::usage::Used>)> {
                let of = |pod: &Arc<Pod>| (pod::uid(pod).to_owned(), volumes::usage::of_pod(&data_dir, pod));
                pods.iter().map(of).collect()
            };
            for (uid, volumes) in tokio::task::spawn_blocking(measure).await.ok()? {
                let pod = used.entry(uid).or_default();
                pod.inodes = volumes.values().map(|volume| volume.inodes).sum();
                pod.volumes = volumes.into_iter().map(|(name, volume)| (name, volume.bytes)).collect();
            }
        }
        Some(pods.iter().map(|pod| used.remove(pod::uid(pod)).unwrap_or_default()).collect())
    }

    /// Ended containers are kept for their logs; where the disk is short, not those of pods that are over.
    async fn remove_dead_containers(&self, now: Timestamp) {
        let (runtime, policy) = (&self.kubelet.runtime, &self.kubelet.config.dead_containers);
        for known in runtime.pods().await.unwrap_or_default() {
            let uid = &known.identity.uid;
            let Ok(state) = runtime.pod_state(uid).await else { continue };
            for id in container_gc::of_the_over(&state.containers, self.pods.has_stopped(uid), policy, now) {
                if let Err(error) = runtime.remove(&id).await {
                    tracing::warn!(id, %error, "cannot remove a dead container");
                }
            }
        }
    }
}

/// How long the containers of a pod may take that goes by a soft threshold: what it asks for, up to `max`; a negative `max`
/// is none.
fn soft_grace(pod: &Pod, max: i64) -> i64 {
    let own = i64::try_from(pod::grace(pod).as_secs()).unwrap_or(i64::MAX);
    if max < 0 { own } else { own.min(max).max(IMMEDIATE_GRACE_SECONDS) }
}

impl crate::Config {
    /// How often disks of pods with limits are measured: never more often than anything is.
    fn disks_period(&self) -> Duration {
        if self.housekeeping_interval < Duration::from_secs(1) { self.housekeeping_interval } else { DISKS_PERIOD }
    }
}

#[cfg(test)]
mod tests;
