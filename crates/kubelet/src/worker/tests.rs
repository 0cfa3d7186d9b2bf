//! Workers on the hollow runtime, under paused time: no test waits for real.

use std::sync::Arc;
use std::time::Duration;

use client::Recorder;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::clock::Clock;
use crate::env::NodeResources;
use crate::objects::ObjectCache;
use crate::runtime::hollow::Hollow;
use crate::runtime::{LogOptions, Runtime};
use crate::status_writer::Outgoing;
use crate::{Config, Services};

/// Virtual time a wait may take.
const LIMIT: Duration = Duration::from_secs(3600);

struct Bench {
    hollow: Hollow,
    kubelet: Arc<Kubelet>,
    handle: Arc<Handle>,
    status: watch::Receiver<Outgoing>,
    network: watch::Sender<bool>,
    worker: tokio::task::JoinHandle<()>,
}

fn pod(spec: Value) -> Pod {
    let metadata = json!({"name": "web", "namespace": "ns", "uid": "u1"});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
}

fn runs(command: &[&str], policy: &str) -> Pod {
    pod(json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 20,
        "containers": [{"name": "c", "image": "app", "command": command}]}))
}

/// A client of a server that has nothing.
fn no_api() -> kube::Client {
    let nothing = tower::service_fn(async |_: http::Request<kube::client::Body>| {
        let status =
            json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
        Ok::<_, std::convert::Infallible>(
            http::Response::builder()
                .status(404)
                .body(kube::client::Body::from(status.to_string().into_bytes()))
                .unwrap(),
        )
    });
    kube::Client::new(nothing, "default")
}

impl Bench {
    async fn new(pod: Pod) -> Bench {
        Bench::on(Hollow::new(Clock::tokio()), pod).await
    }

    async fn on(hollow: Hollow, pod: Pod) -> Bench {
        hollow.ensure_network("10.244.1.0/24".parse().unwrap()).await.unwrap();
        let (network, network_ready) = watch::channel(true);
        let node_ip = "10.0.0.1".parse().unwrap();
        let config = Config { clock: Clock::tokio(), ..Config::new("box1", node_ip, "/nonexistent") };
        let resources = NodeResources { ip: node_ip, milli_cpu: 1000, memory: 1 << 30, ephemeral_storage: 0 };
        let kubelet = Arc::new(Kubelet {
            config,
            runtime: Arc::new(hollow.clone()),
            resources,
            recorder: Recorder::discard(),
            network: network_ready,
            services: Services::Fixed(Vec::new()),
            config_maps: ObjectCache::new(no_api()),
            secrets: ObjectCache::new(no_api()),
        });
        let handle = Arc::new(Handle::new(Desired { pod: Arc::new(pod), gone: false }));
        let (sender, status) = watch::channel(Outgoing::default());
        let worker = tokio::spawn(Worker::new(kubelet.clone(), handle.clone(), sender).run());
        let bench = Bench { hollow, kubelet, handle, status, network, worker };
        bench.forward_events();
        bench
    }

    /// Stands in for the event loop of all pods.
    fn forward_events(&self) {
        let mut events = self.hollow.events();
        let handle = self.handle.clone();
        tokio::spawn(async move {
            while futures::StreamExt::next(&mut events).await.is_some() {
                handle.wake.notify_one();
            }
        });
    }

    async fn until(&mut self, what: &str, wanted: impl Fn(&PodStatus) -> bool) -> Arc<PodStatus> {
        let found = self.status.wait_for(|o| o.status.as_ref().is_some_and(|s| wanted(s)));
        let found = tokio::time::timeout(LIMIT, found).await;
        found.unwrap_or_else(|_| panic!("{what} never comes")).unwrap().status.clone().unwrap()
    }

    async fn until_phase(&mut self, phase: &str) -> Arc<PodStatus> {
        self.until(phase, |status| status.phase.as_deref() == Some(phase)).await
    }

    fn now(&self) -> jiff::Timestamp {
        self.kubelet.config.clock.now()
    }

    fn delete(&self, grace: i64) {
        let mut pod = self.handle.desired().pod.as_ref().clone();
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(self.now()));
        pod.metadata.deletion_grace_period_seconds = Some(grace);
        self.handle.set(Desired { pod: Arc::new(pod), gone: false });
    }

    async fn until_deleted(&mut self) -> PodStatus {
        let found = tokio::time::timeout(LIMIT, self.status.wait_for(|o| o.delete)).await;
        found.expect("the pod's object is deleted").unwrap().status.as_deref().unwrap().clone()
    }

    async fn end(self) {
        let pod = self.handle.desired().pod;
        self.handle.set(Desired { pod, gone: true });
        tokio::time::timeout(LIMIT, self.worker).await.expect("the worker ends").unwrap();
        assert!(self.hollow.pods().await.unwrap().is_empty(), "nothing is left");
    }
}

fn first(status: &PodStatus) -> &ContainerStatus {
    &status.container_statuses.as_ref().unwrap()[0]
}

fn waits_for(status: &PodStatus, reason: &str) -> bool {
    let waiting = first(status).state.as_ref().and_then(|s| s.waiting.as_ref());
    waiting.and_then(|w| w.reason.as_deref()) == Some(reason)
}

