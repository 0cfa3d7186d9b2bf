//! Probes, hooks and sidecars on the hollow runtime, under paused time.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::bench::{Api, Bench, config, first, pod, waits_for};
use crate::clock::Clock;
use crate::runtime::hollow::{CLOSED_PORT, Hollow};
use crate::runtime::{Runtime, Wanted, session};

async fn bench(spec: Value) -> Bench<Hollow> {
    let hollow = Hollow::new(Clock::tokio());
    hollow.ensure_network("10.244.1.0/24".parse().unwrap()).await.unwrap();
    Bench::new(hollow, Api::new(), config(), pod("u1", spec))
}

fn container(more: Value) -> Value {
    let mut container = json!({"name": "c", "image": "app", "command": ["httpd"]});
    container.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    container
}

async fn seconds(count: u64) {
    tokio::time::sleep(Duration::from_secs(count)).await;
}

fn ready_condition(status: &PodStatus) -> &str {
    &status.conditions.iter().flatten().find(|c| c.type_ == "Ready").unwrap().status
}

fn is_up(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|s| s.running.is_some())
}

async fn exec(bench: &Bench<Hollow>, status: &PodStatus, command: &[&str]) -> i64 {
    let id = first(status).container_id.clone().unwrap();
    let command: Vec<String> = command.iter().map(|w| (*w).to_owned()).collect();
    let wanted = Wanted { stdout: true, ..Wanted::default() };
    let session = bench.runtime.exec(id.trim_start_matches("hollow://"), &command, wanted).await.unwrap();
    session::collect(session).await.unwrap().code
}

