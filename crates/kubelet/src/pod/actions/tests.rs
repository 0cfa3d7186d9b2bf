use std::time::Duration;

use serde_json::json;

use super::super::testing::{World, at, exited, pod};
use super::*;
use crate::pod::observed::{Hold, Termination};
use crate::pod::probe::Health;
use crate::runtime::Phase;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

fn web(policy: &str) -> Pod {
    pod(
        json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 30, "containers": [{"name": "c", "image": "i"}]}),
    )
}

fn running(pod: &Pod) -> World {
    World::default().sandbox("s").container(pod, "c", "s", Phase::Running)
}

fn ended(pod: &Pod, code: i32) -> World {
    World::default().sandbox("s").container(pod, "c", "s", exited(code, 10))
}

/// Asked to end at `second`.
fn signaled(second: i64) -> Termination {
    Termination { signaled_at: Some(at(second)), ..Termination::new(at(second), false) }
}

/// A plan's actions in a word or two each.
fn brief(plan: &PodActions) -> String {
    let word = |action: &Action| match action {
        Action::CreateSandbox { attempt } => format!("sandbox#{attempt}"),
        Action::Start { name, restart_count, .. } => format!("start {name}#{restart_count}"),
        Action::Terminate { id, reason, .. } => format!("terminate {id} {reason:?}"),
        Action::Resize { containers } => {
            let names: Vec<&str> = containers.iter().map(|container| container.name.as_str()).collect();
            format!("resize {}", names.join(" "))
        }
        Action::Signal { id } => format!("signal {id}"),
        Action::Kill { id } => format!("kill {id}"),
        Action::Remove { id } => format!("remove {id}"),
    };
    plan.actions.iter().map(word).collect::<Vec<_>>().join(", ")
}

fn plan(pod: &Pod, world: &World, second: i64) -> PodActions {
    pod_actions(pod, &world.observed(), at(second))
}

#[test]
fn so_many_ended_lives_are_kept_as_are_to_be() {
    use crate::node::container_gc::Policy;
    let web = pod(json!({"containers": [{"name": "c"}]}));
    let world = |policy| {
        let mut world = World { dead: policy, ..World::default() }.sandbox("s");
        for second in 0..3 {
            world = world.container(&web, "c", "s", exited(1, second));
        }
        world.container(&web, "c", "s", Phase::Running)
    };
    let policy = |per_container, age| Policy { per_container, min_age: Duration::from_secs(age), ..Policy::default() };
    for (sentence, policy, expected) in [
        ("one", policy(Some(1), 0), vec!["c-1", "c-0"]),
        ("two", policy(Some(2), 0), vec!["c-0"]),
        ("none, as it runs again", policy(Some(0), 0), vec!["c-2", "c-1", "c-0"]),
        ("all", policy(None, 0), vec![]),
        ("for a while", policy(Some(1), 60), vec![]),
    ] {
        let world = world(policy);
        let plan = pod_actions(&web, &world.observed(), at(10));
        let removed: Vec<&str> = plan
            .actions
            .iter()
            .map(|action| match action {
                Action::Remove { id } => id.as_str(),
                other => panic!("{sentence}: {other:?}"),
            })
            .collect();
        assert_eq!(removed, expected, "{sentence}");
        assert_eq!(plan.wake_at, (policy.min_age.as_secs() == 60).then(|| at(60)), "{sentence}");
    }
    let mut ended = World { dead: policy(Some(0), 0), ..World::default() }.sandbox("s");
    ended = ended.container(&web, "c", "s", exited(1, 1));
    let plan = pod_actions(&web, &ended.observed(), at(2));
    assert!(
        !plan.actions.iter().any(|a| matches!(a, Action::Remove { .. })),
        "what comes next depends on it: {plan:?}"
    );
}