#[tokio::test(start_paused = true)]
async fn pod_runs_with_an_address_and_is_ready() {
    let mut bench = Bench::new(runs(&["httpd"], "Always")).await;
    let status = bench.until_phase("Running").await;
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.1.2"));
    assert!(first(&status).ready && first(&status).container_id.as_ref().unwrap().starts_with("hollow://"));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn killed_container_runs_again_at_once_and_then_backs_off() {
    let mut bench = Bench::new(runs(&["httpd"], "Always")).await;
    bench.until_phase("Running").await;
    let mut waits = Vec::new();
    for count in 1..=5 {
        let killed_at = bench.now();
        assert!(bench.hollow.exit("ns", "web", "c", 1));
        bench
            .until("the next life", |s| {
                first(s).restart_count == count && first(s).state.as_ref().unwrap().running.is_some()
            })
            .await;
        waits.push(crate::clock::until(killed_at, bench.now()).as_secs());
    }
    assert_eq!(waits, [0, 10, 20, 40, 80]);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn crash_loop_is_told_with_its_last_end() {
    let mut bench = Bench::new(runs(&["exit", "7"], "Always")).await;
    let status = bench.until("CrashLoopBackOff", |s| waits_for(s, "CrashLoopBackOff")).await;
    let last = first(&status).last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(last.exit_code, 7);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn job_like_pods_end_and_keep_their_logs() {
    let mut bench = Bench::new(runs(&["echo", "hello"], "Never")).await;
    let status = bench.until_phase("Succeeded").await;
    let id = first(&status).container_id.clone().unwrap();
    let logs = bench.hollow.logs(id.trim_start_matches("hollow://"), &LogOptions::default()).await.unwrap();
    let logs: Vec<_> = futures::StreamExt::collect(logs).await;
    assert_eq!(logs[0].as_ref().unwrap(), "hello\n");
    let state = bench.hollow.pod_state("u1").await.unwrap();
    assert!(state.containers.len() == 1 && state.live_sandbox().is_none());
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn deleted_pod_ends_with_its_last_status_told() {
    let mut bench = Bench::new(runs(&["httpd"], "Always")).await;
    bench.until_phase("Running").await;
    bench.delete(20);
    let last = bench.until_deleted().await;
    let terminated = first(&last).state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((terminated.exit_code, last.phase.as_deref()), (143, Some("Failed")));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn stubborn_containers_are_killed_when_their_grace_is_over() {
    let mut bench = Bench::new(runs(&["httpd"], "Always")).await;
    bench.hollow.ignore_terminate(true);
    bench.until_phase("Running").await;
    let asked_at = bench.now();
    bench.delete(20);
    bench.until_deleted().await;
    assert_eq!(crate::clock::until(asked_at, bench.now()).as_secs(), 20);
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn images_that_cannot_be_pulled_back_off_until_they_can() {
    let hollow = Hollow::new(Clock::tokio());
    hollow.break_image("app", "no such host");
    let mut bench = Bench::on(hollow, runs(&["httpd"], "Always")).await;
    let status = bench.until("ErrImagePull", |s| waits_for(s, "ErrImagePull")).await;
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    bench.until("ImagePullBackOff", |s| waits_for(s, "ImagePullBackOff")).await;
    bench.hollow.mend_image("app");
    bench.until_phase("Running").await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn missing_config_map_is_named_and_waited_for() {
    let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]);
    let pod = pod(json!({"containers": [{"name": "c", "image": "app", "env": env}]}));
    let mut bench = Bench::new(pod).await;
    // Nobody answers lists here but with 404, which is a failure to read, not a missing object.
    let waits = |s: &PodStatus| waits_for(s, "ContainerCreating") || waits_for(s, "CreateContainerConfigError");
    bench.until("a reason", waits).await;
    bench.delete(0);
    bench.until_deleted().await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn restarted_kubelet_adopts_what_runs() {
    let mut bench = Bench::new(runs(&["httpd"], "Always")).await;
    let before = bench.until_phase("Running").await;
    let created = bench.hollow.created();
    bench.worker.abort();
    let pod = Pod { status: Some((*before).clone()), ..bench.handle.desired().pod.as_ref().clone() };
    let again = Bench::on(bench.hollow.clone(), pod).await;
    again.handle.wake.notify_one();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(again.hollow.created(), created, "nothing is made anew");
    assert_eq!(again.status.borrow().status, None, "the status is as it was");
    again.end().await;
}

#[tokio::test(start_paused = true)]
async fn dead_sandbox_is_replaced_with_all_that_was_in_it() {
    let mut bench = Bench::new(runs(&["httpd"], "Always")).await;
    bench.until_phase("Running").await;
    assert!(bench.hollow.kill_sandbox("ns", "web"));
    let restarted = |s: &PodStatus| first(s).restart_count == 1 && first(s).ready;
    bench.until("the pod to run again", restarted).await;
    let state = bench.hollow.pod_state("u1").await.unwrap();
    assert_eq!((state.sandboxes.len(), state.sandboxes[0].attempt), (1, 1));
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn pod_waits_for_the_network() {
    let hollow = Hollow::new(Clock::tokio());
    let mut bench = Bench::on(hollow, runs(&["httpd"], "Always")).await;
    bench.until_phase("Running").await;
    bench.network.send_replace(false);
    assert!(bench.hollow.kill_sandbox("ns", "web"));
    bench.until("the loss", |s| !first(s).ready).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bench.hollow.running(), 0);
    bench.network.send_replace(true);
    bench.until("the pod to run again", |s| first(s).ready).await;
    bench.end().await;
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_the_pod() {
    let pod =
        pod(json!({"activeDeadlineSeconds": 30, "containers": [{"name": "c", "image": "app", "command": ["httpd"]}]}));
    let mut bench = Bench::new(pod).await;
    bench.until_phase("Running").await;
    let status = bench.until_phase("Failed").await;
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    bench.end().await;
}
