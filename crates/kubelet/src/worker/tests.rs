//! Workers on the hollow runtime, under paused time: no test waits for real.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::json;

use super::bench::{Api, Bench, config, first, pod, waits_for};
use crate::clock::Clock;
use crate::runtime::hollow::Hollow;
use crate::runtime::{LogOptions, Runtime};

async fn bench(pod: Pod) -> Bench<Hollow> {
    bench_on(Hollow::new(Clock::tokio()), pod).await
}

async fn bench_on(hollow: Hollow, pod: Pod) -> Bench<Hollow> {
    hollow.ensure_network("10.244.1.0/24".parse().unwrap()).await.unwrap();
    Bench::new(hollow, Api::new(), config(), pod)
}

fn runs(command: &[&str], policy: &str) -> Pod {
    let container = json!({"name": "c", "image": "app", "command": command});
    pod("u1", json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 20, "containers": [container]}))
}

#[tokio::test(start_paused = true)]
async fn pod_runs_with_an_address_and_is_ready() {
    let mut web = bench(runs(&["httpd"], "Always")).await;
    let status = web.until_phase("Running").await;
    assert_eq!(status.pod_ip.as_deref(), Some("10.244.1.2"));
    assert!(first(&status).ready && first(&status).container_id.as_ref().unwrap().starts_with("hollow://"));
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn killed_container_runs_again_at_once_and_then_backs_off() {
    let mut web = bench(runs(&["httpd"], "Always")).await;
    web.until_phase("Running").await;
    let mut waits = Vec::new();
    for count in 1..=5 {
        let killed_at = web.now();
        assert!(web.runtime.exit("ns", "web", "c", 1));
        web.until("the next life", |s| {
            first(s).restart_count == count && first(s).state.as_ref().unwrap().running.is_some()
        })
        .await;
        waits.push(crate::clock::until(killed_at, web.now()).as_secs());
    }
    assert_eq!(waits, [0, 10, 20, 40, 80]);
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn crash_loop_is_told_with_its_last_end() {
    let mut web = bench(runs(&["exit", "7"], "Always")).await;
    let status = web.until("CrashLoopBackOff", |s| waits_for(s, "CrashLoopBackOff")).await;
    let last = first(&status).last_state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!(last.exit_code, 7);
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn job_like_pods_end_and_keep_their_logs() {
    let mut web = bench(runs(&["echo", "hello"], "Never")).await;
    let status = web.until_phase("Succeeded").await;
    let id = first(&status).container_id.clone().unwrap();
    let logs = web.runtime.logs(id.trim_start_matches("hollow://"), &LogOptions::default()).await.unwrap();
    let logs: Vec<_> = futures::StreamExt::collect(logs).await;
    assert_eq!(logs[0].as_ref().unwrap(), "hello\n");
    let state = web.runtime.pod_state("u1").await.unwrap();
    assert!(state.containers.len() == 1 && state.live_sandbox().is_none());
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn deleted_pod_ends_with_its_last_status_told() {
    let mut web = bench(runs(&["httpd"], "Always")).await;
    web.until_phase("Running").await;
    web.delete(20);
    let last = web.until_deleted().await;
    let terminated = first(&last).state.as_ref().unwrap().terminated.as_ref().unwrap();
    assert_eq!((terminated.exit_code, last.phase.as_deref()), (143, Some("Failed")));
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn stubborn_containers_are_killed_when_their_grace_is_over() {
    let mut web = bench(runs(&["httpd"], "Always")).await;
    web.runtime.ignore_terminate(true);
    web.until_phase("Running").await;
    let asked_at = web.now();
    web.delete(20);
    web.until_deleted().await;
    assert_eq!(crate::clock::until(asked_at, web.now()).as_secs(), 20);
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn images_that_cannot_be_pulled_back_off_until_they_can() {
    let hollow = Hollow::new(Clock::tokio());
    hollow.break_image("app", "no such host");
    let mut web = bench_on(hollow, runs(&["httpd"], "Always")).await;
    let status = web.until("ErrImagePull", |s| waits_for(s, "ErrImagePull")).await;
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    web.until("ImagePullBackOff", |s| waits_for(s, "ImagePullBackOff")).await;
    web.runtime.mend_image("app");
    web.until_phase("Running").await;
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn missing_config_map_is_named_and_waited_for() {
    let env = json!([{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k"}}}]);
    let pod = pod("u1", json!({"containers": [{"name": "c", "image": "app", "env": env}]}));
    let mut web = bench(pod).await;
    let status = web.until("a reason", |s| waits_for(s, "CreateContainerConfigError")).await;
    let message = first(&status).state.as_ref().unwrap().waiting.as_ref().unwrap().message.clone();
    assert_eq!(message.as_deref(), Some("configmap \"cm\" not found"));
    web.api.put(json!({"kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"k": "v"}}));
    web.until_phase("Running").await;
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_whose_node_goes_down_has_failed_and_stays_so() {
    let mut web = bench(runs(&["httpd"], "Always")).await;
    web.until_phase("Running").await;
    let message = "Pod was terminated in response to imminent node shutdown.";
    web.handle.end(super::Ending {
        reason: "Terminated",
        message: message.to_owned(),
        condition: None,
        grace_seconds: 5,
    });
    web.handle.until_stopped().await;
    let status = web.until_phase("Failed").await;
    assert_eq!((status.reason.as_deref(), status.message.as_deref()), (Some("Terminated"), Some(message)));
    let target = status.conditions.iter().flatten().find(|c| c.type_ == "DisruptionTarget").unwrap();
    assert_eq!(target.reason.as_deref(), Some("TerminationByKubelet"));
    assert_eq!(web.runtime.running(), 0);
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn restarted_kubelet_adopts_what_runs() {
    let mut web = bench(runs(&["httpd"], "Always")).await;
    let before = web.until_phase("Running").await;
    let created = web.runtime.created();
    web.worker.abort();
    let pod = Pod { status: Some((*before).clone()), ..web.handle.desired().pod.as_ref().clone() };
    let again = bench_on(web.runtime.clone(), pod).await;
    again.handle.wake.notify_one();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(again.runtime.created(), created, "nothing is made anew");
    // Nothing is to be written, and what is to be put right when others write over it is known.
    assert_eq!(again.status.borrow().status.as_deref(), Some(&*before), "the status is as it was");
    again.end().await;
}

#[tokio::test(start_paused = true)]
async fn dead_sandbox_is_replaced_with_all_that_was_in_it() {
    let mut web = bench(runs(&["httpd"], "Always")).await;
    web.until_phase("Running").await;
    assert!(web.runtime.kill_sandbox("ns", "web"));
    let restarted = |s: &PodStatus| first(s).restart_count == 1 && first(s).ready;
    web.until("the pod to run again", restarted).await;
    let state = web.runtime.pod_state("u1").await.unwrap();
    assert_eq!((state.sandboxes.len(), state.sandboxes[0].attempt), (1, 1));
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn pod_waits_for_the_network() {
    let hollow = Hollow::new(Clock::tokio());
    let mut web = bench_on(hollow, runs(&["httpd"], "Always")).await;
    web.until_phase("Running").await;
    web.network.send_replace(false);
    assert!(web.runtime.kill_sandbox("ns", "web"));
    web.until("the loss", |s| !first(s).ready).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(web.runtime.running(), 0);
    web.network.send_replace(true);
    web.until("the pod to run again", |s| first(s).ready).await;
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn deadline_ends_the_pod() {
    let pod = pod(
        "u1",
        json!({"activeDeadlineSeconds": 30, "containers": [{"name": "c", "image": "app", "command": ["httpd"]}]}),
    );
    let mut web = bench(pod).await;
    web.until_phase("Running").await;
    let status = web.until_phase("Failed").await;
    assert_eq!(status.reason.as_deref(), Some("DeadlineExceeded"));
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn an_evicted_pod_has_failed_and_says_why() {
    let container = json!({"name": "c", "image": "app", "command": ["httpd"]});
    let spec = json!({"terminationGracePeriodSeconds": 600, "containers": [container]});
    let mut web = bench(pod("u1", spec)).await;
    web.until_phase("Running").await;
    web.runtime.ignore_terminate(true);
    let asked = tokio::time::Instant::now();
    let message = "The node was low on resource: memory. ".to_owned();
    web.handle.end(super::Ending { reason: "Evicted", message, condition: None, grace_seconds: 1 });
    let status = web.until_phase("Failed").await;
    assert_eq!(status.reason.as_deref(), Some("Evicted"));
    assert_eq!(status.message.as_deref(), Some("The node was low on resource: memory. "));
    let target = |c: &&k8s_openapi::api::core::v1::PodCondition| c.type_ == "DisruptionTarget" && c.status == "True";
    let target = status.conditions.iter().flatten().find(target).unwrap();
    assert_eq!(target.reason.as_deref(), Some("TerminationByKubelet"));
    let last = web.until("its container to end", |s| first(s).state.as_ref().unwrap().terminated.is_some()).await;
    assert_eq!((last.reason.as_deref(), web.runtime.running()), (Some("Evicted"), 0));
    assert!(asked.elapsed() < Duration::from_secs(10), "not after ten minutes of grace");
    web.end().await;
}

/// A pod whose one volume holds a token of an hour, on a runtime with files.
async fn with_token(dir: &tempfile::TempDir, api: Api) -> Bench<Hollow> {
    let hollow = Hollow::new(Clock::tokio());
    hollow.ensure_network("10.244.1.0/24".parse().unwrap()).await.unwrap();
    hollow.use_files();
    let volume = json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}});
    let container = json!({"name": "c", "image": "app", "volumeMounts": [{"name": "v", "mountPath": "/v"}]});
    let spec = json!({"serviceAccountName": "robot", "containers": [container], "volumes": [volume]});
    let config = crate::Config { data_dir: dir.path().to_owned(), ..config() };
    Bench::new(hollow, api, config, pod("u1", spec))
}

fn token_file(dir: &tempfile::TempDir) -> String {
    let path = crate::volumes::pod_dir(dir.path(), "u1").join("volumes/kubernetes.io~projected/v/token");
    std::fs::read_to_string(path).unwrap()
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3600)
}

#[tokio::test(start_paused = true)]
async fn tokens_are_renewed_at_their_deadline_and_kept_while_the_api_has_none() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let (dir, api) = (tempfile::tempdir().unwrap(), Api::new());
    let begun = Clock::tokio();
    api.put_token("first", begun.now() + hours(1));
    let mut web = with_token(&dir, api).await;
    web.until_phase("Running").await;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(mounts.lines().any(|l| l.contains(dir.path().to_str().unwrap()) && l.contains(" - tmpfs ")));
    assert_eq!(token_file(&dir), "first");

    web.api.put_token("second", begun.now() + hours(2));
    tokio::time::sleep(Duration::from_secs(2860)).await;
    assert_eq!(token_file(&dir), "first", "it is not due yet");
    tokio::time::sleep(Duration::from_secs(30)).await;
    assert_eq!(token_file(&dir), "second", "renewed at four fifths of an hour");

    web.api.take_token();
    tokio::time::sleep(hours(1)).await;
    assert_eq!(token_file(&dir), "second", "kept while it counts, or nothing newer is to be had");
    web.api.put_token("third", begun.now() + hours(9));
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(token_file(&dir), "third", "tried again after a back-off");
    web.end().await;
    assert!(!crate::volumes::pod_dir(dir.path(), "u1").exists());
}

#[tokio::test(start_paused = true)]
async fn a_pod_without_its_token_waits_for_it() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut web = with_token(&dir, Api::new()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let status = web.status.borrow().status.clone().unwrap();
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    web.api.put_token("late", web.now() + hours(1));
    web.until_phase("Running").await;
    assert_eq!(token_file(&dir), "late");
    web.end().await;
}