#[test]
fn plans_of_ordinary_pods() {
    let always = || web("Always");
    let cases: Vec<(&str, Pod, World, &str)> = vec![
        ("a new pod gets a sandbox first", always(), World::default(), "sandbox#0"),
        ("then its container", always(), World::default().sandbox("s"), "start c#0"),
        ("a running pod is left alone", always(), running(&always()), ""),
        ("an ended container is started again at once", always(), ended(&always(), 1), "start c#1"),
        ("Always restarts success, too", always(), ended(&always(), 0), "start c#1"),
        ("OnFailure restarts failure", web("OnFailure"), ended(&web("OnFailure"), 1), "start c#1"),
        ("OnFailure ends with success", web("OnFailure"), ended(&web("OnFailure"), 0), "remove s"),
        ("Never ends with anything", web("Never"), ended(&web("Never"), 1), "remove s"),
        (
            "a dead sandbox takes its containers with it",
            always(),
            {
                let mut world = running(&always());
                world.state.sandboxes[0].running = false;
                world
            },
            "terminate c-0 SandboxChanged, signal c-0",
        ),
        (
            "once they ended there is a new one",
            always(),
            {
                let mut world = ended(&always(), 137);
                world.state.sandboxes[0].running = false;
                world
            },
            "sandbox#1",
        ),
        (
            "a changed image ends the container",
            always(),
            {
                let mut world = running(&always());
                world.state.containers[0].hash = "old".into();
                world
            },
            "terminate c-0 DefinitionChanged, signal c-0",
        ),
        ("without a network there is no sandbox", always(), World { network_missing: true, ..World::default() }, ""),
        (
            "except on the host's network",
            pod(json!({"hostNetwork": true, "containers": [{"name": "c"}]})),
            World { network_missing: true, ..World::default() },
            "sandbox#0",
        ),
        (
            "of ended lives the newest is kept",
            always(),
            running(&always()).container(&always(), "c", "s", exited(1, 5)).container(
                &always(),
                "c",
                "s",
                Phase::Running,
            ),
            "remove c-0",
        ),
        (
            "a container that was made and not started is made anew",
            always(),
            World::default().sandbox("s").container(&always(), "c", "s", Phase::Created),
            "remove c-0, start c#0",
        ),
        (
            "a pod without an object is taken down",
            always(),
            World { gone: true, ..running(&always()) },
            "terminate c-0 PodEnds, signal c-0",
        ),
    ];
    for (sentence, pod, world, expected) in cases {
        assert_eq!(brief(&plan(&pod, &world, 11)), expected, "{sentence}");
    }
}

#[test]
fn init_containers_run_one_by_one_before_the_others() {
    let pod = pod(json!({"initContainers": [{"name": "i0"}, {"name": "i1"}], "containers": [{"name": "c"}]}));
    let first = World::default().sandbox("s");
    assert_eq!(brief(&plan(&pod, &first, 11)), "start i0#0");
    let busy = first.clone().container(&pod, "i0", "s", Phase::Running);
    assert_eq!(brief(&plan(&pod, &busy, 11)), "");
    let second = first.clone().container(&pod, "i0", "s", exited(0, 1));
    assert_eq!(brief(&plan(&pod, &second, 11)), "start i1#0");
    let failed = second.clone().container(&pod, "i1", "s", exited(1, 1));
    assert_eq!(brief(&plan(&pod, &failed, 11)), "start i1#1", "a failed one is tried again");
    let last = second.container(&pod, "i1", "s", exited(0, 1));
    assert_eq!(brief(&plan(&pod, &last, 11)), "start c#0");
    for (sentence, phase, expected) in [
        ("i0 removed, i1 running: nothing is started", Phase::Running, ""),
        ("i0 removed, i1 failed: only that is tried again", exited(1, 1), "start i1#1"),
        ("i0 removed, i1 done: the others are next", exited(0, 1), "start c#0"),
    ] {
        let removed = first.clone().container(&pod, "i1", "s", phase);
        assert_eq!(brief(&plan(&pod, &removed, 11)), expected, "{sentence}");
    }
    let anew = first.clone().container(&pod, "i1", "s", exited(0, 1)).sandbox("t");
    assert_eq!(brief(&plan(&pod, &anew, 11)), "remove s, start i0#0", "in another sandbox all begins anew");
}