#[tokio::test(start_paused = true)]
async fn pod_with_a_readiness_probe_starts_not_ready_and_follows_it() {
    let probe = json!({"httpGet": {"path": "/ready", "port": 80}, "periodSeconds": 10, "initialDelaySeconds": 5});
    let mut web = bench(json!({"containers": [container(json!({"readinessProbe": probe}))]})).await;
    web.runtime.answer("ns", "web", Some(503));
    let status = web.until_phase("Running").await;
    assert!(!first(&status).ready && first(&status).started == Some(true));
    web.api.until_event("Unhealthy", "Readiness probe failed: HTTP probe failed with statuscode: 503").await;
    assert_eq!(ready_condition(&web.status.borrow().status.clone().unwrap()), "False");

    web.runtime.answer("ns", "web", Some(200));
    let status = web.until("readiness", |s| first(s).ready).await;
    assert_eq!(ready_condition(&status), "True");
    web.runtime.answer("ns", "web", None);
    let fell_at = web.now();
    web.until("its loss", |s| !first(s).ready).await;
    let waited = crate::clock::until(fell_at, web.now()).as_secs();
    assert!((20..=30).contains(&waited), "three failures, ten seconds apart: {waited}");
    let refused = "Readiness probe failed: Get \"http://10.244.1.2:80/ready\": dial tcp 10.244.1.2:80: connect: connection refused";
    web.api.until_event("Unhealthy", refused).await;
    assert_eq!(first(&web.status.borrow().status.clone().unwrap()).restart_count, 0, "nothing restarts for it");
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn failed_liveness_restarts_the_container_and_says_so() {
    let probe = json!({"exec": {"command": ["cat", "/alive"]}, "periodSeconds": 5, "failureThreshold": 2});
    let mut web = bench(json!({"containers": [container(json!({"livenessProbe": probe}))]})).await;
    let status = web.until_phase("Running").await;
    assert!(first(&status).ready, "liveness has no say in readiness");
    let status = web.until("a restart", |s| first(s).restart_count == 1 && is_up(first(s))).await;
    assert_eq!(exec(&web, &status, &["touch", "/alive"]).await, 0);
    seconds(120).await;
    assert_eq!(first(&web.status.borrow().status.clone().unwrap()).restart_count, 1, "now it is alive");
    let failed = "Liveness probe failed: cat: can't open '/alive': No such file or directory\n";
    web.api.until_event("Unhealthy", failed).await;
    web.api.until_event("Killing", "Container c failed liveness probe, will be restarted").await;
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_startup_probe_comes_first_and_ends_what_never_starts() {
    let container = container(json!({
        "startupProbe": {"tcpSocket": {"port": CLOSED_PORT}, "periodSeconds": 1, "failureThreshold": 10,
            "terminationGracePeriodSeconds": 3},
        "livenessProbe": {"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1}}));
    let mut web = bench(json!({"restartPolicy": "Never", "containers": [container]})).await;
    web.runtime.ignore_terminate(true);
    let begun = web.now();
    let status = web.until_phase("Running").await;
    assert_eq!((first(&status).started, first(&status).ready), (Some(false), false));
    web.until_phase("Failed").await;
    let took = crate::clock::until(begun, web.now()).as_secs();
    assert!((12..=13).contains(&took), "ten tries and the probe's own grace, not liveness, ended it: {took}");
    let refused = format!("Startup probe failed: dial tcp 10.244.1.2:{CLOSED_PORT}: connect: connection refused");
    web.api.until_event("Unhealthy", &refused).await;
    web.api.until_event("Killing", "Container c failed startup probe").await;
    assert!(web.api.events("Unhealthy").iter().all(|m| !m.starts_with("Liveness")));
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn adopted_containers_keep_their_readiness_until_asked_again() {
    let probe = json!({"httpGet": {"port": 80}, "periodSeconds": 10});
    let spec = json!({"containers": [container(json!({"readinessProbe": probe}))]});
    let mut web = bench(spec.clone()).await;
    let before = web.until("readiness", |s| first(s).ready).await;
    seconds(7).await;
    web.worker.abort();
    let object = Pod { status: Some((*before).clone()), ..pod("u1", spec) };
    let asked = web.runtime.requests().len();
    let again = Bench::new(web.runtime.clone(), web.api.clone(), web.kubelet.config.clone(), object);
    again.handle.wake.notify_one();
    seconds(60).await;
    // The time of the last transition says it.
    assert_eq!(again.status.borrow().status.as_deref(), Some(&*before), "it never was not ready");
    assert!(again.runtime.requests().len() > asked + 3, "and it is asked");
    again.end().await;
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_probes_keep_their_own_rhythm() {
    const PERIOD: u64 = 3;
    let probed = |i: usize| {
        let probe = json!({"httpGet": {"path": format!("/{i}"), "port": 80}, "periodSeconds": PERIOD});
        json!({"name": format!("c{i}"), "image": "app", "command": ["httpd"], "readinessProbe": probe})
    };
    let containers: Vec<Value> = (0..200).map(probed).collect();
    let mut web = bench(json!({"containers": containers})).await;
    web.until("readiness", |s| ready_condition(s) == "True").await;
    seconds(10 * PERIOD).await;
    let requests = web.runtime.requests();
    for i in 0..200 {
        let times: Vec<_> = requests.iter().filter(|(path, _)| *path == format!("/{i}")).map(|(_, at)| *at).collect();
        assert!(times.len() >= 10, "{i} was asked {} times", times.len());
        for pair in times.windows(2) {
            let apart = crate::clock::until(pair[0], pair[1]).as_secs_f64();
            assert!((apart - PERIOD as f64).abs() < 0.1 * PERIOD as f64, "{i}: {apart}");
        }
    }
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_post_start_hook_ends_its_container() {
    let hook = json!({"postStart": {"exec": {"command": ["false"]}}});
    let mut web = bench(json!({"containers": [container(json!({"lifecycle": hook}))]})).await;
    web.until("the reason", |s| waits_for(s, "PostStartHookError")).await;
    web.until("CrashLoopBackOff", |s| waits_for(s, "CrashLoopBackOff")).await;
    web.api.until_event("FailedPostStartHook", "PostStartHook failed").await;
    web.api.until_event("Killing", "FailedPostStartHook").await;
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_runs_before_the_end_and_within_the_grace() {
    for (hook, took, events) in [
        (json!({"sleep": {"seconds": 7}}), 7, 0),
        (json!({"exec": {"command": ["sleep", "300"]}}), 20, 0),
        (json!({"httpGet": {"port": 80, "path": "/bye"}}), 0, 0),
        (json!({"tcpSocket": {"port": CLOSED_PORT}}), 0, 1),
    ] {
        let container = container(json!({"lifecycle": {"preStop": hook}}));
        let mut web = bench(json!({"containers": [container], "terminationGracePeriodSeconds": 20})).await;
        web.until_phase("Running").await;
        let asked_at = web.now();
        web.delete(20);
        let last = web.until_deleted().await;
        assert_eq!(first(&last).state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 143, "{hook}");
        assert_eq!(crate::clock::until(asked_at, web.now()).as_secs(), took, "{hook}");
        let told = if events > 0 { vec!["PreStopHook failed".to_owned()] } else { Vec::new() };
        if events > 0 {
            web.api.until_event("FailedPreStopHook", "PreStopHook failed").await;
        }
        assert_eq!(web.api.events("FailedPreStopHook"), told, "{hook}");
        web.end().await;
    }
}

/// Deleted by force, or its manifest removed: the last that was known of it says how it ends.
#[tokio::test(start_paused = true)]
async fn a_pre_stop_hook_runs_also_where_the_pods_object_is_gone() {
    let hook = json!({"preStop": {"sleep": {"seconds": 7}}});
    let container = container(json!({"lifecycle": hook}));
    let mut web = bench(json!({"containers": [container], "terminationGracePeriodSeconds": 20})).await;
    web.until_phase("Running").await;
    let gone_at = Instant::now();
    web.end().await;
    assert_eq!(gone_at.elapsed().as_secs(), 7);
}

/// Of a pod that went while no kubelet ran there are only containers, and no hook (`SyncTerminatingRuntimePod`).
#[tokio::test(start_paused = true)]
async fn no_hook_runs_of_a_pod_nobody_remembers() {
    let hook = json!({"preStop": {"sleep": {"seconds": 7}}});
    let container = container(json!({"lifecycle": hook}));
    let mut web = bench(json!({"containers": [container], "terminationGracePeriodSeconds": 20})).await;
    web.until_phase("Running").await;
    let known = web.runtime.pods().await.unwrap().remove(0).identity;
    let orphan = Bench::new(web.runtime.clone(), Api::new(), config(), crate::pods::orphan(known));
    let gone_at = Instant::now();
    drop(web);
    orphan.end().await;
    assert!(gone_at.elapsed().as_secs() < 7);
}

#[tokio::test(start_paused = true)]
async fn sidecars_run_beside_what_they_were_started_for_and_end_after_it() {
    let side = |name: &str| {
        json!({"name": name, "image": "app", "command": ["httpd"], "restartPolicy": "Always",
            "startupProbe": {"exec": {"command": ["cat", "/up"]}, "periodSeconds": 1, "failureThreshold": 60}})
    };
    let work = json!({"name": "c", "image": "app", "command": ["sleep", "30"]});
    let mut web = bench(json!({"restartPolicy": "Never", "initContainers": [side("a")], "containers": [work]})).await;
    let init = |s: &PodStatus| s.init_container_statuses.clone().unwrap()[0].clone();
    let status = web.until("the sidecar", |s| is_up(&init(s))).await;
    seconds(10).await;
    let waiting = web.status.borrow().status.clone().unwrap();
    assert!(waits_for(&waiting, "PodInitializing") && waiting.phase.as_deref() == Some("Pending"));
    let id = init(&status).container_id.unwrap();
    let wanted = Wanted { stdout: true, ..Wanted::default() };
    let command = ["touch", "/up"].map(str::to_owned);
    let session = web.runtime.exec(id.trim_start_matches("hollow://"), &command, wanted).await.unwrap();
    session::collect(session).await.unwrap();
    web.until("its work", |s| is_up(first(s)) && init(s).started == Some(true)).await;
    assert!(web.runtime.exit("ns", "web", "a", 1));
    web.until("the sidecar again", |s| init(s).restart_count == 1 && is_up(&init(s)) && is_up(first(s))).await;
    let status = web.until_phase("Succeeded").await;
    assert_eq!(first(&status).state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 0);
    web.until("the sidecar's end", |s| init(s).state.as_ref().unwrap().terminated.is_some()).await;
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_sidecar_may_refuse_to_be_restarted_into_a_finished_pod() {
    let side = json!({"name": "a", "image": "app", "command": ["httpd"], "restartPolicy": "Always"});
    let work = json!({"name": "c", "image": "app", "command": ["exit", "3"]});
    let mut web = bench(json!({"restartPolicy": "Never", "initContainers": [side], "containers": [work]})).await;
    let status = web.until_phase("Failed").await;
    assert_eq!(first(&status).state.as_ref().unwrap().terminated.as_ref().unwrap().exit_code, 3);
    seconds(60).await;
    assert_eq!(web.runtime.running(), 0);
    web.end().await;
}
