//! Resizing on the hollow runtime, under paused time.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

use super::Desired;
use super::bench::{Api, Bench, config, first, pod};
use crate::clock::Clock;
use crate::pod::resize::{IN_PROGRESS, PENDING, condition};
use crate::runtime::Runtime;
use crate::runtime::hollow::Hollow;

fn sized(generation: i64, cpu: &str, memory: &str, policy: &str) -> Pod {
    let resources = json!({"requests": {"cpu": cpu, "memory": "8Mi"}, "limits": {"memory": memory}});
    let policies = json!([{"resourceName": "memory", "restartPolicy": policy}]);
    let container = json!({"name": "c", "image": "app", "resources": resources, "resizePolicy": policies});
    let mut pod = pod("u1", json!({"containers": [container]}));
    pod.metadata.generation = Some(generation);
    pod
}

async fn bench(hollow: Hollow, pod: Pod) -> Bench<Hollow> {
    hollow.ensure_network("10.244.1.0/24".parse().unwrap()).await.unwrap();
    Bench::new(hollow, Api::new(), config(), pod)
}

fn want(bench: &Bench<Hollow>, pod: Pod) {
    bench.handle.set(Desired { pod: Arc::new(pod), gone: false });
}

fn in_force(status: &PodStatus) -> Value {
    json!(first(status).resources)
}

#[tokio::test(start_paused = true)]
async fn a_pod_is_resized_without_a_restart() {
    let mut web = bench(Hollow::new(Clock::tokio()), sized(1, "100m", "64Mi", "NotRequired")).await;
    let before = web.until_phase("Running").await;
    want(&web, sized(2, "500m", "128Mi", "NotRequired"));
    let done = web.until("the resize", |s| in_force(s)["limits"]["memory"] == "128Mi").await;
    assert_eq!(in_force(&done)["requests"], json!({"cpu": "500m", "memory": "8Mi"}));
    assert_eq!(first(&done).container_id, first(&before).container_id);
    assert_eq!((first(&done).restart_count, condition(&done, IN_PROGRESS)), (0, None));
    let state = web.runtime.pod_state("u1").await.unwrap();
    assert_eq!(
        (state.containers[0].resources.cpu_shares, state.containers[0].resources.memory),
        (512, Some(128 << 20))
    );
    let resources = r#"{"limits":{"memory":"128Mi"},"requests":{"cpu":"500m","memory":"8Mi"}}"#;
    let told = format!(r#"{{"containers":[{{"name":"c","resources":{resources}}}],"generation":2}}"#);
    web.api.until_event("ResizeStarted", &format!("Pod resize started: {told}")).await;
    web.api.until_event("ResizeCompleted", &format!("Pod resize completed: {told}")).await;
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_ask_for_a_restart() {
    let mut web = bench(Hollow::new(Clock::tokio()), sized(1, "100m", "64Mi", "RestartContainer")).await;
    web.until_phase("Running").await;
    want(&web, sized(2, "100m", "128Mi", "RestartContainer"));
    let runs = |s: &PodStatus| first(s).restart_count == 1 && first(s).ready;
    let done = web.until("the next life", runs).await;
    assert_eq!((&in_force(&done)["limits"]["memory"], condition(&done, IN_PROGRESS)), (&json!("128Mi"), None));
    web.api.until_event("Killing", "Container c resize requires restart").await;
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_waits_or_never_will_and_the_container_lives_on_as_it_was() {
    let mut web = bench(Hollow::new(Clock::tokio()), sized(1, "100m", "64Mi", "NotRequired")).await;
    web.until_phase("Running").await;
    let other = Arc::new(tokio::sync::Notify::new());
    let held = api::pods::Requests { milli_cpu: 3000, ..Default::default() };
    web.kubelet.allocations.hold("other", held, &other);
    want(&web, sized(2, "2", "64Mi", "NotRequired"));
    let waits = web.until("a reason", |s| condition(s, PENDING).is_some()).await;
    let pending = condition(&waits, PENDING).unwrap();
    let text = "Node didn't have enough resource: cpu, requested: 2000, used: 3000, capacity: 4000";
    assert_eq!((pending.reason.as_deref(), pending.message.as_deref()), (Some("Deferred"), Some(text)));
    assert_eq!((pending.observed_generation, &in_force(&waits)["requests"]["cpu"]), (Some(2), &json!("100m")));
    // A kubelet that starts now knows what is set aside, and a container that ends comes back as it was.
    web.worker.abort();
    let resized = sized(2, "2", "64Mi", "NotRequired");
    let mut web = bench(web.runtime.clone(), Pod { status: Some((*waits).clone()), ..resized }).await;
    web.kubelet.allocations.hold("other", held, &other);
    web.handle.wake.notify_one();
    assert!(web.runtime.exit("ns", "web", "c", 1));
    let again = web.until("the next life", |s| first(s).restart_count == 1 && first(s).ready).await;
    assert_eq!(first(&again).allocated_resources.as_ref().unwrap()["cpu"].0, "100m");
    let created = web.runtime.pod_state("u1").await.unwrap().containers[0].resources.cpu_shares;
    assert_eq!(created, 102);
    want(&web, sized(3, "5", "64Mi", "NotRequired"));
    let never = |s: &PodStatus| condition(s, PENDING).and_then(|c| c.reason.as_deref()) == Some("Infeasible");
    web.until("Infeasible", never).await;
    // Room comes, and what is wanted by then is given.
    want(&web, sized(4, "2", "64Mi", "NotRequired"));
    web.until("Deferred", |s| condition(s, PENDING).and_then(|c| c.reason.as_deref()) == Some("Deferred")).await;
    web.kubelet.allocations.release("other");
    let done = web.until("the resize", |s| in_force(s)["requests"]["cpu"] == "2").await;
    assert!(condition(&done, PENDING).is_none() && first(&done).restart_count == 1);
    assert_eq!(web.api.events("ResizeDeferred").len(), 1, "and not once more for what the kubelet before had said");
    web.end().await;
}

#[tokio::test(start_paused = true)]
async fn memory_in_use_is_not_taken_away() {
    let mut web = bench(Hollow::new(Clock::tokio()), sized(1, "100m", "64Mi", "NotRequired")).await;
    web.until_phase("Running").await;
    // A hollow container uses 16 MiB.
    want(&web, sized(2, "100m", "8Mi", "NotRequired"));
    let text = "cannot decrease memory limits: attempting to set container \"c\" memory limit (8388608) below current usage (16777216)";
    let failed = |s: &PodStatus| condition(s, IN_PROGRESS).and_then(|c| c.message.as_deref()) == Some(text);
    let status = web.until("an error", failed).await;
    assert_eq!(condition(&status, IN_PROGRESS).unwrap().reason.as_deref(), Some("Error"));
    assert_eq!(in_force(&status)["limits"]["memory"], "64Mi");
    tokio::time::sleep(std::time::Duration::from_secs(600)).await;
    assert_eq!(web.api.events("ResizeError").len(), 1, "said once, however often it is tried");
    want(&web, sized(3, "100m", "32Mi", "NotRequired"));
    let done = web.until("the resize", |s| in_force(s)["limits"]["memory"] == "32Mi").await;
    assert_eq!((condition(&done, IN_PROGRESS), first(&done).restart_count), (None, 0));
    web.end().await;
}