#[test]
fn failed_initialization_ends_a_pod_that_never_restarts() {
    let pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}], "containers": [{"name": "c"}]}));
    let world = World::default().sandbox("s").container(&pod, "i", "s", exited(1, 1));
    assert_eq!(brief(&plan(&pod, &world, 11)), "remove s");
}

#[test]
fn sidecars_start_first_and_end_last() {
    let pod = pod(json!({"restartPolicy": "Never",
        "initContainers": [{"name": "side", "restartPolicy": "Always"}], "containers": [{"name": "c"}]}));
    let world = World::default().sandbox("s");
    assert_eq!(brief(&plan(&pod, &world, 11)), "start side#0");
    let world = world.container(&pod, "side", "s", Phase::Running);
    assert_eq!(brief(&plan(&pod, &world, 11)), "start c#0");
    let working = world.clone().container(&pod, "c", "s", Phase::Running);
    assert_eq!(brief(&plan(&pod, &working, 11)), "");
    let done = world.container(&pod, "c", "s", exited(0, 5));
    assert_eq!(brief(&plan(&pod, &done, 11)), "terminate side-0 PodEnds, signal side-0");
}

fn three() -> Pod {
    let side = |name| json!({"name": name, "restartPolicy": "Always"});
    pod(json!({"terminationGracePeriodSeconds": 30, "initContainers": [side("a"), side("b")],
        "containers": [{"name": "c"}]}))
}

#[test]
fn sidecars_end_in_reverse_order_within_one_grace() {
    let mut pod = three();
    let run = |world: World, name: &str| world.container(&three(), name, "s", Phase::Running);
    let mut world = ["a", "b", "c"].into_iter().fold(World::default().sandbox("s"), run);
    pod.metadata.deletion_timestamp = Some(Time(at(10)));
    let all = "terminate c-0 PodEnds, signal c-0, terminate b-0 PodEnds, terminate a-0 PodEnds";
    assert_eq!(brief(&plan(&pod, &world, 10)), all, "all are told, one is asked");
    world.terminations.insert("c-0".into(), signaled(10));
    for id in ["a-0", "b-0"] {
        world.terminations.insert(id.into(), Termination::new(at(10), false));
    }
    let waits = plan(&pod, &world, 11);
    assert_eq!((brief(&waits).as_str(), waits.wake_at), ("", Some(at(40))));
    assert_eq!(brief(&plan(&pod, &world, 40)), "kill c-0, signal b-0, signal a-0", "no turn outlasts the grace");
    world.state.containers.iter_mut().find(|c| c.name == "c").unwrap().phase = exited(0, 12);
    assert_eq!(brief(&plan(&pod, &world, 12)), "signal b-0");
    world.terminations.insert("b-0".into(), signaled(12));
    world.state.containers.iter_mut().find(|c| c.name == "b").unwrap().phase = exited(0, 13);
    assert_eq!(brief(&plan(&pod, &world, 13)), "signal a-0");
    world.terminations.get_mut("a-0").unwrap().signaled_at = Some(at(39));
    assert_eq!(plan(&pod, &world, 40).wake_at, Some(at(41)), "two seconds are left to it at least");
}

#[test]
fn a_sidecar_holds_up_the_next_until_it_has_started() {
    let pod =
        pod(json!({"initContainers": [{"name": "side", "restartPolicy": "Always", "startupProbe": {}}, {"name": "i"}],
        "containers": [{"name": "c"}]}));
    let mut world = World::default().sandbox("s").container(&pod, "side", "s", Phase::Running);
    assert_eq!(brief(&plan(&pod, &world, 11)), "");
    world.health.insert("side-0".into(), Health { started: Some(true), ..Health::default() });
    assert_eq!(brief(&plan(&pod, &world, 11)), "start i#0");
    let done = world.container(&pod, "i", "s", exited(0, 12));
    assert_eq!(brief(&plan(&pod, &done, 12)), "start c#0");
    let mut later = done.container(&pod, "c", "s", Phase::Running);
    later.state.containers.iter_mut().find(|c| c.name == "side").unwrap().phase = exited(1, 13);
    assert_eq!(brief(&plan(&pod, &later, 13)), "start side#1", "later on it holds up nothing");
}

