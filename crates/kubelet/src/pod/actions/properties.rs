//! Whatever a pod looks like, what is planned leads somewhere: apply the plan, plan again, and at last nothing is left.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::observed::Termination;
use super::super::probe::Health;
use super::super::testing::{World, at, exited, pod};
use super::super::{Sort, container, container_hash};
use super::{Action, PodActions, pod_actions};
use crate::runtime::{Container, Phase, Sandbox};

/// Far more steps than any pod of these tests needs.
const MAX_ROUNDS: usize = 60;

/// Does to `world` what a runtime in which everything works would do.
fn apply(world: &mut World, pod: &k8s_openapi::api::core::v1::Pod, actions: &[Action], now: i64) {
    for action in actions {
        match action {
            Action::CreateSandbox { attempt } => {
                let id = format!("s{}", now * 100 + i64::from(*attempt));
                let ip = Some("10.0.0.9".parse().unwrap());
                let sandbox = Sandbox { id, attempt: *attempt, created_at: at(now), running: true, ip };
                assert!(world.state.live_sandbox().is_none(), "a live sandbox is never replaced");
                world.state.sandboxes.insert(0, sandbox);
            }
            Action::Start { name, restart_count, backoff } => {
                let sandbox_id = world.state.live_sandbox().expect("containers join a live sandbox").id.clone();
                let running = world.state.containers.iter().any(|c| c.name == *name && c.is_running());
                assert!(!running, "{name} is never started twice");
                let (sort, spec) = container(pod.spec.as_ref().unwrap(), name).unwrap();
                // Init containers do their work at once.
                let phase = if sort == Sort::Init { exited(0, now) } else { Phase::Running };
                let health = Health { started: Some(true), alive: Some(true), ..Health::default() };
                let id = format!("{name}-{now}-{restart_count}-{}", world.state.containers.len());
                world.health.insert(id.clone(), health);
                world.state.containers.insert(
                    0,
                    Container {
                        id,
                        name: name.clone(),
                        hash: container_hash(&spec),
                        restart_count: *restart_count,
                        backoff: *backoff,
                        sandbox_id,
                        image: String::new(),
                        image_id: String::new(),
                        created_at: at(now),
                        started_at: Some(at(now)),
                        phase,
                        message: None,
                        resources: crate::container_spec::resources(&spec),
                    },
                );
            }
            Action::Terminate { id, name, .. } => {
                // Hooks of these tests never end by themselves.
                let spec = container(pod.spec.as_ref().unwrap(), name);
                let hooks = &spec.is_some_and(|(_, spec)| spec.lifecycle.is_some());
                world.terminations.insert(id.clone(), Termination::new(at(now), *hooks));
            }
            Action::Resize { containers } => {
                for resized in containers {
                    let container = world.state.containers.iter_mut().find(|c| c.id == resized.id).unwrap();
                    assert!(container.is_running() && container.resources == resized.has);
                    container.resources = resized.wanted;
                }
            }
            Action::Signal { id } => world.terminations.get_mut(id).unwrap().signaled_at = Some(at(now)),
            Action::Kill { id } => {
                for container in world.state.containers.iter_mut().filter(|c| c.id == *id) {
                    container.phase = exited(137, now);
                }
            }
            Action::Remove { id } => {
                world.state.containers.retain(|c| c.id != *id);
                world.state.sandboxes.retain(|s| s.id != *id);
            }
        }
    }
}

/// Applies plans until one has no actions, time passing to each plan's deadline.
fn settle(world: &mut World, pod: &k8s_openapi::api::core::v1::Pod, mut now: i64) -> (PodActions, i64) {
    for _ in 0..MAX_ROUNDS {
        let plan = pod_actions(pod, &world.observed(), at(now));
        let again = pod_actions(pod, &world.observed(), at(now));
        assert_eq!(plan, again, "the same observation gives the same plan");
        if plan.actions.is_empty() {
            match plan.wake_at {
                Some(deadline) => now = deadline.as_second() - at(0).as_second(),
                None => return (plan, now),
            }
            continue;
        }
        apply(world, pod, &plan.actions, now);
    }
    panic!("the pod never settles: {:?}", pod_actions(pod, &world.observed(), at(now)));
}

