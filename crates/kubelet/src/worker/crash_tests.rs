//! A kubelet that dies at any step of a pod's life, and the next that takes over: the same containers run, none twice,
//! none forgotten, and at the end nothing is left. Each half of each call that changes something is such a step.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::json;

use super::bench::{Api, Bench, config, first, pod};
use crate::Config;
use crate::clock::Clock;
use crate::runtime::Runtime;
use crate::runtime::hollow::Hollow;

/// More steps than any of these lives has.
const MAX_STEPS: u64 = 200;

/// A pod with one of everything: an init container, a sidecar, hooks, probes, a volume.
fn whole() -> Pod {
    let side = json!({"name": "side", "image": "app", "command": ["httpd"], "restartPolicy": "Always",
        "startupProbe": {"httpGet": {"port": 80}}});
    let main = json!({"name": "c", "image": "app", "command": ["httpd"], "readinessProbe": {"httpGet": {"port": 80}},
        "volumeMounts": [{"name": "v", "mountPath": "/v"}],
        "lifecycle": {"postStart": {"exec": {"command": ["true"]}}, "preStop": {"exec": {"command": ["true"]}}}});
    let init = json!({"name": "init", "image": "app", "command": ["true"]});
    pod(
        "u1",
        json!({"initContainers": [init, side], "containers": [main], "volumes": [{"name": "v", "emptyDir": {}}],
        "terminationGracePeriodSeconds": 5}),
    )
}

/// A machine, its disk, and who drives it.
struct Machine {
    hollow: Hollow,
    api: Api,
    dir: tempfile::TempDir,
    clock: Clock,
}

impl Machine {
    async fn new() -> Machine {
        let clock = Clock::tokio();
        let hollow = Hollow::new(clock);
        hollow.ensure_network("10.244.1.0/24".parse().unwrap()).await.unwrap();
        hollow.use_files();
        Machine { hollow, api: Api::new(), dir: tempfile::tempdir().unwrap(), clock }
    }

    /// A kubelet that starts now.
    fn kubelet(&self, pod: Pod) -> Bench<Hollow> {
        let config = Config { data_dir: self.dir.path().to_owned(), clock: self.clock, ..config() };
        Bench::new(self.hollow.clone(), self.api.clone(), config, pod)
    }

    /// It is killed; the pod as the API has it then.
    fn kill(&self, kubelet: &Bench<Hollow>) -> Pod {
        kubelet.worker.abort();
        let status = kubelet.status.borrow().status.clone();
        let pod = kubelet.handle.desired().pod.as_ref().clone();
        Pod { status: status.map(|s| (*s).clone()).or(pod.status.clone()), ..pod }
    }

    async fn running(&self) -> BTreeSet<(String, String)> {
        let state = self.hollow.pod_state("u1").await.unwrap();
        state.containers.into_iter().filter(|c| c.is_running()).map(|c| (c.name, c.id)).collect()
    }

    fn is_clean(&self) -> bool {
        !crate::volumes::pod_dir(self.dir.path(), "u1").exists()
    }
}

fn is_up(status: &ContainerStatus) -> bool {
    status.ready && status.state.as_ref().is_some_and(|s| s.running.is_some())
}

fn all_up(status: &PodStatus) -> bool {
    if status.container_statuses.is_none() {
        return false;
    }
    let side = status.init_container_statuses.iter().flatten().find(|s| s.name == "side");
    is_up(first(status)) && side.is_some_and(is_up)
}

/// Whether the kubelet died at `step` of the pod's start. What runs then is what is to run later on, unless the machine
/// lost it.
async fn dies_while_it_starts(step: u64, reboots: bool) -> bool {
    let machine = Machine::new().await;
    machine.hollow.crash_at(step);
    let mut kubelet = machine.kubelet(whole());
    let died = tokio::select! {
        () = machine.hollow.crashed() => true,
        _ = kubelet.until("the pod to run", all_up) => false,
    };
    machine.hollow.crash_never();
    let ran = machine.running().await;
    let left = machine.kill(&kubelet);
    drop(kubelet);
    if reboots {
        machine.hollow.reboot();
    }
    let was_up = left.status.as_ref().is_some_and(all_up);
    let mut next = machine.kubelet(left);
    if was_up && !reboots {
        // Nothing is to change, so there is nothing to wait for: time enough for what must not happen.
        tokio::time::sleep(std::time::Duration::from_secs(60)).await;
    } else {
        next.until("the pod to run", all_up).await;
    }
    let runs = machine.running().await;
    let names: Vec<&str> = runs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["c", "side"], "step {step}");
    if !reboots {
        assert!(ran.is_subset(&runs), "step {step}: {ran:?} ran, {runs:?} runs");
    }
    let state = machine.hollow.pod_state("u1").await.unwrap();
    assert_eq!(state.sandboxes.iter().filter(|s| s.running).count(), 1, "step {step}");
    next.delete(5);
    next.until_deleted().await;
    next.end().await;
    assert!(machine.is_clean(), "step {step}");
    died
}

/// Whether the kubelet died at `step` of the pod's end.
async fn dies_while_it_ends(step: u64, reboots: bool) -> bool {
    let machine = Machine::new().await;
    let mut kubelet = machine.kubelet(whole());
    kubelet.until("the pod to run", all_up).await;
    machine.hollow.crash_at(step);
    kubelet.delete(5);
    let died = tokio::select! {
        () = machine.hollow.crashed() => true,
        _ = kubelet.until_deleted() => false,
    };
    machine.hollow.crash_never();
    let left = machine.kill(&kubelet);
    drop(kubelet);
    if reboots {
        machine.hollow.reboot();
    }
    let created = machine.hollow.created();
    let mut next = machine.kubelet(left);
    next.until_deleted().await;
    next.end().await;
    assert_eq!(machine.hollow.created(), created, "step {step}: nothing is made for a pod that ends");
    assert!(machine.is_clean(), "step {step}");
    died
}

async fn every_step(die: impl AsyncFn(u64, bool) -> bool) {
    for reboots in [false, true] {
        let mut step = 0;
        while die(step, reboots).await {
            step += 1;
            assert!(step < MAX_STEPS, "it never comes to an end");
        }
        assert!(step > 5, "{step} steps are too few");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_may_die_at_every_step_of_a_pods_start() {
    every_step(dies_while_it_starts).await;
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_may_die_at_every_step_of_a_pods_end() {
    every_step(dies_while_it_ends).await;
}