#[test]
fn what_fails_its_health_is_ended_and_runs_again() {
    let graced = |policy: &str| {
        pod(json!({"restartPolicy": policy, "terminationGracePeriodSeconds": 30, "containers": [{"name": "c",
            "livenessProbe": {"terminationGracePeriodSeconds": 7}, "startupProbe": {}}]}))
    };
    let dead = Health { started: Some(true), alive: Some(false), ..Health::default() };
    let stuck = Health { started: Some(false), ..Health::default() };
    let hooked = Health { hook_failed: true, ..Health::default() };
    for (policy, health, grace, message) in [
        ("Always", dead, 7, "Container c failed liveness probe, will be restarted"),
        ("OnFailure", stuck, 30, "Container c failed startup probe, will be restarted"),
        ("Never", dead, 7, "Container c failed liveness probe"),
        ("Always", hooked, 30, "FailedPostStartHook"),
    ] {
        let pod = graced(policy);
        let mut world = running(&pod);
        world.health.insert("c-0".into(), health);
        let Some(Action::Terminate { reason, grace: given, .. }) = plan(&pod, &world, 11).actions.first().cloned()
        else {
            panic!("{policy} {health:?} is not ended");
        };
        assert_eq!((reason.message("c").as_str(), given.as_secs()), (message, grace));
        // However it ended: it failed.
        world.state.containers[0].phase = exited(0, 12);
        let after = if policy == "Never" { "remove s" } else { "start c#1" };
        assert_eq!(brief(&plan(&pod, &world, 13)), after, "{policy}");
    }
}

#[test]
fn a_pre_stop_hook_comes_before_the_signal_and_within_the_grace() {
    let mut pod = pod(json!({"containers": [{"name": "c", "lifecycle": {"preStop": {"sleep": {"seconds": 9}}}}]}));
    pod.metadata.deletion_timestamp = Some(Time(at(10)));
    pod.metadata.deletion_grace_period_seconds = Some(20);
    let mut world = running(&pod);
    assert_eq!(brief(&plan(&pod, &world, 10)), "terminate c-0 PodEnds");
    world.terminations.insert("c-0".into(), Termination::new(at(10), true));
    let waits = plan(&pod, &world, 15);
    assert_eq!((brief(&waits).as_str(), waits.wake_at), ("", Some(at(30))));
    assert_eq!(brief(&plan(&pod, &world, 30)), "signal c-0", "a hook that outlasts the grace is not waited for");
    world.terminations.insert("c-0".into(), Termination::new(at(10), false));
    assert_eq!(brief(&plan(&pod, &world, 19)), "signal c-0");
    world.terminations.get_mut("c-0").unwrap().signaled_at = Some(at(29));
    assert_eq!(plan(&pod, &world, 30).wake_at, Some(at(31)));
    assert_eq!(brief(&plan(&pod, &world, 31)), "kill c-0");
}

#[test]
fn ephemeral_containers_start_at_once_and_once() {
    let pod = pod(json!({"initContainers": [{"name": "i"}], "containers": [{"name": "c"}],
        "ephemeralContainers": [{"name": "debug"}]}));
    let busy = World::default().sandbox("s").container(&pod, "i", "s", Phase::Running);
    assert_eq!(brief(&plan(&pod, &busy, 11)), "start debug#0");
    let over = busy.container(&pod, "debug", "s", exited(1, 11));
    assert_eq!(brief(&plan(&pod, &over, 12)), "");
}

#[test]
fn a_containers_own_policy_and_rules_come_before_the_pods() {
    let rule = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let pod = pod(json!({"restartPolicy": "Always", "containers": [
        {"name": "c", "restartPolicy": "Never", "restartPolicyRules": rule}, {"name": "d"}]}));
    let with = |code| {
        let world = World::default().sandbox("s").container(&pod, "d", "s", Phase::Running);
        world.container(&pod, "c", "s", exited(code, 10))
    };
    assert_eq!(brief(&plan(&pod, &with(1), 11)), "");
    assert_eq!(brief(&plan(&pod, &with(42), 11)), "start c#1");
}