fn phases() -> impl Strategy<Value = Phase> {
    prop_oneof![Just(Phase::Created), Just(Phase::Running), (0..3i32, 0..50i64).prop_map(|(code, s)| exited(code, s))]
}

fn specs() -> impl Strategy<Value = Value> {
    let policy = prop_oneof![Just("Always"), Just("OnFailure"), Just("Never")];
    (policy, 1..3usize, 0..3usize, any::<bool>(), any::<bool>()).prop_map(
        |(policy, containers, inits, sidecar, host)| {
            let containers: Vec<Value> =
                (0..containers).map(|i| json!({"name": format!("c{i}"), "image": "i"})).collect();
            let mut inits: Vec<Value> = (0..inits).map(|i| json!({"name": format!("i{i}"), "image": "i"})).collect();
            if sidecar && let Some(first) = inits.first_mut() {
                first["restartPolicy"] = json!("Always");
                first["startupProbe"] = json!({});
                first["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 1}}});
            }
            let mut containers = containers;
            containers[0]["livenessProbe"] = json!({});
            containers[0]["resources"] = json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Mi"}});
            if sidecar {
                containers[0]["resizePolicy"] = json!([{"resourceName": "cpu", "restartPolicy": "RestartContainer"}]);
            }
            json!({"restartPolicy": policy, "containers": containers, "initContainers": inits, "hostNetwork": host})
        },
    )
}

prop_compose! {
    fn worlds()(
        spec in specs(),
        sandboxes in 0..3usize,
        live in any::<bool>(),
        seeds in prop::collection::vec((0..5usize, 0..3usize, phases()), 0..7),
        unhealthy in prop::collection::vec(0..3usize, 0..3),
        small in prop::collection::vec(0..7usize, 0..3),
    ) -> (World, k8s_openapi::api::core::v1::Pod) {
        let pod = pod(spec);
        let mut world = World::default();
        for index in 0..sandboxes {
            world = world.sandbox(&format!("sandbox{index}"));
        }
        for sandbox in world.state.sandboxes.iter_mut().skip(usize::from(live)) {
            sandbox.running = false;
        }
        let names = ["c0", "c1", "i0", "i1", "stray"];
        for (name, sandbox, phase) in seeds {
            world = world.container(&pod, names[name], &format!("sandbox{sandbox}"), phase);
        }
        for index in small {
            if let Some(container) = world.state.containers.get_mut(index) {
                container.resources = crate::runtime::Resources { cpu_shares: 2, ..Default::default() };
            }
        }
        for (index, container) in world.state.containers.iter().enumerate() {
            let fine = !unhealthy.contains(&index);
            let health = Health { started: Some(true), alive: Some(fine), ..Health::default() };
            world.health.insert(container.id.clone(), health);
        }
        (world, pod)
    }
}

proptest! {
    #[test]
    fn every_pod_settles((world, pod) in worlds()) {
        let mut world = world;
        let (_, now) = settle(&mut world, &pod, 100);
        let plan = pod_actions(&pod, &world.observed(), at(now));
        prop_assert!(plan.actions.is_empty());
        prop_assert!(!plan.resizing, "what runs uses what is set aside for it");
        for container in pod.spec.iter().flat_map(|s| &s.containers) {
            let lives = world.state.containers.iter().filter(|c| c.name == container.name);
            prop_assert!(lives.clone().filter(|c| c.is_running()).count() <= 1);
            prop_assert!(lives.filter(|c| c.exit().is_some()).count() <= 1, "one ended life is kept for its log");
        }
        prop_assert!(world.state.sandboxes.len() <= 1);
    }

    #[test]
    fn a_deleted_pod_leaves_nothing((world, pod) in worlds()) {
        let (mut world, mut pod) = (world, pod);
        pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(90)));
        pod.metadata.deletion_grace_period_seconds = Some(5);
        let (plan, now) = settle(&mut world, &pod, 100);
        prop_assert!(plan.gone && world.state.is_empty());
        prop_assert!(Duration::from_secs(now as u64 - 100) <= Duration::from_secs(7), "one grace, and the least one");
    }
}