#[test]
fn crash_loops_wait_and_say_so() {
    let pod = web("Always");
    let world = ended(&pod, 1).container(&pod, "c", "s", exited(1, 20));
    let waits = plan(&pod, &world, 21);
    assert!(!brief(&waits).contains("start"));
    assert_eq!(waits.wake_at, Some(at(30)), "ten seconds after its end");
    let waiting = &waits.waiting["c"];
    assert_eq!(waiting.reason, "CrashLoopBackOff");
    assert_eq!(waiting.message, "back-off 10s restarting failed container=c pod=web_ns(u1)");
    let starts = plan(&pod, &world, 30);
    let again = Action::Start { name: "c".into(), restart_count: 2, backoff: Duration::from_secs(20) };
    assert!(starts.actions.contains(&again), "{starts:?}");
}

#[test]
fn failed_starts_hold_back_and_say_why() {
    let pod = web("Always");
    let hold = Hold { until: at(40), reason: "ErrImagePull".into(), message: "no".into() };
    let mut world = World::default().sandbox("s");
    world.holds.insert("c".into(), hold.clone());
    let held = plan(&pod, &world, 30);
    assert_eq!(
        (brief(&held).as_str(), held.wake_at, held.waiting["c"].reason.as_str()),
        ("", Some(at(40)), "ErrImagePull")
    );
    assert_eq!(brief(&plan(&pod, &world, 40)), "start c#0");
    world.holds = [(String::new(), hold)].into();
    assert_eq!(brief(&plan(&pod, &world, 30)), "", "the whole pod is held");
}

#[test]
fn deleted_pods_end_within_their_grace() {
    let mut pod = web("Always");
    pod.metadata.deletion_timestamp = Some(Time(at(0)));
    pod.metadata.deletion_grace_period_seconds = Some(5);
    let mut world = running(&pod);
    assert_eq!(brief(&plan(&pod, &world, 10)), "terminate c-0 PodEnds, signal c-0");
    world.terminations.insert("c-0".into(), signaled(10));
    let waits = plan(&pod, &world, 12);
    assert_eq!((brief(&waits).as_str(), waits.wake_at), ("", Some(at(15))));
    assert_eq!(brief(&plan(&pod, &world, 15)), "kill c-0");
    pod.metadata.deletion_grace_period_seconds = Some(1);
    assert_eq!(brief(&plan(&pod, &world, 12)), "kill c-0", "a grace cut short counts from the first signal");
    let over = ended(&pod, 143);
    assert_eq!(brief(&plan(&pod, &over, 16)), "remove c-0, remove s");
    assert!(plan(&pod, &World::default(), 17).gone);
}

#[test]
fn pods_past_their_deadline_end() {
    let pod = pod(json!({"activeDeadlineSeconds": 60, "containers": [{"name": "c"}]}));
    let mut world = running(&pod);
    world.history = PodStatus { start_time: Some(Time(at(0))), ..PodStatus::default() };
    assert_eq!(plan(&pod, &world, 10).wake_at, Some(at(60)));
    let over = plan(&pod, &world, 60);
    assert!(over.deadline_exceeded);
    assert_eq!(brief(&over), "terminate c-0 PodEnds, signal c-0");
}

#[test]
fn containers_that_docker_lost_are_started_again_with_their_count() {
    let pod = web("Always");
    let status = json!({"name": "c", "image": "i", "imageID": "", "ready": true, "restartCount": 4,
        "containerID": "docker://x", "state": {"running": {}}});
    let mut world = World::default();
    world.history.container_statuses = Some(vec![serde_json::from_value(status).unwrap()]);
    assert_eq!(brief(&plan(&pod, &world, 10)), "sandbox#0");
    assert_eq!(brief(&plan(&pod, &world.clone().sandbox("s"), 10)), "start c#5");
    let never = web("Never");
    assert_eq!(brief(&plan(&never, &world, 10)), "", "a pod that never restarts has ended");
}
